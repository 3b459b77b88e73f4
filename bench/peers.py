"""Time other separators, in their own Python environment: `peers.py NAME SECONDS THREADS`.

For each line of input, it separates once and prints the seconds. Networks have their published sizes and
random weights. The input is random stereo audio in memory; the time is for separating it into four stems,
nothing else.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable
from types import ModuleType

import torch
from torch import Tensor

SAMPLE_RATE = 44_100
STEMS = ("vocals", "drums", "bass", "other")

sys.modules["torchaudio"] = ModuleType("torchaudio")  # only reads files, which is not needed here
warnings.simplefilter("ignore")


def open_unmix(iterations: int) -> Callable[[Tensor], object]:
    """Return umxhq: three BLSTM layers of size 512 below 16 kHz, and `iterations` of a Wiener filter."""
    from openunmix.model import OpenUnmix, Separator

    networks = {
        name: OpenUnmix(nb_bins=2049, nb_channels=2, hidden_size=512, nb_layers=3, max_bin=1487)
        for name in STEMS
    }
    separator = Separator(networks, niter=iterations, n_fft=4096, n_hop=1024, sample_rate=SAMPLE_RATE)
    ready: Callable[[Tensor], object] = separator.eval()
    return ready


def ht_demucs() -> Callable[[Tensor], object]:
    """Return htdemucs: 41 M parameters, segments of 7.8 s with 25 % overlap, no random shifts."""
    from demucs.apply import apply_model
    from demucs.htdemucs import HTDemucs

    network = HTDemucs(list(STEMS), bottom_channels=512, segment=7.8).eval()
    return lambda mixture: apply_model(network, mixture, shifts=0, split=True, overlap=0.25)


PEERS = {
    "open-unmix": lambda: open_unmix(0),
    "open-unmix, Wiener filter": lambda: open_unmix(1),
    "HT Demucs": ht_demucs,
}


def main() -> None:
    """Separate once for each line of input, and print the seconds."""
    name, seconds = sys.argv[1], int(sys.argv[2])
    torch.manual_seed(1)
    torch.set_num_threads(int(sys.argv[3]))
    separate = PEERS[name]()
    mixture = 0.1 * torch.randn(1, 2, seconds * SAMPLE_RATE)
    with torch.no_grad():
        separate(mixture[..., : 8 * SAMPLE_RATE])
        for _ in sys.stdin:
            began = time.monotonic()
            separate(mixture)
            print(time.monotonic() - began, flush=True)


if __name__ == "__main__":
    main()

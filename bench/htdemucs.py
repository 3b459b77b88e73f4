"""Compare HT Demucs in stemsplit and in the demucs package: `htdemucs.py FILE.onnx SONG [SECONDS]`.

Both run the same graph in float32. The reference uses the package's own code for transforms, segments and
their weights (`demucs.apply.apply_model` with shifts=0), and the same normalization. stemsplit adds an equal
share of the residual to each stem, so this share is subtracted before the largest difference of each stem is
printed.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from demucs.apply import apply_model
from demucs.htdemucs import HTDemucs

from stemsplit import split
from stemsplit.audio.reader import Reader
from stemsplit.options import RuntimeOptions
from stemsplit.runtime import graph
from stemsplit.zoo import install, installed


class Published(HTDemucs):
    """The package's model, with the ONNX graph as the network between its transforms."""

    def __init__(self, file: Path, sources: tuple[str, ...], seconds: float) -> None:
        super().__init__(list(sources), segment=seconds)
        self.graph = graph.load(file, RuntimeOptions(precision="float32"))

    def forward(self, mixture: Any) -> Any:
        """Return stems `(1, stem, channel, time)` of a mixture `(1, channel, time)`."""
        package: Any = super()
        spectrum = package._spec(mixture)
        arrays = [mixture.numpy(), package._magnitude(spectrum).numpy()]
        spectra, waveforms = map(torch.from_numpy, self.graph(arrays))
        return waveforms + package._ispec(package._mask(spectrum, spectra), mixture.shape[-1])


def main() -> None:
    """Compare the stems of one song."""
    file, song = map(Path, sys.argv[1:3])
    seconds = float(sys.argv[3]) if len(sys.argv) > 3 else 12.0
    reader = Reader(song, duration_seconds=seconds)
    mixture = np.concatenate(list(reader), axis=-1)
    with tempfile.TemporaryDirectory() as folder:
        os.environ[installed.FOLDER_VARIABLE] = folder
        card = install.add(file, "htdemucs")
        ours = split(mixture, reader.sample_rate, model="htdemucs", precision="float32")
    mono = mixture.mean(axis=0)
    mean, deviation = mono.mean(), mono.std(ddof=1) + 1e-8
    package = Published(file, card.outputs, card.segment / card.sample_rate).eval()
    with torch.no_grad():
        normalized = torch.from_numpy((mixture - mean) / deviation)[None]
        stems = apply_model(package, normalized, shifts=0, split=True, overlap=card.overlap)[0].numpy()
    theirs = dict(zip(card.outputs, stems * deviation + mean, strict=True))
    share = (mixture - sum(theirs.values())) / len(theirs)
    for name in card.outputs:
        print(f"{name:8}{np.abs(ours[name] - theirs[name] - share).max():.1e}")
    print(f"sum     {np.abs(sum(ours.values()) - mixture).max():.1e}")


if __name__ == "__main__":
    main()

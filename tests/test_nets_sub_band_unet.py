"""The sub-band U-Net: its size, its bands, and what its masks are for."""

from __future__ import annotations

import pytest
import torch

from stemsplit.networks import registry
from stemsplit.networks.sub_band_unet import BANDS, BINS, Config, SubBandUNet, _fold, _unfold

SMALL = Config(widths=(4, 6, 8), dilations=(1, 2))


def random(stems=4, config=SMALL, seed=0):
    torch.manual_seed(seed)
    network = SubBandUNet(stems, config).eval()
    network.mean.fill_(-6.0)
    network.deviation.fill_(3.0)
    return network


def music_like(frames, seed=0):
    return 2 * torch.randn(1, 4, frames, BINS, generator=torch.Generator().manual_seed(seed)) - 6


def test_the_size_is_what_the_card_says():
    assert sum(parameter.numel() for parameter in SubBandUNet(4).parameters()) == 1_278_456
    entry = registry.REGISTRY["sub-band-unet"]
    assert (Config().context_frames, Config().stride, BINS) == (
        entry.context.frames,
        entry.context.stride,
        entry.bins,
    )


def test_bands_cover_all_bins_once_and_come_back_where_they_were():
    assert [start for start, _, _ in BANDS] == [0, *(stop for _, stop, _ in BANDS[:-1])]
    assert {(stop - start) // shared for start, stop, shared in BANDS} == {256}
    bins = torch.arange(BINS, dtype=torch.float32).reshape(1, 1, 1, -1)
    back = _unfold(_fold(bins))
    for start, stop, shared in BANDS:
        means = bins[..., start:stop].unflatten(-1, (-1, shared)).mean(dim=-1)
        torch.testing.assert_close(back[..., start:stop], means.repeat_interleave(shared, -1))


def test_masks_add_up_to_one_and_those_of_channels_differ():
    network = random()
    with torch.inference_mode():
        masks = network.masks(network(music_like(19)))
    assert masks.shape == (1, 4, 2, 19, BINS)
    torch.testing.assert_close(masks.sum(dim=1), torch.ones(1, 2, 19, BINS))
    assert (masks[:, :, 0] != masks[:, :, 1]).any()


@pytest.mark.parametrize("frames", [1, 7, 8, 33])
def test_what_is_filled_up_at_the_end_is_far_from_what_counts(frames):
    network, heard = random(), music_like(frames + 2 * SMALL.context_frames + 8)
    with torch.inference_mode():
        assert network(heard[:, :, :frames]).shape[3] == frames
        whole = network(heard)[:, :, :, :frames]
        some = network(heard[:, :, : frames + SMALL.context_frames])[:, :, :, :frames]
    torch.testing.assert_close(some, whole, atol=1e-5, rtol=0)


def test_its_reach_is_not_longer_than_it_must_be():
    network, heard = random(), music_like(160)
    changed = heard.clone()
    changed[:, :, :1] += 5
    with torch.inference_mode():
        difference = (network(heard) - network(changed)).abs().amax(dim=(0, 1, 2, 4))
    assert SMALL.context_frames - SMALL.stride <= int(difference.nonzero().max()) <= SMALL.context_frames

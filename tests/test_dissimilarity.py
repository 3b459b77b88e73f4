from __future__ import annotations

import pytest
import torch

from stemsplit.training.dissimilarity import ALPHA, dissimilarity


def batch(seed: int, stems: int = 4) -> torch.Tensor:
    return torch.randn(3, stems, 2, 50, generator=torch.Generator().manual_seed(seed))


def test_it_is_the_equation():
    estimates, stems = batch(1), batch(2)
    total = 0.0
    for stem in range(4):
        rest = sum(stems[:, other] for other in range(4) if other != stem)
        total += (estimates[:, stem] - rest).abs().mean().item()
    assert dissimilarity(estimates, stems, alpha=0.3).item() == pytest.approx(-0.3 * total / 4)


def test_alpha_is_that_of_the_authors_code():
    assert ALPHA == 0.05
    estimates, stems = batch(1), batch(2)
    assert dissimilarity(estimates, stems) == dissimilarity(estimates, stems, 0.05)


def test_the_voice_alone_against_its_accompaniment():
    estimates, stems = batch(1), batch(2)
    accompaniment = stems[:, 1] + stems[:, 2] + stems[:, 3]
    expected = -0.05 * (estimates[:, 0] - accompaniment).abs().mean() / 4
    torch.testing.assert_close(dissimilarity(estimates, stems, counted=[0]), expected)


def test_it_is_nought_for_the_rest_itself_and_less_for_all_else():
    stems = batch(2)
    rest = stems.sum(1, keepdim=True) - stems
    assert dissimilarity(rest, stems).item() == pytest.approx(0)
    assert dissimilarity(rest + 0.1, stems).item() == pytest.approx(-0.1 * ALPHA, rel=1e-4)


@pytest.mark.parametrize("alpha", [0.05, 0.9])
def test_the_stems_remain_the_best_estimates(alpha):
    stems = batch(2).double()

    def loss(estimates):
        return (estimates - stems).abs().mean() + dissimilarity(estimates, stems, alpha)

    rest = stems.sum(1, keepdim=True) - stems
    assert all(loss(stems + (rest - stems) * way) > loss(stems) for way in (-10, -0.1, 0.1, 1, 10))
    assert all(loss(stems + 0.1 * batch(seed)) > loss(stems) for seed in range(5, 15))


def test_its_gradient_leads_away_from_the_rest():
    estimates, stems = batch(1).requires_grad_(), batch(2)
    dissimilarity(estimates, stems).backward()
    rest = stems.sum(1, keepdim=True) - stems
    assert ((estimates - rest) * estimates.grad <= 0).all()
    assert estimates.grad.abs().min() > 0


def test_a_single_stem_has_nothing_to_be_unlike():
    with pytest.raises(ValueError, match="two stems"):
        dissimilarity(batch(1, stems=1), batch(2, stems=1))

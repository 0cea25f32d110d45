"""Maps whitened by what training studies show."""

from __future__ import annotations

from pathlib import Path

import torch
from unicrossadapter_toys import fitted, make, toy_views

from medbench.models.contrastive import seeded
from medbench_unicrossadapter.whiten import Whiten


def maps() -> tuple[torch.Tensor, torch.Tensor]:
    """Maps of two views of 60 studies: brightness, by far the most, and two smaller patterns, the
    second view's on other places; and the two patterns' sizes, [60, 2]."""
    with seeded(0):
        sizes = torch.randn(60, 3) * torch.tensor([50.0, 1.0, 0.5])
        patterns = torch.linalg.qr(torch.randn(32, 6))[0].T.reshape(2, 3, 2, 4, 4)
    x = torch.einsum("ns,vschw->nvchw", sizes, patterns) + 7
    return x.flatten(0, 1), sizes[:, 1:]


def layer(components: int = 4) -> tuple[Whiten, torch.Tensor, torch.Tensor]:
    x, _ = maps()
    view = torch.arange(2).repeat(60)
    whiten = Whiten(2, 32, components)
    with seeded(0):
        for number in range(2):
            whiten.fit(number, x[view == number])
    return whiten, x, view


def test_small_differences_are_not_drowned_by_large_ones() -> None:
    whiten, x, view = layer()
    white = whiten(x, view)
    assert white.shape == x.shape
    for number in range(2):
        rows = white[view == number].flatten(1)
        assert rows.mean(0).abs().max() < 1e-3
        spread = torch.linalg.svdvals(rows)[:4] / (60 * 32) ** 0.5
        # three patterns there are, and not a fourth; alike, where one was a hundred times another
        assert torch.allclose(spread, torch.tensor([3**-0.5] * 3 + [0.0]), atol=1e-3)


def test_before_it_is_fitted_nothing_changes() -> None:
    x, _ = maps()
    assert Whiten(2, 32, 4)(x, torch.arange(2).repeat(60)) is x


def test_a_view_that_training_has_not_is_blank() -> None:
    whiten, x, view = layer()
    with seeded(0):
        whiten.fit(1, x[:1])
    white = whiten(x, view)
    assert not white[view == 1].any()
    assert white[view == 0].any()


def test_a_fitted_model_keeps_it_and_writes_the_same(tmp_path: Path) -> None:
    model, _ = fitted(tmp_path, epochs=1, whiten=6, standardise=True)
    state = model.state("reports")
    assert all(state[f"whiten.{stage}.spread"].any() for stage in range(3))
    again = make(whiten=6, standardise=True)
    again.load("reports", state)
    images, mask = toy_views(3)
    assert again.generate_reports(images, mask) == model.generate_reports(images, mask)
    with torch.no_grad():
        one, two = (m.network.eval().see(images, mask).memory for m in (model, again))
    assert torch.equal(one, two)


def test_a_study_does_not_depend_on_others(tmp_path: Path) -> None:
    network = fitted(tmp_path, epochs=1, whiten=6, standardise=True)[0].network
    images, mask = toy_views(5)
    with torch.no_grad():
        whole = network.see(images, mask).memory
        parts = torch.cat([network.see(images[i : i + 1], mask[i : i + 1]).memory for i in (0, 1)])
    assert torch.allclose(whole[:2], parts, atol=1e-3)
    assert not torch.allclose(whole[0], whole[1], atol=0.1)

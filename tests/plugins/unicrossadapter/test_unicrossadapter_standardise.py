"""Maps standardised over studies: by view and place, missing views left out."""

from __future__ import annotations

import torch

from medbench.models.contrastive import seeded
from medbench_unicrossadapter.standardise import Standardise


def views() -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of eight studies of two views, and a ninth of one; the views are far apart."""
    mask = torch.ones(9, 2, dtype=torch.bool)
    mask[8, 1] = False
    with seeded(0):
        x = torch.randn(9, 2, 3, 2, 2) * 5
    x[:, 1] += 100
    return x[mask], (mask.cumsum(1) - 1)[mask]


def test_every_value_of_every_view_varies_between_studies_alike() -> None:
    rows, view = views()
    seen = Standardise(2, 12)(rows, view)
    for part in (seen[view == 0], seen[view == 1]):
        assert part.mean(0).abs().max() < 1e-5
        assert (part.std(0, unbiased=False) - 1).abs().max() < 1e-3


def test_in_evaluation_a_study_does_not_depend_on_others() -> None:
    rows, view = views()
    standardise = Standardise(2, 12)
    standardise(rows, view)
    standardise.eval()
    whole = standardise(rows, view)
    assert torch.equal(whole[:2], standardise(rows[:2], view[:2]))
    assert torch.equal(whole[-1:], standardise(rows[-1:], view[-1:]))


def test_a_view_that_a_batch_has_once_is_seen_as_in_evaluation() -> None:
    rows, view = views()
    standardise = Standardise(2, 12)
    standardise(rows, view)
    mean = standardise.views[1].running_mean.clone()
    seen = standardise(rows[-3:], view[-3:])  # two first views, one second
    assert torch.isfinite(seen).all()
    assert torch.equal(standardise.views[1].running_mean, mean)
    standardise.eval()
    assert torch.allclose(seen[1], standardise(rows[-3:-1], view[-3:-1])[1])

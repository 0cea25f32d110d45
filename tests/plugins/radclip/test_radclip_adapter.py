"""Properties of the slice pooling adapter and of what it is compared with."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from medbench_radclip.adapter import (
    MaxPooling,
    MeanHead,
    MeanPooling,
    SlicePooling,
    sample_uniformly,
    unit_scale,
)

D = 16


def adapter(max_slices: int = 12, std: float = 0.5) -> SlicePooling:
    torch.manual_seed(0)
    return SlicePooling(D, heads=4, max_slices=max_slices, position_std=std).eval()


def volume(slices: int, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(1, slices, D, generator=torch.Generator().manual_seed(seed))
    return x, torch.ones(1, slices, dtype=torch.bool)


ALL = [adapter(), MeanPooling(), MaxPooling(), MeanHead(D)]
NAMES = ["attention", "mean", "max", "mean-head"]


@pytest.mark.parametrize("pool", ALL, ids=NAMES)
@pytest.mark.parametrize("training", [False, True])
@torch.no_grad()
def test_padding_changes_nothing(pool: nn.Module, training: bool) -> None:
    pool.train(training)
    x, mask = volume(7)
    alone = pool(x, mask)
    padded = torch.cat([torch.full((1, 2, D), 5.0), x[:, :4], torch.ones(1, 3, D), x[:, 4:]], 1)
    padding = torch.tensor([[0, 0, 1, 1, 1, 1, 0, 0, 0, 1, 1, 1]], dtype=torch.bool)
    torch.testing.assert_close(pool(padded, padding), alone, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(alone.norm(dim=1), torch.ones(1))
    pool.eval()


@pytest.mark.parametrize("pool", ALL, ids=NAMES)
@torch.no_grad()
def test_a_batch_is_its_rows(pool: nn.Module) -> None:
    (a, _), (b, _) = volume(3, 1), volume(8, 2)
    x, mask = torch.zeros(2, 8, D), torch.zeros(2, 8, dtype=torch.bool)
    x[0, :3], x[1], mask[0, :3], mask[1] = a[0], b[0], True, True
    both = pool(x, mask)
    torch.testing.assert_close(both[:1], pool(a, mask[:1, :3]), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(both[1:], pool(b, mask[1:]), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_slice_order_matters_to_attention_alone() -> None:
    x, mask = volume(6)
    flipped = x.flip(1)
    for pool in ALL:
        same = torch.allclose(pool(x, mask), pool(flipped, mask), atol=1e-5)
        assert same != isinstance(pool, SlicePooling)
    std = adapter(std=0.02)  # at the size it starts with, too
    assert not torch.allclose(std(x, mask), std(flipped, mask), atol=1e-6)


@torch.no_grad()
def test_one_slice_reduces_to_its_value_and_output_path() -> None:
    pool = adapter()
    x, mask = volume(1)
    layer = pool.attention_layer
    inside = unit_scale(x[0]) + pool.positional_encoding[:1]
    value = F.linear(inside, layer.in_proj_weight[2 * D :], layer.in_proj_bias[2 * D :])
    expected = F.normalize(layer.out_proj(value), dim=-1)
    torch.testing.assert_close(pool(x, mask), expected, atol=1e-6, rtol=1e-5)
    assert pool.attention(x, mask).tolist() == [[1.0]]


@torch.no_grad()
def test_attention_sums_to_one_over_existing_slices() -> None:
    pool = adapter()
    x = 4 * torch.randn(3, 10, D)
    mask = torch.tensor([[1] * 10, [0, 1] * 5, [0] * 9 + [1]], dtype=torch.bool)
    weights = pool.attention(x, mask)
    assert weights.shape == (3, 10)
    torch.testing.assert_close(weights.sum(1), torch.ones(3))
    assert (weights[~mask] == 0).all()
    assert (weights[mask] > 0).all()
    assert weights[0].std() > 1e-3  # not uniform


@torch.no_grad()
def test_attention_is_what_pools() -> None:
    """Received attention times values is the pooled output, before normalisation (one head)."""
    torch.manual_seed(0)
    pool = SlicePooling(D, heads=1, max_slices=9, position_std=0.5).eval()
    x, mask = volume(5)
    layer = pool.attention_layer
    inside = unit_scale(x[0]) + pool.positional_encoding[:5]
    values = F.linear(inside, layer.in_proj_weight[2 * D :], layer.in_proj_bias[2 * D :])
    expected = F.normalize(layer.out_proj(pool.attention(x, mask) @ values), dim=-1)
    torch.testing.assert_close(pool(x, mask), expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_more_slices_than_positions_are_sampled_uniformly() -> None:
    pool = adapter(max_slices=4)
    x, mask = volume(10)
    kept = [0, 3, 6, 9]
    torch.testing.assert_close(pool(x, mask), pool(x[:, kept], mask[:, kept]))
    weights = pool.attention(x, mask)[0]
    assert weights.nonzero().flatten().tolist() == kept
    assert float(weights.sum()) == pytest.approx(1)


@pytest.mark.parametrize("most", [1, 2, 3, 7, 64])
@pytest.mark.parametrize("existing", [1, 2, 3, 8, 65, 200])
def test_sampling(most: int, existing: int) -> None:
    mask = torch.zeros(1, existing + 3, dtype=torch.bool)
    mask[0, 2 : 2 + existing] = True
    positions, real = sample_uniformly(mask, most)
    chosen = positions[real].tolist()
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(most, existing)
    assert mask[0, chosen].all()
    if len(chosen) > 1:
        assert (chosen[0], chosen[-1]) == (2, existing + 1)
        gaps = [b - a for a, b in pairwise(chosen)]
        assert max(gaps) - min(gaps) <= 1


def test_no_slice_is_refused() -> None:
    with pytest.raises(ValueError, match="no slice"):
        adapter()(torch.zeros(2, 3, D), torch.tensor([[1, 0, 0], [0, 0, 0]], dtype=torch.bool))


def test_every_part_learns() -> None:
    pool = adapter().train()
    x, mask = volume(6)
    pool(x, mask)[0, 0].backward()
    for name, parameter in pool.named_parameters():
        assert parameter.grad is not None, name
    grad = pool.positional_encoding.grad
    assert grad is not None
    assert (grad[:6].abs().sum(1) > 0).all()
    assert (grad[6:] == 0).all()  # positions that no slice holds


def test_parameters_at_the_published_width() -> None:
    with torch.device("meta"):
        pool = SlicePooling(768, 8, 64)
    # in-projection, output projection, 64 positions
    expected = 3 * 768 * 769 + 768 * 769 + 64 * 768
    assert sum(p.numel() for p in pool.parameters()) == expected == 2_411_520

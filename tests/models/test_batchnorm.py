"""Recalibrated statistics equal those computed directly."""

from __future__ import annotations

import copy

import torch
from torch import nn

from medbench.models.batchnorm import has_batchnorm, recalibrate, statistics


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 3))


def test_equals_direct_statistics() -> None:
    net = network().eval()
    batches = [3 * torch.rand(8, 3, 10, 10) - 1 for _ in range(5)]
    net[1].running_mean.fill_(77)  # type: ignore[operator, union-attr]
    assert recalibrate(net, batches)
    with torch.no_grad():
        maps = [net[0](b) for b in batches]
    mean = torch.stack([m.mean((0, 2, 3)) for m in maps]).mean(0)
    var = torch.stack([m.var((0, 2, 3), unbiased=True) for m in maps]).mean(0)
    found = statistics(net)
    torch.testing.assert_close(found["1.running_mean"], mean, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(found["1.running_var"], var, atol=1e-6, rtol=1e-5)
    assert not net.training
    assert net[1].momentum == 0.1  # restored


def test_depends_on_nothing_before_it_and_changes_no_weight() -> None:
    one, two = network(), network()
    one[1].running_var.fill_(9)  # type: ignore[operator, union-attr]
    weights = copy.deepcopy(list(one.parameters()))
    batches = [torch.rand(4, 3, 8, 8) for _ in range(3)]
    recalibrate(one, batches)
    recalibrate(two, iter(batches))
    for key, value in statistics(one).items():
        assert torch.equal(value, statistics(two)[key]), key
    assert all(torch.equal(a, b) for a, b in zip(weights, one.parameters(), strict=True))


def test_without_batchnorm_no_batch_is_drawn() -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3))
    drawn = iter([torch.rand(2, 3)])
    assert not has_batchnorm(net)
    assert not recalibrate(net, drawn)
    assert len(list(drawn)) == 1
    assert statistics(net) == {}

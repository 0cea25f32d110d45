"""Fine-tuning on labels, the same for every model."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from sklearn.metrics import log_loss, roc_auc_score
from torch import nn

from medbench.errors import CellError, DataError, PluginError
from medbench.evaluation.fine_tune import (
    FineTuned,
    Head,
    Schedule,
    _augment,
    _loss,
    _prior,
    fine_tune,
)
from medbench.metrics.thresholds import best_thresholds
from medbench.run.fitting import StageRun

CPU = torch.device("cpu")
QUICK = Schedule(head_rate=2e-2, backbone_rate=1e-2, batch=16, epochs=6, least_steps=1, patience=3)
SIDE = 8


class Pictures:
    """Pictures in memory, and the rows that were asked for."""

    def __init__(self, pixels: npt.NDArray[np.float32]) -> None:
        self.pixels = pixels
        self.asked: list[npt.NDArray[np.int64]] = []

    def batch(self, indices: npt.NDArray[np.int64], /) -> torch.Tensor:
        self.asked.append(np.asarray(indices))
        return torch.from_numpy(self.pixels[indices])


class World:
    """Bright corners are labels; rows 0-63 train, 64-95 choose, 96-127 test."""

    def __init__(self, multiclass: bool = False, count: int = 128) -> None:
        rng = np.random.default_rng(0)
        self.multiclass = multiclass
        if multiclass:
            self.y = np.eye(3)[rng.integers(0, 3, count)]
        else:
            self.y = (rng.random((count, 3)) < [0.5, 0.3, 0.2]).astype(float)
        pixels = 0.4 * rng.random((count, 3, SIDE, SIDE))
        for label, (top, left) in enumerate([(0, 0), (0, 4), (4, 0)]):
            pixels[:, :, top : top + 4, left : left + 4] += 0.3 * self.y[:, label, None, None, None]
        self.images = Pictures(pixels.astype(np.float32))
        rows = np.arange(count)
        self.train, self.val, self.test = np.split(rows, [count // 2, 3 * count // 4])

    def tune(
        self,
        net: nn.Module | None = None,
        plan: Schedule = QUICK,
        seed: int = 0,
        encode: Callable[[torch.Tensor], torch.Tensor] | None = None,
        **more: Any,
    ) -> FineTuned:
        net = net if net is not None else network()
        return fine_tune(
            encode or net,
            [net],
            self.images,
            self.y,
            self.train,
            self.val,
            self.test,
            self.multiclass,
            seed,
            CPU,
            schedule=plan,
            **more,
        )


def network() -> nn.Sequential:
    """A net with everything that makes resuming hard: running statistics and dropout."""
    torch.manual_seed(7)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(8 * 16, 12),
    )


def states(net: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in net.state_dict().items()}


def same(one: FineTuned, other: FineTuned) -> bool:
    return (
        one.losses == other.losses
        and one.epoch == other.epoch
        and one.trained == other.trained
        and np.array_equal(one.scores, other.scores)
        and (
            (one.thresholds is None and other.thresholds is None)
            or np.array_equal(one.thresholds, other.thresholds, equal_nan=True)  # type: ignore[arg-type]
        )
        and one.weights.keys() == other.weights.keys()
        and all(torch.equal(value, other.weights[name]) for name, value in one.weights.items())
    )


@pytest.mark.parametrize("multiclass", [False, True])
def test_it_learns_what_the_labels_show(multiclass: bool) -> None:
    world = World(multiclass)
    plan = Schedule(head_rate=2e-2, backbone_rate=1e-2, batch=16, epochs=10, least_steps=4)
    found = world.tune(plan=plan)
    truth = world.y[world.test]
    assert found.scores.shape == truth.shape
    assert found.scores.dtype == np.float64
    assert roc_auc_score(truth, found.scores, average="macro") > 0.95
    assert min(found.losses) < 0.6 * log_loss_of_prior(world)
    if multiclass:
        assert np.allclose(found.scores.sum(axis=1), 1, atol=1e-12)
        assert found.thresholds is None
    else:
        assert found.thresholds is not None
        assert found.thresholds.shape == (3,)


def log_loss_of_prior(world: World) -> float:
    prior = world.y[world.train].mean(axis=0)
    truth = world.y[world.val]
    if world.multiclass:
        return float(-np.log(prior)[truth.argmax(axis=1)].mean())
    return float(-(truth * np.log(prior) + (1 - truth) * np.log(1 - prior)).mean())


def test_the_backbone_learns_what_no_head_can_read() -> None:
    """Features that say nothing at first: only gradients through the encoder can help."""
    world = World()
    layer = nn.Linear(3 * SIDE * SIDE, 3)
    empty = torch.zeros(3, SIDE, SIDE)
    empty[:, 4:, 4:] = 0.1  # the corner that shows no label
    with torch.no_grad():
        layer.weight.mul_(empty.flatten())
    net = nn.Sequential(nn.Flatten(), layer)
    frozen = Schedule(head_rate=1e-2, backbone_rate=0, batch=16, epochs=12)
    moved = Schedule(head_rate=1e-2, backbone_rate=1e-3, batch=16, epochs=12)
    truth = world.y[world.test]
    before = roc_auc_score(truth, world.tune(net, frozen).scores)
    after = roc_auc_score(truth, world.tune(net, moved).scores)
    assert before < 0.7
    assert after > 0.95


def test_training_starts_at_the_prior() -> None:
    for multiclass in (False, True):
        world = World(multiclass)
        still = Schedule(head_rate=0, backbone_rate=0, decay=0, epochs=1)
        found = world.tune(plan=still)
        count = world.y[world.train].sum(axis=0)
        prior = (count + 1) / (64 + (3 if multiclass else 2))
        assert np.allclose(found.scores, prior, atol=1e-6)


def test_the_epoch_of_lowest_validation_loss_is_kept_and_training_stops() -> None:
    world = World()
    rng = np.random.default_rng(3)
    world.y[world.train] = rng.integers(0, 2, (64, 3))  # nothing to learn but the noise
    seen: list[dict[str, torch.Tensor]] = []

    def epochs(count: int, *parts: Any) -> Iterator[int]:
        for epoch in range(count):
            yield epoch
            seen.append({k: v.clone() for k, v in parts[0].state_dict().items()})

    plan = Schedule(head_rate=1e-2, backbone_rate=1e-2, batch=16, epochs=30, patience=3)
    found = world.tune(plan=plan, epochs=epochs)
    assert found.epoch == int(np.argmin(found.losses))
    assert len(found.losses) == len(seen) == found.epoch + 4 < 30
    for name, value in found.weights.items():
        assert torch.equal(value, seen[found.epoch][name]), name
    assert any(not torch.equal(v, seen[-1][k]) for k, v in found.weights.items())


def test_scores_and_thresholds_are_those_of_the_epoch_kept() -> None:
    world = World()
    rng = np.random.default_rng(3)
    world.y[world.train] = rng.integers(0, 2, (64, 3))  # so that the last epoch is not the best
    net = network()
    found = world.tune(net)
    assert found.epoch < len(found.losses) - 1
    net.load_state_dict(
        {name[2:]: value for name, value in found.weights.items() if name.startswith("0.")}
    )
    net.eval()
    head = {name[5:]: value for name, value in found.weights.items() if name.startswith("head.")}

    def predict(rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        with torch.no_grad():
            features = (net(world.images.batch(rows)) - head["mean"]) / head["scale"]
            logits = features @ head["weight"].T + head["bias"]
        return np.asarray(torch.sigmoid(logits.double()).numpy())

    assert np.allclose(found.scores, predict(world.test), atol=1e-6)
    assert found.thresholds is not None
    wanted = best_thresholds(world.y[world.val], predict(world.val))
    assert np.allclose(found.thresholds, wanted, atol=1e-6)


def test_a_label_of_one_class_on_validation_has_no_threshold() -> None:
    world = World()
    world.y[world.val, 1] = 0
    found = world.tune().thresholds
    assert found is not None
    assert np.isnan(found).tolist() == [False, True, False]


def test_the_test_part_changes_nothing_in_training() -> None:
    world = World()
    before = world.tune()
    world.y[world.test] = np.nan
    assert same(before, world.tune()), "labels of the test part"
    world.images.pixels[world.test] = 1 - world.images.pixels[world.test]
    after = world.tune()
    assert after.losses == before.losses
    assert np.array_equal(after.thresholds, before.thresholds)  # type: ignore[arg-type]
    for name, value in after.weights.items():
        assert torch.equal(value, before.weights[name]), name
    assert not np.array_equal(after.scores, before.scores)


def test_test_pictures_are_not_looked_at_before_training_is_over() -> None:
    world = World()
    ended: list[int] = []

    def epochs(count: int, *parts: Any) -> Iterator[int]:
        yield from range(count)
        ended.append(len(world.images.asked))

    world.tune(plan=Schedule(batch=16, epochs=2, least_steps=1), epochs=epochs)
    during, after = world.images.asked[: ended[0]], world.images.asked[ended[0] :]
    assert not np.isin(np.concatenate(during), world.test).any()
    assert np.concatenate(after).tolist() == world.test.tolist()


@settings(max_examples=50, deadline=None)
@given(
    logits=st_numpy.arrays(np.float64, (5, 3), elements=st.floats(-8, 8)),
    target=st_numpy.arrays(np.float64, (5, 3), elements=st.sampled_from([0.0, 1.0, np.nan])),
)
def test_the_loss_is_the_mean_over_scored_labels(
    logits: npt.NDArray[np.float64], target: npt.NDArray[np.float64]
) -> None:
    known = ~np.isnan(target)
    if not known.any():
        return
    leaf = torch.tensor(logits, requires_grad=True)
    value = _loss(leaf, torch.tensor(target), False)
    wanted = np.logaddexp(0, logits) - np.nan_to_num(target) * logits
    assert value.item() == pytest.approx(wanted[known].mean(), abs=1e-9)
    value.backward()  # type: ignore[no-untyped-call]
    assert leaf.grad is not None
    assert (leaf.grad.numpy()[~known] == 0).all()


def test_the_multiclass_loss_leaves_unlabelled_rows_out() -> None:
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    target = torch.eye(3)[[0, 1, 2, 2, 1, 0]]
    target[4] = torch.nan
    kept = [0, 1, 2, 3, 5]
    wanted = log_loss(
        target[kept].argmax(dim=1).numpy(),
        logits[kept].double().softmax(dim=1).numpy(),
        labels=[0, 1, 2],
    )
    assert float(_loss(logits, target, True)) == pytest.approx(wanted, abs=1e-6)


def test_training_rows_without_a_label_do_nothing() -> None:
    world = World()
    world.y[world.train[::4]] = np.nan
    world.y[world.train[1::4], 2] = np.nan
    before = world.tune()
    world.images.pixels[world.train[::4]] = np.nan
    assert same(before, world.tune())


def test_the_prior_is_counted_over_scored_labels() -> None:
    y = np.array([[1, 0], [1, np.nan], [0, np.nan], [np.nan, 0]])
    assert torch.sigmoid(_prior(y, False)).tolist() == pytest.approx([3 / 5, 1 / 4])


def run_in(folder: Path, advance: Callable[[int, int, str], None] | None = None) -> StageRun:
    folder.mkdir(exist_ok=True)
    return StageRun(
        device=CPU,
        precision="fp32",
        seed=0,
        folder=folder,
        advance=advance or (lambda done, total, **figures: None),
        say=lambda message: None,
        notes=[],
    )


class Killed(BaseException):
    pass


@pytest.mark.parametrize("after", [2, 9, 17])
def test_a_killed_fine_tune_goes_on_to_the_same_bits(tmp_path: Path, after: int) -> None:
    world = World()
    plan = Schedule(
        head_rate=2e-2, backbone_rate=1e-2, batch=16, epochs=5, least_steps=1, least_area=0.6
    )
    unbroken = world.tune(plan=plan, epochs=run_in(tmp_path / "unbroken").epochs)
    assert same(unbroken, world.tune(plan=plan)), "as without a run"
    done = 0

    def kill(*_: Any, **__: Any) -> None:
        nonlocal done
        done += 1
        if done == after:
            raise Killed

    with pytest.raises(Killed):
        world.tune(plan=plan, epochs=run_in(tmp_path / "killed").epochs, advance=kill)
    torch.manual_seed(99)
    calls: list[int] = []
    resumed = world.tune(
        plan=plan,
        epochs=run_in(tmp_path / "killed").epochs,
        advance=lambda done, total, **_: calls.append(done),
    )
    assert same(unbroken, resumed)
    assert len(calls) == 4 * (5 - (after - 1) // 4), "finished epochs are not repeated"


@pytest.mark.parametrize("patience", [1, 50])
def test_a_finished_fine_tune_is_not_trained_again(tmp_path: Path, patience: int) -> None:
    world = World()
    plan = Schedule(
        head_rate=0.3, backbone_rate=0.1, batch=16, epochs=8, least_steps=1, patience=patience
    )
    first = world.tune(plan=plan, epochs=run_in(tmp_path).epochs)
    assert (len(first.losses) < 8) == (patience == 1)

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("an update was made")

    assert same(first, world.tune(plan=plan, epochs=run_in(tmp_path).epochs, advance=never))


def test_the_seed_decides_everything() -> None:
    world = World()
    torch.manual_seed(1)
    first = world.tune(seed=5)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    net = network()
    torch.set_rng_state(state)
    assert same(first, world.tune(net, seed=5))
    assert torch.equal(state, torch.get_rng_state()), "the caller's generator is left alone"
    assert first.losses != world.tune(seed=6).losses


def test_frozen_parts_stay_and_are_in_evaluation_mode() -> None:
    world = World()
    net = network()
    net[:5].requires_grad_(False)
    modes: list[tuple[bool, ...]] = []

    def encode(pictures: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled():
            modes.append(tuple(part.training for part in net))
        features: torch.Tensor = net(pictures)
        return features

    before = states(net)
    found = world.tune(net, encode=encode)
    assert found.trained == 128 * 12 + 12 + 12 * 3 + 3
    assert set(modes) == {(False, False, True, True, True, True)}, "convolution, norm; the rest"
    for name, value in found.weights.items():
        if name.startswith(("0.0.", "0.1.")):
            assert torch.equal(value, before[name[2:]]), name
    assert not torch.equal(found.weights["0.5.weight"], before["5.weight"])


def test_without_trainable_parameters_the_head_alone_is_trained() -> None:
    world = World()
    net = network().requires_grad_(False)
    found = world.tune(net, Schedule(head_rate=2e-2, batch=16, epochs=6))
    assert found.trained == 12 * 3 + 3
    assert min(found.losses) < log_loss_of_prior(world)


def test_unused_parameters_are_not_counted_as_trained() -> None:
    world = World()
    net, unused = network(), nn.Linear(50, 50)
    both = nn.ModuleList([net, unused])
    found = world.tune(both, encode=net)
    assert found.trained == sum(p.numel() for p in net.parameters()) + 12 * 3 + 3


def test_modules_come_back_as_they_were() -> None:
    world = World()
    net = network()
    net[1].eval()
    before, modes = states(net), [part.training for part in net.modules()]
    world.tune(net)
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert [part.training for part in net.modules()] == modes
    assert all(parameter.grad is None for parameter in net.parameters())


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_loss_that_is_not_finite_is_a_clear_error(where: str) -> None:
    world = World()
    net = network()
    before = states(net)
    steps = 0

    def encode(pictures: torch.Tensor) -> torch.Tensor:
        nonlocal steps
        features: torch.Tensor = net(pictures)
        if torch.is_grad_enabled():
            steps += 1
            if steps == 6:
                if where == "loss":
                    return features * torch.nan
                features.register_hook(lambda gradient: gradient * torch.inf)  # type: ignore[no-untyped-call]
        return features

    with pytest.raises(CellError, match=r"became (nan|inf) in epoch 2, update 2 of 4"):
        world.tune(net, encode=encode)
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_score_that_is_not_finite_names_its_row() -> None:
    world = World()
    world.images.pixels[world.test[3]] = np.nan
    with pytest.raises(CellError, match=f"1 of 32 samples, row {world.test[3]} "):
        world.tune()


def test_an_encoder_without_gradient_is_refused() -> None:
    net = network()
    with pytest.raises(PluginError, match="no gradient"):
        World().tune(net, encode=torch.no_grad()(net.forward))


def test_an_encoder_of_another_shape_or_of_nan_is_refused() -> None:
    net = network()
    with pytest.raises(PluginError, match=r"shape \(1, 1, 12\)"):
        World().tune(net, encode=lambda pictures: net(pictures)[None])
    with pytest.raises(PluginError, match="not finite"):
        World().tune(net, encode=lambda pictures: net(pictures) * torch.nan)


def test_parts_that_cannot_serve_are_refused() -> None:
    def broken(change: Callable[[World], None]) -> str:
        world = World()
        change(world)
        with pytest.raises(DataError) as error:
            world.tune()
        return str(error.value)

    none = np.zeros(0, np.int64)
    assert "validation part, and it is empty" in broken(lambda w: setattr(w, "val", none))
    assert "row 64 the first" in broken(lambda w: setattr(w, "test", w.val))
    assert "row 63 the first" in broken(lambda w: setattr(w, "test", w.test - 33))
    assert "Label 1 is scored nowhere" in broken(lambda w: w.y.__setitem__((w.train, 1), np.nan))
    assert "No sample of the validation part" in broken(lambda w: w.y.__setitem__(w.val, np.nan))


def test_a_damaged_picture_is_named_by_its_reader() -> None:
    world = World()
    read = world.images.batch

    def batch(indices: npt.NDArray[np.int64]) -> torch.Tensor:
        if 70 in indices:
            raise DataError("Sample 's70': damaged")
        return read(indices)

    world.images.batch = batch  # type: ignore[method-assign]
    with pytest.raises(DataError, match="s70"):
        world.tune()


def test_few_samples_are_gone_through_several_times_and_no_batch_is_left_over() -> None:
    world = World()
    world.train = world.train[:17]
    updates: list[tuple[int, int]] = []
    world.tune(
        plan=Schedule(batch=16, epochs=2, least_steps=5),
        advance=lambda done, total, **_: updates.append((done, total)),
    )
    assert updates == [(step, 6) for step in range(1, 7)] * 2
    sizes = {len(rows) for rows in world.images.asked if set(rows) <= set(world.train)}
    assert sizes <= {1, 8, 9}
    trained = [r for r in world.images.asked if len(r) in (8, 9) and set(r) <= set(world.train)]
    counts = np.bincount(np.concatenate(trained))
    assert set(counts) == {7}, "3 passes in each of 2 epochs, and one to measure features"


def test_each_epoch_has_an_order_of_its_own() -> None:
    world = World()
    world.tune(plan=Schedule(batch=16, epochs=3, least_steps=1))
    trained = [rows for rows in world.images.asked if len(rows) == 16 and rows.max() < 64]
    first, second = np.concatenate(trained[-8:-4]), np.concatenate(trained[-4:])
    assert sorted(first) == sorted(second) == world.train.tolist()
    assert (first != second).any()


def test_the_rates_rise_to_their_peaks_and_fall_to_nothing() -> None:
    plan = Schedule(warmup=0.1)
    factors = np.array([plan.factor(step, 200) for step in range(200)])
    assert factors[0] == pytest.approx(1 / 20)
    assert factors.argmax() in (19, 20)
    assert factors.max() == pytest.approx(1)
    assert (np.diff(factors[:19]) > 0).all()
    assert (np.diff(factors[20:]) < 0).all()
    assert factors[-1] < 1e-3
    assert Schedule(warmup=0).factor(0, 10) == 1


def test_head_and_backbone_have_rates_of_their_own() -> None:
    world = World()
    seen: list[list[float]] = []

    def epochs(count: int, *parts: Any) -> Iterator[int]:
        for epoch in range(count):
            yield epoch
            seen.append([group["lr"] for group in parts[1].param_groups])

    world.tune(
        plan=Schedule(head_rate=1e-2, backbone_rate=1e-4, batch=64, epochs=3, least_steps=1,
                      warmup=0),
        epochs=epochs,
    )  # fmt: skip
    assert seen[0] == [1e-2, 1e-4]
    assert [rates[0] / rates[1] for rates in seen] == pytest.approx([100] * 3)


@pytest.mark.parametrize(
    "wrong", [{"batch": 0}, {"epochs": 0}, {"least_area": 0.0}, {"warmup": 1.0}]
)
def test_a_schedule_that_cannot_be_followed_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r" in | more"):
        Schedule(**wrong)


@pytest.mark.parametrize(("scale", "shift"), [(1e-3, 0.0), (1e3, 0.0), (1.0, 50.0)])
def test_the_scale_of_features_does_not_decide(scale: float, shift: float) -> None:
    world = World()
    net = network().requires_grad_(False)
    plain = world.tune(net)
    other = world.tune(net, encode=lambda pictures: net(pictures) * scale + shift)
    assert np.allclose(plain.scores, other.scores, atol=1e-3)


def test_the_encoder_runs_in_the_context_it_is_given() -> None:
    world = World()
    net = network()
    depth, inside = 0, 0

    @contextmanager
    def context() -> Iterator[None]:
        nonlocal depth
        depth += 1
        yield
        depth -= 1

    def encode(pictures: torch.Tensor) -> torch.Tensor:
        nonlocal inside
        assert depth == 1
        inside += 1
        features: torch.Tensor = net(pictures)
        return features

    world.tune(net, encode=encode, autocast=context)
    assert inside > 0
    assert depth == 0


def test_mixed_precision_trains() -> None:
    world = World()
    found = world.tune(
        plan=Schedule(head_rate=2e-2, backbone_rate=1e-2, batch=16, epochs=8),
        autocast=functools.partial(torch.autocast, "cpu", dtype=torch.bfloat16),
    )
    assert min(found.losses) < 0.8 * log_loss_of_prior(world)
    assert all(value.dtype != torch.bfloat16 for value in found.weights.values())


def test_augmentation_is_off_unless_asked_for() -> None:
    pictures = torch.rand(4, 3, SIDE, SIDE)
    assert _augment(pictures, 1.0, False) is pictures
    assert Schedule().least_area == 1
    assert not Schedule().flip


def test_flips_mirror_left_and_right() -> None:
    torch.manual_seed(0)
    pictures = torch.rand(32, 3, SIDE, SIDE)
    found = _augment(pictures, 1.0, True)
    kept = torch.tensor(
        [torch.allclose(a, b, atol=1e-5) for a, b in zip(found, pictures, strict=True)]
    )
    turned = torch.tensor(
        [torch.allclose(a, b.flip(-1), atol=1e-5) for a, b in zip(found, pictures, strict=True)]
    )
    assert (kept ^ turned).all()
    assert 8 <= int(kept.sum()) <= 24


def test_crops_stay_inside_and_keep_the_aspect() -> None:
    torch.manual_seed(0)
    side = 64
    across = torch.linspace(0, 1, side).expand(200, 1, side, side)
    pictures = torch.cat([across, across.transpose(2, 3), across], dim=1)
    found = _augment(pictures, 0.25, False)
    width = found[:, 0, 0, -1] - found[:, 0, 0, 0]
    height = found[:, 1, -1, 0] - found[:, 1, 0, 0]
    assert torch.allclose(width, height, atol=1 / side)
    assert float(width.min()) > 0.48
    assert 0.48 < float((width**2).mean() ** 0.5) < 1
    assert float((width**2).mean()) == pytest.approx(0.625, abs=0.06), "uniform in area"
    assert len(set(found[:, 0, 0, 0].tolist())) > 150, "a draw for each picture"


def test_augmentation_changes_training_alone() -> None:
    world = World()
    still = Schedule(head_rate=0, backbone_rate=0, epochs=1, flip=True, least_area=0.3)
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 4))
    plain = Schedule(head_rate=0, backbone_rate=0, epochs=1)
    assert np.array_equal(world.tune(net, still).scores, world.tune(net, plain).scores)
    assert world.tune(plan=Schedule(epochs=2, flip=True)).losses != (
        world.tune(plan=Schedule(epochs=2)).losses
    )


@pytest.mark.gpu
def test_a_killed_fine_tune_goes_on_to_the_same_bits_on_a_gpu(tmp_path: Path) -> None:
    world = World()
    device = torch.device("cuda")

    def tune(folder: str, stop: int) -> FineTuned:
        run = run_in(tmp_path / folder)
        run.device, run._precision = device, "bf16"
        calls = 0

        def advance(*_: Any, **__: Any) -> None:
            nonlocal calls
            calls += 1
            if calls == stop:
                raise Killed

        net = network().to(device)
        return fine_tune(
            net, [net], world.images, world.y, world.train, world.val, world.test, False, 0,
            device, schedule=QUICK, autocast=run.autocast, epochs=run.epochs, advance=advance,
        )  # fmt: skip

    unbroken = tune("unbroken", 0)
    with pytest.raises(Killed):
        tune("killed", 10)
    assert same(unbroken, tune("killed", 0))


class DeepHead(nn.Sequential):
    """A head with all that a training mode changes."""

    def __init__(self, features: int, labels: int) -> None:
        super().__init__(
            nn.Dropout(0.1),
            nn.Linear(features, 16, bias=False),
            nn.BatchNorm1d(16),
            nn.ReLU(),
            nn.Linear(16, labels),
        )


@pytest.mark.parametrize("frozen", [False, True])
def test_a_models_own_head_takes_the_place_of_the_linear_one(frozen: bool) -> None:
    world = World()
    asked: list[tuple[int, int]] = []

    def make(features: int, labels: int) -> nn.Module:
        asked.append((features, labels))
        return DeepHead(features, labels)

    net = network().requires_grad_(not frozen)
    plan = Schedule(head_rate=2e-2, backbone_rate=1e-2, batch=16, epochs=10, least_steps=4)
    found = world.tune(net, plan, make_head=make)
    assert asked == [(12, 3)]
    head = 12 * 16 + 2 * 16 + 16 * 3 + 3
    assert found.trained == head + (0 if frozen else sum(p.numel() for p in net.parameters()))
    assert "head.own.2.running_mean" in found.weights
    assert found.weights["head.own.2.running_mean"].any(), "its running statistics are kept"
    assert min(found.losses) < 0.8 * log_loss_of_prior(world)
    assert same(found, world.tune(network().requires_grad_(not frozen), plan, make_head=DeepHead))
    other = world.tune(network().requires_grad_(not frozen), plan, seed=1, make_head=DeepHead)
    assert not same(found, other)


@pytest.mark.parametrize("after", [2, 9])
def test_a_killed_fine_tune_of_an_own_head_goes_on_to_the_same_bits(
    tmp_path: Path, after: int
) -> None:
    plan = Schedule(head_rate=2e-2, batch=16, epochs=5, least_steps=1)

    def tune(folder: str, advance: Callable[..., None] | None = None) -> FineTuned:
        net = network().requires_grad_(False)
        epochs = run_in(tmp_path / folder).epochs
        return World().tune(net, plan, make_head=DeepHead, epochs=epochs, advance=advance)

    done = 0

    def kill(*_: Any, **__: Any) -> None:
        nonlocal done
        done += 1
        if done == after:
            raise Killed

    unbroken = tune("unbroken")
    with pytest.raises(Killed):
        tune("killed", kill)
    assert same(unbroken, tune("killed"))


def test_a_frozen_model_encodes_each_picture_once() -> None:
    world = World()
    net = network().requires_grad_(False)
    encoded = 0

    def encode(pictures: torch.Tensor) -> torch.Tensor:
        nonlocal encoded
        encoded += len(pictures)
        features: torch.Tensor = net(pictures)
        return features

    found = world.tune(net, encode=encode)
    assert encoded == len(world.train) + len(world.val) + len(world.test) == 128
    assert sorted(np.concatenate(world.images.asked)) == list(range(128))
    whole = net.eval()(world.images.batch(world.test))
    head = Head(12, torch.zeros(3))
    head.load_state_dict(
        {k.removeprefix("head."): v for k, v in found.weights.items() if k.startswith("head.")}
    )
    wanted = torch.sigmoid(head(whole)).detach().double().numpy()
    assert np.allclose(found.scores, wanted, atol=1e-6), "scores are those of their own rows"


def test_a_frozen_model_is_encoded_anew_where_pictures_are_augmented() -> None:
    world = World()
    net = network().requires_grad_(False)
    world.tune(net, Schedule(batch=16, epochs=2, least_steps=1, flip=True))
    assert sum(len(rows) for rows in world.images.asked) > 128


def test_a_head_of_another_width_is_refused() -> None:
    with pytest.raises(PluginError, match=r"gives \(2, 4\) for 2 vectors of 12 and 3 labels"):
        World().tune(make_head=lambda features, labels: nn.Linear(features, labels + 1))

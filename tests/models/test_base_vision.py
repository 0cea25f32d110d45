"""The base image encoder: what it gives, how it is trained, and that it stays as it was loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medbench.data.samples import Corpus, Pixels, Sample
from medbench.errors import DataError, WeightsError
from medbench.models.base_vision import (
    BaseVision,
    BaseVisionConfig,
    ConvEncoder,
    base_vision_stage,
    two_views,
)
from medbench.models.capabilities import State
from medbench.run.fitting import StageRun

KINDS: tuple[Literal["contrastive", "autoencoder"], ...] = ("contrastive", "autoencoder")


class Killed(Exception):
    """Stands for a kill."""


class Blobs:
    """Draws each sample from its number: a bright blob somewhere over a ramp."""

    def __init__(self, root: Path = Path()) -> None: ...

    def samples(self) -> tuple[Sample, ...]:
        return ()

    def pixels(self, sample: Sample) -> Pixels:
        rng = np.random.default_rng(int(sample.id))
        y, x = np.mgrid[0:32, 0:32].astype(np.float32) / 31
        cy, cx, r = rng.uniform(0.2, 0.8, 3)
        picture = 0.3 * y + 0.6 * (np.hypot(y - cy, x - cx) < 0.4 * r)
        return np.clip(picture, 0, 1).astype(np.float32)


def corpus(count: int = 40, kind: Literal["image", "volume"] = "image") -> Corpus:
    samples = [
        Sample(id=str(i), patient=None, files=(), kind=kind, split="val" if i % 8 == 7 else "train")
        for i in range(count)
    ]
    return Corpus(
        name="scenes", samples=samples, reader=Blobs(), manifest_sha256="0" * 64, track="phantom"
    )


def config(**values: Any) -> BaseVisionConfig:
    small = {"image_size": 32, "vision_width": 8, "vision_dim": 16, "vision_batch": 16}
    return BaseVisionConfig.model_validate(small | {"vision_epochs": 3} | values)


def fit(folder: Path, *, seed: int = 0, kill_after: int | None = None, **values: Any) -> State:
    stage = base_vision_stage(config(**values))
    model = BaseVision(stage.config)
    folder.mkdir(exist_ok=True)
    seen = 0

    def advance(done: int, total: int, **figures: float) -> None:
        nonlocal seen
        seen += "loss" in figures
        if kill_after is not None and seen > kill_after:
            raise Killed

    run = StageRun(
        device=torch.device("cpu"),
        precision="fp32",
        seed=seed,
        folder=folder,
        advance=advance,
        say=lambda _: None,
        notes=[],
    )
    model.fit(stage, corpus(), run)
    return model.state("vision")


def same(one: State, two: State) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


def test_vector_and_maps_have_the_promised_shapes() -> None:
    encoder = ConvEncoder(64, width=8, dim=24).eval()
    images = torch.rand(3, 3, 64, 64)
    vector, maps = encoder(images), encoder.maps(images)
    assert vector.shape == (3, encoder.dim) == (3, 24)
    assert [tuple(m.shape[1:]) for m in maps] == [(8, 32, 32), (8, 16, 16), (16, 8, 8), (24, 4, 4)]
    assert torch.allclose(vector, maps[-1].mean(dim=(2, 3)))
    assert vector.dtype == maps[0].dtype == torch.float32


@pytest.mark.parametrize("kind", KINDS)
def test_one_seed_gives_the_same_bits_and_so_does_a_fit_that_was_killed(
    kind: Literal["contrastive", "autoencoder"], tmp_path: Path
) -> None:
    whole = fit(tmp_path / "a", vision_kind=kind)
    assert same(whole, fit(tmp_path / "b", vision_kind=kind))
    assert not same(whole, fit(tmp_path / "c", vision_kind=kind, seed=1))
    with pytest.raises(Killed):
        fit(tmp_path / "d", vision_kind=kind, kill_after=3)  # two steps an epoch: in the second
    assert same(whole, fit(tmp_path / "d", vision_kind=kind))


@pytest.mark.parametrize("kind", KINDS)
def test_training_lowers_its_loss(
    kind: Literal["contrastive", "autoencoder"],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from medbench.models import base_vision

    found: list[float] = []
    plain = base_vision.descend
    monkeypatch.setattr(
        base_vision, "descend", lambda *a, **k: found.extend(plain(*a, **k)) or found
    )
    fit(tmp_path / "a", vision_kind=kind, vision_epochs=8)
    assert len(found) == 8
    assert found[-1] < 0.85 * found[0]


def test_what_was_loaded_stays_frozen_and_gives_equal_vectors(tmp_path: Path) -> None:
    state = fit(tmp_path / "a", vision_epochs=1)
    one, two = BaseVision(base_vision_stage(config()).config), BaseVision({**_values()})
    for model in (one, two):
        model.load("vision", state)
        model.encoder.train()
    images = torch.rand(4, 3, 32, 32)
    assert torch.equal(one.encoder(images), two.encoder(images))
    assert not any(m.training for m in one.encoder.modules())
    assert not any(p.requires_grad for p in one.encoder.parameters())
    assert same(one.state("vision"), state)
    # a vector does not depend on the others in its batch
    assert torch.allclose(one.encoder(images)[:1], one.encoder(images[:1]), atol=1e-6)


def _values() -> dict[str, Any]:
    return dict(base_vision_stage(config()).config)


def test_weights_that_do_not_fit_are_named() -> None:
    model = BaseVision(_values())
    state = model.state("vision")
    state["more"] = state.pop("stem.0.weight")
    with pytest.raises(WeightsError, match=r"1 missing: stem\.0\.weight; 1 unexpected: more"):
        model.load("vision", state)
    wider = BaseVision({**_values(), "vision_dim": 24})
    with pytest.raises(WeightsError, match="of another shape"):
        wider.load("vision", model.state("vision"))


def test_a_corpus_without_images_is_refused(tmp_path: Path) -> None:
    stage = base_vision_stage(config())
    run: Any = None  # refused before anything is asked of the run
    for bad in (corpus(1), corpus(12, "volume")):
        with pytest.raises(DataError, match=r"'scenes' has \d+ images"):
            BaseVision(stage.config).fit(stage, bad, run)


def test_the_stage_holds_what_decides_it_and_no_more() -> None:
    class Plugin(BaseVisionConfig):
        other: int = 3

    stage = base_vision_stage(Plugin(other=4))
    assert stage == base_vision_stage(Plugin()) == base_vision_stage(BaseVisionConfig())
    assert (stage.name, stage.corpus, stage.epochs) == ("vision", "scenes", 2)
    restores = base_vision_stage(BaseVisionConfig(vision_kind="autoencoder"))
    assert "vision_temperature" in stage.config
    assert "vision_temperature" not in restores.config
    assert BaseVision(stage.config).stages(None) == (stage,)
    assert BaseVision(stage.config).stages({}) == ()


@pytest.mark.parametrize(
    "values", [{"image_size": 40}, {"vision_kind": "dino"}, {"vision_batch": 1}, {"width": 8}]
)
def test_impossible_configurations_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        BaseVisionConfig.model_validate(values)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), level=st.floats(0, 1))
def test_views_stay_images(seed: int, level: float) -> None:
    torch.manual_seed(seed)
    images = torch.rand(3, 1, 32, 32) * level
    one, two = two_views(images)
    assert one.shape == two.shape == images.shape
    assert float(one.min()) >= 0
    assert float(one.max()) <= 1
    torch.manual_seed(seed)
    assert torch.rand(3, 1, 32, 32).shape == images.shape  # the same draws again
    again, _ = two_views(images)
    assert torch.equal(one, again)

"""Adaptor as a whole: spec, stages, training, resume, encoding, checkpoints."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from adaptor_toys import FINDINGS, ToyReader, make, toy_config, toy_corpus, toy_sample
from torch import nn

from medbench.errors import UsageError, WeightsError
from medbench.models.base_text import BaseText
from medbench.models.base_vision import BaseVision
from medbench.models.capabilities import (
    BringsHead,
    EncodesImages,
    EncodesPatches,
    EncodesTexts,
    PromptsClasses,
)
from medbench.schemas.task import load_task
from medbench_adaptor import ADAPTOR
from medbench_adaptor.config import AdaptorConfig
from medbench_adaptor.model import AdaptorModel
from toy_run import Killed, ToyRun

State = dict[str, torch.Tensor]
UNIQUE = ("biobert", "clinicalbert", "pubmedbert")  # without a stand-in


def same(one: Mapping[str, torch.Tensor], two: Mapping[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


def fit(model: AdaptorModel, folder: Path, **run: int) -> State:
    """Train the module and give its checkpoint."""
    stage = next(s for s in model.stages(None) if s.name == "adaptor")
    model.fit(stage, toy_corpus(), ToyRun(folder, **run))
    return model.state("adaptor")


# --- the spec ---------------------------------------------------------------------------------


def test_the_spec_imports_nothing_heavy() -> None:
    code = (
        "import sys, medbench_adaptor; "
        "heavy = {'torch', 'pydantic', 'open_clip', 'numpy', 'transformers'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        place, *rest = key.split(".")
        if rest:
            found.setdefault(place, {})[rest[0]] = value
        else:
            found[place] = value
    return found


def test_presets_and_variants_are_valid() -> None:
    for values in ADAPTOR.presets.values():
        for variant in (None, *ADAPTOR.variants):
            AdaptorConfig.model_validate(nested({**values, **(variant.config if variant else {})}))
    with pytest.raises(ValueError, match="Extra inputs"):
        AdaptorConfig.model_validate({"learning_rate": 1})
    with pytest.raises(ValueError, match="heads"):
        AdaptorConfig(heads=7)
    with pytest.raises(ValueError, match="follows from vision"):
        AdaptorConfig.model_validate({"vision_stand_in": {"vision_kind": "autoencoder"}})


def test_every_value_of_the_paper_preset_has_its_source() -> None:
    assert ADAPTOR.presets["paper"] == {}
    config = AdaptorConfig()
    for name, field in AdaptorConfig.model_fields.items():
        extra = field.json_schema_extra
        if name.endswith("_stand_in") or name == "pretrain":
            continue
        assert isinstance(extra, dict), name
        if not extra.get("assumed"):
            assert getattr(config, name) == extra["published"], name
            assert extra["source"], name


# --- stages -----------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", [None, *ADAPTOR.variants], ids=lambda v: v.name if v else "-")
def test_stages(variant: Any) -> None:
    config = toy_config(**(variant.config if variant else {}))
    if config.text in UNIQUE:
        with pytest.raises(UsageError, match=f"'{config.text}' has no stand-in"):
            AdaptorModel(config)
        return
    model = make(config)
    stages = {s.name: s for s in model.stages(None)}
    assert list(stages) == (["vision", "text", "adaptor"] if config.adapted else ["vision"])
    for stage in stages.values():
        assert json.loads(json.dumps(dict(stage.config))) == dict(stage.config)
    assert (stages["vision"].corpus, stages["vision"].weights) == ("scenes", "vision")
    kind = "autoencoder" if config.vision == "resnet-ae" else "contrastive"
    assert stages["vision"].config["vision_kind"] == kind
    half = 2 if config.vision == "dinov2-s" else 1
    assert stages["vision"].config["vision_dim"] == model.vision.dim == 16 // half
    if config.adapted:
        assert stages["adaptor"].needs == ("vision", "text")
        assert stages["adaptor"].corpus == "mimic-cxr"
        assert stages["text"].weights == "text"
        domain = "mimic-cxr" if config.text == "cxr-bert" else "scenes"
        assert stages["text"].corpus == domain
        given = model.stages(model.state("adaptor"))
        assert [s.name for s in given] == ["vision", "text"]


def test_stages_are_shared_with_whoever_asks_for_the_same_encoder() -> None:
    model, control = make(toy_config()), make(toy_config(adapted=False, lr=1))
    vision = model.stages(None)[0]
    assert control.stages(None) == (vision,)
    assert vision.cls == "medbench.models.base_vision:BaseVision"
    own = BaseVision(vision.config)
    model.load("vision", own.state("vision"))


def test_all_that_decides_the_module_is_in_its_stage() -> None:
    model = make(toy_config())
    stage = model.stages(None)[-1]
    changes: dict[str, Any] = {
        "dim": 32, "layers": 1, "heads": 4, "hidden": 8, "dropout": 0.0, "alpha": 0.5,
        "epochs": 1, "batch": 8, "lr": 1, "weight_decay": 1, "warmup": 0.5, "patience": 1,
        "validation": 0.2, "pretrain": {"fraction": 0.5},
    }  # fmt: skip
    for name, value in changes.items():
        other = make(toy_config(**{name: value})).stages(None)[-1]
        assert other.config != stage.config, name
    assert set(stage.config) == set(changes) | {"encoders", "vision", "text"}


# --- training ---------------------------------------------------------------------------------


def test_frozen_encoders_stay_and_every_part_of_the_module_moves(tmp_path: Path) -> None:
    model = make(toy_config())
    vision = {k: v.clone() for k, v in model.vision.state_dict().items()}
    text = {k: v.clone() for k, v in model.text.state_dict().items()}
    before = {k: v.clone() for k, v in model.state("adaptor").items()}
    after = fit(model, tmp_path)
    assert same(vision, model.vision.state_dict())
    assert same(text, model.text.state_dict())
    decides_nothing = ("in_proj_weight", "in_proj_bias")  # of which a third, the value, moves
    for name, value in after.items():
        assert not torch.equal(value, before[name]), name
        if name.endswith(decides_nothing):
            assert not torch.allclose(value[-16:], before[name][-16:], atol=1e-4)
    for part in (model.vision, model.text, model.adaptor):
        assert not any(p.requires_grad for p in part.parameters())
        assert not any(m.training for m in part.modules())


def test_two_fits_are_identical(tmp_path: Path) -> None:
    one = fit(make(toy_config()), tmp_path / "a")
    two = fit(make(toy_config()), tmp_path / "b")
    assert same(one, two)
    other = fit(make(toy_config()), tmp_path / "c", seed=1)
    assert not same(one, other)


@pytest.mark.parametrize("after", [0, 2, 5, 14])
def test_a_killed_fit_ends_in_the_same_bits(tmp_path: Path, after: int) -> None:
    unbroken = fit(make(toy_config()), tmp_path / "unbroken")
    with pytest.raises(Killed):
        fit(make(toy_config()), tmp_path / "killed", kill_after=after)
    assert same(unbroken, fit(make(toy_config()), tmp_path / "killed"))


def test_each_image_is_decoded_once_also_across_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medbench_adaptor.embeddings.CHUNK", 40)
    monkeypatch.setattr("medbench_adaptor.embeddings.BATCH", 20)
    model, corpus = make(toy_config()), toy_corpus()
    stage = model.stages(None)[-1]
    with pytest.raises(Killed):  # while embedding, after 3 of 6 batches
        model.fit(stage, corpus, ToyRun(tmp_path, kill_after=3, counts_all=True))
    reader = corpus.reader
    assert isinstance(reader, ToyReader)
    assert len(reader.decoded) == 80, "two files' worth"
    reader.decoded.clear()
    model.fit(stage, corpus, ToyRun(tmp_path))
    assert sorted(set(reader.decoded)) == sorted(f"image-{i}" for i in range(40, 120))
    assert len(reader.decoded) == 80
    assert same(model.state("adaptor"), fit(make(toy_config()), tmp_path / "unbroken"))


def test_a_smaller_share_trains_on_fewer_patients(tmp_path: Path) -> None:
    runs = {}
    for share in (0.2, 1.0):
        model, run = make(toy_config(pretrain={"fraction": share})), ToyRun(tmp_path / str(share))
        model.fit(model.stages(None)[-1], toy_corpus(), run)
        runs[share] = run.warnings[-1]
    assert runs[1.0].startswith("Adaptor: 108 pairs trained on, 12 of other patients to stop by; ")
    assert runs[0.2].startswith("Adaptor: 22 pairs trained on, 12 of other patients to stop by; ")


def test_a_published_encoder_is_not_trained_here(tmp_path: Path) -> None:
    from medbench_adaptor.encoders import vision_stage

    model = make(toy_config())
    stage = vision_stage(AdaptorConfig())
    assert stage.weights == "vision"
    with pytest.raises(WeightsError, match="adaptor@vision=PATH"):
        model.fit(stage, toy_corpus(), ToyRun(tmp_path))


# --- encoding ---------------------------------------------------------------------------------


def test_it_has_the_capabilities_that_it_declares() -> None:
    model = make(toy_config())
    for protocol in (EncodesImages, EncodesPatches, EncodesTexts, PromptsClasses, BringsHead):
        assert isinstance(model, protocol)
    assert all(callable(getattr(model, name)) for name in ADAPTOR.capabilities)


@torch.no_grad()
def test_images_and_texts_share_a_space() -> None:
    model = make(toy_config())
    images = torch.rand(3, 3, 32, 32)
    assert model.encode_images(images).shape == (3, 16)
    texts = model.encode_texts(FINDINGS)
    assert texts.shape == (4, 16)
    torch.testing.assert_close(texts.norm(dim=1), torch.ones(4))
    assert model.temperature == pytest.approx(0.07)
    task = load_task(Path("tasks/medbench_tasks/rsna.toml").resolve())
    assert model.class_prompts(task) == [[label.text] for label in task.labels]


@torch.no_grad()
@pytest.mark.parametrize("adapted", [True, False])
def test_a_map_is_the_module_at_each_position(adapted: bool) -> None:
    model = make(toy_config(adapted=adapted))
    images = torch.rand(2, 3, 32, 32)
    [found] = model.encode_patches(images)
    tokens = model.vision.maps(images)[-1]
    assert found.shape == (2, 16, *tokens.shape[-2:])
    for y, x in ((0, 1), (1, 0)):
        alone = tokens[:, :, y, x]
        wanted = model.adaptor.encode_images(alone) if model.adaptor else alone
        torch.testing.assert_close(found[:, :, y, x], wanted, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("adapted", [True, False])
def test_the_autoencoder_gives_its_finer_maps_and_one_vector(adapted: bool) -> None:
    model = make(toy_config(vision="resnet-ae", adapted=adapted))
    images = torch.rand(2, 3, 32, 32)
    *skips, vector = model.encode_patches(images)
    for skip, wanted in zip(skips, model.vision.maps(images)[:-1], strict=True):
        assert torch.equal(skip, wanted)
    sides = [skip.shape[-1] for skip in skips]
    assert sides == sorted(sides, reverse=True)
    assert vector.shape == (2, 16, 1, 1)
    assert torch.equal(vector[:, :, 0, 0], model.encode_images(images))


@torch.no_grad()
def test_the_control_is_the_frozen_encoder() -> None:
    model = make(toy_config(adapted=False))
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(model.encode_images(images), model.vision(images))
    assert model.parameter_counts()["trainable"] == 0
    with pytest.raises(UsageError, match="no-adaptor"):
        model.encode_texts(["no finding"])
    with pytest.raises(WeightsError, match="no module to load"):
        model.load("weights", {"logit_scale": torch.zeros(())})


def test_the_published_head() -> None:
    head = make(toy_config()).classification_head(768, 3)
    assert isinstance(head, nn.Sequential)
    kinds = [type(layer).__name__ for layer in head]
    assert kinds == ["Dropout", "Linear", "BatchNorm1d", "ReLU", "Dropout", "Linear"]
    assert [layer.p for layer in head if isinstance(layer, nn.Dropout)] == [0.1, 0.1]
    count = sum(p.numel() for p in head.parameters())
    assert count == 768 * 512 + 2 * 512 + 512 * 3 + 3
    assert head(torch.randn(4, 768)).shape == (4, 3)


# --- sizes and checkpoints --------------------------------------------------------------------


def test_parameters_are_counted_with_the_frozen_encoders() -> None:
    model = make(toy_config())
    counts = model.parameter_counts()
    own = sum(v.numel() for v in model.state("adaptor").values())
    assert counts["trainable"] == own
    parts = (model.vision, model.text)
    assert counts["total"] == own + sum(p.numel() for m in parts for p in m.parameters())


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "adaptor.", "module.adaptor_module."])
def test_weights_of_the_module_come_with_common_prefixes(prefix: str) -> None:
    model, other = make(toy_config(), seed=1), make(toy_config(), seed=2)
    state = model.state("adaptor")
    assert not same(state, other.state("adaptor"))
    other.load("weights", {f"{prefix}{name}": value for name, value in state.items()})
    assert same(state, other.state("adaptor"))


def test_unfit_weights() -> None:
    model = make(toy_config())
    state = model.state("adaptor")
    short = {k: v for k, v in state.items() if k != "logit_scale"}
    with pytest.raises(WeightsError, match=r"the Adaptor module .* missing: logit_scale"):
        model.load("weights", short)
    with pytest.raises(WeightsError, match="unexpected: other"):
        model.load("adaptor", state | {"other": torch.zeros(1)})
    with pytest.raises(WeightsError, match=r"of another shape: image_projection\.weight"):
        model.load("weights", state | {"image_projection.weight": torch.zeros(2, 2)})
    for part in ("vision", "text"):
        with pytest.raises(WeightsError, match="unexpected: other"):
            model.load(part, {"other": torch.zeros(1)})
    with pytest.raises(ValueError, match="no stage"):
        model.load("base", state)


def test_checkpoints_round_trip_through_safetensors(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    model = make(toy_config(), seed=1)
    state = fit(model, tmp_path / "fit")
    save_file(state, tmp_path / "state.safetensors")
    other = make(toy_config(), seed=2)
    other.load("adaptor", load_file(tmp_path / "state.safetensors"))
    for part, owner in (("vision", BaseVision), ("text", BaseText)):
        stage = next(s for s in model.stages(None) if s.name == part)
        made = owner(stage.config)
        made.encoder.load_state_dict(getattr(model, part).state_dict())
        other.load(part, made.state(part))
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(model.encode_images(images), other.encode_images(images))
    assert torch.equal(model.encode_texts(FINDINGS), other.encode_texts(FINDINGS))


def test_what_is_trained_depends_on_the_report_words(tmp_path: Path) -> None:
    """The technique, the comparison and the lateral images take no part."""
    from dataclasses import replace

    model = make(toy_config())
    stage = model.stages(None)[-1]
    samples = [toy_sample(i) for i in range(120)]
    model.fit(stage, toy_corpus(samples), ToyRun(tmp_path / "a"))
    state = model.state("adaptor")
    noisy = [replace(s, sections={**s.sections, "technique": s.id}, text=s.id) for s in samples]
    noisy += [toy_sample(i, "lateral") for i in range(120, 140)]
    model.fit(stage, toy_corpus(noisy), ToyRun(tmp_path / "b"))
    assert same(state, model.state("adaptor"))

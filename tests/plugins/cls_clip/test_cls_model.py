"""CLS-CLIP as a whole: stages, training, resume, encoding, drawing, checkpoints."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cls_toys import State, ToyReader, fit, make, same, toy_config, toy_corpus
from torch import nn

from medbench.data.splits import fraction, patients_of
from medbench.errors import DataError, WeightsError
from medbench.models.base_clip import base_stage
from medbench.models.batchnorm import statistics
from medbench.models.clip import count, image_features, text_features
from medbench.models.contrastive import info_nce
from medbench.models.tokenizer import tokenize
from medbench_cls_clip import CLS_CLIP
from medbench_cls_clip.adapters import norms
from medbench_cls_clip.config import ClsClipConfig
from medbench_cls_clip.model import ClsClip
from medbench_radclip import RADCLIP
from medbench_radclip.config import RadclipConfig
from toy_run import Killed, ToyRun

VIT = {"vision_layers": 1, "vision_width": 64, "vision_patch": 16}


def nested(values: dict[str, Any]) -> dict[str, Any]:
    """Values by dotted key -> values as the configuration nests them."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        part, _, inner = key.partition(".")
        if inner:
            found.setdefault(part, {})[inner] = value
        else:
            found[part] = value
    return found


def variant(name: str) -> dict[str, Any]:
    found = CLS_CLIP.variant(name)
    assert found is not None
    return dict(found.config)


# --- the spec ---------------------------------------------------------------------------------


def test_the_spec_imports_nothing_heavy() -> None:
    code = (
        "import sys, medbench_cls_clip; "
        "heavy = {'torch', 'pydantic', 'open_clip', 'numpy', 'transformers'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_paper_preset_is_the_published_one() -> None:
    def hold(config: Any) -> None:
        for name, field in type(config).model_fields.items():
            value, extra = getattr(config, name), field.json_schema_extra
            if name in ("pretrain", "guidance"):
                hold(value)
            else:
                assert isinstance(extra, dict), name
                assert extra.get("assumed") or value == extra["published"], name

    # fields that ViT-B/32 and ViT-L/14 share have the larger one as their source
    hold(ClsClipConfig.model_validate(nested(dict(CLS_CLIP.presets["paper"]))))


def test_presets_and_variants_are_valid() -> None:
    for values in CLS_CLIP.presets.values():
        for config in ({}, *(v.config for v in CLS_CLIP.variants)):
            ClsClipConfig.model_validate(nested({**values, **config}))
    published = ClsClipConfig(trained="adapters").pretrain
    assert (published.lr, published.batch) == (3e-4, 192)
    set_by_hand = ClsClipConfig.model_validate({"trained": "adapters", "pretrain": {"lr": 1e-3}})
    assert (set_by_hand.pretrain.lr, set_by_hand.pretrain.batch) == (1e-3, 192)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"pretrain": {"fractions": 0.1}}, "Extra inputs"),
        ({"pretrain": {"fraction": 0}}, "greater than 0"),
        ({"pretrain": {"scale": (1.1, 0.9)}}, "not a range"),
        ({"trained": "adapters", "general": False}, "neither trained nor given"),
        ({"context": 40}, "tokens 77 is above context 40"),
    ],
)
def test_what_cannot_be_configured(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClsClipConfig.model_validate(values)


@pytest.mark.parametrize("preset", ["tiny", "small"])
def test_the_base_is_shared_with_radclip(preset: str) -> None:
    mine = ClsClipConfig.model_validate(nested(dict(CLS_CLIP.presets[preset])))
    theirs = RadclipConfig.model_validate(dict(RADCLIP.presets[preset]))
    assert base_stage(mine) == base_stage(theirs)


@pytest.mark.parametrize(
    ("name", "stages", "given"),
    [
        (None, ["base", "cls"], ["cls"]),
        ("adapters", ["base", "cls"], ["cls"]),
        ("supervised", ["base", "statistics"], ["statistics"]),
        ("clip", ["base", "statistics"], ["statistics"]),
        ("random", ["statistics"], ["statistics"]),
    ],
)
def test_stages(name: str | None, stages: list[str], given: list[str]) -> None:
    values = variant(name) if name else {}
    model = make(toy_config(**values))
    result = model.stages(None)
    assert [s.name for s in result] == stages
    for stage in result:
        assert stage.corpus == ("scenes" if stage.name == "base" else "mimic-cxr")
        assert stage.needs == (("base",) if "base" in stages and stage.name != "base" else ())
        assert json.loads(json.dumps(dict(stage.config))) == dict(stage.config)
    weights = dict(model.clip.state_dict())
    assert [s.name for s in model.stages(weights)] == given
    # a transformer has no BatchNorm, so without language nothing is left to do
    vit = make(toy_config(**values, **VIT))
    assert [s.name for s in vit.stages(weights)] == [s for s in given if s != "statistics"]


def test_finished_weights_leave_nothing_to_train() -> None:
    model = make(toy_config(pretrain__done=True, **VIT))
    assert model.stages(dict(model.clip.state_dict())) == ()
    with pytest.raises(WeightsError, match=r"pretrain\.done .* none are given"):
        model.stages(None)


def test_variants_share_the_stages_that_they_share() -> None:
    plain = make(toy_config()).stages(None)
    clip, supervised = (make(toy_config(**variant(n))).stages(None) for n in ("clip", "supervised"))
    adapters = make(toy_config(trained="adapters")).stages(None)
    assert clip == supervised
    assert plain[0] == clip[0] == adapters[0]
    assert plain[1] != adapters[1]
    assert make(toy_config(adapter_size=4)).stages(None) == plain
    assert make(toy_config(guidance__steps=9)).stages(None) == plain
    assert make(toy_config(pretrain__fraction=0.5)).stages(None)[1] != plain[1]


# --- training ---------------------------------------------------------------------------------


def test_the_loss_is_symmetric_info_nce() -> None:
    """Against numpy, from the definition: mean over rows and columns of -log softmax."""
    model = make(toy_config())
    with torch.no_grad():
        images = image_features(model.clip, torch.rand(6, 3, 32, 32))
        texts = text_features(model.clip, tokenize([f"disc {i}" for i in range(6)], 32))
        found = float(info_nce(images, texts, model.clip.logit_scale.exp()))  # type: ignore[operator]
    a, b = (np.asarray(t, np.float64) for t in (images, texts))
    a, b = (t / np.linalg.norm(t, axis=1, keepdims=True) for t in (a, b))
    logits = a @ b.T / model.temperature
    total = 0.0
    for i in range(6):
        total -= logits[i, i] - np.log(np.exp(logits[i, :]).sum())
        total -= logits[i, i] - np.log(np.exp(logits[:, i]).sum())
    assert found == pytest.approx(total / 12, rel=1e-5)


@pytest.mark.parametrize("trained", ["full", "adapters"])
def test_a_killed_fit_resumes_to_the_same_bits(trained: str, tmp_path: Path) -> None:
    config = toy_config(trained=trained)
    unbroken = fit(make(config), "cls", tmp_path / "unbroken")
    assert same(unbroken, fit(make(config), "cls", tmp_path / "again"))
    for kill_after in (0, 3):  # in the first and in the second epoch of 2 steps
        folder = tmp_path / f"killed-{kill_after}"
        with pytest.raises(Killed):
            fit(make(config), "cls", folder, kill_after=kill_after)
        torch.manual_seed(kill_after)  # another process
        assert same(unbroken, fit(make(config), "cls", folder))
    assert not same(unbroken, fit(make(config), "cls", tmp_path / "other", seed=1))


@pytest.mark.parametrize("tower", [{}, VIT], ids=["resnet", "vit"])
def test_adapters_leave_the_frozen_towers_bit_identical(
    tower: dict[str, int], tmp_path: Path
) -> None:
    model = make(toy_config(trained="adapters", **tower))
    before = {k: v.clone() for k, v in model.clip.state_dict().items()}
    adapters = {k: v.clone() for k, v in model.adapters.state_dict().items()}
    state = fit(model, "cls", tmp_path)
    after = model.clip.state_dict()
    layers = {f"{n}.{k}" for n, m in norms(model.clip).items() for k in m.state_dict()}
    frozen = [k for k in before if k not in layers]
    assert any("conv1" in k for k in frozen)
    assert {"logit_scale", "token_embedding.weight", "positional_embedding"} <= set(frozen)
    for key in frozen:
        assert torch.equal(before[key], after[key]), key
    changed = [k for k in layers if not torch.equal(before[k], after[k])]
    assert len(changed) > 0.8 * len(layers)
    for key, value in adapters.items():
        assert not torch.equal(value, model.adapters.state_dict()[key]), key
    assert set(state) == layers | {f"adapters.{k}" for k in adapters}


def test_full_training_reaches_both_towers_and_the_scale(tmp_path: Path) -> None:
    model = make(toy_config())
    before = {n: p.detach().clone() for n, p in model.clip.named_parameters()}
    state = fit(model, "cls", tmp_path)
    assert set(state) == set(model.clip.state_dict())
    same_as_before = [n for n, value in before.items() if torch.equal(value, state[n])]
    assert not same_as_before
    assert model.temperature == pytest.approx(1 / float(state["logit_scale"].exp()))


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    run = ToyRun(tmp_path)
    model = make(toy_config(pretrain__epochs=12, pretrain__rotation=0.0, pretrain__lr=3e-3))
    model.fit(model.stages(None)[-1], toy_corpus(), run)
    assert sum(run.losses[-4:]) < 0.9 * sum(run.losses[:4])


def test_each_file_is_decoded_once_also_across_a_kill(tmp_path: Path) -> None:
    corpus, model = toy_corpus(), make(toy_config())
    stage = model.stages(None)[-1]
    with pytest.raises(Killed):
        model.fit(stage, corpus, ToyRun(tmp_path, kill_after=1))
    model.fit(stage, corpus, ToyRun(tmp_path))
    assert isinstance(corpus.reader, ToyReader)
    assert sorted(corpus.reader.decoded) == sorted(s.id for s in corpus.samples)


def test_a_fraction_is_nested_and_of_whole_patients(tmp_path: Path) -> None:
    """Seen through what is decoded: without BatchNorm that is what is trained on."""
    seen: list[set[str]] = []
    for share in (0.25, 0.5, 1.0):
        corpus = toy_corpus()
        model = make(toy_config(pretrain__fraction=share, pretrain__epochs=1, **VIT))
        model.fit(model.stages(None)[-1], corpus, ToyRun(tmp_path / str(share)))
        assert isinstance(corpus.reader, ToyReader)
        seen.append(set(corpus.reader.decoded))
    assert [len(found) for found in seen] == [10, 20, 40]
    assert seen[0] < seen[1] < seen[2]
    for found in seen:
        patients = {i // 2 for i in (int(name.split("-")[1]) for name in found)}
        assert len(found) == 2 * len(patients)
    everyone = toy_corpus().samples
    rows = fraction(patients_of(everyone), [""] * len(everyone), 0.25, 0)
    assert seen[0] == {everyone[i].id for i in rows}, "drawn by the run's seed"
    model = make(toy_config(pretrain__fraction=0.05))
    stage, run = model.stages(None)[-1], ToyRun(tmp_path / "few")
    with pytest.raises(DataError, match=r"fraction of 0\.05"):
        model.fit(stage, toy_corpus(), run)


def test_all_variants_have_equal_normalisation_statistics(tmp_path: Path) -> None:
    """The same images in the same order: equal weights give equal statistics, whatever the way."""
    found = fit(make(toy_config(language=False)), "statistics", tmp_path / "clip")
    for share in (1.0, 0.5):
        model = make(
            toy_config(pretrain__lr=1e-30, pretrain__weight_decay=0, pretrain__fraction=share)
        )
        fit(model, "cls", tmp_path / f"cls-{share}")
        trained = statistics(model.clip.visual)  # type: ignore[arg-type]
        assert set(found) == set(trained)
        for key, value in trained.items():
            assert torch.equal(found[key], value), key
    loaded = make(toy_config(language=False))
    loaded.load("statistics", found)
    for key, value in statistics(loaded.clip.visual).items():  # type: ignore[arg-type]
        assert torch.equal(found[key], value), key


def test_images_without_a_report_train_nothing_and_are_told(tmp_path: Path) -> None:
    corpus, run, model = toy_corpus(silent=4), ToyRun(tmp_path), make(toy_config())
    model.fit(model.stages(None)[-1], corpus, run)
    assert ["4 of 40" in warning for warning in run.warnings] == [True]
    assert isinstance(corpus.reader, ToyReader)
    assert len(corpus.reader.decoded) == 36


# --- encoding ---------------------------------------------------------------------------------


def test_encoding() -> None:
    model = make(toy_config())
    images = torch.rand(3, 3, 32, 32)
    features = model.encode_images(images)
    assert features.requires_grad
    torch.testing.assert_close(features.norm(dim=1), torch.ones(3))
    texts = model.encode_texts(["Impression: normal", "FINDINGS: a disc"])
    torch.testing.assert_close(texts.norm(dim=1), torch.ones(2))
    maps = model.encode_patches(images)
    assert [tuple(m.shape[-2:]) for m in maps] == [(8, 8), (4, 4), (2, 2), (1, 1)]


def test_feature_maps_pass_through_the_adapters() -> None:
    model = make(toy_config(trained="adapters", **VIT))
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        before = model.encode_patches(images)[0]
        model.adapters["vision"][0].up.bias += torch.linspace(-1, 1, 64)  # type: ignore[index]
        assert not torch.allclose(before, model.encode_patches(images)[0], atol=1e-3)


class Toys:
    """Pictures of the toy corpus by row."""

    def batch(self, indices: np.ndarray) -> torch.Tensor:
        generator = torch.Generator().manual_seed(int(indices.sum()))
        return torch.rand(len(indices), 3, 32, 32, generator=generator)


def test_fine_tuning_trains_adapters_and_norms_alone() -> None:
    from medbench.evaluation.fine_tune import Schedule, fine_tune

    model = make(toy_config(trained="adapters"))
    found = fine_tune(
        model.encode_images,
        [model.clip, model.adapters],
        Toys(),
        np.arange(12)[:, None] % 2.0,
        np.arange(0, 8),
        np.arange(8, 10),
        np.arange(10, 12),
        False,
        0,
        torch.device("cpu"),
        schedule=Schedule(epochs=1, least_steps=1, batch=8),
    )
    layers = [p for m in norms(model.clip.visual).values() for p in m.parameters()]  # type: ignore[arg-type]
    vision = count(model.adapters["vision"].parameters())
    head = 32 + 1
    assert found.trained == vision + count(layers) + head
    assert found.trained < 0.05 * model.parameter_counts()["total"]


# --- drawing ----------------------------------------------------------------------------------


def cosine(model: ClsClip, images: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
    with torch.no_grad():
        return (model.encode_images(images) * model.encode_texts(prompts)).sum(1)


@pytest.mark.parametrize("trained", ["full", "adapters"])
def test_drawing_as_the_harness_calls_it(trained: str) -> None:
    model = make(toy_config(trained=trained, guidance__steps=15, guidance__lr=0.1, **VIT))
    plain = make(toy_config(guidance__steps=1, guidance__lr=1e-9, **VIT))
    prompts = ["a disc above", "a disc below", "a disc above"]
    with torch.inference_mode():
        images = model.generate_images(prompts, [1, 2, 3])
        again = model.generate_images(prompts, [1, 2, 3])
        start = plain.generate_images(prompts, [1, 2, 3])
    assert images.shape == (3, 3, 32, 32)
    assert images.dtype == torch.float32
    assert 0 <= float(images.min()) < float(images.max()) <= 1
    assert torch.equal(images[:, 0], images[:, 2]), "grey"
    assert torch.equal(images, again)
    assert (cosine(model, images, prompts) > cosine(model, start, prompts) + 0.02).all()
    assert all(p.grad is None for p in model.clip.parameters())


def test_a_seed_fixes_its_image_whatever_is_drawn_beside_it() -> None:
    model = make(toy_config(guidance__batch=2))
    both = model.generate_images(["a disc", "a bar", "a disc"], [5, 6, 7])
    alone = model.generate_images(["a disc"], [5])
    torch.testing.assert_close(both[:1], alone, atol=1e-4, rtol=0)
    assert not torch.allclose(both[0], both[2], atol=0.01)
    assert model.generate_images([], []).shape == (0, 3, 32, 32)


# --- checkpoints ------------------------------------------------------------------------------


@pytest.mark.parametrize("trained", ["full", "adapters"])
def test_checkpoints_round_trip(trained: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    config = toy_config(trained=trained)
    model = make(config)
    base = {k: v.clone() for k, v in model.clip.state_dict().items()}
    state = fit(model, "cls", tmp_path / "fit")
    save_file(state, tmp_path / "state.safetensors")
    other = make(config, seed=1)
    other.load("base", base)
    other.load("cls", load_file(tmp_path / "state.safetensors"))
    assert same(other.state("cls"), state)
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(other.encode_images(images), model.encode_images(images))
    assert torch.equal(other.encode_texts(["a"]), model.encode_texts(["a"]))


def test_a_hugging_face_checkpoint_loads(tmp_path: Path) -> None:
    from transformers import CLIPConfig, CLIPModel

    from medbench.models.weights import read_weights

    torch.manual_seed(0)
    tower = {"hidden_size": 64, "intermediate_size": 256, "num_attention_heads": 1}
    published = CLIPModel(
        CLIPConfig(
            projection_dim=32,
            vision_config={**tower, "num_hidden_layers": 2, "image_size": 32, "patch_size": 16},
            text_config={
                **tower,
                "num_hidden_layers": 1,
                "max_position_embeddings": 32,
                "vocab_size": 49408,
                "eos_token_id": 49407,
            },
        )
    ).eval()
    published.save_pretrained(tmp_path)
    torch.save({"state_dict": published.state_dict()}, tmp_path / "clip.pth")
    config = toy_config(
        vision_layers=2, vision_width=64, vision_patch=16, text_width=64, text_heads=1
    )
    images = torch.rand(2, 3, 32, 32)
    from medbench.models.clip import normalise

    with torch.no_grad():
        pooled = published.vision_model(pixel_values=normalise(images)).pooler_output
        expected = nn.functional.normalize(published.visual_projection(pooled), dim=1)
    for path in (tmp_path, tmp_path / "clip.pth"):
        model = make(config, seed=3)
        model.load("weights", read_weights(path))
        torch.testing.assert_close(model.encode_images(images), expected, atol=1e-4, rtol=1e-4)
        original = make(config, seed=4)  # OpenAI's own layout is open_clip's
        original.load("weights", {f"module.{k}": v for k, v in model.clip.state_dict().items()})
        assert torch.equal(original.encode_images(images), model.encode_images(images))


def test_finished_adapters_are_given_with_their_clip() -> None:
    config = toy_config(trained="adapters", pretrain__done=True)
    giver, taker = make(config, seed=1), make(config, seed=2)
    adapters = {f"adapters.{k}": v for k, v in giver.adapters.state_dict().items()}
    clip = dict(giver.clip.state_dict())
    taker.load("weights", clip | adapters)
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(taker.encode_images(images), giver.encode_images(images))
    with pytest.raises(WeightsError, match=r"adapters .* missing: adapters"):
        taker.load("weights", clip)
    make(toy_config(trained="adapters")).load("weights", clip)  # a general CLIP to start from


def test_unfit_weights() -> None:
    model = make(toy_config())
    clip = dict(model.clip.state_dict())
    with pytest.raises(WeightsError, match=r"do not fit CLIP .* missing: visual\.conv1\.weight"):
        model.load("weights", {k: v for k, v in clip.items() if k != "visual.conv1.weight"})
    with pytest.raises(WeightsError, match=r"unexpected: adapters\.text"):
        model.load("weights", clip | {"adapters.text.0.up.bias": torch.zeros(32)})
    for stage in ("base", "cls", "statistics"):
        with pytest.raises(WeightsError, match="unexpected: other"):
            model.load(stage, {"other": torch.zeros(1)})
    with pytest.raises(ValueError, match="no stage"):
        model.load("pairs", {})


def test_state_of_another_adapter_size_is_refused(tmp_path: Path) -> None:
    state: State = fit(make(toy_config(trained="adapters")), "cls", tmp_path)
    with pytest.raises(WeightsError, match="of another shape"):
        make(toy_config(trained="adapters", adapter_size=4)).load("cls", state)

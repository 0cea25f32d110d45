"""RadCLIP as a whole: stages, training, resume, encoding, checkpoints."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from radclip_toys import ToyReader, toy_config, toy_corpus

from medbench.errors import DataError, WeightsError
from medbench.models.base_clip import BaseClip
from medbench.models.batchnorm import statistics
from medbench.models.clip import is_image_key
from medbench.models.contrastive import seeded
from medbench_radclip import RADCLIP
from medbench_radclip.config import RadclipConfig
from medbench_radclip.model import Radclip
from toy_run import Killed, ToyRun

State = dict[str, torch.Tensor]


def make(config: RadclipConfig, seed: int = 0) -> Radclip:
    with seeded(seed):
        return Radclip(config)


def fit(model: Radclip, name: str, folder: Path, weights: State | None = None, **run: int) -> State:
    """Train one stage and give its checkpoint."""
    folder.mkdir(exist_ok=True)
    stage = next(s for s in model.stages(weights) if s.name == name)
    model.fit(stage, toy_corpus(), ToyRun(folder, **run))
    return model.state(name)


def same(one: State, two: State) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


# --- the spec ---------------------------------------------------------------------------------


def test_the_spec_imports_nothing_heavy() -> None:
    code = (
        "import sys, medbench_radclip; "
        "heavy = {'torch', 'pydantic', 'open_clip', 'numpy', 'transformers'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_presets_and_variants_are_valid() -> None:
    for preset, values in RADCLIP.presets.items():
        for variant in (None, *RADCLIP.variants):
            config = RadclipConfig.model_validate({**values, **(variant.config if variant else {})})
            if preset == "paper" and variant is None:
                for name, field in RadclipConfig.model_fields.items():
                    extra = field.json_schema_extra
                    assert isinstance(extra, dict), name
                    assert extra.get("assumed") or getattr(config, name) == extra["published"], name
    with pytest.raises(ValueError, match="Extra inputs"):
        RadclipConfig.model_validate({"pair_lr": 1})
    with pytest.raises(ValueError, match="nothing trained"):
        RadclipConfig(general=False, adapted=False)
    with pytest.raises(ValueError, match="heads"):
        RadclipConfig(heads=7)


def test_published_parameter_count() -> None:
    with torch.device("meta"):
        model = Radclip(RadclipConfig.model_validate(RADCLIP.presets["paper"]))
        numbers = model.parameter_counts()
    assert numbers["total"] == 427_616_513 + 2_411_520  # ViT-L/14 and the adapter
    assert numbers["trainable"] == numbers["total"] - 123_650_304 - 1  # text tower, logit scale


@pytest.mark.parametrize(
    ("variant", "stages", "given"),
    [
        (None, ["base", "pairs", "volumes"], ["statistics", "volumes"]),
        ("mean-pooling", ["base", "pairs"], ["statistics"]),
        ("max-pooling", ["base", "pairs"], ["statistics"]),
        ("mean-head", ["base", "pairs", "volumes"], ["statistics", "volumes"]),
        ("clip", ["base", "statistics"], ["statistics"]),
        ("no-base", ["pairs", "volumes"], ["statistics", "volumes"]),
    ],
)
def test_stages(variant: str | None, stages: list[str], given: list[str]) -> None:
    found = RADCLIP.variant(variant) if variant else None
    config = toy_config(**(found.config if found else {}))
    model = make(config)
    result = model.stages(None)
    assert [s.name for s in result] == stages
    for i, stage in enumerate(result):
        assert stage.needs == tuple(stages[:i])
        assert stage.corpus == ("scenes" if stage.name == "base" else "image-text-pairs")
        assert json.loads(json.dumps(dict(stage.config))) == dict(stage.config)
    weights = dict(model.clip.state_dict())
    assert [s.name for s in model.stages(weights)] == given
    # A transformer has no BatchNorm: given weights leave nothing but the pooling to train.
    vit = make(toy_config(**(found.config if found else {}), vision_layers=1, vision_width=64))
    assert [s.name for s in vit.stages(weights)] == [s for s in given if s != "statistics"]


def test_variants_share_the_stages_that_they_share() -> None:
    stages = {
        name: {s.name: s for s in make(toy_config(**values)).stages(None)}
        for name, values in {
            "radclip": {},
            "mean": {"pooling": "mean"},
            "head": {"pooling": "mean-head"},
            "clip": {"adapted": False, "pooling": "mean"},
            "random": {"general": False},
        }.items()
    }
    radclip = stages["radclip"]
    assert radclip["base"] == stages["mean"]["base"] == stages["clip"]["base"]
    assert radclip["pairs"] == stages["mean"]["pairs"] == stages["head"]["pairs"]
    assert radclip["pairs"] != stages["random"]["pairs"]
    assert radclip["volumes"] != stages["head"]["volumes"]
    longer = {s.name: s for s in make(toy_config(volumes_epochs=9)).stages(None)}
    assert longer["pairs"] == radclip["pairs"]
    assert longer["volumes"] != radclip["volumes"]
    assert "pairs_epochs" not in radclip["base"].config


# --- training ---------------------------------------------------------------------------------


def test_text_tower_is_bit_identical_and_image_tower_is_not(tmp_path: Path) -> None:
    model = make(toy_config())
    before = {k: v.clone() for k, v in model.clip.state_dict().items()}
    pooled = {k: v.clone() for k, v in model.pool.state_dict().items()}
    text = model.encode_texts(["a toy", "another"])
    pairs = fit(model, "pairs", tmp_path / "a")
    fit(model, "volumes", tmp_path / "b")
    after = model.clip.state_dict()
    for key, value in before.items():
        if not is_image_key(key):
            assert torch.equal(value, after[key]), key
    assert set(pairs) == {k for k in after if is_image_key(k)}
    changed = [k for k in pairs if not torch.equal(before[k], pairs[k])]
    assert len(changed) > 0.9 * len(pairs)
    assert torch.equal(text, model.encode_texts(["a toy", "another"]))
    for key, value in pairs.items():  # stage 2 leaves the towers alone
        assert torch.equal(value, after[key]), key
    assert any(not torch.equal(v, model.pool.state_dict()[k]) for k, v in pooled.items())


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    model = make(toy_config(pairs_epochs=8, volumes_epochs=20))
    for stage in model.stages(None)[1:]:
        run = ToyRun(tmp_path)
        model.fit(stage, toy_corpus(), run)
        steps = len(run.losses) // 4
        assert sum(run.losses[-steps:]) < 0.9 * sum(run.losses[:steps]), stage.name


@pytest.mark.parametrize("stage", ["pairs", "volumes"])
@pytest.mark.parametrize("kill_after", [0, 3, 5])
def test_a_killed_fit_resumes_to_the_same_bits(stage: str, kill_after: int, tmp_path: Path) -> None:
    config = toy_config()
    unbroken = fit(make(config), stage, tmp_path / "unbroken")
    with pytest.raises(Killed):
        fit(make(config), stage, tmp_path / "killed", kill_after=kill_after)
    torch.manual_seed(kill_after)  # another process
    resumed = fit(make(config), stage, tmp_path / "killed")
    assert same(unbroken, resumed)
    other = fit(make(config), stage, tmp_path / "other", seed=1)
    assert not same(unbroken, other)


def test_without_a_base_the_result_holds_the_random_text_tower(tmp_path: Path) -> None:
    config = toy_config(general=False)
    model = make(config, seed=1)
    state = fit(model, "pairs", tmp_path / "a")
    assert same(state, fit(make(config, seed=2), "pairs", tmp_path / "b"))  # by the run's seed
    assert set(state) == set(model.clip.state_dict())
    loaded = make(config, seed=3)
    loaded.load("pairs", state)
    assert torch.equal(loaded.encode_texts(["a"]), model.encode_texts(["a"]))


def test_base_and_adapted_towers_have_equal_normalisation_statistics(tmp_path: Path) -> None:
    """The same images in the same order: equal weights give equal statistics, whatever the way."""
    clip = make(toy_config(adapted=False, pooling="mean"))
    found = fit(clip, "statistics", tmp_path / "clip")
    assert set(found) == set(statistics(clip.clip.visual))  # type: ignore[arg-type]
    radclip = make(toy_config(pairs_lr=1e-30, weight_decay=0))
    fit(radclip, "pairs", tmp_path / "radclip")
    for key, value in statistics(radclip.clip.visual).items():  # type: ignore[arg-type]
        assert torch.equal(found[key], value), key
    loaded = make(toy_config(adapted=False, pooling="mean"))
    loaded.load("statistics", found)
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(loaded.encode_images(images), clip.encode_images(images))


def test_slices_are_embedded_once_also_across_a_kill(tmp_path: Path) -> None:
    corpus = toy_corpus()
    model = make(toy_config())
    stage = model.stages(None)[-1]
    with pytest.raises(Killed):
        model.fit(stage, corpus, ToyRun(tmp_path, kill_after=1))
    model.fit(stage, corpus, ToyRun(tmp_path))
    assert isinstance(corpus.reader, ToyReader)
    assert sorted(corpus.reader.decoded) == sorted(
        s.id for s in corpus.samples if s.kind == "volume"
    )


def test_base_stage_trains_and_loads(tmp_path: Path) -> None:
    model = make(toy_config())
    stage = model.stages(None)[0]
    base = BaseClip(dict(stage.config))
    assert stage.weights == "clip", "a general CLIP of the user's may stand for it"
    assert base.stages(None) == (replace(stage, weights=""),)
    run = ToyRun(tmp_path)
    base.fit(stage, toy_corpus(volumes=0, name="scenes"), run)
    assert len(run.losses) == 3
    model.load("base", base.state("base"))
    for key, value in base.clip.state_dict().items():
        if "num_batches" not in key:
            assert torch.equal(value, model.clip.state_dict()[key]), key


def test_a_corpus_that_cannot_serve(tmp_path: Path) -> None:
    model = make(toy_config())
    pairs = model.stages(None)[1]
    with pytest.raises(DataError, match="0 image samples"):
        model.fit(pairs, toy_corpus(images=0), ToyRun(tmp_path))


# --- encoding ---------------------------------------------------------------------------------


def test_encoding() -> None:
    model = make(toy_config())
    slices = torch.rand(2, 5, 3, 32, 32)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], dtype=torch.bool)
    volumes = model.encode_volumes(slices, mask)
    assert volumes.shape == (2, 32)
    embeddings = model.encode_images(slices.flatten(0, 1)).view(2, 5, 32)
    torch.testing.assert_close(model.pool_slices(embeddings, mask), volumes, atol=1e-5, rtol=1e-4)
    slices[0, 3:] = float("nan")  # what stands in the padding is never seen
    torch.testing.assert_close(model.encode_volumes(slices, mask), volumes, atol=1e-5, rtol=1e-4)
    attention = model.slice_attention(embeddings, mask)
    torch.testing.assert_close(attention.sum(1), torch.ones(2))
    texts = model.encode_texts(["Lung CT, normal", "Lung CT, nodule"])
    torch.testing.assert_close(texts.norm(dim=1), torch.ones(2))
    assert not volumes.requires_grad
    with pytest.raises(ValueError, match="no attention"):
        make(toy_config(pooling="mean")).slice_attention(embeddings, mask)


@torch.no_grad()
def test_patches_are_the_image_towers_stages() -> None:
    images = torch.rand(2, 3, 32, 32)
    model = make(toy_config())
    maps = model.encode_patches(images)
    assert [tuple(m.shape) for m in maps] == [
        (2, 32, 8, 8), (2, 64, 4, 4), (2, 128, 2, 2), (2, 256, 1, 1)
    ]  # fmt: skip
    torch.testing.assert_close(model.clip.visual.attnpool(maps[-1]), model.encode_images(images))
    vit = make(toy_config(vision_layers=1, vision_width=64, vision_patch=8))
    assert [tuple(m.shape) for m in vit.encode_patches(images)] == [(2, 64, 4, 4)]


def test_prompts() -> None:
    from medbench.schemas.task import load_task
    from medbench_tasks import __file__ as tasks

    task = load_task(Path(tasks).parent / "covid-ct.toml")
    prompts = Radclip.class_prompts(None, task)  # type: ignore[arg-type]
    assert prompts[0] == ["Lung CT, normal"]
    assert len(prompts) == len(task.labels)


# --- a user's weights -------------------------------------------------------------------------


def test_given_weights_with_and_without_an_adapter(tmp_path: Path) -> None:
    giver = make(toy_config(), seed=1)
    clip = dict(giver.clip.state_dict())
    whole = clip | {f"slice_pooling.{k}": v for k, v in giver.pool.state_dict().items()}

    taker = make(toy_config(), seed=2)
    wrapped = {f"module.{k}": v for k, v in whole.items()}
    assert [s.name for s in taker.stages(wrapped)] == ["statistics"]
    taker.load("weights", wrapped)
    slices, mask = torch.rand(1, 4, 3, 32, 32), torch.ones(1, 4, dtype=torch.bool)
    assert torch.equal(taker.encode_volumes(slices, mask), giver.encode_volumes(slices, mask))

    taker = make(toy_config(), seed=2)
    taker.load("weights", clip)
    stage = taker.stages(clip)[-1]
    assert stage.name == "volumes"
    assert stage.config != make(toy_config()).stages(None)[-1].config  # it warns
    run = ToyRun(tmp_path)
    taker.fit(stage, toy_corpus(), run)
    assert len(run.warnings) == 1
    assert "no slice pooling adapter" in run.warnings[0]


def test_unfit_weights() -> None:
    model = make(toy_config())
    clip = dict(model.clip.state_dict())
    with pytest.raises(WeightsError, match=r"do not fit CLIP .* missing: visual\.conv1\.weight"):
        model.load("weights", {k: v for k, v in clip.items() if k != "visual.conv1.weight"})
    with pytest.raises(WeightsError, match=r"adapter .* missing: attention_layer"):
        model.load("weights", clip | {"adapter.positional_encoding": torch.zeros(6, 32)})
    for stage in ("pairs", "volumes", "base"):
        with pytest.raises(WeightsError, match="unexpected: other"):
            model.load(stage, {"other": torch.zeros(1)})


@pytest.mark.parametrize("stage", ["pairs", "volumes"])
def test_checkpoints_round_trip(stage: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    model = make(toy_config(), seed=1)
    state = fit(model, stage, tmp_path / "fit")
    save_file(state, tmp_path / "state.safetensors")
    other = make(toy_config(), seed=2)
    other.load(stage, load_file(tmp_path / "state.safetensors"))
    assert same(other.state(stage), state)

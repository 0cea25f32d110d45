"""open-clip as a whole: its spec, the base model of the phantoms, prompts, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from open_clip_toys import MODELS, list_in_open_clip, scramble, state_of, write_bert
from safetensors.torch import load_file, save_file

from medbench.data.samples import Corpus, Pixels, Sample
from medbench.errors import DataError, UsageError, WeightsError
from medbench.models.base_clip import BaseClipConfig, base_stage
from medbench.models.batchnorm import statistics
from medbench.models.presets import GENERAL_CLIP
from medbench.models.ranks import ALONE
from medbench.schemas.task import load_task
from medbench_open_clip import OPEN_CLIP
from medbench_open_clip.config import OpenClipConfig
from medbench_open_clip.model import OpenClip
from medbench_tasks import __file__ as tasks

SMALL: dict[str, Any] = {
    "embed_dim": 16, "image_size": 32, "vision_layers": (1, 1, 1, 1), "vision_width": 8,
    "text_layers": 1, "text_width": 32, "text_heads": 2, "context": 24, "quick_gelu": False,
    "statistics_images": 20,
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _toys(tmp_path_factory: pytest.TempPathFactory) -> None:
    list_in_open_clip(tmp_path_factory.mktemp("models"))


class Reader:
    """Noise whose brightness depends on the sample."""

    def samples(self) -> Sequence[Sample]:
        return ()

    def pixels(self, sample: Sample) -> Pixels:
        number = int(sample.id)
        noise = np.random.default_rng(number).random((32, 32), dtype=np.float32)
        return noise * (number % 5 + 1) / 5


class Run:
    """`medbench.FitRun`."""

    device, seed, folder, ranks = torch.device("cpu"), 0, Path(), ALONE

    def autocast(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def epochs(self, count: int, *parts: Any, title: str = "") -> Iterator[int]:
        yield from range(count)

    def advance(self, done: int, total: int, **figures: float) -> None:
        assert 0 < done <= total

    def warn(self, message: str) -> None:
        raise AssertionError(message)


def corpus(images: int = 24) -> Corpus:
    samples = [
        Sample(id=str(i), patient=None, files=(), text="x", kind="image") for i in range(images)
    ]
    return Corpus("image-text-pairs", samples, Reader(), "0" * 64, "phantom")


def base(seed: int = 0, **values: Any) -> OpenClip:
    torch.manual_seed(seed)
    config = {"model": "base", "base": {**SMALL, **values}}
    return OpenClip(OpenClipConfig.model_validate(config))


def published(**config: Any) -> OpenClip:
    return OpenClip(OpenClipConfig(**config))


def toy_weights(name: str) -> dict[str, torch.Tensor]:
    import open_clip

    return dict(scramble(open_clip.create_model(name)).state_dict())


# --- the spec ---------------------------------------------------------------------------------


def test_the_spec_imports_nothing_heavy() -> None:
    code = (
        "import sys, medbench_open_clip; "
        "heavy = {'torch', 'pydantic', 'open_clip', 'numpy', 'transformers'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def nested(values: Any) -> dict[str, Any]:
    """Values by dotted key -> nested."""
    found: dict[str, Any] = {"base": {}}
    for key, value in values.items():
        place, _, last = key.rpartition(".")
        (found[place] if place else found)[last] = value
    return found


def test_presets_take_the_shared_base_model_and_paper_takes_what_is_given() -> None:
    for preset in ("tiny", "small"):
        config = OpenClipConfig.model_validate(nested(OPEN_CLIP.presets[preset]))
        shared = BaseClipConfig.model_validate(GENERAL_CLIP[preset])
        assert base_stage(config.base) == base_stage(shared)
    paper = OpenClipConfig.model_validate(nested(OPEN_CLIP.presets["paper"]))
    # no value of ours decides a published model, so none is listed in its record
    assert paper.model_dump(mode="json") == {"model": "auto", "image_size": None, "base": None}


def test_configurations_that_cannot_be() -> None:
    for wrong in ({"modle": "x"}, {"model": "base", "image_size": 64}, {"model": ""}):
        with pytest.raises(ValueError, match=r"Extra inputs|base\.image_size|at least 1"):
            OpenClipConfig.model_validate(wrong)


# --- the base model of the phantoms -------------------------------------------------------------


def test_stages() -> None:
    model = base()
    stages = model.stages(None)
    assert [s.name for s in stages] == ["base", "statistics"]
    assert [s.corpus for s in stages] == ["scenes", "image-text-pairs"]
    assert stages[1].needs == ("base",)
    assert [s.name for s in model.stages({})] == ["statistics"]
    assert json.loads(json.dumps(dict(stages[1].config))) == dict(stages[1].config)
    # a transformer has no statistics
    vit = base(vision_layers=1, vision_width=64, vision_patch=8)
    assert [s.name for s in vit.stages(None)] == ["base"]


def test_statistics_alone_are_fitted_always_to_the_same_bits(tmp_path: Path) -> None:
    model = base()
    before = {k: v.clone() for k, v in model.network.state_dict().items()}
    model.fit(model.stages(None)[1], corpus(), Run())
    kept = model.state("statistics")
    after = model.network.state_dict()
    assert set(kept) == set(statistics(model.network.visual))  # type: ignore[arg-type]
    for key, value in before.items():
        changes = key.removeprefix("visual.") in kept
        assert torch.equal(value, after[key]) != changes, key
    again = base()
    again.fit(again.stages(None)[1], corpus(), Run())
    assert all(torch.equal(again.state("statistics")[key], kept[key]) for key in kept)
    save_file(kept, tmp_path / "a.safetensors")
    other = base()
    other.load("statistics", load_file(tmp_path / "a.safetensors"))
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(other.encode_images(images), model.encode_images(images))
    assert not torch.equal(base().encode_images(images), model.encode_images(images))


def test_the_base_checkpoint_and_a_users_clip_are_loaded() -> None:
    images, giver = torch.rand(2, 3, 32, 32), base(seed=1)
    for stage in ("base", "weights"):
        taker = base(seed=2)
        taker.load(stage, dict(giver.network.state_dict()))
        assert torch.equal(taker.encode_images(images), giver.encode_images(images))
        assert torch.equal(taker.encode_texts(["a"]), giver.encode_texts(["a"]))


def test_a_corpus_without_images_is_refused() -> None:
    model = base()
    with pytest.raises(DataError, match="0 image samples"):
        model.fit(model.stages(None)[1], corpus(0), Run())


# --- encoding ---------------------------------------------------------------------------------


def test_encoding() -> None:
    model = base()
    images = torch.rand(3, 3, 32, 32, requires_grad=True)
    features = model.encode_images(images)
    assert features.shape == (3, 16)
    features.sum().backward()
    assert images.grad is not None, "for fine-tuning"
    assert images.grad.abs().sum() > 0
    maps = model.encode_patches(images)
    assert [m.shape[-1] for m in maps] == [8, 4, 2, 1]
    texts = model.encode_texts(["Lung CT, normal", "Lung CT, nodule", "x"])
    torch.testing.assert_close(texts.norm(dim=1), torch.ones(3))
    one_by_one = torch.cat([model.encode_texts([t]) for t in ("Lung CT, normal", "x")])
    torch.testing.assert_close(texts[[0, 2]], one_by_one)
    assert model.temperature == pytest.approx(0.07, rel=1e-5)
    assert model.parameter_counts()["trainable"] == 0


def test_prompts() -> None:
    task = load_task(Path(tasks).parent / "covid-ct.toml")
    prompts = base().class_prompts(task)
    assert prompts[0] == ["Lung CT, normal"]
    assert len(prompts) == len(task.labels)


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("ViT-B-32-quickgel", "ViT-B-32-quickgelu"),
        ("coca-ViT-B-32", "coca_ViT-B-32"),
        ("pmcclip", "pmc-clip"),
        ("hf-hub:laion/CLIP-ViT-B-32", "ViT-B-32"),  # nothing is downloaded
    ],
)
def test_an_unknown_name_and_the_nearest(name: str, near: str) -> None:
    with pytest.raises(UsageError, match=f"There is no open_clip model called.*{near}"):
        published(model=name)


def test_a_slash_in_a_name_is_a_hyphen() -> None:
    assert published(model="ViT-B/32").image_size == 224


def test_another_size_than_the_named_models() -> None:
    with pytest.raises(UsageError, match="'ViT-B-32-256' sees images of 256 pixels"):
        published(model="ViT-B-32-256", image_size=224)


def test_a_published_model_without_weights() -> None:
    for config in ({"model": "ViT-B-32"}, {"model": "auto"}):
        model = published(**config)
        with pytest.raises(WeightsError, match=r"needs published weights.*--weights open-clip="):
            model.stages(None)
        with pytest.raises(WeightsError, match="needs published weights"):
            model.encode_texts(["x"])


def test_weights_that_do_not_fit_are_named() -> None:
    weights = toy_weights("toy-coca")
    with pytest.raises(WeightsError, match=r"do not fit toy-vit .* unexpected: cls_emb, text_deco"):
        published(model="toy-vit").load("weights", weights)
    del weights["visual.conv1.weight"]
    with pytest.raises(WeightsError, match=r"do not fit toy-coca .*1 missing: visual\.conv1\.w"):
        published(model="toy-coca").load("weights", weights)
    with pytest.raises(WeightsError, match=r"of another shape: visual\.proj \(3, 3\)"):
        published(model="toy-vit").load(
            "weights", toy_weights("toy-vit") | {"visual.proj": torch.zeros(3, 3)}
        )


def test_weights_that_do_not_say_what_they_are() -> None:
    with pytest.raises(WeightsError, match=r"--set model=NAME \(.*toy-vit, toy-vit-quickgelu"):
        published().load("weights", toy_weights("toy-vit"))
    with pytest.raises(WeightsError, match=r"--set model=NAME\. OpenAI"):
        published().load("weights", {"a": torch.zeros(1)})


def beside(folder: Path, **files: Any) -> dict[str, torch.Tensor]:
    """A state of nothing but files."""
    save_file({"a": torch.zeros(1)}, folder / "model.safetensors")
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / f"{name}.json").write_text(text, encoding="utf-8")
    return dict(state_of(folder))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"open_clip_config": "{"}, r"open_clip_config\.json beside the weights is not JSON"),
        ({"open_clip_config": [1]}, "holds no JSON object"),
        ({"open_clip_config": {"model_cfg": {"embed_dim": 3}}}, "has no model_cfg with embed_dim"),
        ({"config": {"model_type": "siglip"}}, "of type 'siglip', not 'clip'"),
        ({"config": {"model_type": "clip", "text_config": {"vocab_size": 99}}}, "and 99 tokens"),
        (
            {"open_clip_config": {"embed_dim": 3, "vision_cfg": {"depth": 3}, "text_cfg": {}}},
            "open_clip cannot build the model of open_clip_config.*depth",
        ),
        (
            {
                "open_clip_config": {
                    "embed_dim": 3,
                    "vision_cfg": {"timm_model_name": "hf-hub:someone/something"},
                    "text_cfg": {},
                }
            },
            "timm has no image tower 'hf-hub:someone/something'",
        ),
        (
            {
                "open_clip_config": {
                    "embed_dim": 3,
                    "vision_cfg": {},
                    "text_cfg": {"hf_model_name": "someone/something"},
                }
            },
            r"text tower is 'someone/something', whose config\.json is not beside",
        ),
    ],
)
def test_configurations_beside_the_weights(
    files: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match=message):
        published().load("weights", beside(tmp_path, **files))


def test_a_size_that_the_harness_was_not_told(tmp_path: Path) -> None:
    state = beside(tmp_path, open_clip_config=MODELS["toy-vit"])
    with pytest.raises(UsageError, match="Add --set image_size=32"):
        published().load("weights", state)
    wide = {**MODELS["toy-vit"], "vision_cfg": {"image_size": [32, 64]}}
    with pytest.raises(UsageError, match="not square"):
        published().load("weights", beside(tmp_path, open_clip_config=wide))


def test_images_are_encoded_without_the_tokenizer_and_texts_are_not(tmp_path: Path) -> None:
    import open_clip

    write_bert(tmp_path)
    config = MODELS["toy-biomedclip"]
    text = {**config["text_cfg"], "hf_model_name": str(tmp_path), "hf_model_pretrained": False}
    network = open_clip.CustomTextCLIP(24, config["vision_cfg"], text)
    save_file(dict(network.state_dict()), tmp_path / "model.safetensors")
    (tmp_path / "tokenizer.json").unlink()
    model = published(model="toy-biomedclip")
    model.load("weights", state_of(tmp_path))
    assert model.encode_images(torch.rand(1, 3, 160, 160)).shape == (1, 24)
    with pytest.raises(WeightsError, match=r"need the tokenizer of 'microsoft/.*tokenizer\.json"):
        model.encode_texts(["x"])


def test_no_code_beside_the_weights_is_run(tmp_path: Path) -> None:
    """``auto_map`` names classes of a file that transformers would import, or fetch."""
    from medbench_open_clip.architecture import Architecture, build, tokenizer

    write_bert(tmp_path)
    ran = tmp_path / "ran"
    (tmp_path / "evil.py").write_text(f"open({str(ran)!r}, 'w')\n", encoding="utf-8")
    for name, classes in (
        ("config.json", {"AutoConfig": "evil.C", "AutoModel": "evil.M"}),
        ("tokenizer_config.json", {"AutoTokenizer": ["evil.T", "evil.T"]}),
    ):
        content = json.loads((tmp_path / name).read_text(encoding="utf-8"))
        content["auto_map"] = classes
        (tmp_path / name).write_text(json.dumps(content), encoding="utf-8")
    config = MODELS["toy-biomedclip"]
    text = {**config["text_cfg"], "tokenizer_kwargs": {"trust_remote_code": True}}
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    toy = Architecture("toy", {**config, "text_cfg": text})
    tokens = tokenizer(toy, files)(["chest x-ray"])
    assert build(toy, files).text(tokens).shape == (1, 24)  # type: ignore[operator]
    assert not ran.exists()

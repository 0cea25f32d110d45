"""Adaptor on the published encoders: sizes as in the paper, and small ones of the same classes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from adaptor_toys import FINDINGS, toy_config, toy_corpus

from medbench.errors import UsageError, WeightsError
from medbench.models import backbones, clip
from medbench.models.backbones import Bert, Dinov2
from medbench.models.contrastive import seeded
from medbench.plugins import discover
from medbench.run.request import Request
from medbench.run.resolve import resolve
from medbench_adaptor import ADAPTOR
from medbench_adaptor.config import AdaptorConfig
from medbench_adaptor.model import AdaptorModel
from toy_run import ToyRun

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "there",
    "is",
    "seen",
    "no",
    "finding",
    "edema",
]


@pytest.mark.parametrize(
    ("vision", "total", "trainable"),
    [("dinov2-b", 208.3, 12.21), ("dinov2-s", 143.5, 11.91), ("resnet-ae", None, 12.01)],
)
def test_parameters_are_the_papers(vision: str, total: float | None, trainable: float) -> None:
    """Table 2 gives 208.3 M and 12.2 M for DINOv2-B with BERT; table 3 the other two numbers."""
    with torch.device("meta"):
        model = AdaptorModel(AdaptorConfig(vision=vision))
    counts = model.parameter_counts()
    assert round(counts["trainable"] / 1e6, 2) == trainable
    if total is not None:
        assert round(counts["total"] / 1e6, 1) == total
    assert model.image_size == 224


@pytest.mark.parametrize("text", backbones.TEXT)
def test_each_of_the_papers_text_encoders_can_be_named(text: str) -> None:
    with torch.device("meta"):
        model = AdaptorModel(AdaptorConfig(vision="dinov2-s", text=text))
    assert model.text is not None
    assert model.text.dim == 768
    assert round(model.parameter_counts()["trainable"] / 1e6, 2) == 11.91
    assert [s.weights for s in model.stages(None)] == ["vision", "text", ""]
    assert model.stages(None)[1].config == {"encoder": text}


def test_other_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"'dinov2-c'.*dinov2-b.*open-clip:ViT-B-16"):
        AdaptorModel(AdaptorConfig(vision="dinov2-c"))
    with torch.device("meta"), pytest.raises(UsageError, match="biobert"):
        AdaptorModel(AdaptorConfig(vision="dinov2-s", text="bio-bert"))
    with pytest.raises(UsageError, match="'gpt' has no stand-in"):
        AdaptorModel(toy_config(text="gpt"))


def small_vision(_: str) -> Dinov2:
    return Dinov2(16, 1, 2, image_size=28, trained_size=42)


def small_text(_: str) -> Bert:
    sizes = {
        "hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 24, "max_position_embeddings": 16,
    }  # fmt: skip
    return Bert(len(WORDS), context=16, **sizes)


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> AdaptorConfig:
    monkeypatch.setattr(backbones, "build_vision", small_vision)
    monkeypatch.setattr(backbones, "build_text", small_text)
    return toy_config(encoders="published")


def given(seed: int) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """What ``read_weights`` gives of a vision file, and of a text folder with its vocabulary."""
    with seeded(seed):
        vision, text = small_vision("").model.state_dict(), small_text("").model.state_dict()
    vocabulary = torch.tensor(list("\n".join(WORDS).encode()), dtype=torch.uint8)
    return dict(vision), dict(text) | {"vocab.txt": vocabulary}


def test_given_encoders_are_used_as_they_are(published: AdaptorConfig, tmp_path: Path) -> None:
    model = AdaptorModel(published)
    vision, text = given(1)
    model.load("vision", vision)
    model.load("text", text)
    stage = model.stages(None)[-1]
    model.fit(stage, toy_corpus(), ToyRun(tmp_path))
    with torch.no_grad():
        assert model.encode_texts(FINDINGS).shape == (4, 16)
        images = torch.rand(2, 3, 28, 28)
        assert model.encode_images(images).shape == (2, 16)
        assert [tuple(m.shape) for m in model.encode_patches(images)] == [(2, 16, 2, 2)]
    kept = model.vision.model.state_dict()  # type: ignore[union-attr]
    assert all(torch.equal(kept[name], value) for name, value in vision.items())
    other = AdaptorModel(published)
    vision, text = given(2)
    other.load("vision", vision)
    other.load("text", text)
    other.load("adaptor", model.state("adaptor"))
    with torch.no_grad():
        assert not torch.allclose(other.encode_images(images), model.encode_images(images))


def test_files_beside_the_weights_serve_the_text_encoder_alone(published: AdaptorConfig) -> None:
    assert ADAPTOR.weight_files == backbones.TEXT_FILES
    model = AdaptorModel(published)
    vision, text = given(1)
    files = {name: text["vocab.txt"] for name in backbones.TEXT_FILES if name != "tokenizer.json"}
    model.load("vision", vision | files)
    model.load("text", text | files)
    model.load("weights", model.state("adaptor") | files)


def test_a_text_encoder_without_its_tokenizer_is_refused(published: AdaptorConfig) -> None:
    model = AdaptorModel(published)
    _, text = given(1)
    del text["vocab.txt"]
    with pytest.raises(WeightsError, match="no tokenizer beside the weights"):
        model.load("text", text)


# --- encoders that the paper does not name ----------------------------------------------------


def test_any_open_clip_tower_serves_as_image_encoder() -> None:
    import open_clip

    from medbench_adaptor.other_vision import OpenClipTower

    with seeded(0):
        whole = open_clip.create_model("RN50", pretrained=None, load_weights=False).eval()
        tower = OpenClipTower("RN50")
    assert (tower.dim, tower.image_size) == (1024, 224)
    tower.load(whole.state_dict())
    assert not any(p.requires_grad for p in tower.parameters())
    images = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        wanted = whole.visual(clip.normalise(images))
        torch.testing.assert_close(tower(images), wanted, atol=1e-5, rtol=1e-4)
        assert [m.shape[1] for m in tower.maps(images)] == [256, 512, 1024, 2048]
    with pytest.raises(WeightsError, match=r"image tower .* missing"):
        tower.load({k: v for k, v in whole.state_dict().items() if "layer3" not in k})
    with pytest.raises(UsageError, match="Did you mean 'ViT-B-16'"):
        OpenClipTower("ViT-B-16x")


def test_torchxrayvisions_classifier_serves_as_image_encoder() -> None:
    from torchxrayvision.models import DenseNet

    from medbench_adaptor.other_vision import XrayDenseNet

    with seeded(0):
        whole = DenseNet(weights=None).eval()
        encoder = XrayDenseNet()
    encoder.load(whole.state_dict())
    images = torch.rand(1, 1, 224, 224).expand(1, 3, 224, 224)
    with torch.no_grad():
        wanted = whole.features2(images[:, :1] * 2048 - 1024)
        torch.testing.assert_close(encoder(images), wanted, atol=1e-4, rtol=1e-4)
        assert [tuple(m.shape) for m in encoder.maps(images)] == [(1, 1024, 7, 7)]
    with pytest.raises(WeightsError, match=r"DenseNet .* unexpected: other"):
        encoder.load({**whole.state_dict(), "other": torch.zeros(1)})


def test_any_bert_by_the_config_beside_its_weights(published: AdaptorConfig) -> None:
    model = AdaptorModel(published.model_copy(update={"text": "transformers:bert"}))
    sizes = {
        "model_type": "bert", "vocab_size": len(WORDS), "hidden_size": 20,
        "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24,
        "max_position_embeddings": 16, "type_vocab_size": 2,
    }  # fmt: skip
    names = {k: v for k, v in sizes.items() if k not in ("model_type", "vocab_size")}
    _, folder = given(1)
    state = dict(Bert(len(WORDS), context=16, **names).model.state_dict())
    config = torch.tensor(list(json.dumps(sizes).encode()), dtype=torch.uint8)
    model.load("text", state | {"vocab.txt": folder["vocab.txt"], "config.json": config})
    assert model.text is not None
    assert model.text.dim == 20
    assert model.encode_texts(FINDINGS).shape == (4, 16)


def test_the_control_is_not_asked_for_what_it_lacks() -> None:
    request = Request(
        models=("adaptor", "adaptor@no-adaptor"),
        tasks=("iu-xray-retrieval",),
        device="cpu",
        preset="tiny",
    )
    found = resolve(request, discover())
    assert [cell.model_id for cell in found.cells] == ["adaptor"]
    (skip,) = found.skipped
    assert skip.model == "adaptor@no-adaptor"
    assert skip.reason.endswith(
        "needs encode_images and encode_texts, which the variant does not have"
    )

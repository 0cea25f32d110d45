"""Published layouts: each read back gives what the library that wrote it gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from open_clip_toys import MODELS, TEXTS, list_in_open_clip, scramble, state_of, write_bert
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F
from torchvision.transforms import Normalize

from medbench.models.clip import MEAN, STD
from medbench_open_clip import architecture
from medbench_open_clip.config import OpenClipConfig
from medbench_open_clip.model import OpenClip

Features = tuple[torch.Tensor, torch.Tensor]


@pytest.fixture(scope="module", autouse=True)
def _toys(tmp_path_factory: pytest.TempPathFactory) -> None:
    list_in_open_clip(tmp_path_factory.mktemp("models"))


def library(name: str) -> Any:
    """open_clip's own network of a name, scrambled."""
    import open_clip

    return scramble(open_clip.create_model(name))


def save(network: nn.Module, path: Path, **more: torch.Tensor) -> None:
    path.parent.mkdir(exist_ok=True)
    save_file({k: v.contiguous() for k, v in network.state_dict().items()} | more, path)


def pictures(size: int) -> torch.Tensor:
    return torch.rand(3, 3, size, size, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def theirs(network: Any, tokens: Any, size: int, mean: Any = MEAN, std: Any = STD) -> Features:
    """What the library gives, after torchvision's normalisation: images, and texts of length 1."""
    images = network.encode_image(Normalize(mean, std)(pictures(size)), normalize=False)
    return images, F.normalize(network.encode_text(tokens, normalize=False), dim=-1)


@torch.no_grad()
def ours(model: OpenClip) -> Features:
    return model.encode_images(pictures(model.image_size)), model.encode_texts(TEXTS)


def loaded(path: Path, **config: Any) -> OpenClip:
    model = OpenClip(OpenClipConfig(**config))
    state = state_of(path)
    model.load("weights", state)
    assert model.stages(state) == ()
    return model


def same(one: Features, two: Features) -> None:
    for a, b in zip(one, two, strict=True):
        assert a.std() > 1e-3, "all alike: nothing is compared"
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "name", ["toy-vit", "toy-vit-quickgelu", "toy-resnet", "toy-coca", "toy-bias"]
)
def test_open_clips_own_weights_under_their_name(name: str, tmp_path: Path) -> None:
    import open_clip

    network = library(name)
    save(network, tmp_path / "a.safetensors")
    model = loaded(tmp_path / "a.safetensors", model=name)
    tokens = open_clip.get_tokenizer(name)(TEXTS)
    same(ours(model), theirs(network, tokens, model.image_size))
    assert model.temperature == pytest.approx(float(torch.exp(-network.logit_scale.detach())))
    assert model.parameter_counts()["total"] == sum(p.numel() for p in network.parameters())


def test_the_activation_is_part_of_the_name(tmp_path: Path) -> None:
    save(library("toy-vit"), tmp_path / "a.safetensors")
    found = [loaded(tmp_path / "a.safetensors", model=n) for n in ("toy-vit", "toy-vit-quickgelu")]
    assert not torch.allclose(ours(found[0])[0], ours(found[1])[0], atol=1e-4)


@torch.no_grad()
def test_openais_layout_in_half_precision_with_its_sizes(tmp_path: Path) -> None:
    import open_clip

    network = library("toy-vit-quickgelu").half().float()  # values that half precision holds
    sizes = {"input_resolution": 32, "context_length": 20, "vocab_size": 49408}
    torch.save(
        {k: v.half() for k, v in network.state_dict().items()}
        | {k: torch.tensor(v) for k, v in sizes.items()},
        tmp_path / "a.pt",
    )
    model = loaded(tmp_path / "a.pt", model="toy-vit-quickgelu")
    same(ours(model), theirs(network, open_clip.get_tokenizer("toy-vit")(TEXTS), 32))


def test_the_text_tower_may_be_a_module_of_its_own_or_not(tmp_path: Path) -> None:
    import open_clip

    network = scramble(open_clip.create_model("toy-vit", force_custom_text=True))
    save(network, tmp_path / "custom.safetensors")
    model = loaded(tmp_path / "custom.safetensors", model="toy-vit")
    same(ours(model), theirs(network, open_clip.get_tokenizer("toy-vit")(TEXTS), 32))
    plain = {k.removeprefix("text."): v for k, v in library("toy-bias").state_dict().items()}
    save_file(plain, tmp_path / "plain.safetensors")
    again = loaded(tmp_path / "plain.safetensors", model="toy-bias")
    same(ours(again), theirs(library("toy-bias"), open_clip.get_tokenizer("toy-vit")(TEXTS), 160))


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@torch.no_grad()
def test_a_folder_of_transformers(activation: str, tmp_path: Path) -> None:
    from transformers import CLIPConfig, CLIPModel

    from medbench.models.tokenizer import tokenize

    tower = {"num_hidden_layers": 2, "hidden_act": activation, "layer_norm_eps": 1e-3}
    config = CLIPConfig(
        projection_dim=24,
        vision_config={
            "hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4,
            "image_size": 32, "patch_size": 8, **tower,
        },
        text_config={
            "hidden_size": 32, "intermediate_size": 80, "num_attention_heads": 2,
            "max_position_embeddings": 20, "vocab_size": 49408, **tower,
        },
    )  # fmt: skip
    network: Any = scramble(CLIPModel(config))
    network.save_pretrained(tmp_path / "clip")
    mean, std = [0.4, 0.5, 0.6], [0.2, 0.3, 0.4]
    (tmp_path / "clip" / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": mean, "image_std": std}), encoding="utf-8"
    )
    model = loaded(tmp_path / "clip", image_size=32)
    pixels = Normalize(mean, std)(pictures(32))
    images = network.visual_projection(network.vision_model(pixel_values=pixels).pooler_output)
    text = network.text_model(input_ids=tokenize(TEXTS, 20)).pooler_output
    same(ours(model), (images, F.normalize(network.text_projection(text), dim=-1)))


@pytest.mark.parametrize("file", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
def test_a_folder_of_open_clip_with_a_bert_of_hugging_face(file: str, tmp_path: Path) -> None:
    """As BiomedCLIP is published: a timm image tower, a BERT, its tokenizer, own statistics."""
    from open_clip import CustomTextCLIP
    from open_clip.tokenizer import HFTokenizer

    folder = tmp_path / "biomed"
    write_bert(folder)
    config = MODELS["toy-biomedclip"]
    text = {**config["text_cfg"], "hf_model_name": str(folder), "hf_model_pretrained": False}
    network: Any = scramble(CustomTextCLIP(24, config["vision_cfg"], text))
    mean, std = [0.5, 0.4, 0.3], [0.3, 0.2, 0.1]
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": config, "preprocess_cfg": {"mean": mean, "std": std}})
    )
    if file.endswith(".bin"):
        torch.save(network.state_dict(), folder / file)
    else:
        save(network, folder / file)
    model = loaded(folder, image_size=160)
    tokens = HFTokenizer(str(folder), context_length=24)(TEXTS)
    same(ours(model), theirs(network, tokens, 160, mean, std))
    maps = model.encode_patches(pictures(160))
    assert [tuple(m.shape) for m in maps] == [(3, 64, 10, 10)]


@torch.no_grad()
def test_pmc_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own names of tensors; words attend to padding, as in its code."""
    import open_clip
    from open_clip.tokenizer import HFTokenizer
    from transformers import AutoConfig, AutoModel

    write_bert(tmp_path)
    small = {
        **architecture._PMC_CLIP,
        "embed_dim": 32,  # as wide as its BERT, and still projected
        "vision_cfg": {"image_size": 224, "layers": [1, 1, 1, 1], "width": 8},
        "text_cfg": {**architecture._PMC_CLIP["text_cfg"], "context_length": 24},
    }
    monkeypatch.setattr(architecture, "_PMC_CLIP", small)
    bert: Any = scramble(AutoModel.from_config(AutoConfig.from_pretrained(tmp_path)))
    tower: Any = scramble(
        open_clip.CLIP(32, {**small["vision_cfg"]}, MODELS["toy-vit"]["text_cfg"]).visual
    )
    projection = torch.randn(32, 32, generator=torch.Generator().manual_seed(5))
    state = {f"visual.{k}": v for k, v in tower.state_dict().items()}
    state |= {f"text_encoder.{k}": v for k, v in bert.state_dict().items()}
    state |= {
        "text_projection": projection,
        "logit_scale": torch.tensor(4.0),
        "img_special_token": torch.zeros(1, 1, 32),
        "positional_embedding": torch.zeros(24, 32),
        "ln_final.weight": torch.ones(32),
        "mlm_projection": torch.zeros(32, 18),
        "fusion_module.resblocks.0.ln_1.weight": torch.ones(32),
    }
    wrapped = {"state_dict": {f"module.{k}": v for k, v in state.items()}}
    torch.save(wrapped, tmp_path / "pytorch_model.bin")
    model = loaded(tmp_path, model="pmc-clip")
    tokens = HFTokenizer(str(tmp_path), context_length=24)(TEXTS)
    text = bert(input_ids=tokens, attention_mask=torch.ones_like(tokens)).last_hidden_state[:, 0]
    images = tower(Normalize(MEAN, STD)(pictures(224)))
    same(ours(model), (images, F.normalize(text @ projection, dim=-1)))


@pytest.mark.parametrize(
    ("name", "total"),
    [
        ("ViT-B-32-quickgelu", 151_277_313),  # openai/clip-vit-base-patch32
        ("ViT-L-14-quickgelu", 427_616_513),  # openai/clip-vit-large-patch14
    ],
)
def test_published_parameter_counts(name: str, total: int) -> None:
    with torch.device("meta"):
        network = architecture.build(architecture.named(name), {})
    assert sum(p.numel() for p in network.parameters()) == total


def test_biomedclip_is_built_without_the_text_towers_configuration() -> None:
    """BERT-base is known; 195.9 M parameters."""
    config = {
        "embed_dim": 512,
        "vision_cfg": {
            "timm_model_name": "vit_base_patch16_224", "timm_model_pretrained": True,
            "timm_pool": "", "timm_proj": "linear", "image_size": 224,
        },
        "text_cfg": {**MODELS["toy-biomedclip"]["text_cfg"], "context_length": 256},
    }  # fmt: skip
    with torch.device("meta"):
        network = architecture.build(architecture.Architecture("BiomedCLIP", config), {})
    tower, bert, head = 85_798_656 + 768 * 512, 108_891_648, 768 * 640 + 640 * 512
    assert sum(p.numel() for p in network.parameters()) == tower + bert + head + 1 == 195_902_721


def test_siglip_has_the_statistics_of_its_weights() -> None:
    assert architecture.named("ViT-B-16-SigLIP").mean == (0.5, 0.5, 0.5)
    assert architecture.named("ViT-B-32").mean == MEAN

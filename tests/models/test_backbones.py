"""Published encoders: their sizes, and every layout of their checkpoints read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from medbench.errors import WeightsError
from medbench.models.backbones import (
    TEXT,
    TEXT_FILES,
    Bert,
    Dinov2,
    ResNetAE,
    build_text,
    build_vision,
    text_of,
)
from medbench.models.clip import count
from medbench.models.contrastive import seeded
from medbench.models.weights import read_weights, sha256

State = dict[str, torch.Tensor]
VOCABULARY = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "no", "effusion", "##s", "Left", "left")
SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 32,
}


def random_state(module: torch.nn.Module, seed: int = 0) -> State:
    """Its tensors, every floating one drawn anew, so that an overlooked one shows."""
    generator = torch.Generator().manual_seed(seed)
    return {
        k: torch.randn(v.shape, generator=generator) * 0.5 if v.is_floating_point() else v
        for k, v in module.state_dict().items()
    }


# --- sizes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "dim", "parameters"),
    [("dinov2-s", 384, 22_056_576), ("dinov2-b", 768, 86_580_480), ("resnet-ae", 512, 28_680_128)],
)
def test_published_vision_backbones_have_their_sizes(name: str, dim: int, parameters: int) -> None:
    with torch.device("meta"):
        encoder = build_vision(name)
    assert (encoder.dim, encoder.image_size) == (dim, 224)
    assert count(encoder.parameters()) == parameters
    assert not encoder.training
    images = torch.zeros(2, 3, 224, 224, device="meta")
    assert encoder(images).shape == (2, dim)
    maps = [tuple(m.shape[1:]) for m in encoder.maps(images)]
    if name == "resnet-ae":
        assert maps == [(64, 112, 112), (256, 56, 56), (512, 28, 28), (1024, 14, 14), (512, 3, 3)]
    else:
        assert maps == [(dim, 16, 16)]


@pytest.mark.parametrize("name", TEXT)
def test_published_text_backbones_have_the_size_of_bert_base(name: str) -> None:
    with torch.device("meta"):
        encoder = build_text(name)
    words = 28996 if name == "biobert" else 30522
    assert encoder.dim == 768
    assert count(encoder.parameters()) == 109_482_240 - (30522 - words) * 768


def test_unknown_names_and_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'dinov3'; there are dinov2-s"):
        build_vision("dinov3")
    with pytest.raises(ValueError, match=r"'gpt'; there are bert"):
        build_text("gpt")
    for name in ("dinov2-s", "resnet-ae"):
        with pytest.raises(ValueError, match="image_size 100"), torch.device("meta"):
            build_vision(name, image_size=100)


# --- DINOv2 -------------------------------------------------------------------------------------


def small_dinov2() -> Dinov2:
    return Dinov2(16, 2, 2, image_size=28, trained_size=70).eval()


def hub_layout(state: State) -> State:
    """The released code's names for what ``Dinov2Model`` holds."""
    result: State = {}
    names = {
        "embeddings.cls_token": "cls_token",
        "embeddings.mask_token": "mask_token",
        "embeddings.position_embeddings": "pos_embed",
        "embeddings.patch_embeddings.projection": "patch_embed.proj",
        "layernorm": "norm",
        "encoder.layer": "blocks",
        "attention.o_proj": "attn.proj",
        "layer_scale1.lambda1": "ls1.gamma",
        "layer_scale2.lambda1": "ls2.gamma",
    }
    for key, value in state.items():
        if "q_proj" in key:
            thirds = [state[key.replace("q_proj", f"{letter}_proj")] for letter in "qkv"]
            name = key.replace("attention.q_proj", "attn.qkv").replace("encoder.layer", "blocks")
            result[name] = torch.cat(thirds)
        elif "k_proj" not in key and "v_proj" not in key:
            for one, other in names.items():
                key = key.replace(one, other)
            result[key] = value
    return result


def test_each_layout_of_dinov2_gives_the_same_outputs(tmp_path: Path) -> None:
    source = small_dinov2()
    source.load(random_state(source.model))
    images = torch.rand(2, 3, 28, 28)
    source.model.save_pretrained(tmp_path / "hf")
    torch.save(hub_layout(source.model.state_dict()), tmp_path / "hub.pth")
    torch.save({"model": hub_layout(source.model.state_dict())}, tmp_path / "wrapped.pth")
    for name in ("hf", "hub.pth", "wrapped.pth"):
        read = small_dinov2()
        assert not torch.allclose(read(images), source(images), atol=1e-2)
        read.load(read_weights(tmp_path / name))
        assert torch.equal(read(images), source(images)), name
        assert torch.equal(read.maps(images)[0], source.maps(images)[0]), name
        assert not any(p.requires_grad for p in read.train().parameters())
        assert not read.training


@torch.no_grad()
def test_dinov2_is_transformers_where_no_position_is_resampled() -> None:
    encoder = Dinov2(16, 2, 2, image_size=28, trained_size=28)
    encoder.load(random_state(encoder.model))
    images = torch.rand(2, 3, 28, 28)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    output = encoder.model((images - mean.view(3, 1, 1)) / std.view(3, 1, 1)).last_hidden_state
    assert torch.allclose(encoder(images), output[:, 0], atol=1e-6)
    assert torch.allclose(encoder.maps(images)[0][:, :, 0, 1], output[:, 2], atol=1e-6)
    assert torch.allclose(encoder.maps(images)[0][:, :, 1, 0], output[:, 3], atol=1e-6)


def test_other_image_sizes_resample_positions() -> None:
    encoder = Dinov2(16, 1, 2, image_size=112, trained_size=70)
    assert encoder.maps(torch.rand(1, 3, 112, 112))[0].shape == (1, 16, 8, 8)
    # a constant grid stays constant under any resampling
    with torch.no_grad():
        encoder.model.embeddings.position_embeddings.fill_(0.5)
    flat = encoder.tokens(torch.zeros(1, 3, 112, 112))
    assert torch.allclose(flat[0, 1:], flat[0, 1].expand(64, -1), atol=1e-5)


def test_dinov2_names_keys_that_do_not_fit() -> None:
    encoder = small_dinov2()
    state = hub_layout(encoder.model.state_dict())
    before = encoder(torch.ones(1, 3, 28, 28))
    state["extra"] = state.pop("blocks.1.attn.qkv.weight")
    with pytest.raises(WeightsError, match=r"attention\.k_proj\.weight.*1 unexpected: extra"):
        encoder.load(state)
    assert torch.equal(encoder(torch.ones(1, 3, 28, 28)), before)  # not half loaded


# --- ResNetAE -----------------------------------------------------------------------------------


def test_torchxrayvisions_autoencoder_is_read_whole(tmp_path: Path) -> None:
    from torchxrayvision.autoencoders import ResNetAE101

    with seeded(0):
        whole: Any = ResNetAE101().eval()
    torch.save(whole.state_dict(), tmp_path / "ae.pt")
    encoder = ResNetAE()
    encoder.load(read_weights(tmp_path / "ae.pt"))
    images = torch.rand(1, 3, 96, 96)
    with torch.no_grad():
        code = whole.encode(images.mean(dim=1, keepdim=True) * 2048 - 1024)
    assert torch.equal(encoder.maps(images)[-1], code)
    assert torch.equal(encoder(images), code.mean(dim=(2, 3)))
    assert "ResNetAE" in repr(encoder)
    state = {k: v for k, v in whole.state_dict().items() if not k.endswith("tracked")}
    encoder.load(state)  # an old file without counters
    del state["layer4.1.conv3.weight"]
    with pytest.raises(WeightsError, match=r"1 missing: layer4\.1\.conv3\.weight"):
        encoder.load(state)


# --- BERT ---------------------------------------------------------------------------------------


def small_bert(**values: Any) -> Bert:
    return Bert(len(VOCABULARY), context=32, **{**SIZES, **values}).eval()


def folder(path: Path, *, pooler: bool = True, head: bool = False) -> Bert:
    """A folder of a small BERT, as save_pretrained writes it, and that BERT."""
    from transformers import BertForMaskedLM

    source = small_bert()
    source.model.load_state_dict(random_state(source.model))
    if head:
        masked: Any = BertForMaskedLM(source.model.config)
        masked.bert.load_state_dict(source.model.state_dict(), strict=False)
        masked.save_pretrained(path)
    else:
        source.model.save_pretrained(path)
    (path / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    source.load(dict(source.model.state_dict()) | _files(path))
    return source


def _files(path: Path) -> State:
    content = bytearray((path / "vocab.txt").read_bytes())
    return {"vocab.txt": torch.frombuffer(content, dtype=torch.uint8)}


TEXTS = ["no effusions", "left", "no left effusion no left effusion", ""]


@torch.no_grad()
def test_a_folder_of_bert_gives_the_same_outputs_with_its_tokenizer(tmp_path: Path) -> None:
    source = folder(tmp_path)
    state = read_weights(tmp_path, files=TEXT_FILES)
    read = small_bert()
    with pytest.raises(WeightsError, match="no tokenizer yet"):
        read(TEXTS)
    read.load(state)
    vectors = read.train()(TEXTS)
    assert vectors.shape == (4, 16)
    assert torch.equal(vectors, source(TEXTS))
    ids = torch.tensor([[2, 5, 6, 7, 3]])  # [CLS] no effusion ##s [SEP]
    assert torch.allclose(vectors[:1], source.model(input_ids=ids).pooler_output, atol=1e-6)
    for row, text in enumerate(TEXTS):  # padding changes nothing
        assert torch.allclose(read([text])[0], vectors[row], atol=1e-6)
    assert torch.equal(text_of(state)(TEXTS), vectors)
    assert not any(p.requires_grad for p in read.parameters())
    assert read([]).shape == (0, 16)


@torch.no_grad()
def test_old_names_heads_and_wrappers_are_understood(tmp_path: Path) -> None:
    source = folder(tmp_path)
    old = {
        f"module.bert.{k}".replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"): v
        for k, v in source.model.state_dict().items()
    }
    old["module.cls.predictions.bias"] = torch.ones(len(VOCABULARY))
    old["module.bert.embeddings.position_ids"] = torch.arange(32)[None]
    read = small_bert()
    read.load(old | _files(tmp_path))
    assert torch.equal(read(TEXTS), source(TEXTS))


@torch.no_grad()
def test_a_checkpoint_without_pooler_is_refused_or_read_at_the_class_token(tmp_path: Path) -> None:
    source = folder(tmp_path, head=True)
    state = read_weights(tmp_path, files=TEXT_FILES)
    with pytest.raises(WeightsError, match=r"2 missing: pooler\.dense\.bias"):
        small_bert().load(state)
    read = small_bert(pooler_given=False)
    read.load(state)
    ids = torch.tensor([[2, 9, 3]])  # [CLS] left [SEP]
    expected = source.model(input_ids=ids).last_hidden_state[:, 0]
    assert torch.allclose(read(["left"]), expected, atol=1e-6)
    full = small_bert(pooler_given=False)
    full.load(dict(source.model.state_dict()) | _files(tmp_path))
    assert torch.equal(full(["left"]), source(["left"]))


@torch.no_grad()
def test_case_and_length_follow_the_encoder(tmp_path: Path) -> None:
    source = folder(tmp_path)
    state = dict(source.model.state_dict()) | _files(tmp_path)
    cased, short = small_bert(lower=False), Bert(len(VOCABULARY), context=4, **SIZES).eval()
    cased.load(state)
    short.load(state)
    assert torch.equal(source(["Left"]), source(["left"]))
    assert not torch.allclose(cased(["Left"]), cased(["left"]), atol=1e-3)
    assert torch.allclose(short(["no left effusion"]), source(["no left"]), atol=1e-6)
    assert source(["left " * 100]).shape == (1, 16)


@torch.no_grad()
def test_tokenizer_json_comes_before_vocab_txt(tmp_path: Path) -> None:
    from tokenizers import BertWordPieceTokenizer

    source = folder(tmp_path)
    swapped = {word: number for number, word in enumerate(VOCABULARY)}
    swapped["no"], swapped["effusion"] = swapped["effusion"], swapped["no"]
    BertWordPieceTokenizer(swapped).save(str(tmp_path / "tokenizer.json"))
    read = small_bert()
    read.load(read_weights(tmp_path, files=TEXT_FILES))
    assert torch.allclose(read(["no"]), source(["effusion"]), atol=1e-6)


def test_tokenizers_that_cannot_be_are_refused(tmp_path: Path) -> None:
    folder(tmp_path)
    encoder = small_bert()
    with pytest.raises(WeightsError, match="no tokenizer beside the weights"):
        encoder.load(read_weights(tmp_path))
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY[3:]))
    with pytest.raises(WeightsError, match=r"vocab\.txt .* cannot be read: cls_token not found"):
        encoder.load(read_weights(tmp_path, files=TEXT_FILES))
    (tmp_path / "vocab.txt").write_text("\n".join([*VOCABULARY, "more"]))
    with pytest.raises(WeightsError, match="token 10, but the weights know 10"):
        encoder.load(read_weights(tmp_path, files=TEXT_FILES))
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(WeightsError, match=r"tokenizer\.json .* cannot be read"):
        encoder.load(read_weights(tmp_path, files=TEXT_FILES))
    (tmp_path / "tokenizer.json").write_text("")
    with pytest.raises(WeightsError, match="is empty"):
        read_weights(tmp_path, files=TEXT_FILES)


def test_bert_names_keys_that_do_not_fit(tmp_path: Path) -> None:
    folder(tmp_path)
    state = read_weights(tmp_path, files=TEXT_FILES)
    with pytest.raises(WeightsError, match=r"word_embeddings\.weight \(10, 16\), not \(12, 16\)"):
        Bert(12, context=32, **SIZES).load(state)
    state["odd"] = state.pop("encoder.layer.0.output.dense.bias")
    with pytest.raises(WeightsError, match=r"1 missing: .*; 1 unexpected: odd"):
        small_bert().load(state)


def test_only_bert_is_built_from_a_config(tmp_path: Path) -> None:
    folder(tmp_path)
    state = read_weights(tmp_path)
    with pytest.raises(WeightsError, match=r"no config\.json that can be used"):
        text_of(state)
    config = json.loads((tmp_path / "config.json").read_text())
    for change in ({"model_type": "gpt2"}, {"hidden_size": "wide"}):
        (tmp_path / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(WeightsError, match=r"config\.json"):
            text_of(read_weights(tmp_path, files=TEXT_FILES))


# --- files beside the weights -------------------------------------------------------------------


def test_files_beside_weights_are_read_and_hashed_only_when_asked_for(tmp_path: Path) -> None:
    folder(tmp_path)
    plain, plain_hash = read_weights(tmp_path), sha256(tmp_path)
    assert not set(TEXT_FILES) & set(plain)
    files = read_weights(tmp_path, files=("vocab.txt", "absent.txt"))
    assert set(files) == {*plain, "vocab.txt"}
    assert bytes(files["vocab.txt"].tolist()) == (tmp_path / "vocab.txt").read_bytes()
    hashed = sha256(tmp_path, files=("vocab.txt", "absent.txt"))
    assert hashed != plain_hash == sha256(tmp_path, files=("absent.txt",))
    assert sha256(tmp_path / "model.safetensors", files=("vocab.txt",)) == plain_hash
    (tmp_path / "vocab.txt").write_text("other")
    assert sha256(tmp_path, files=("vocab.txt",)) != hashed
    assert sha256(tmp_path) == plain_hash

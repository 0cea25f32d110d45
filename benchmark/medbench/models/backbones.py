"""Published frozen encoders: their real classes at their real sizes, filled from a path.

They are built with random weights and nothing is downloaded; `VisionEncoder.load` and
`TextEncoder.load` fill and freeze them with what `medbench.models.weights.read_weights` read. A
text encoder takes its tokenizer from the same folder: read that with ``files=TEXT_FILES``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from medbench.errors import WeightsError
from medbench.models.capabilities import State
from medbench.models.clip import check_fit, strip_wrappers
from medbench.models.text_encoder import TextEncoder
from medbench.models.vision_encoder import VisionEncoder, standardise

if TYPE_CHECKING:
    from tokenizers import Tokenizer

#: What a text encoder needs of a folder besides the weights, for ``read_weights(path, files)``:
#: one of the first two, and for `text_of` the last.
TEXT_FILES = ("tokenizer.json", "vocab.txt", "config.json")

#: DINOv2 (Oquab et al., 2023), table 17: width, layers, heads. Patches of 14 pixels.
_DINOV2 = {"dinov2-s": (384, 12, 6), "dinov2-b": (768, 12, 12)}
VISION = (*_DINOV2, "resnet-ae")

#: BERT-base (Devlin et al., 2019) in different words: size of the vocabulary, lower case.
_BERT = {
    "bert": (30522, True),  # bert-base-uncased
    "biobert": (28996, False),  # dmis-lab/biobert-v1.1, from cased BERT
    "clinicalbert": (30522, True),  # Huang et al., 2019, from uncased BERT
    "pubmedbert": (30522, True),  # microsoft/BiomedNLP-PubMedBERT-base-uncased-abstract-fulltext
    "cxr-bert": (30522, True),  # microsoft/BiomedVLP-CXR-BERT-general
}
TEXT = tuple(_BERT)

_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def build_vision(name: str, image_size: int = 224) -> VisionEncoder:
    """One of `VISION` with random weights, in evaluation mode, for images of that side.

    Raises ValueError for another name, or a size that does not suit it.
    """
    if name in _DINOV2:
        return Dinov2(*_DINOV2[name], image_size=image_size).eval()
    if name == "resnet-ae":
        return ResNetAE(image_size).eval()
    raise ValueError(f"there is no vision backbone '{name}'; there are {', '.join(VISION)}")


def build_text(name: str, context: int = 512) -> TextEncoder:
    """One of `TEXT` with random weights, in evaluation mode; texts are cut at ``context`` tokens.

    It has no tokenizer, and encodes nothing, before `TextEncoder.load`. Raises ValueError for
    another name.
    """
    if name not in _BERT:
        raise ValueError(f"there is no text backbone '{name}'; there are {', '.join(TEXT)}")
    vocabulary, lower = _BERT[name]
    return Bert(vocabulary, lower=lower, context=context, pooler_given=name != "cxr-bert").eval()


# --- images -------------------------------------------------------------------------------------


class Dinov2(VisionEncoder):
    """DINOv2's transformer as of ``torch.hub``, on transformers' ``Dinov2Model``.

    The vector is the class token after the last norm; the one map holds the patch tokens after it.
    Channels are normalised as for ImageNet.

    Args:
        width, layers, heads: of the transformer.
        image_size: side of the images it will be given; a multiple of ``patch``.
        trained_size: side that the position embeddings are for (518 as published).
    """

    def __init__(
        self,
        width: int,
        layers: int,
        heads: int,
        *,
        image_size: int = 224,
        patch: int = 14,
        trained_size: int = 518,
    ) -> None:
        from transformers import Dinov2Config, Dinov2Model  # takes seconds, so only here

        super().__init__()
        if image_size % patch:
            raise ValueError(f"image_size {image_size} is not a multiple of the patch, {patch}")
        self.dim, self.image_size = width, image_size
        self.model: Any = Dinov2Model(
            Dinov2Config(
                hidden_size=width,
                num_hidden_layers=layers,
                num_attention_heads=heads,
                mlp_ratio=4,
                image_size=trained_size,
                patch_size=patch,
                layerscale_value=1.0,
            )
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """float32 [B, 3, H, W] in [0, 1] -> the class token, float32 [B, width]."""
        return self.tokens(images)[:, 0]

    def maps(self, images: torch.Tensor) -> list[torch.Tensor]:
        """The same images -> patch tokens, one map float32 [B, width, H / patch, W / patch]."""
        patches = self.tokens(images)[:, 1:]  # [B, h * h, D]
        side = round(patches.shape[1] ** 0.5)
        return [patches.transpose(1, 2).reshape(len(patches), self.dim, side, side)]

    def tokens(self, images: torch.Tensor) -> torch.Tensor:
        """Class token, then patch tokens row by row: float32 [B, 1 + h * h, width]."""
        embeddings = self.model.embeddings
        x = embeddings.patch_embeddings(standardise(images, *_IMAGENET))  # [B, h * h, D]
        x = torch.cat([embeddings.cls_token.expand(len(x), -1, -1), x], dim=1)
        x = x + _positions(embeddings.position_embeddings, x.shape[1] - 1)
        x = self.model.encoder(x).last_hidden_state
        tokens: torch.Tensor = self.model.layernorm(x).float()
        return tokens

    def load(self, state: State) -> None:
        """Load DINOv2's own state dict or a Hugging Face ``Dinov2Model``, and freeze.

        Raises WeightsError naming keys that are missing, unexpected or of another shape.
        """
        given = dinov2_layout(state)
        check_fit("DINOv2", self.model.state_dict(), given)
        self.model.load_state_dict(given)
        self.freeze()


def _positions(trained: torch.Tensor, patches: int) -> torch.Tensor:
    """Position embeddings [1, 1 + M * M, D] resampled for another number of patches.

    As the released code does it: bicubic by the factor (side + 0.1) / M, not side / M, which moves
    every position a little.
    """
    if trained.shape[1] == 1 + patches:
        return trained
    side, old = round(patches**0.5), round((trained.shape[1] - 1) ** 0.5)
    grid = trained[:, 1:].float().transpose(1, 2).reshape(1, -1, old, old)
    factor = (side + 0.1) / old
    grid = F.interpolate(grid, scale_factor=(factor, factor), mode="bicubic")  # [1, D, side, side]
    return torch.cat([trained[:, :1], grid.flatten(2).transpose(1, 2).to(trained.dtype)], dim=1)


_DINOV2_NAMES = {
    "cls_token": "embeddings.cls_token",
    "mask_token": "embeddings.mask_token",
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
    "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
    "norm.weight": "layernorm.weight",
    "norm.bias": "layernorm.bias",
}
_DINOV2_BLOCK = {
    # the released code's names
    "attn.proj": "attention.o_proj",
    "ls1.gamma": "layer_scale1.lambda1",
    "ls2.gamma": "layer_scale2.lambda1",
    # those on disk of transformers, which renames them in memory
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
}


def dinov2_layout(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """DINOv2's own layout, or Hugging Face's on disk -> that of ``Dinov2Model`` in memory.

    A classifier on top is left out; other keys are passed on, for `check_fit` to name.
    """
    result: dict[str, torch.Tensor] = {}
    for key, value in strip_wrappers(_tensors(state)).items():
        name = key.removeprefix("dinov2.").removeprefix("backbone.")
        if name.startswith("classifier."):
            continue
        block = re.fullmatch(r"(?:blocks|encoder\.layer)\.(\d+)\.(.+?)(\.weight|\.bias|)", name)
        if name in _DINOV2_NAMES:
            result[_DINOV2_NAMES[name]] = value
        elif block:
            number, part, kind = block.groups()
            start = f"encoder.layer.{number}."
            if part == "attn.qkv":
                for letter, third in zip("qkv", value.chunk(3), strict=True):
                    result[f"{start}attention.{letter}_proj{kind}"] = third.contiguous()
            else:
                result[f"{start}{_DINOV2_BLOCK.get(part, part)}{kind}"] = value
        else:
            result[name] = value
    return result


class ResNetAE(VisionEncoder):
    """The encoder of torchxrayvision's ``ResNetAE`` ("101-elastic", Cohen et al., 2021).

    The vector is the spatial mean of the code, 512 values. Five maps, finest first: the stem and
    the four stages, 64, 256, 512, 1024 and 512 channels at 1/2, 1/4, 1/8, 1/16 and, since the last
    stage has stride 6, 1/96 of the side. Pixels are one channel in [-1024, 1024].
    """

    def __init__(self, image_size: int = 224) -> None:
        # takes seconds; by its module, since the package imports datasets and models too
        from torchxrayvision.autoencoders import ResNetAE101

        super().__init__()
        if image_size % 32:
            raise ValueError(f"image_size {image_size} is not a multiple of 32")
        self.dim, self.image_size = 512, image_size
        whole: Any = ResNetAE101()
        whole.weights = None  # what its repr() looks for
        for name in [n for n, _ in whole.named_children() if _is_decoder(n)]:
            delattr(whole, name)
        self.model = whole

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """float32 [B, 3, H, W] in [0, 1] -> float32 [B, 512]."""
        return self.maps(images)[-1].mean(dim=(2, 3))

    def maps(self, images: torch.Tensor) -> list[torch.Tensor]:
        """The same images -> the stem's output and the stages', as the class says."""
        model = self.model
        x = images.mean(dim=1, keepdim=True) * 2048 - 1024
        x = model.relu(model.bn1(model.conv1(x)))
        found = [x]
        x = model.maxpool(x)
        for stage in (model.layer1, model.layer2, model.layer3, model.layer4):
            x = stage(x)
            found.append(x)
        return [m.float() for m in found]

    def load(self, state: State) -> None:
        """Load torchxrayvision's state dict, with or without its decoder, and freeze.

        Raises WeightsError naming keys that are missing, unexpected or of another shape.
        """
        given = {k: v for k, v in strip_wrappers(_tensors(state)).items() if not _is_decoder(k)}
        counters = {k: v for k, v in self.model.state_dict().items() if k.endswith("_tracked")}
        given = counters | given  # old files lack these counters, which decide nothing
        check_fit("torchxrayvision's ResNetAE", self.model.state_dict(), given)
        self.model.load_state_dict(given)
        self.freeze()


def _is_decoder(key: str) -> bool:
    return key.startswith(("uplayer", "conv1_1"))


# --- texts --------------------------------------------------------------------------------------

#: Texts of a batch where only forward passes are made.
_BATCH = 64


class Bert(TextEncoder):
    """BERT; a text's vector is ``pooler_output``, as the Adaptor's authors take it.

    That is the state of the class token after one more layer, which next-sentence prediction
    trained. CXR-BERT was trained without it; where its checkpoint has none, its vector is the
    class token's state itself.

    Args:
        vocabulary: number of tokens.
        lower: whether a ``vocab.txt`` is of lower-case words; ``tokenizer.json`` says so itself.
        context: tokens of a text; more are cut.
        pooler_given: whether a checkpoint must have the pooler.
        sizes: of the network, BERT-base's unless given, by the names of ``BertConfig``.
    """

    def __init__(
        self,
        vocabulary: int,
        *,
        lower: bool = True,
        context: int = 512,
        pooler_given: bool = True,
        **sizes: Any,
    ) -> None:
        from transformers import BertConfig, BertModel  # takes seconds, so only here

        super().__init__()
        self.model: Any = BertModel(BertConfig(vocab_size=vocabulary, **sizes))
        self.dim = self.model.config.hidden_size
        if not 2 <= context <= self.model.config.max_position_embeddings:
            raise ValueError(f"context {context} is not from 2 to the network's positions")
        self.context = context
        self.pooled = True
        self._lower, self._pooler_given = lower, pooler_given
        self._tokenizer: Tokenizer | None = None

    def forward(self, texts: Sequence[str]) -> torch.Tensor:
        """B texts -> float32 [B, dim]. Raises WeightsError before weights were loaded."""
        if self._tokenizer is None:
            raise WeightsError(
                "The text encoder has no tokenizer yet: it comes with the weights. Name a folder "
                "that holds both with --weights."
            )
        if isinstance(texts, str):
            raise TypeError("texts is one string, not a sequence of strings")
        device = self.model.device
        parts = [self._encode(texts[i : i + _BATCH]) for i in range(0, len(texts), _BATCH)]
        return torch.cat(parts) if parts else torch.zeros(0, self.dim, device=device)

    def _encode(self, texts: Sequence[str]) -> torch.Tensor:
        assert self._tokenizer is not None
        found = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        tokens = torch.zeros(len(found), max(map(len, found)), dtype=torch.long)
        mask = torch.zeros_like(tokens)
        for row, ids in enumerate(found):
            tokens[row, : len(ids)] = torch.tensor(ids)
            mask[row, : len(ids)] = 1
        device = self.model.device
        output = self.model(input_ids=tokens.to(device), attention_mask=mask.to(device))
        vector = output.pooler_output if self.pooled else output.last_hidden_state[:, 0]
        return vector.float()  # type: ignore[no-any-return]

    def load(self, state: State) -> None:
        """Load a BERT of Hugging Face and its tokenizer, and freeze.

        The tokenizer stands in ``state`` as ``tokenizer.json`` or ``vocab.txt``, bytes as uint8
        (``read_weights(path, files=TEXT_FILES)``). Heads on top are left out. Raises WeightsError
        naming keys that are missing, unexpected or of another shape, or what ails the tokenizer.
        """
        tokenizer = read_tokenizer(state, self._lower, self.context)
        given, own = bert_layout(state), self.model.state_dict()
        pooler = {k: v for k, v in own.items() if k.startswith("pooler.")}
        pooled = self._pooler_given or not pooler.keys().isdisjoint(given)
        given = given if pooled else pooler | given
        check_fit("BERT", own, given)
        highest = max(tokenizer.get_vocab(with_added_tokens=True).values())
        if highest >= self.model.config.vocab_size:
            raise WeightsError(
                f"The tokenizer beside the weights has a token {highest:,}, but the weights know "
                f"{self.model.config.vocab_size:,} tokens. Take both from one folder as published."
            )
        self.model.load_state_dict(given)
        self._tokenizer, self.pooled = tokenizer, pooled
        self.freeze()


def bert_layout(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A checkpoint of any BERT of Hugging Face -> that of ``BertModel``.

    Heads, position numbers and files are left out, and the names that the first releases gave the
    gains and biases of layer norms are changed. Other keys are passed on, for `check_fit` to name.
    """
    result: dict[str, torch.Tensor] = {}
    for key, value in strip_wrappers(_tensors(state)).items():
        name = key.removeprefix("bert.")
        if name.startswith(("cls.", "cls_projection_head.", "classifier.")):
            continue
        if name in ("embeddings.position_ids", "embeddings.token_type_ids"):
            continue
        name = name.replace("LayerNorm.gamma", "LayerNorm.weight")
        result[name.replace("LayerNorm.beta", "LayerNorm.bias")] = value
    return result


def read_tokenizer(state: State, lower: bool, context: int) -> Tokenizer:
    """The tokenizer among the files of a state; ``tokenizer.json`` before ``vocab.txt``.

    Raises WeightsError when there is none, or when it cannot be read or lacks BERT's own tokens.
    """
    from tokenizers import BertWordPieceTokenizer, Tokenizer

    name = next((n for n in ("tokenizer.json", "vocab.txt") if n in state), None)
    if name is None:
        raise WeightsError(
            "There is no tokenizer beside the weights of the text encoder. Name a folder that "
            "holds tokenizer.json or vocab.txt besides the weights."
        )
    try:
        text = _text(state[name])
        if name == "tokenizer.json":
            tokenizer = Tokenizer.from_str(text)
        else:
            words = text.splitlines()
            vocabulary = {word: number for number, word in enumerate(words)}
            # this wrapper completes BERT's parts around one plain Tokenizer
            tokenizer = BertWordPieceTokenizer(vocabulary, lowercase=lower)._tokenizer
    except Exception as error:  # the Rust library raises bare Exceptions
        raise WeightsError(
            f"{name} beside the weights of the text encoder cannot be read: {error}. Fetch it "
            "again."
        ) from error
    missing = [t for t in ("[CLS]", "[SEP]", "[UNK]") if tokenizer.token_to_id(t) is None]
    if missing:
        raise WeightsError(
            f"{name} beside the weights of the text encoder has no {', '.join(missing)}: it is not "
            "a BERT tokenizer."
        )
    tokenizer.no_padding()
    tokenizer.enable_truncation(context)
    return tokenizer


def text_of(state: State, context: int = 512) -> TextEncoder:
    """A BERT of whatever dimensions the ``config.json`` among the files of a state gives, loaded.

    Raises WeightsError when there is no such file, or it is of another architecture: code that
    comes with a checkpoint is never run.
    """
    names = (
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
        "max_position_embeddings",
        "type_vocab_size",
    )
    try:
        config = json.loads(_text(state["config.json"]))
        kind, vocabulary = config["model_type"], int(config["vocab_size"])
        sizes = {name: int(config[name]) for name in names}
        lower = bool(config.get("do_lower_case", True))
    except (KeyError, ValueError, TypeError) as error:
        raise WeightsError(
            f"The folder of the text encoder has no config.json that can be used ({error!r}). Name "
            "a folder made by save_pretrained."
        ) from error
    if kind not in ("bert", "cxr-bert"):
        raise WeightsError(
            f"config.json of the text encoder says '{kind}'; only BERT can be loaded by its "
            "config.json."
        )
    encoder = Bert(
        vocabulary,
        lower=lower,
        context=min(context, sizes["max_position_embeddings"]),
        pooler_given=False,
        **sizes,
    )
    encoder.load(state)
    return encoder


def _tensors(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: value for key, value in state.items() if key not in TEXT_FILES}


def _text(content: torch.Tensor) -> str:
    return bytes(content.tolist()).decode("utf-8")

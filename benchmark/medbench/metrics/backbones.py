"""Feature networks of the image-generation metrics: loaded from a path, never downloaded.

A distance between features means something only for a trained network that is named. So weights
come from the user, as ``--backbone xrv=PATH`` or ``MEDBENCH_BACKBONE="xrv=PATH inception=PATH"``;
they are read as data (`medbench.models.weights`); a network that was never trained is refused; and
the digest of the weights is told with the value. Preprocessing is part of a metric's card
(`medbench.metrics.image_cards.PREPROCESSING`).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from medbench.errors import UsageError, WeightsError, unknown_name
from medbench.metrics.values import FloatArray, ImageTable

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.nn import Module

    State = dict[str, Tensor]

#: Where the paths of backbones are given: ``NAME=PATH``, several separated by spaces.
VARIABLE = "MEDBENCH_BACKBONE"
BATCH = 32

_HOW = {
    "xrv": "the state dict of torchxrayvision.models.DenseNet(weights='densenet121-res224-all')",
    "inception": "pt_inception-2015-12-05-6726825d.pth of pytorch-fid",
    "inception-torchvision": "inception_v3_google-0cc3c7bd.pth of torchvision",
}


class Features(NamedTuple):
    """Features of one backbone: float64 [N, D] real, [G, D] generated; ``note`` says whose."""

    real: FloatArray
    generated: FloatArray
    note: str | None


class Network(NamedTuple):
    """A network in evaluation mode, its preprocessing, and the digest of its weights.

    ``module`` maps what ``prepare`` gives to float32 [N, D]; ``prepare`` maps uint8 [N, H, W] to
    float32 [N, C, h, w]; ``digest`` is the SHA-256 of the tensors, whatever file held them.
    """

    module: Module
    prepare: Callable[[Tensor], Tensor]
    digest: str


#: Paths of this process, by backbone: they go before the environment's.
_CHOSEN: dict[str, Path] = {}
_known: WeakKeyDictionary[ImageTable, dict[tuple[str, Path | None], Features]] = WeakKeyDictionary()


def table_features(table: ImageTable, backbone: str) -> Features | str:
    """Features of both sides of a table, or why there are none.

    Those that the table gives come first; else its pixels go through the user's network, once per
    table and network, on the CPU.

    Raises:
        WeightsError: the user named weights that cannot be read or are of another network.
        ValueError: features that are not two finite matrices of equal width.
    """
    given = table.features(backbone)
    if given is not None:
        return _checked(backbone, *given, None)
    if backbone not in _HOW:
        return f"there are no features of the {backbone} backbone: they come from a run"
    if table.real is None or table.generated is None:
        return f"there are neither {backbone} features nor pixels"
    path = weights_path(backbone)
    if path is None:
        return (
            f"the {backbone} backbone has no weights: give --backbone {backbone}=PATH or set "
            f"{VARIABLE}='{backbone}=PATH' ({_HOW[backbone]}), or give its features"
        )
    memo = _known.setdefault(table, {})
    if (backbone, path) not in memo:
        network = load(backbone, path)
        memo[backbone, path] = _checked(
            backbone,
            extract(network, table.real),
            extract(network, table.generated),
            f"features by {backbone} weights {network.digest[:12]}",
        )
    return memo[backbone, path]


def choose(options: Sequence[str]) -> None:
    """Take the weights of ``--backbone NAME=PATH`` options for this process, in place of earlier
    ones. Nothing is loaded yet, but what cannot be is refused.

    Raises:
        UsageError: no ``NAME=PATH``, an unknown backbone, or one named twice with two paths.
        WeightsError: nothing at the path, or nothing of a known format.
    """
    found: dict[str, Path] = {}
    for option in options:
        name, equals, text = option.partition("=")
        if not equals or not text:
            raise UsageError(f"--backbone takes NAME=PATH, not '{option}'.")
        if name not in _HOW:
            raise unknown_name("backbone that takes weights", name, _HOW)
        from medbench.models.weights import weight_files

        path = Path(text).expanduser()
        weight_files(path)
        if found.setdefault(name, path) != path:
            raise UsageError(f"--backbone gives '{name}' twice: {found[name]} and {path}.")
    _CHOSEN.clear()
    _CHOSEN.update(found)


def given() -> dict[str, Path]:
    """Backbones whose weights the user gave, and where."""
    found = {name: weights_path(name) for name in _HOW}
    return {name: path for name, path in found.items() if path is not None}


def weights_path(backbone: str) -> Path | None:
    """The path that `choose` or else ``MEDBENCH_BACKBONE`` gives for a backbone, or None."""
    if backbone in _CHOSEN:
        return _CHOSEN[backbone]
    for part in os.environ.get(VARIABLE, "").split():
        name, _, path = part.partition("=")
        if name == backbone and path:
            return Path(path).expanduser()
    return None


def extract(network: Network, images: npt.NDArray[np.uint8], device: str = "cpu") -> FloatArray:
    """Features of uint8 [N, H, W]: float64 [N, D], by batches of 32 in float32."""
    import torch

    module = network.module.to(device)
    found = []
    with torch.inference_mode():
        for start in range(0, len(images), BATCH):
            batch = torch.from_numpy(np.ascontiguousarray(images[start : start + BATCH]))
            found.append(module(network.prepare(batch.to(device))).double().cpu().numpy())
    return np.concatenate(found)


def load(backbone: str, path: Path) -> Network:
    """A backbone with the weights at ``path``: safetensors or a state dict, read as data.

    Raises WeightsError: nothing there, damaged, of another network, or never trained.
    """
    from medbench.models.weights import sha256

    return _load(backbone, path, sha256(path))


@lru_cache(maxsize=2)
def _load(backbone: str, path: Path, _: str) -> Network:
    from medbench.models.weights import read_weights

    state = read_weights(path)
    build, prepare = {
        "xrv": (_densenet, _for_densenet),
        "inception": (_fid_inception, _for_inception),
        "inception-torchvision": (_torchvision_inception, _for_inception),
    }[backbone]
    try:
        module = build(state)
    except (KeyError, RuntimeError) as error:
        raise WeightsError(
            f"Weights {path} are not of the {backbone} backbone, which takes {_HOW[backbone]}: "
            f"{' '.join(str(error).split())[:200]}."
        ) from error
    if _untrained(module):
        raise WeightsError(
            f"Weights {path} are of a network that was never trained: its batch statistics are at "
            f"their start. The {backbone} backbone takes {_HOW[backbone]}."
        )
    return Network(module.eval(), prepare, _digest(state))


def _densenet(state: State) -> Module:
    from torch import nn
    from torchxrayvision.models import DenseNet

    class Pooled(nn.Module):
        """The pooled features, without the classifier and its warnings on input size."""

        def __init__(self, inner: Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> Tensor:
            pooled: Tensor = self.inner.features2(x)  # type: ignore[operator]
            return pooled

    network = DenseNet(weights=None, num_classes=len(state["classifier.weight"]))
    _fill(network, {key: value for key, value in state.items() if key != "op_threshs"})
    return Pooled(network)


def _for_densenet(images: Tensor) -> Tensor:
    from torch.nn.functional import interpolate

    height, width = images.shape[-2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = images[:, None, top : top + side, left : left + side].float()
    levels = (square * (2 / 255) - 1) * 1024
    return interpolate(levels, size=(224, 224), mode="bilinear", antialias=True)


def _for_inception(images: Tensor) -> Tensor:
    from torch.nn.functional import interpolate

    levels = images[:, None].float() * (2 / 255) - 1
    small = interpolate(levels, size=(299, 299), mode="bilinear", antialias=True)
    return small.expand(-1, 3, -1, -1)


def _torchvision_inception(state: State) -> Module:
    return _inception(state, 1000)


def _fid_inception(state: State) -> Module:
    """Inception with the pooling of the network that FID was defined on.

    It differs from torchvision's in what its pooling branches see: averages that leave padding
    out, and a maximum in the last block.
    """
    module: Any = _inception(state, 1008)
    for name in ("5b", "5c", "5d", "6b", "6c", "6d", "6e", "7b"):
        getattr(module, f"Mixed_{name}").branch_pool.register_forward_pre_hook(unpadded_average)
    maximum_pooling(module.Mixed_7c)
    return module  # type: ignore[no-any-return]


def unpadded_average(_: Module, inputs: tuple[Tensor]) -> Tensor:
    """Turn an average over 3 x 3, padding counted as zeros, into one over the pixels there are."""
    from torch.nn.functional import avg_pool2d

    pooled = inputs[0]
    share = avg_pool2d(pooled.new_ones((1, 1, *pooled.shape[-2:])), 3, stride=1, padding=1)
    return pooled / share


def maximum_pooling(block: Any) -> None:
    """Let the pooling branch of an Inception block see the maximum over 3 x 3 of its input."""
    from torch.nn.functional import max_pool2d

    seen: list[Tensor] = []

    def remember(_: Module, inputs: tuple[Tensor]) -> None:
        seen[:] = inputs

    def replace(_: Module, __: tuple[Tensor]) -> Tensor:
        return max_pool2d(seen.pop(), 3, stride=1, padding=1)

    block.register_forward_pre_hook(remember)
    block.branch_pool.register_forward_pre_hook(replace)


def _inception(state: State, outputs: int) -> Module:
    from torch import nn
    from torchvision.models import inception_v3

    found = len(state["fc.weight"])
    if found != outputs:
        raise RuntimeError(f"they have {found:,} outputs, not {outputs:,}")
    module = inception_v3(weights=None, num_classes=outputs, aux_logits=False, init_weights=False)
    # the auxiliary classifier is for training only
    _fill(module, {key: v for key, v in state.items() if not key.startswith("AuxLogits.")})
    module.fc = nn.Identity()
    return module  # type: ignore[no-any-return]


def _fill(module: Module, state: Mapping[str, Tensor]) -> None:
    """Load every tensor; counters of batches may be missing, as in old files. RuntimeError."""
    found = module.load_state_dict(dict(state), strict=False)
    missing = [key for key in found.missing_keys if not key.endswith("num_batches_tracked")]
    if missing or found.unexpected_keys:
        raise RuntimeError(
            f"{len(missing)} tensors are missing and {len(found.unexpected_keys)} unknown, such as "
            f"{(missing + found.unexpected_keys)[0]}"
        )


def _untrained(module: Module) -> bool:
    """Whether every batch normalisation still has the statistics it started with."""
    means: list[torch.Tensor] = [b for n, b in module.named_buffers() if n.endswith("running_mean")]
    return not any(bool(mean.any()) for mean in means)


def _digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of the tensors by name; counters, which features do not depend on, left out."""
    found = hashlib.sha256()
    for key in sorted(state):
        if not key.endswith("num_batches_tracked"):
            tensor = state[key].detach().float().contiguous().numpy()
            found.update(f"{key} {tensor.shape}\n".encode() + tensor.tobytes())
    return found.hexdigest()


def _checked(backbone: str, real: FloatArray, generated: FloatArray, note: str | None) -> Features:
    pair = Features(np.asarray(real, np.float64), np.asarray(generated, np.float64), note)
    if pair.real.ndim != 2 or pair.generated.ndim != 2 or pair.real.shape[1] < 1:
        raise ValueError(f"{backbone} features are not [N, D] and [G, D]")
    if pair.real.shape[1] != pair.generated.shape[1]:
        raise ValueError(
            f"{backbone} features of real images have {pair.real.shape[1]} dimensions, those of "
            f"generated ones {pair.generated.shape[1]}"
        )
    if not (np.isfinite(pair.real).all() and np.isfinite(pair.generated).all()):
        raise ValueError(f"{backbone} features are not finite")
    return pair

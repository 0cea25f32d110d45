"""Reading a user's checkpoint without running any of its code."""

from __future__ import annotations

import hashlib
import json
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from medbench.errors import WeightsError

PICKLED = (".pt", ".pth", ".bin", ".ckpt")

#: What a folder in diffusers' layout holds, and its parts that have weights (of a safety checker,
#: which nothing here runs, none are read).
_PIPELINE = "model_index.json"
_PARTS = ("unet", "vae", "text_encoder")
#: File names under which libraries save into a folder, best first.
_IN_FOLDER = (
    "model.safetensors",
    "diffusion_pytorch_model.safetensors",
    "model.safetensors.index.json",
    "diffusion_pytorch_model.safetensors.index.json",
    "open_clip_model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "open_clip_pytorch_model.bin",
)
#: Keys under which training scripts wrap a state dict.
_WRAPPED = ("state_dict", "model_state_dict", "model")
_FORMATS = (
    "Give a .safetensors file, a PyTorch state dict (.pt, .pth, .bin, .ckpt) or a folder made by "
    "save_pretrained."
)


def weight_files(path: Path) -> list[Path]:
    """The files that hold the weights at ``path``: itself, or those inside a folder.

    Raises WeightsError when there is nothing of a known format.
    """
    if _is_pipeline(path):
        return _of_parts(path)
    if path.is_dir():
        name = next((n for n in _IN_FOLDER if (path / n).is_file()), None)
        if name is None:
            single = sorted(path.glob("*.safetensors"))
            if len(single) == 1:
                return single
            raise WeightsError(f"Folder {path} holds none of {', '.join(_IN_FOLDER)}. {_FORMATS}")
        return _shards(path / name) if name.endswith(".json") else [path / name]
    if not path.is_file():
        raise WeightsError(f"There are no weights at {path}. {_FORMATS}")
    if path.suffix.lower() not in (".safetensors", *PICKLED):
        raise WeightsError(f"Weights {path} are of no known format. {_FORMATS}")
    return [path]


def _is_pipeline(path: Path) -> bool:
    """Whether it is a folder in diffusers' layout, with or without its index."""
    return (path / _PIPELINE).is_file() or all((path / part).is_dir() for part in _PARTS[:2])


def _of_parts(path: Path) -> list[Path]:
    files: list[Path] = []
    for part in _PARTS:
        if not (path / part).is_dir():
            raise WeightsError(
                f"Folder {path} is in diffusers' layout and has no '{part}'. Fetch it again."
            )
        files += weight_files(path / part)
    pickled = next((f for f in files if f.suffix.lower() in PICKLED), None)
    if pickled is not None:
        raise WeightsError(
            f"{pickled} is a pickle; of folders in diffusers' layout safetensors alone are read. "
            "Fetch the .safetensors files, or save the pipeline with safe_serialization=True."
        )
    return files


def _shards(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        files = [index.parent / Path(name).name for name in names]
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise WeightsError(f"{index} is not an index of weight files: {error!r}.") from error
    for file in files:
        if not file.is_file():
            raise WeightsError(f"{index} names {file.name}, which is not there. Fetch it again.")
    return files


def beside(path: Path, files: Sequence[str]) -> list[Path]:
    """Those of ``files`` that are in the folder ``path``; a single file has nothing beside it."""
    return [path / name for name in files if (path / name).is_file()] if path.is_dir() else []


def read_weights(path: Path, files: Sequence[str] = ()) -> dict[str, torch.Tensor]:
    """Every tensor at ``path``, by key, on the CPU.

    ``files`` are names of small files, such as ``tokenizer.json``, that a model needs besides: of
    each that is in the folder the bytes are added as uint8 [size] under its name.

    Of a folder in diffusers' layout the keys have the name of their part before them
    (``unet.conv_in.weight``), and ``files`` may lie in parts (``vae/config.json``).

    Pickles are read with ``weights_only``: one that needs code is refused, never run. A state dict
    inside ``{"state_dict": ...}``, ``{"model_state_dict": ...}`` or ``{"model": ...}`` is taken
    out. Raises WeightsError, in one paragraph, for anything else.
    """
    state: dict[str, torch.Tensor] = {}
    for file in weight_files(path):
        try:
            content = load_file(file) if file.suffix.lower() == ".safetensors" else _unpickle(file)
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"Weights {file} cannot be read: {_line(error)}.") from error
        part = f"{file.parent.name}." if _is_pipeline(path) else ""
        state.update({part + key: value for key, value in _tensors(file, content).items()})
    for file in beside(path, files):
        try:
            content = bytearray(file.read_bytes())
        except OSError as error:
            raise WeightsError(f"{file} cannot be read: {_line(error)}.") from error
        if not content:
            raise WeightsError(f"{file} is empty. Fetch it again.")
        state[file.relative_to(path).as_posix()] = torch.frombuffer(content, dtype=torch.uint8)
    return state


def _unpickle(file: Path) -> Any:
    if _is_torchscript(file):
        raise WeightsError(
            f"Weights {file} are a TorchScript archive, which holds code and is not run. Load it "
            "in a program you trust and save its state_dict() as .safetensors."
        )
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"Weights {file} hold more than tensors, or are damaged, and are not unpickled: "
            f"{_line(error)}. Load the file in a program you trust and save its state_dict() as "
            ".safetensors."
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"Weights {file} are damaged or not a PyTorch file: {_line(error)}. {_FORMATS}"
        ) from error


def _is_torchscript(file: Path) -> bool:
    if not zipfile.is_zipfile(file):
        return False
    try:
        with zipfile.ZipFile(file) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except zipfile.BadZipFile:
        return False


def _tensors(file: Path, content: Any) -> dict[str, torch.Tensor]:
    while isinstance(content, Mapping):
        inner = next((content[k] for k in _WRAPPED if isinstance(content.get(k), Mapping)), None)
        if inner is None:
            break
        content = inner
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(f"Weights {file} hold a {type(content).__name__}, not a state dict.")
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor):
            raise WeightsError(
                f"Weights {file} are not a state dict: key {str(key)[:80]!r} holds a "
                f"{type(value).__name__}, not a tensor."
            )
    return dict(content)


def _line(error: BaseException) -> str:
    """The first sentence of a message."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text.split(". ")[0][:200].rstrip(".")


def sha256(path: Path, files: Sequence[str] = ()) -> str:
    """Hash of the content of the weight files at ``path`` (names only where there are several).

    So a folder and the one file inside it have one hash, unless ``files``, as `read_weights` takes
    them, are there too: then these are part of it.
    """
    digests = []
    for file in [*weight_files(path), *beside(path, files)]:
        with file.open("rb") as stream:
            name = file.relative_to(path).as_posix() if _is_pipeline(path) else file.name
            digests.append((name, hashlib.file_digest(stream, "sha256").hexdigest()))
    if len(digests) == 1:
        return digests[0][1]
    return hashlib.sha256(json.dumps(digests).encode()).hexdigest()

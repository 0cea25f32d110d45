"""A user's checkpoint is read without running its code, or refused in one paragraph."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from medbench.errors import WeightsError
from medbench.models.weights import read_weights, sha256

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2)}


class Evil:
    """A pickle that runs a command when it is loaded."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.target}",)


def equal(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt"])
@pytest.mark.parametrize("wrap", ["", "state_dict", "model"])
def test_reads_pickled_state_dicts(tmp_path: Path, suffix: str, wrap: str) -> None:
    path = tmp_path / f"weights{suffix}"
    torch.save({wrap: STATE, "epoch": 2} if wrap else STATE, path)
    assert equal(read_weights(path), STATE)


def test_reads_safetensors_folders_and_shards(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "model.safetensors")
    assert equal(read_weights(tmp_path / "model.safetensors"), STATE)
    assert equal(read_weights(tmp_path), STATE)
    assert sha256(tmp_path) == sha256(tmp_path / "model.safetensors")
    shards = tmp_path / "shards"
    shards.mkdir()
    for number, (key, value) in enumerate(STATE.items()):
        save_file({key: value}, shards / f"{number}.safetensors")
    names = {key: f"{number}.safetensors" for number, key in enumerate(STATE)}
    index = shards / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": names}))
    assert equal(read_weights(shards), STATE)
    (shards / "1.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"names 1\.safetensors, which is not there"):
        read_weights(shards)


def test_code_in_a_pickle_is_refused_and_never_runs(tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    saved, raw = tmp_path / "saved.pth", tmp_path / "raw.bin"
    torch.save({"state_dict": STATE, "extra": Evil(touched)}, saved)
    raw.write_bytes(pickle.dumps(Evil(touched)))
    for path in (saved, raw):
        with pytest.raises(WeightsError) as caught:
            read_weights(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
        assert "safetensors" in str(caught.value)
    assert not touched.exists()


def test_a_torchscript_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "scripted.pt"
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)
    with pytest.raises(WeightsError, match="TorchScript"):
        read_weights(path)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("missing.pt", None, "no weights at"),
        ("weights.zip", b"PK", "no known format"),
        ("empty.pt", b"", "damaged"),
        ("garbage.pth", b"\x00\x01 not a file", "damaged"),
        ("garbage.safetensors", b"\xff" * 40, "cannot be read"),
    ],
)
def test_unreadable(tmp_path: Path, name: str, content: bytes | None, says: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WeightsError, match=says) as caught:
        read_weights(path)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_truncated(tmp_path: Path) -> None:
    for path in (tmp_path / "a.pt", tmp_path / "a.safetensors"):
        torch.save(STATE, path) if path.suffix == ".pt" else save_file(STATE, path)
        path.write_bytes(path.read_bytes()[:-40])
        with pytest.raises(WeightsError):
            read_weights(path)


@pytest.mark.parametrize("content", [[1, 2], {"a": 1}, torch.zeros(2), {}, {1: torch.zeros(1)}])
def test_not_a_state_dict(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(WeightsError, match="not a state dict"):
        read_weights(tmp_path / "x.pt")


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="holds none of"):
        read_weights(tmp_path)


def diffusers_folder(root: Path) -> Path:
    """A folder in diffusers' layout, with a safety checker that must not be read."""
    for part in ("unet", "vae", "text_encoder", "safety_checker"):
        (root / part).mkdir(parents=True)
        name = "model" if part in ("text_encoder", "safety_checker") else "diffusion_pytorch_model"
        save_file({"w": torch.full((2,), float(len(part)))}, root / part / f"{name}.safetensors")
    (root / "model_index.json").write_text("{}")
    (root / "vae" / "config.json").write_text('{"a": 1}')
    return root


def test_a_folder_in_diffusers_layout_is_read_by_part(tmp_path: Path) -> None:
    root = diffusers_folder(tmp_path / "pipeline")
    state = read_weights(root, ("vae/config.json",))
    assert sorted(state) == ["text_encoder.w", "unet.w", "vae.w", "vae/config.json"]
    assert state["text_encoder.w"].tolist() == [12.0, 12.0]
    assert bytes(state["vae/config.json"].tolist()) == b'{"a": 1}'
    before = sha256(root, ("vae/config.json",))
    # the same files under each other's names are other weights
    (root / "vae" / "diffusion_pytorch_model.safetensors").rename(tmp_path / "kept")
    save_file({"w": torch.full((2,), 4.0)}, root / "vae" / "diffusion_pytorch_model.safetensors")
    assert sha256(root, ("vae/config.json",)) != before


def test_a_diffusers_folder_with_a_part_missing_or_pickled_is_refused(tmp_path: Path) -> None:
    root = diffusers_folder(tmp_path / "pipeline")
    file = root / "unet" / "diffusion_pytorch_model.safetensors"
    file.unlink()
    torch.save({"w": torch.ones(2)}, root / "unet" / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="safetensors alone are read"):
        read_weights(root)
    (root / "unet" / "pytorch_model.bin").unlink()
    (root / "unet").rmdir()
    with pytest.raises(WeightsError, match="has no 'unet'"):
        read_weights(root)

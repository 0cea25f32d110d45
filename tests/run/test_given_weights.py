"""Real data and published weights: what a credentialed user does, at a size that fits a test.

The data is a phantom whose every mark has been taken off, so that the harness must hold it for
real; the weights are a small Hugging Face CLIP with the published layout.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
import torch
from transformers import CLIPConfig, CLIPModel

from program import Medbench

#: The published model at a size that fits a test: every value is a setting of the plugin.
SMALL = {
    "embed_dim": 32,
    "image_size": 64,
    "vision_layers": 2,
    "vision_width": 64,
    "vision_patch": 16,
    "text_layers": 2,
    "text_width": 64,
    "text_heads": 2,
    "volumes_epochs": 2,
    "pairs_epochs": 1,
}
SETTINGS = [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory, phantoms: Callable[[str], Path]) -> Path:
    """A COVID-CT-MD folder that says PHANTOM nowhere."""
    root = tmp_path_factory.mktemp("real") / "COVID-CT-MD"
    source = phantoms("covid-ct-md")
    for path in source.rglob("*.dcm"):
        dataset = pydicom.dcmread(path)
        dataset.PatientName = "Anonymous"
        dataset.SeriesDescription = "Chest"
        dataset.ImageComments = ""
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        for keyword in ("Manufacturer", "ManufacturerModelName", "StudyDescription"):
            if keyword in dataset:
                delattr(dataset, keyword)
        target = root / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        dataset.save_as(target)
    return root


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state dict in the layout of Hugging Face's CLIPModel, as a .pth file."""
    torch.manual_seed(0)
    config = CLIPConfig(
        projection_dim=32,
        vision_config={
            "hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2,
            "num_attention_heads": 1, "image_size": 64, "patch_size": 16,
        },
        text_config={
            "hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2,
            "num_attention_heads": 2, "vocab_size": 49408, "max_position_embeddings": 77,
            "eos_token_id": 49407, "bos_token_id": 49406,
        },
    )  # fmt: skip
    path = tmp_path_factory.mktemp("weights") / "RadCLIP.pth"
    torch.save(CLIPModel(config).state_dict(), path)
    return path


def test_a_real_folder_and_weights_are_all_it_takes(
    medbench: Medbench, real: Path, weights: Path, phantoms: Callable[[str], Path]
) -> None:
    ran = medbench(
        "run", "-m", "radclip", "-t", "covid-ct", "--data", f"covid-ct-md={real}",
        "--weights", f"radclip={weights}", *SETTINGS, "--json",
        # only to keep the test short: without it the phantom corpus is rendered at full size
        "--data", f"image-text-pairs={phantoms('image-text-pairs')}",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    (record,) = ran.json["records"]
    assert record["data"]["track"] == "real"
    assert record["model"]["preset"] == "paper"
    assert record["model"]["weights_sha256"]
    assert "phantom-pretrained" in record["flags"]
    assert [entry["stage"] for entry in record["model"]["pretraining_data"]] == ["volumes"]
    assert any("no slice pooling adapter" in note for note in record["notes"])
    again = medbench(
        "run", "-m", "radclip", "-t", "covid-ct", "--data", f"covid-ct-md={real}",
        "--weights", f"radclip={weights}", *SETTINGS, "--json", "--adaptation", "zero-shot",
        "--data", f"image-text-pairs={phantoms('image-text-pairs')}",
    )  # fmt: skip
    assert again.code == 0, again.err
    (zero_shot,) = again.json["records"]
    assert zero_shot["data"]["samples"]["train"] == 0
    assert zero_shot["hashes"]["checkpoint"] == record["hashes"]["checkpoint"]
    assert "embed" not in again.err
    assert "no slice pooling adapter" in ran.err


@pytest.mark.slow
def test_a_general_clip_stands_for_the_base_that_training_starts_from(
    medbench: Medbench, weights: Path, phantoms: Callable[[str], Path]
) -> None:
    ran = medbench(
        "run", "-m", "radclip", "-t", "covid-ct", "--preset", "paper",
        "--data", f"covid-ct-md={phantoms('covid-ct-md')}",
        "--data", f"image-text-pairs={phantoms('image-text-pairs')}",
        "--weights", f"radclip@clip={weights}", *SETTINGS, "--json",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    (record,) = ran.json["records"]
    stages = [entry["stage"] for entry in record["model"]["pretraining_data"]]
    assert stages == ["pairs", "volumes"]
    assert any("stage 'base' is given" in note for note in record["notes"])


def test_weights_of_the_plain_model_are_not_taken_for_its_base(
    medbench: Medbench, weights: Path, phantoms: Callable[[str], Path]
) -> None:
    ran = medbench(
        "run", "-m", "radclip@clip", "-t", "covid-ct", "--preset", "paper",
        "--data", f"covid-ct-md={phantoms('covid-ct-md')}", "--weights", f"radclip={weights}",
    )  # fmt: skip
    assert ran.code == 3
    assert "--weights radclip@clip=PATH" in ran.err


def test_weights_that_do_not_fit_name_the_keys(
    medbench: Medbench, weights: Path, phantoms: Callable[[str], Path], tmp_path: Path
) -> None:
    state = torch.load(weights, weights_only=True)
    state["visual_projection.weight"] = torch.zeros(5, 5)
    del state["text_projection.weight"]
    broken = tmp_path / "broken.pth"
    torch.save(state, broken)
    ran = medbench(
        "run", "-m", "radclip", "-t", "covid-ct", "--preset", "paper", *SETTINGS,
        "--data", f"covid-ct-md={phantoms('covid-ct-md')}", "--weights", f"radclip={broken}",
    )  # fmt: skip
    assert ran.code == 3
    assert "text_projection" in ran.err
    assert "Traceback" not in ran.err


def test_a_pickle_with_code_is_never_run(
    medbench: Medbench, phantoms: Callable[[str], Path], tmp_path: Path
) -> None:
    import pickle

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (str(tmp_path / "executed"),))

    path = tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps({"state_dict": Evil()}))
    ran = medbench(
        "run", "-m", "radclip", "-t", "covid-ct", "--preset", "paper", *SETTINGS,
        "--data", f"covid-ct-md={phantoms('covid-ct-md')}", "--weights", f"radclip={path}",
    )  # fmt: skip
    assert ran.code == 3
    assert not (tmp_path / "executed").exists()
    assert str(path) in ran.err

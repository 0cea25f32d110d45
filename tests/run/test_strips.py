"""Denoising strips: asked of the model for the very images that were scored, and kept whole."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from medbench.errors import CellError, PluginError
from medbench.evaluation.image_cases import first_images
from medbench.evaluation.image_predictions import ImagePredictions
from medbench.run.generation import generate
from medbench.run.reporter import Reporter
from medbench.run.strips import COUNT, write_strips

SIDE = 16
PROMPTS = 6


class Fades:
    """Images that depend on prompt and seed, and come out of black in even steps."""

    def generate_images(self, prompts: Any, seeds: Any) -> torch.Tensor:
        made = []
        for prompt, seed in zip(prompts, seeds, strict=True):
            generator = torch.Generator().manual_seed(seed + len(prompt))
            made.append(torch.rand(1, SIDE, SIDE, generator=generator).expand(3, -1, -1))
        return torch.stack(made)

    def explain_images(self, prompts: Any, seeds: Any, count: int) -> torch.Tensor:
        share = torch.linspace(0, 1, count)[None, :, None, None, None]
        return share * self.generate_images(prompts, seeds)[:, None]


def job(model: object) -> Any:
    """As much of a job as drawing reads: six tested samples after one that is not."""
    samples = [SimpleNamespace(id=f"s{n}", sections={}, text="x" * (n + 1)) for n in range(7)]
    dataset = SimpleNamespace(root=Path("data"), spec=SimpleNamespace(name="toys"))
    return SimpleNamespace(
        loaded=SimpleNamespace(samples=samples, tested=np.arange(1, 7), dataset=dataset),
        cell=SimpleNamespace(
            seed=3, batch_size=5, title="toy x task", model=SimpleNamespace(name="toy")
        ),
        reporter=Reporter(),
        model=SimpleNamespace(model=model),
        fitted=SimpleNamespace(model=model),
    )


def drawn(some: Any) -> ImagePredictions:
    """What `medbench.run.generation` makes of it: two images for each prompt."""
    asked = np.repeat(np.arange(PROMPTS), 2)
    made = generate(some, some.loaded.tested[asked], SIDE)
    labels = (np.arange(PROMPTS)[:, None] % 3 == np.arange(2)).astype(float)
    return ImagePredictions(
        real=np.zeros((PROMPTS, SIDE, SIDE), np.uint8),
        generated=made,
        prompts=asked,
        label_names=("a", "b"),
        labels=labels[asked],
        real_labels=labels,
    )


def test_strips_end_in_the_images_that_were_scored(tmp_path: Path) -> None:
    some = job(Fades())
    table = drawn(some)
    write_strips(tmp_path, some, table)
    with np.load(tmp_path / "strips.npz") as found:
        images, steps = found["image"], found["steps"]
    assert images.tolist() == first_images(table)
    assert len(images) == 3, "two findings, and prompts without"
    assert (steps.shape, steps.dtype) == ((3, COUNT, SIDE, SIDE), np.uint8)
    assert table.generated is not None
    assert np.array_equal(steps[:, -1], table.generated[images])
    assert steps[:, 0].max() == 0
    assert (np.diff(steps.mean(axis=(2, 3)), axis=1) > 0).all()


def test_what_cannot_tell_leaves_no_strips_of_an_earlier_run(tmp_path: Path) -> None:
    class Draws:
        generate_images = Fades.generate_images

    some = job(Fades())
    table = drawn(some)
    for other, said in (
        (job(Draws()), table),
        (replace_fitted(some), table),
        (some, object()),
        (some, replace(table, prompts=None)),
    ):
        write_strips(tmp_path, some, table)
        assert (tmp_path / "strips.npz").exists()
        write_strips(tmp_path, other, said)
        assert not (tmp_path / "strips.npz").exists()
    write_strips(tmp_path / "none yet", job(Draws()), table)


def replace_fitted(some: Any) -> Any:
    """The job of a trivial predictor: there is no model."""
    return SimpleNamespace(**{**vars(some), "fitted": None})


@pytest.mark.parametrize("change", ["shape", "steps", "nan", "type"])
def test_strips_that_break_the_contract_end_the_cell(tmp_path: Path, change: str) -> None:
    class Broken(Fades):
        def explain_images(self, prompts: Any, seeds: Any, count: int) -> Any:
            found = super().explain_images(prompts, seeds, count)
            return {
                "shape": found[:, :, 0],
                "steps": found[:, 1:],
                "nan": found * torch.nan,
                "type": found.numpy(),
            }[change]

    some = job(Broken())
    with pytest.raises(PluginError, match=r"toy x task: explain_images.*\[B, 8, 3, H, W\]"):
        write_strips(tmp_path, some, drawn(some))
    assert not (tmp_path / "strips.npz").exists()


def test_what_a_model_raises_names_the_method(tmp_path: Path) -> None:
    class Raises(Fades):
        def explain_images(self, prompts: Any, seeds: Any, count: int) -> Any:
            raise ValueError("no steps")

    some = job(Raises())
    with pytest.raises(CellError, match="ValueError in explain_images"):
        write_strips(tmp_path, some, drawn(some))

"""CLS-CLIP in the harness: which cells are possible, and zero-shot with its neutral prompts."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from cls_toys import make, toy_config

from medbench.errors import PluginError, UsageError, WeightsError
from medbench.plugins import discover
from medbench.run import classification
from medbench.run.request import Plan, Request
from medbench.run.resolve import resolve
from medbench.schemas.task import load_task

NAMES = ("cls-clip", *(f"cls-clip@{v}" for v in ("adapters", "supervised", "clip", "random")))
TASKS = Path(__file__).parents[3] / "tasks/medbench_tasks"


def plan(tmp_path: Path, **request: Any) -> Plan:
    values = {"models": NAMES, "tasks": ("rsna",), "data": ("phantom",), "device": "cpu",
              "preset": "tiny", "output": tmp_path}  # fmt: skip
    return resolve(Request(**(values | request)), discover(third_party=False))


def test_variants_resolve_with_their_adaptation(tmp_path: Path) -> None:
    cells = plan(tmp_path).cells
    assert [(c.model_id, c.adaptation) for c in cells] == [
        ("cls-clip", "linear-probe"),
        ("cls-clip@adapters", "linear-probe"),
        ("cls-clip@supervised", "fine-tune"),
        ("cls-clip@clip", "linear-probe"),
        ("cls-clip@random", "linear-probe"),
    ]
    assert all(set(c.corpora) == {"scenes", "mimic-cxr"} for c in cells)
    assert "pretrain.lr" not in cells[0].assumed
    assert "guidance.crops" in cells[0].assumed


def test_what_cannot_be_is_skipped_with_its_reason(tmp_path: Path) -> None:
    found = plan(tmp_path, models=("cls-clip",), tasks=("rsna", "covid-ct", "iu-xray-report"))
    # it writes no reports, but an image encoder may look one up
    assert [c.task.name for c in found.cells] == ["rsna", "iu-xray-report"]
    reasons = {s.task: s.reason for s in found.skipped}
    assert "encode_volumes" in reasons["covid-ct"]


def test_a_nested_setting(tmp_path: Path) -> None:
    settings = ("pretrain.fraction=0.1",)
    cell = plan(tmp_path, models=("cls-clip",), settings=settings).cells[0]
    assert cell.config.pretrain.fraction == 0.1
    assert cell.config.pretrain.epochs == 8, "the preset's others stay"
    with pytest.raises(UsageError, match=r"pretrain\.fractions.*Did you mean"):
        plan(tmp_path, models=("cls-clip",), settings=("pretrain.fractions=0.1",))


def test_the_published_size_needs_weights_but_not_for_random(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="--weights cls-clip=PATH"):
        plan(tmp_path, preset="paper", models=("cls-clip",))
    assert plan(tmp_path, preset="paper", models=("cls-clip@random",)).cells
    path = tmp_path / "clip.safetensors"
    path.touch()
    given = {"preset": "paper", "weights": (f"cls-clip={path}",)}
    cells = plan(tmp_path, models=NAMES, **given).cells
    assert [c.weights for c in cells] == [path, path, path, path, None]


# --- zero-shot --------------------------------------------------------------------------------


def test_prompts_are_the_published_ones() -> None:
    model = make(toy_config())
    task = load_task(TASKS / "rsna.toml")
    neutral = model.neutral_prompts(task)
    assert neutral == ["Impression:", "FINDINGS:"]
    for label, prompts in zip(task.labels, model.class_prompts(task), strict=True):
        assert prompts == [f"{text} with {label.text}" for text in neutral]


def job_of(model: Any) -> tuple[Any, np.ndarray]:
    """A job of two tested images whose features are there already."""
    task = load_task(TASKS / "mimic-cxr-14.toml")
    features = np.random.default_rng(0).standard_normal((2, 32)).astype(np.float32)
    cell = SimpleNamespace(title="x", task=task, batch_size=8, model=SimpleNamespace(name="m"))
    embedder = SimpleNamespace(features=lambda: features, kept=lambda: True)
    loaded = SimpleNamespace(
        y=np.zeros((2, len(task.labels))), tested=np.arange(2), samples=[None, None]
    )
    return SimpleNamespace(
        cell=cell, loaded=loaded, model=SimpleNamespace(model=model), embedder=lambda: embedder
    ), features


def test_the_harness_takes_the_differences() -> None:
    model = make(toy_config())
    job, features = job_of(model)
    scores = classification._zero_shot(job)
    image = features / np.linalg.norm(features, axis=1, keepdims=True)
    with torch.no_grad():
        for column, label in enumerate(job.cell.task.labels):
            total = np.zeros(2)
            for prefix in ("Impression:", "FINDINGS:"):
                told, plain = model.encode_texts([f"{prefix} with {label.text}", prefix]).numpy()
                total += image @ told - image @ plain
            np.testing.assert_allclose(scores[:, column], total / 2, atol=1e-6)


def test_a_model_without_neutral_texts_is_refused() -> None:
    model = make(toy_config())
    model.neutral_prompts = lambda task: []  # type: ignore[method-assign]
    job, _ = job_of(model)
    with pytest.raises(PluginError, match=r"neutral_prompts .* gave no text"):
        classification._zero_shot(job)

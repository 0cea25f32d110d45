"""What it costs that a model is in another process: a batch there against a batch here."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from medbench.isolation import process
from medbench.isolation.model import IsolatedModel, construct
from medbench.plugins import discover

sys.path.append(str(Path(__file__).parents[1] / "isolation"))

import environments

BATCH, SIDE, ROUNDS = 32, 224, 7

CODE = '''
"""ViT-B/32 with random weights, and one that does nothing."""
import torch
from medbench import ModelSpec, hookimpl


@hookimpl
def medbench_models():
    return [
        ModelSpec(name=name, title="", description="", cls=f"speed_vit:{cls}",
                  capabilities=("encode_images",), adaptation="linear-probe")
        for name, cls in (("speed-vit", "Vit"), ("speed-nothing", "Nothing"))
    ]


class Vit:
    image_size = 224

    def __init__(self):
        from torchvision.models import vit_b_32
        self.network = vit_b_32()

    def encode_images(self, images):
        return self.network(images)


class Nothing:
    image_size = 224

    def encode_images(self, images):
        return images[:, 0, 0, :8]
'''


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """``models("Vit")``: the class in this process, and in a worker."""
    from medbench.isolation.install import install_isolated

    environments.offline(monkeypatch, tmp_path)
    path = environments.wheel(tmp_path / "wheels", "speed-vit", "1.0", CODE)
    install_isolated(str(path), str(environments.python(tmp_path)))
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "speed_vit.py").write_text(CODE, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path / "here"))
    scope = vars(import_module("speed_vit"))
    registry = discover()

    def both(name: str) -> tuple[Any, IsolatedModel]:
        spec: Any = registry.model(f"speed-{name.lower()}")
        torch.manual_seed(0)
        here = scope[name]()
        if name == "Vit":
            here.network.eval()
        return here, construct(spec, spec.cls, None, 0, "cpu", "speed")

    yield both
    process.end_all()


def seconds(model: Any, images: torch.Tensor) -> float:
    start = time.perf_counter()
    with torch.inference_mode():
        model.encode_images(images)
    return time.perf_counter() - start


@pytest.mark.performance
def test_a_batch_in_a_worker_takes_at_most_5_percent_longer(
    models: Callable[[str], Any],
) -> None:
    images = torch.rand(BATCH, 3, SIDE, SIDE)
    here, there = models("Vit")
    with torch.inference_mode():
        assert torch.equal(here.encode_images(images), there.encode_images(images))
    pairs = [(seconds(here, images), seconds(there, images)) for _ in range(ROUNDS)]
    ratio = statistics.median(away / near for near, away in pairs)
    near = statistics.median(near for near, _ in pairs)
    _, nothing = models("Nothing")
    seconds(nothing, images)
    pipe = statistics.median(seconds(nothing, images) for _ in range(ROUNDS))
    print(
        f"\n{BATCH} images of {SIDE} pixels through ViT-B/32: in process {near:.2f} s, isolated "
        f"{ratio:.3f} times that (median of {ROUNDS} pairs); the pipe alone {1000 * pipe:.0f} ms"
    )
    assert ratio < 1.05

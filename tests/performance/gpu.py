"""What a GPU is used for: one call prints every figure, each beside the ceiling of the same run.

    python tests/performance/gpu.py                       # small and paper, on cuda, bf16
    python tests/performance/gpu.py --device cpu --preset tiny --model cls-clip

The ceiling is the rate of one large matrix product, best of several, in the precision of the run.
Floating point operations are counted by torch (matrix products, convolutions, attention; a product
of n x k and k x m counts 2nkm), forward and backward as they run, so a share of the ceiling is that
of useful arithmetic in the wall time of the whole step. Weights are random: `paper` has the
published dimensions. Models and stages that cannot be are named with the reason.

Each figure is taken as the product runs, and again under torch.compile ("compiled"), the time of
compiling apart. What is compiled are the modules that are called from outside torch: whatever
stands around them is Python either way.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from medbench.models.capabilities import Stage
from medbench.models.modules import modules_of
from medbench.plugins import discover
from medbench.run.fit import construct
from medbench.run.fitting import StageRun
from medbench.run.request import RunSpec
from medbench.run.work import peak_memory_mb, watch_memory
from medbench.testing.corpus import corpus
from medbench.testing.subject import Subject

MODELS = ("radclip", "cls-clip", "adaptor", "open-clip", "unicrossadapter", "roentgen")
STEPS = 6  #: timed steps of training; the first ones are warm-up
WARM = 3
PROMPTS = ("Small left pleural effusion.", "Cardiomegaly.", "No acute process.", "Edema.")


class Enough(BaseException):
    """Ends a fit: a BaseException, so that nothing takes it for the model's error."""


class Steps(StageRun):
    """`medbench.FitRun` that notes when each step ended, and ends the fit after ``limit`` steps.

    Steps are reports of progress with a loss: reading and embedding report none. With ``compiled``
    what the first step calls of the parts that are trained is compiled after it.
    """

    def __init__(self, cell: RunSpec, folder: Path, limit: int, compiled: bool = False) -> None:
        super().__init__(
            device=torch.device(cell.device), precision=cell.precision, seed=0, folder=folder,
            advance=lambda done, total, **figures: None, say=print, notes=[],
        )  # fmt: skip
        self.times: list[float] = []
        self.counter: FlopCounterMode | None = None
        self.flops: list[int] = []
        self._limit = limit
        self._compiled = compiled
        self._called: list[nn.Module] = []
        self.watching = ExitStack()

    def epochs(self, count: int, *parts: Any, title: str = "") -> Iterator[int]:
        if self._compiled and not self.times:
            modules = [part for part in parts if isinstance(part, nn.Module)]
            self._called = self.watching.enter_context(outermost(modules))
        return super().epochs(count, *parts, title=title)

    def advance(self, done: int, total: int, **figures: float) -> None:
        if "loss" not in figures:
            return
        wait(self.device.type)
        self.times.append(time.perf_counter())
        if self.counter is not None:
            self.flops.append(self.counter.get_total_flops())
        if len(self.times) >= self._limit:
            raise Enough
        self.watching.close()
        for module in self._called:
            module.compile()
        self._called = []


@contextmanager
def outermost(modules: Iterable[nn.Module]) -> Iterator[list[nn.Module]]:
    """Of some modules and their parts those that, inside, are called by none of them."""
    known = {id(part) for module in modules for part in module.modules()}
    calls: list[nn.Module] = []
    found: list[nn.Module] = []

    def enter(module: nn.Module, _: Any) -> None:
        if id(module) in known:
            # a part that is computed again for its gradients was called by another before
            if not calls and not any(module is part for one in found for part in one.modules()):
                found.append(module)
            calls.append(module)

    def leave(module: nn.Module, *_: Any) -> None:
        if id(module) in known:
            calls.pop()

    hooks = (
        nn.modules.module.register_module_forward_pre_hook(enter),
        nn.modules.module.register_module_forward_hook(leave, always_call=True),
    )
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def wait(device: str) -> None:
    """Until the device has done what it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def seconds(work: Callable[[], object], device: str, times: int = 5) -> float:
    """Median wall time of a call, after one that is not counted."""
    work()
    found = []
    for _ in range(times):
        wait(device)
        start = time.perf_counter()
        work()
        wait(device)
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def ceiling(device: str, dtype: torch.dtype) -> float:
    """FLOP/s of one large matrix product, best of ten."""
    side = 8192 if device.startswith("cuda") else 1024
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    best = min(seconds(lambda: a @ b, device, 1) for _ in range(10))
    return 2 * side**3 / best


def cell_of(model: str, preset: str, device: str, precision: str) -> RunSpec:
    """The kit's cell of a model at a preset; weights are not asked for."""
    subject = Subject(discover(third_party=False), model, Path())
    subject.__dict__["preset"] = preset  # a cached property, set beforehand
    return replace(subject.cell, device=device, precision=precision, batch_size=256)  # type: ignore[arg-type]


def untrained(cell: RunSpec, stage: Stage | None = None) -> Any:
    """The model, or the class that owns a stage, on its device with random weights, where it leaves
    them without memory until they are loaded too."""
    model = construct(cell, stage)
    for module in modules_of(model):
        for part in module.modules():
            for name, weight in part._parameters.items():
                if weight is not None and weight.is_meta:
                    drawn = 0.02 * torch.randn(weight.shape)
                    part._parameters[name] = torch.nn.Parameter(drawn, weight.requires_grad)
        module.to(cell.device).eval()
    return model


def encoder(cell: RunSpec, peak: float) -> dict[str, Any]:
    """Images per second of ``encode_images``: from tensors on the device (the bare loop), and from
    bytes in the machine's memory, as the harness feeds it."""
    from medbench.data.images import to_tensor
    from medbench.models.prefetch import ahead
    from medbench.run.embed import encode

    model = untrained(cell)
    size, count = int(model.image_size), 256 if cell.device.startswith("cuda") else 16
    stored = torch.randint(0, 256, (count, size, size), dtype=torch.uint8).numpy()
    bare = to_tensor(stored).to(cell.device)
    autocast = torch.autocast(
        cell.device.partition(":")[0], torch.bfloat16, enabled=cell.precision == "bf16"
    )
    with torch.inference_mode(), autocast:
        with FlopCounterMode(display=False) as counter:
            model.encode_images(bare)
        quick = seconds(lambda: model.encode_images(bare), cell.device)
    batches = [torch.from_numpy(stored)] * 4

    def harness() -> None:
        for batch in ahead(batches, torch.device(cell.device)):
            encode(cell, model, "encode_images", batch)

    whole = seconds(harness, cell.device) / len(batches)
    flops = counter.get_total_flops()

    def compiled() -> dict[str, Any]:
        torch.compiler.reset()
        with torch.inference_mode(), autocast:
            with outermost(modules_of(model)) as called:
                model.encode_images(bare)
            for module in called:
                module.compile()
            wait(cell.device)
            start = time.perf_counter()
            model.encode_images(bare)
            wait(cell.device)
            first = time.perf_counter() - start
            took = seconds(lambda: model.encode_images(bare), cell.device)
        return {
            "images_per_second": round(count / took, 1),
            "speed_up": round(quick / took, 2),
            "compile_seconds": round(first - took, 1),
        }

    return {
        "images_per_second": round(count / quick, 1),
        "share_of_ceiling": round(flops / quick / peak, 3),
        "gflop_per_image": round(flops / count / 1e9, 2),
        "harness_against_bare_loop": round(quick / whole, 3),
        "compiled": measured(compiled),
    }


def training(cell: RunSpec, stage: Stage, peak: float) -> dict[str, Any]:
    """Median seconds of a training step and its share of the ceiling."""
    counted = stepped(cell, stage, WARM, count=True)
    timed = stepped(cell, stage, WARM + STEPS, count=False)
    if len(timed.times) < 2 or len(counted.flops) < 2:
        return {"reason": "it reports fewer than two losses on 64 drawn studies"}
    gaps = [b - a for a, b in zip(timed.times, timed.times[1:], strict=False)]
    step = statistics.median(gaps[max(0, WARM - 1) :] or gaps)
    flops = counted.flops[-1] - counted.flops[-2]
    found = {
        "seconds_per_step": round(step, 4),
        "share_of_ceiling": round(flops / step / peak, 3),
        "tflop_per_step": round(flops / 1e12, 4),
        "peak_memory_mb": peak_memory_mb(cell.device),
    }
    return found | {"compiled": measured(lambda: compiled_training(cell, stage, step))}


def compiled_training(cell: RunSpec, stage: Stage, eager: float) -> dict[str, Any]:
    """The same under torch.compile; ``eager`` is what a step takes without."""
    torch.compiler.reset()
    times = stepped(cell, stage, 1 + WARM + STEPS, count=False, compiled=True).times
    gaps = [b - a for a, b in pairwise(times)]
    if len(gaps) <= WARM:
        return {"reason": f"it ends after {len(times)} steps on 64 drawn studies"}
    step = statistics.median(gaps[WARM:])
    return {
        "seconds_per_step": round(step, 4),
        "speed_up": round(eager / step, 2),
        "compile_seconds": round(sum(gaps[:WARM]) - WARM * step, 1),
        "peak_memory_mb": peak_memory_mb(cell.device),
    }


def stepped(
    cell: RunSpec, stage: Stage, limit: int, *, count: bool, compiled: bool = False
) -> Steps:
    """Some steps of a stage's training from random weights, on what the kit draws."""
    unit = "image"
    if stage.corpus != "task":
        unit = discover(third_party=False).dataset(stage.corpus).unit
    watch_memory(cell.device)
    with TemporaryDirectory() as folder:
        run = Steps(cell, Path(folder), limit, compiled)
        model = untrained(cell, stage)
        try:
            if count:
                with FlopCounterMode(display=False) as run.counter:
                    model.fit(stage, corpus(stage.corpus, unit), run)  # type: ignore[arg-type]
            else:
                model.fit(stage, corpus(stage.corpus, unit), run)  # type: ignore[arg-type]
        except Enough:
            pass
        finally:
            run.watching.close()
    return run


def sampling(cell: RunSpec) -> dict[str, Any]:
    """Images per second of ``generate_images``."""
    model = untrained(cell)
    count = 32 if cell.device.startswith("cuda") else 4
    prompts = [PROMPTS[i % len(PROMPTS)] for i in range(count)]
    autocast = torch.autocast(
        cell.device.partition(":")[0], torch.bfloat16, enabled=cell.precision == "bf16"
    )
    with torch.inference_mode(), autocast:
        took = seconds(lambda: model.generate_images(prompts, list(range(count))), cell.device, 1)
    return {"images_per_second": round(count / took, 3), "batch": count}


def measured(what: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Its figures, or why there are none."""
    try:
        return what()
    except Exception as error:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return {"reason": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--preset", action="append", choices=("tiny", "small", "paper"))
    parser.add_argument("--model", action="append", choices=MODELS)
    given = parser.parse_args()
    gpu = given.device.startswith("cuda")
    precision = "bf16" if gpu else "fp32"
    peak = ceiling(given.device, torch.bfloat16 if gpu else torch.float32)
    name = torch.cuda.get_device_name(given.device) if gpu else "CPU"
    print(f"{name}, torch {torch.__version__}, {precision}: {peak / 1e12:.2f} TFLOP/s ceiling")

    def say(what: str, found: dict[str, Any]) -> None:
        print(f"{what}: {json.dumps(found)}", flush=True)

    for model in given.model or MODELS:
        for preset in given.preset or ("small", "paper"):
            try:
                cell = cell_of(model, preset, given.device, precision)
                stages = construct(cell).stages(None) if "fit" in cell.capabilities else ()
            except Exception as error:
                say(f"{model} {preset}", {"reason": str(error).splitlines()[0][:200]})
                continue
            if "encode_images" in cell.capabilities:
                say(f"{model} {preset} encode", measured(lambda: encoder(cell, peak)))  # noqa: B023
            for stage in stages:
                if not stage.cls or (model == "roentgen" and preset == "small"):
                    found = measured(lambda: training(cell, stage, peak))  # noqa: B023
                    say(f"{model} {preset} train '{stage.name}'", found)
            if "generate_images" in cell.capabilities and model == "roentgen":
                say(f"{model} {preset} sample", measured(lambda: sampling(cell)))  # noqa: B023


if __name__ == "__main__":
    main()

"""The options that name the cells of a matrix, the same on `run` and `sweep`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from medbench.run.request import Request

Models = Annotated[
    list[str],
    typer.Option(
        "-m",
        "--model",
        envvar="MEDBENCH_MODEL",
        metavar="NAME[@VARIANT]",
        help="Model to run; repeat for more.",
    ),
]
Tasks = Annotated[
    list[str],
    typer.Option(
        "-t",
        "--task",
        envvar="MEDBENCH_TASK",
        metavar="NAME",
        help="Task to run; repeat for more.",
    ),
]
Data = Annotated[
    list[str] | None,
    typer.Option(
        envvar="MEDBENCH_DATA",
        metavar="auto|phantom|[DATASET=]PATH",
        help="Real data as downloaded, or the phantom. Default auto: the real data if it is "
        "configured, else the phantom.",
    ),
]
Weights = Annotated[
    list[str] | None,
    typer.Option(
        envvar="MEDBENCH_WEIGHTS",
        metavar="MODEL=PATH",
        help="Published weights: safetensors, a PyTorch state dict, or a saved folder.",
    ),
]
Preset = Annotated[
    str,
    typer.Option(
        envvar="MEDBENCH_PRESET",
        metavar="auto|tiny|small|paper",
        help="Size of model and phantom. auto: tiny on a CPU, small on a GPU, paper on real data.",
    ),
]
Adaptation = Annotated[
    str | None,
    typer.Option(
        envvar="MEDBENCH_ADAPTATION",
        metavar="zero-shot|linear-probe|fine-tune",
        help="How the model meets a classification task. Default: the model's own.",
    ),
]
Protocol = Annotated[
    str,
    typer.Option(
        envvar="MEDBENCH_PROTOCOL",
        metavar="clean|paper-compat",
        help="clean: patient-level splits and selection on validation.",
    ),
]
Fractions = Annotated[
    list[float] | None,
    typer.Option(
        envvar="MEDBENCH_FRACTION",
        metavar="F",
        help="Train with this share of the labels, by patient; repeat for more. The seed draws "
        "it, and a smaller one lies inside a larger one. Default 1.",
    ),
]
Seeds = Annotated[
    list[int] | None,
    typer.Option(envvar="MEDBENCH_SEED", metavar="N", help="Seed; repeat for more. Default 0."),
]
Device = Annotated[
    str, typer.Option(envvar="MEDBENCH_DEVICE", metavar="auto|cpu|cuda[:N]", help="Where.")
]
Devices = Annotated[
    int,
    typer.Option(
        envvar="MEDBENCH_DEVICES",
        metavar="N",
        help="Train on N GPUs of this machine (with --device cpu, in N processes), each with its "
        "share of every batch.",
    ),
]
Accumulate = Annotated[
    int,
    typer.Option(
        envvar="MEDBENCH_ACCUMULATE",
        metavar="N",
        help="Work through training batches in N parts, adding their gradients: less memory. Where "
        "memory ends, this happens by itself.",
    ),
]
Precision = Annotated[
    str,
    typer.Option(
        envvar="MEDBENCH_PRECISION",
        metavar="auto|fp32|bf16",
        help="auto: bf16 on a GPU that has it, else fp32.",
    ),
]
BatchSize = Annotated[
    str,
    typer.Option(
        envvar="MEDBENCH_BATCH_SIZE",
        metavar="auto|N",
        help="Images embedded at once; training batches are settings of the model.",
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(
        envvar="MEDBENCH_LIMIT",
        metavar="N",
        help="Only N samples, stratified: a quick look. Such a run is never ranked.",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        envvar="MEDBENCH_SET",
        metavar="KEY=VALUE",
        help="Change a setting of the model; `medbench models show` lists them.",
    ),
]
Output = Annotated[
    Path | None,
    typer.Option(
        envvar="MEDBENCH_OUTPUT",
        metavar="DIR",
        help="Folder of the runs. Default: runs under MEDBENCH_HOME.",
    ),
]
Fresh = Annotated[
    bool,
    typer.Option("--fresh", envvar="MEDBENCH_FRESH", help="Build everything anew."),
]
Tensorboard = Annotated[
    Path | None,
    typer.Option(
        envvar="MEDBENCH_TENSORBOARD",
        metavar="DIR",
        help="Write the curves of what is trained as TensorBoard logs.",
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        envvar="MEDBENCH_DRY_RUN",
        help="Print the plan: stages, what is cached, estimated work. Nothing is run.",
    ),
]


def request_of(
    *,
    model: list[str],
    task: list[str],
    data: list[str] | None,
    weights: list[str] | None,
    preset: str,
    adaptation: str | None,
    protocol: str,
    fraction: list[float] | None,
    seed: list[int] | None,
    device: str,
    devices: int,
    accumulate: int,
    precision: str,
    batch_size: str,
    limit: int | None,
    setting: list[str] | None,
    output: Path | None,
    fresh: bool,
) -> Request:
    """The options as they were given, as a request."""
    from medbench.run.request import Request

    return Request(
        models=tuple(model),
        tasks=tuple(task),
        data=tuple(data or ("auto",)),
        weights=tuple(weights or ()),
        preset=preset,
        adaptation=adaptation,
        protocol=protocol,
        fractions=tuple(fraction if fraction else (1.0,)),
        seeds=tuple(seed if seed else (0,)),
        device=device,
        devices=devices,
        accumulate=accumulate,
        precision=precision,
        batch_size=batch_size,
        limit=limit,
        settings=tuple(setting or ()),
        output=output,
        fresh=fresh,
    )

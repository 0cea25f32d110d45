"""Names into frozen RunSpecs, and the refusal of what cannot be, before any data is touched."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

from medbench.errors import (
    CellError,
    DataError,
    MedbenchError,
    PluginError,
    UsageError,
    WeightsError,
    unknown_name,
)
from medbench.isolated import IsolatedSpec
from medbench.plugins import Registry
from medbench.run import stores
from medbench.run.request import BASELINE, DataSource, Plan, Refusal, Request, RunSpec, Skip
from medbench.run.settings import configure, parse_settings
from medbench.schemas.specs import ADAPTATIONS, PRESETS, PROTOCOLS, DatasetSpec, ModelSpec, Variant
from medbench.schemas.task import TaskSpec, load_task

#: What each adaptation of a classification task asks of a model; any one of a row's tuples will do.
_NEEDS: dict[tuple[str, str | None], tuple[tuple[str, ...], ...]] = {
    ("image", "linear-probe"): (("encode_images",),),
    ("volume", "linear-probe"): (("encode_volumes",),),
    ("image", "fine-tune"): (("encode_images",),),
    ("image", "zero-shot"): (("encode_images", "encode_texts"),),
    ("volume", "zero-shot"): (("encode_volumes", "encode_texts"),),
    ("image", "retrieval"): (("encode_images", "encode_texts"),),
    ("image", "segmentation"): (("encode_patches",),),
    ("study", "report-generation"): (("generate_reports",), ("encode_images",)),
    ("image", "image-generation"): (("generate_images",),),
    ("image", "augmentation"): (("generate_images",),),
    ("image", "text-probe"): (("encode_texts",),),
}


def resolve(request: Request, registry: Registry) -> Plan:
    """The plan of a request. Raises UsageError (exit 2) or DataError (exit 3)."""
    output = _output(request.output)
    settings = parse_settings(request.settings)
    models = [_model(name, registry) for name in _once(request.models, "model")]
    tasks = [_task(name, registry) for name in _once(request.tasks, "task")]
    writers = {task.name: _writer(task, registry) for task in tasks if task.writer}
    involved = [*models, *writers.values()]
    weights = _weights(request.weights, involved, registry)
    corpora_names = {name for spec, _ in involved for name in spec.pretraining}
    sources = _sources(request.data, {task.dataset for task in tasks}, corpora_names, registry)
    if request.limit is not None and request.limit < 1:
        raise UsageError("--limit takes a number of samples, at least 1.")
    if not all(0 < share <= 1 for share in request.fractions):
        raise UsageError("--fraction is a share of the labels, above 0 and at most 1.")
    device = _device(request.device)
    _check_devices(request, device)
    precision = _precision(request.precision, device)

    cells: list[RunSpec] = []
    skipped: list[Skip] = []
    refused: list[Refusal] = []
    for spec, variant, task in _matrix(models, tasks):
        name = f"{spec.name}@{variant.name}" if variant else spec.name
        writer = writers.get(task.name)
        adaptation = _adaptation(request.adaptation, spec, variant, task)
        reason = _impossible(spec, variant, task, adaptation, request.protocol)
        if not reason and adaptation == "zero-shot" and set(request.fractions) != {1.0}:
            reason = "zero-shot uses no labels, so there is no fraction of them"
        if reason:
            skipped.append(Skip(name, task.name, reason))
            continue
        source = sources[task.dataset]
        preset = _preset(request.preset, spec, source, device)
        if variant is not None and variant.presets and preset not in variant.presets:
            only = ", ".join(variant.presets)
            skipped.append(Skip(name, task.name, f"{name} exists at preset {only} only"))
            continue
        if writer is not None and preset not in _presets_of(*writer):
            reason = f"{task.writer}, which reads the images, has no preset '{preset}'"
            skipped.append(Skip(name, task.name, reason))
            continue
        try:
            model = _model_fields(spec, variant, preset, settings, weights, sources, registry)
            judge = writer and _judge_fields(task, *writer, preset, weights, sources, registry)
        except (PluginError, CellError) as error:  # the model's fault, not that of the others
            refused.append(Refusal(f"{name} x {task.name}", error))
            continue
        draws = product(_once(request.fractions, "fraction"), _once(request.seeds, "seed"))
        for fraction, seed in draws:
            cell = RunSpec(
                **model,
                preset=preset,
                task=task,
                source=source,
                protocol=request.protocol,  # type: ignore[arg-type]
                adaptation=adaptation,
                fraction=fraction,
                seed=seed,
                device=device,
                devices=request.devices,
                accumulate=request.accumulate,
                precision=precision,
                batch_size=_batch_size(request.batch_size, device),
                limit=request.limit,
            )
            if judge is not None:
                # one judge, whatever the seed, the labels and the devices of who is judged
                told = replace(cell, **judge)
                told = replace(told, fraction=1.0, seed=0, devices=1, accumulate=1)
                cell = replace(cell, writer=told)
            cells.append(cell)
    if not cells and refused:
        raise refused[0].error
    if not cells:
        reasons = "; ".join(f"{s.model} x {s.task}: {s.reason}" for s in skipped)
        raise UsageError(f"Nothing can be run. {reasons}.")
    return Plan(tuple(cells), tuple(skipped), output, tuple(refused))


def _model_fields(
    spec: ModelSpec,
    variant: Variant | None,
    preset: str,
    settings: dict[str, Any],
    weights: Mapping[str, Path],
    sources: Mapping[str, DataSource],
    registry: Registry,
) -> dict[str, Any]:
    """What a RunSpec says of its model. Raises WeightsError without weights that it needs, and what
    `configure` raises."""
    plugin = registry.owner("models", spec.name)
    given = _weights_for(weights, spec, variant)
    for_stages = {
        n.partition("@")[2]: path for n, path in weights.items() if n.startswith(f"{spec.name}@")
    }
    scratch = variant is not None and variant.from_scratch
    if preset in spec.needs_weights and not (given or for_stages or scratch):
        name = f"{spec.name}@{variant.name}" if variant else spec.name
        base = _variant_weights_hint(spec, variant)
        raise WeightsError(
            f"{name} at preset '{preset}' needs its published weights, which are not given."
            f" Name a local file or folder with --weights {base}=PATH, or choose a preset "
            "that trains here, such as --preset tiny."
        )
    config, values, assumed = configure(spec, plugin, preset, variant, settings)
    return {
        "model": spec,
        "variant": variant,
        "config": config,
        "config_values": values,
        "assumed": assumed,
        "distribution": plugin.distribution,
        "plugin_version": plugin.version,
        "plugin_package": spec.cls.partition(":")[0].partition(".")[0],
        "weights": given,
        "stage_weights": for_stages,
        "corpora": {name: sources[name] for name in spec.pretraining},
    }


def _judge_fields(
    task: TaskSpec,
    spec: ModelSpec,
    variant: Variant | None,
    preset: str,
    weights: Mapping[str, Path],
    sources: Mapping[str, DataSource],
    registry: Registry,
) -> dict[str, Any]:
    """As `_model_fields`, of a task's writer; no ``--set`` of the models under test concerns it."""
    try:
        return _model_fields(spec, variant, preset, {}, weights, sources, registry)
    except WeightsError as error:
        raise WeightsError(f"{_written_by(task)}. {error}") from error


def _matrix(
    models: Sequence[tuple[ModelSpec, Variant | None]], tasks: Sequence[TaskSpec]
) -> Iterator[tuple[ModelSpec, Variant | None, TaskSpec]]:
    """Every model on every task; the plain `BASELINE` is each of a task's baselines."""
    for spec, variant in models:
        for task in tasks:
            if spec.name == BASELINE and variant is None:
                yield from ((spec, spec.variant(name), task) for name in task.baselines)
            else:
                yield spec, variant, task


def find_data(spec: DatasetSpec, given: str | None) -> DataSource:
    """Where a dataset comes from: an option's path, the configuration file, or its phantom."""
    if given is None:
        configured = _configured().get(spec.name)
        if configured is None:
            if not spec.phantom:
                raise DataError(
                    f"Dataset '{spec.name}' is not configured and has no phantom. Give its folder "
                    f"with --data {spec.name}=PATH."
                )
            return DataSource(spec, None, "phantom", "no real data is configured")
        given, why = configured, f"configured in {config_file()}"
    else:
        why = "given"
    path = Path(given).expanduser()
    if not path.exists():
        raise DataError(
            f"The data of '{spec.name}', {path} ({why}), does not exist. Give the folder as "
            f"downloaded with --data {spec.name}=PATH, or --data phantom."
        )
    from medbench.run.load import opened

    root = path.resolve()
    return DataSource(spec, root, opened(spec, root).track, why)


def config_file() -> Path:
    """``MEDBENCH_CONFIG``, or ``config.toml`` in the user's configuration folder."""
    if given := os.environ.get("MEDBENCH_CONFIG"):
        return Path(given).expanduser()
    from platformdirs import user_config_path

    return user_config_path("medbench", appauthor=False) / "config.toml"


def _configured() -> Mapping[str, str]:
    path = config_file()
    if not path.is_file():
        return {}
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"Configuration file {path} cannot be read: {error}.") from error
    data = content.get("data", {})
    if not isinstance(data, dict) or not all(isinstance(v, str) for v in data.values()):
        raise UsageError(f'Configuration file {path}: [data] holds DATASET = "PATH" lines.')
    return data


def _once(names: Sequence[Any], what: str) -> list[Any]:
    if not names:
        raise UsageError(f"Name at least one {what}.")
    return list(dict.fromkeys(names))


def _model(name: str, registry: Registry) -> tuple[ModelSpec, Variant | None]:
    base, at, variant_name = name.partition("@")
    spec = registry.model(base)
    if not at:
        return spec, None
    variant = spec.variant(variant_name)
    if variant is None:
        raise unknown_name(f"variant of {base}", variant_name, [v.name for v in spec.variants])
    return spec, variant


def _task(name: str, registry: Registry) -> TaskSpec:
    task = load_task(registry.task_file(name))
    if task.name != name:
        raise UsageError(f"Task file {registry.task_file(name)} calls itself '{task.name}'.")
    for metric in task.metrics:
        registry.metric(metric)
    registry.dataset(task.dataset)
    return task


def _writer(task: TaskSpec, registry: Registry) -> tuple[ModelSpec, Variant | None]:
    """The model that writes the reports of a task's generated images. Raises UsageError or
    PluginError where there is none, or it does not write."""
    try:
        spec, variant = _model(task.writer, registry)
    except MedbenchError as error:
        raise type(error)(f"{_written_by(task)}. {error}") from error
    if "generate_reports" not in spec.capabilities_of(variant):
        raise UsageError(
            f"{_written_by(task)}, which has no generate_reports and so writes none. Name another "
            "model as writer in the task file."
        )
    return spec, variant


def _written_by(task: TaskSpec) -> str:
    return f"Task '{task.name}' has the reports of generated images written by '{task.writer}'"


def _sources(
    options: Sequence[str], tasks: set[str], corpora: set[str], registry: Registry
) -> dict[str, DataSource]:
    """One source for each dataset that a task or a model's training names."""
    wanted = tasks | corpora
    known = registry.names("datasets")
    paths: dict[str, str] = {}
    modes: set[str] = set()
    for option in options:
        name, equals, path = option.partition("=")
        if option in ("auto", "phantom"):
            modes.add(option)
            continue
        if equals and name in known:
            if name not in wanted:
                raise UsageError(
                    f"--data {option}: nothing in this run uses '{name}'. "
                    f"Datasets it uses: {', '.join(sorted(wanted))}."
                )
        elif equals and not Path(option).exists():
            raise unknown_name("dataset", name, known)
        else:
            if len(tasks) != 1:
                raise UsageError(
                    f"--data {option}: the tasks use {', '.join(sorted(tasks))}; say which one, "
                    "as --data DATASET=PATH."
                )
            (name,), path = tasks, option
        if paths.get(name, path) != path:
            raise UsageError(f"--data gives '{name}' twice: {paths[name]} and {path}.")
        paths[name] = path
    if "phantom" in modes and ("auto" in modes or paths):
        raise UsageError("--data phantom asks for phantoms only; it cannot go with another --data.")
    sources = {}
    for name in sorted(wanted):
        spec = registry.dataset(name)
        if "phantom" in modes:
            if not spec.phantom:
                raise UsageError(f"Dataset '{name}' has no phantom.")
            sources[name] = DataSource(spec, None, "phantom", "asked for")
        else:
            sources[name] = find_data(spec, paths.get(name))
    return sources


def _weights(
    options: Sequence[str], models: list[tuple[ModelSpec, Variant | None]], registry: Registry
) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for option in options:
        name, equals, text = option.partition("=")
        if not equals or not text:
            raise UsageError(f"--weights takes MODEL=PATH, not '{option}'.")
        base, _, part = name.partition("@")
        spec = registry.model(base)
        if part not in spec.parts:
            spec, _ = _model(name, registry)
        if spec.name not in {m.name for m, _ in models}:
            raise UsageError(f"--weights {option}: model '{spec.name}' is not in this run.")
        path = Path(text).expanduser()
        if not path.exists():
            raise WeightsError(f"The weights of {name}, {path}, do not exist.")
        if found.get(name, path) != path:
            raise UsageError(f"--weights gives '{name}' twice: {found[name]} and {path}.")
        found[name] = path
    return found


def _weights_for(
    weights: Mapping[str, Path], spec: ModelSpec, variant: Variant | None
) -> Path | None:
    if variant is not None and f"{spec.name}@{variant.name}" in weights:
        return weights[f"{spec.name}@{variant.name}"]
    if variant is not None and variant.own_weights:
        return None
    return weights.get(spec.name)


def _variant_weights_hint(spec: ModelSpec, variant: Variant | None) -> str:
    return f"{spec.name}@{variant.name}" if variant and variant.own_weights else spec.name


def _preset(asked: str, spec: ModelSpec, source: DataSource, device: str) -> str:
    if asked == "auto":
        if source.track == "real":
            preset = "paper"
        else:
            preset = "small" if device.startswith("cuda") else "tiny"
        if spec.presets and preset not in spec.presets:
            preset = next(p for p in PRESETS if p in spec.presets)
        return preset
    if asked not in PRESETS:
        raise unknown_name("preset", asked, PRESETS)
    if spec.presets and asked not in spec.presets:
        raise UsageError(
            f"Model '{spec.name}' has no preset '{asked}'; it has {', '.join(spec.presets)}."
        )
    return asked


def _presets_of(spec: ModelSpec, variant: Variant | None) -> Sequence[str]:
    """The presets that a model has in a variant."""
    return (variant.presets if variant else ()) or tuple(spec.presets) or PRESETS


def _adaptation(asked: str | None, spec: ModelSpec, variant: Variant | None, task: TaskSpec) -> Any:
    if asked is not None and asked not in ADAPTATIONS:
        raise unknown_name("adaptation", asked, ADAPTATIONS)
    if spec.name == BASELINE:
        return None
    if task.synthetic is not None:
        # a classifier of the harness is trained; the model under test only draws
        if asked is not None:
            raise UsageError(f"--adaptation: {task.name} trains a classifier of its own.")
        return None
    if task.type != "classification":
        if asked is not None:
            raise UsageError(f"--adaptation is for classification; {task.name} is {task.type}.")
        return None
    default = (variant.adaptation if variant else None) or spec.adaptation or task.adaptations[0]
    return asked or default


def _impossible(
    spec: ModelSpec, variant: Variant | None, task: TaskSpec, adaptation: Any, protocol: str
) -> str:
    """Why a cell cannot be; empty when it can."""
    if protocol not in task.protocols:
        if protocol not in PROTOCOLS:
            raise unknown_name("protocol", protocol, PROTOCOLS)
        return f"the task has no protocol '{protocol}', only {', '.join(task.protocols)}"
    if variant is not None and variant.protocols and protocol not in variant.protocols:
        only = ", ".join(variant.protocols)
        return f"{spec.name}@{variant.name} is run under --protocol {only} only"
    if spec.name == BASELINE:
        offers = ", ".join(task.baselines)
        named = variant is not None and variant.name in task.baselines
        return "" if named else f"the task's baselines are {offers}"
    if task.writer.partition("@")[0] == spec.name:
        return f"{task.writer} writes the reports of the images there, and does not judge its own"
    what = "augmentation" if task.synthetic is not None else adaptation or task.type
    if task.input == "text":
        what = "text-probe"
    if adaptation is not None and adaptation not in task.adaptations:
        return f"the task offers {', '.join(task.adaptations)}, not {adaptation}"
    if adaptation == "fine-tune" and isinstance(spec, IsolatedSpec):
        return (
            "fine-tune needs gradients through the model, and they do not pass between processes; "
            "install its plugin without --isolated"
        )
    options = _NEEDS.get((task.unit, what))
    if options is None:
        return f"{what} on a {task.unit} cannot be run by this version"
    able = set(spec.capabilities_of(variant))
    if not any(set(option) <= able for option in options):
        needs = " or ".join(" and ".join(option) for option in options)
        whose = "variant" if able < set(spec.capabilities) else "model"
        return f"{what} on a {task.unit} needs {needs}, which the {whose} does not have"
    return ""


def gpu_present() -> bool:
    """Whether torch can use an NVIDIA GPU, without importing torch where there is plainly none."""
    if os.name == "posix" and not any(
        Path(p).exists() for p in ("/dev/nvidia0", "/dev/nvidiactl", "/dev/dxg")
    ):
        return False
    import torch

    return torch.cuda.is_available()


def _device(asked: str) -> str:
    if asked == "auto":
        return "cuda" if gpu_present() else "cpu"
    kind, _, number = asked.partition(":")
    if kind not in ("cpu", "cuda") or (number and not (kind == "cuda" and number.isdigit())):
        raise UsageError(f"--device is auto, cpu, cuda or cuda:N, not '{asked}'.")
    if kind == "cuda":
        if not gpu_present():
            raise UsageError(
                f"--device {asked}: torch sees no GPU on this machine. Use --device cpu; `medbench "
                "doctor` says what is missing."
            )
        import torch

        if number and int(number) >= torch.cuda.device_count():
            raise UsageError(f"--device {asked}: there are {torch.cuda.device_count()} GPUs.")
    return asked


def _check_devices(request: Request, device: str) -> None:
    """Raises UsageError for a number of devices that this machine does not have."""
    if request.devices < 1 or request.accumulate < 1:
        raise UsageError("--devices and --accumulate take a number, at least 1.")
    if request.devices == 1 or device == "cpu":
        return
    import torch

    if ":" in device:
        raise UsageError(
            f"--devices {request.devices} uses the GPUs from the first on; --device {device} names "
            "one. Give one of the two, and choose among GPUs with CUDA_VISIBLE_DEVICES."
        )
    if request.devices > torch.cuda.device_count():
        raise UsageError(
            f"--devices {request.devices}: there are {torch.cuda.device_count()} GPUs."
        )


def _precision(asked: str, device: str) -> Literal["fp32", "bf16"]:
    if asked not in ("auto", "fp32", "bf16"):
        raise unknown_name("precision", asked, ("auto", "fp32", "bf16"))
    if not device.startswith("cuda"):
        if asked == "bf16":
            raise UsageError("--precision bf16 needs a GPU; this run is on the CPU.")
        return "fp32"
    if asked == "fp32":
        return "fp32"
    import torch

    if torch.cuda.is_bf16_supported(including_emulation=False):
        return "bf16"
    if asked == "bf16":
        raise UsageError("--precision bf16: this GPU does not support bfloat16.")
    return "fp32"


def _batch_size(asked: str, device: str) -> int:
    if asked == "auto":
        return 256 if device.startswith("cuda") else 64
    if not asked.isdigit() or int(asked) < 1:
        raise UsageError(f"--batch-size is auto or a number of images, not '{asked}'.")
    return int(asked)


def _output(given: Path | None) -> Path:
    """The folder of the runs, seen to be writable before any work is done for it."""
    folder = (given or stores.home() / "runs").expanduser()
    probe = folder / f".write-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UsageError(
            f"The output folder {folder} cannot be written ({error.strerror}). Choose another with "
            "--output, or MEDBENCH_HOME."
        ) from error
    return folder

"""The page: sections of runs that may stand side by side, each with its tables and figures.

A task type has its figures in a module of its own, named in `_MODULES`; runs of a type without one
have tables only, and the page says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from medbench.errors import UsageError
from medbench.evaluation.subgroups import ABOUT as ABOUT_SUBGROUPS
from medbench.plugins import Registry
from medbench.report import embedding, parameters, strips, tables
from medbench.report.drawing import Block
from medbench.report.html import template
from medbench.report.runs import Run, Section, sections
from medbench.report.strips import Strips
from medbench.run.reporter import Reporter
from medbench.run.stores import write_atomically

NAME = "index.html"


class Figures(Protocol):
    """What a task type's module in this package has."""

    def blocks(
        self, section: Section, name: str, registry: Registry, reporter: Reporter
    ) -> list[Block]:
        """The type's own figures of a section's runs; ids on the page begin with ``name``."""
        ...


_MODULES = {
    "classification": "medbench.report.classification",
    "retrieval": "medbench.report.retrieval",
    "segmentation": "medbench.report.segmentation",
    "report-generation": "medbench.report.reports",
    "image-generation": "medbench.report.generation",
}


@dataclass(frozen=True)
class Part:
    """A section as the page shows it."""

    name: str
    title: str
    facts: list[tuple[str, str]]
    about: str
    phantom: bool
    results: tables.Table
    fractions: tables.Table | None
    per_label: list[tables.Table]
    subgroups: list[tables.Table]
    blocks: list[Block]
    efficiency: tables.Table
    missing: list[str]


def write(
    runs: Sequence[Run],
    output: Path,
    registry: Registry,
    reporter: Reporter,
    kept: Mapping[str, Strips] | None = None,
) -> Path:
    """Write ``output/index.html``; returns its path. ``kept`` as `render` takes it.

    Raises UsageError when ``output`` cannot be a folder or be written, StorageError when there is
    no room.
    """
    if output.exists() and not output.is_dir():
        raise UsageError(f"{output} is a file; --output names the folder of the page.")
    text = render(runs, registry, reporter, kept)
    path = output / NAME
    write_atomically(path, text)
    return path


def render(
    runs: Sequence[Run],
    registry: Registry,
    reporter: Reporter,
    kept: Mapping[str, Strips] | None = None,
) -> str:
    """The page as HTML. ``kept``: run id to the denoising strips that the run has kept."""
    parts = [
        _part(section, f"part-{k}", registry, reporter, kept or {})
        for k, section in enumerate(sections(runs), 1)
    ]
    flags = sorted({flag for run in runs for flag in run.record.flags})
    return template("page.html").render(
        title=_title(runs),
        parts=parts,
        overview=tables.overview(runs),
        flags=[(flag, tables.FLAGS.get(flag, "")) for flag in flags],
        notes=tables.notes(runs),
        commands=[(run.label, tables.command(run, registry)) for run in runs],
        about_subgroups=ABOUT_SUBGROUPS,
        made_by=sorted({_made_by(run) for run in runs}),
        phantom=[part.title for part in parts if part.phantom],
        real=any(run.record.data.track == "real" for run in runs),
    )


def _part(
    section: Section,
    name: str,
    registry: Registry,
    reporter: Reporter,
    kept: Mapping[str, Strips],
) -> Part:
    record, task = section.first, section.task
    reporter.say(f"  {record.task.name}: {len(section.runs)} runs")
    found = parameters.blocks(section, name)
    found += embedding.blocks(section, name, reporter)
    module = _MODULES.get(record.task.type)
    missing = []
    if module is not None:
        figures = cast("Figures", import_module(module))
        found += figures.blocks(section, name, registry, reporter)
    else:
        missing.append(f"Tasks of type {record.task.type} have no figures of their own yet.")
    found += strips.blocks(section, kept)
    missing += _missing(section)
    data = record.data
    counted = ", ".join(f"{part} {n:,}" for part, n in data.samples.items())
    return Part(
        name=name,
        title=task.title if task else record.task.name,
        facts=[
            ("task", f"{record.task.name}, version {record.task.version} ({record.task.type})"),
            ("data", f"{data.dataset}, {data.track}, manifest {data.manifest_sha256[:12]}"),
            ("preset", record.model.preset),
            ("protocol", record.protocol),
            ("samples", f"{counted} (of run {section.runs[0].number})"),
        ],
        about=task.description if task else "",
        phantom=data.track == "phantom",
        results=tables.results(section),
        fractions=tables.fractions(section),
        per_label=tables.per_label(section, registry),
        subgroups=tables.subgroups(section),
        blocks=found,
        efficiency=tables.efficiency(section),
        missing=missing,
    )


def _missing(section: Section) -> list[str]:
    found = []
    for what, runs in (
        ("predictions, so no figures are drawn from them", [
            run for run in section.runs if run.predictions is None
        ]),
        ("features (features.npz), so no t-SNE is drawn", [
            run for run in section.models if run.features is None
        ]),
    ):  # fmt: skip
        if runs:
            found.append(f"Without {what}: {'; '.join(run.label for run in runs)}.")
    if section.task is None:
        found.append(
            f"The task '{section.first.task.name}' is not installed in the version of these runs: "
            "the first metric of the records stands for the one that ranks."
        )
    return found


def _title(runs: Sequence[Run]) -> str:
    names = list(dict.fromkeys(run.record.task.name for run in runs))
    models = list(dict.fromkeys(run.record.model_id for run in runs if not run.is_baseline))
    what = _some(models or [run.record.model_id for run in runs])
    return f"{what} on {_some(names)}"


def _some(names: Sequence[str], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _made_by(run: Run) -> str:
    environment = run.record.environment
    commit = environment.get("commit")
    return f"medbench {environment.get('medbench', 'of unknown version')}" + (
        f", commit {str(commit)[:12]}" if commit else ""
    )

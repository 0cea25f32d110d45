"""The studies over the same records: `medbench.study.judge` says what came of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medbench.errors import MedbenchError
from medbench.leaderboard.cells import DASH
from medbench.leaderboard.collect import Entry
from medbench.plugins import Registry
from medbench.schemas.study import Settled, StudyResult, StudySpec, Tested
from medbench.site.tables import Cell, Column, Line, Table, page_of
from medbench.study.catalogue import check, find_study, study_files
from medbench.study.judge import judge


@dataclass(frozen=True)
class Judged:
    """A study and what came of it; ``problem`` where it could not be judged."""

    name: str
    spec: StudySpec | None
    result: StudyResult | None
    problem: str

    @property
    def title(self) -> str:
        return self.spec.title if self.spec else self.name

    @property
    def href(self) -> str:
        return page_of("studies", self.name)

    @property
    def short(self) -> str:
        """How many hypotheses came to which verdict."""
        if self.result is None:
            return "cannot be judged"
        if not self.result.results:
            return "no runs yet"
        parts = []
        for settled in self.result.results:
            found = Counter(tested.verdict for tested in settled.hypotheses)
            said = ", ".join(
                f"{found[v]} {v}"
                for v in ("supported", "not supported", "inconclusive")
                if found[v]
            )
            parts.append(f"{settled.setting.title}: {said}")
        return "; ".join(parts)


def shown_studies(registry: Registry, cells: Set[tuple[str, str]]) -> dict[str, Path]:
    """Name to file of medbench's own studies, and of plugins' where a run of a side is recorded:
    an installed plugin does not change pages that have nothing to do with it.

    ``cells`` are models (see `cell_of`) and tasks of the records.
    """
    own = {
        registry.task_file(name).parent / "studies"
        for name in registry.names("tasks")
        if registry.owner("tasks", name).first_party
    }
    return {
        name: path
        for name, path in study_files(registry).items()
        if path.parent in own or cells_of((name,), registry) & cells
    }


def cell_of(record: Mapping[str, Any]) -> str:
    """Model with variant of a record's content, as a side of a study names it."""
    name, variant = record["model"]["name"], record["model"].get("variant")
    return f"{name}@{variant}" if variant else str(name)


def cells_of(names: Iterable[str], registry: Registry) -> set[tuple[str, str]]:
    """Model and task of every side of these studies: the runs that `judged` needs."""
    found = set()
    for name in names:
        try:
            spec = find_study(name, registry)
        except MedbenchError:
            continue  # `judged` says so
        found |= {(s.model, s.task) for h in spec.hypotheses for s in (h.a, h.b)}
    return found


def judged(names: Iterable[str], entries: Sequence[Entry], registry: Registry) -> list[Judged]:
    """These studies, in order. A damaged study says why, and the others are judged.

    Submitted runs are left out, as in ``study run --from leaderboards/records``.
    """
    own = [entry for entry in entries if entry.sent is None]
    found = []
    for name in names:
        spec = None
        try:
            spec = find_study(name, registry)
            check(spec, registry)
            found.append(Judged(name, spec, judge(spec, own, registry), ""))
        except MedbenchError as error:
            found.append(Judged(name, spec, None, str(error)))
    return found


def verdict_table(settled: Settled) -> Table:
    """Hypotheses with their effects; what is drawn is the effect."""
    columns = [
        Column("Hypothesis"),
        Column("Metric"),
        Column("A", number=True),
        Column("B", number=True),
        Column("Effect of A over B [95 % interval]", number=True, metric="effect"),
        Column("Margin", number=True),
        Column("p (Holm)", number=True),
        Column("Verdict"),
        Column("Seeds", number=True),
        Column("Why, or what to know"),
    ]
    lines = [_line(tested) for tested in settled.hypotheses]
    return Table(f"{settled.setting.title}: verdicts", columns, lines)


def _line(tested: Tested) -> Line:
    effect = Cell(DASH, mark="none")
    if tested.effect is not None and tested.ci95 is not None:
        low, high = tested.ci95
        effect = Cell(
            f"{tested.effect:+.3f}", f"[{low:+.3f}, {high:+.3f}]", tested.effect, low, high
        )
    marks = {"supported": "good", "not supported": "bad", "inconclusive": "none"}
    p = tested.p_holm
    cells = [
        Cell(tested.metric),
        _mean(tested.a.values),
        _mean(tested.b.values),
        effect,
        Cell(f"{tested.margin:+g}" if tested.margin else "0", value=tested.margin),
        Cell(DASH, mark="none") if p is None else Cell(f"{p:.3g}", value=p),
        Cell(tested.verdict, mark=marks[tested.verdict]),
        Cell(str(len(tested.seeds)), value=float(len(tested.seeds))),
        Cell("; ".join(tested.reasons) or "nothing", mark="" if tested.reasons else "none"),
    ]
    return Line(Cell(tested.name), cells, "model")


def _mean(values: Sequence[float]) -> Cell:
    if not values:
        return Cell(DASH, mark="none")
    mean = sum(values) / len(values)
    return Cell(f"{mean:.3f}", value=mean)

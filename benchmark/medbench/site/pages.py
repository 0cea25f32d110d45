"""Each page from what it shows: contexts for the templates, and nothing that reads a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from medbench.evaluation.keyed import PUBLISHED
from medbench.evaluation.subgroups import ABOUT
from medbench.leaderboard.board import Board
from medbench.leaderboard.cells import DASH
from medbench.leaderboard.render import BADGES, READING, UNPUBLISHED
from medbench.leaderboard.submitted import RERUN
from medbench.metrics.cards import card_sha256
from medbench.report.html import template
from medbench.schemas.specs import MetricSpec, ModelSpec
from medbench.schemas.task import TaskSpec
from medbench.site.matrix import Overview, overviews
from medbench.site.models import (
    Results,
    commands,
    results_table,
    suspected,
    training_table,
    variants_table,
)
from medbench.site.rankings import Place, Ranking, lead_table
from medbench.site.studies import Judged, verdict_table
from medbench.site.tables import Cell, Column, Line, Link, Table, page_of

#: Nothing but the site's own files is loaded, from a server or from disk, where the page's own
#: folder is ``file:``. The hash is that of the style that Plot 0.6.17 puts into each chart.
POLICY = (
    "default-src 'none'; script-src 'self' file:; style-src 'self' file: "
    "'sha256-zrfVyvY1E/5V+DXZunsRZW8XTqTsuIZzp8dBDThhSn8='; img-src data:; base-uri 'none'; "
    "form-action 'none'"
)

#: What the flags that bar a rank because of training data mean.
_EXPOSED = {
    "contaminated": "the given weights may have seen what is tested, so the row has no rank",
    "undeclared": "nobody says what the given weights were trained on, so the row has no rank",
    "phantom-pretrained": "trained on phantoms and tested on real data, so the row has no rank",
}


@dataclass
class Seen:
    """What all pages together know, gathered task by task; no record and no prediction.

    Attributes:
        tasks: those with records, by name.
        boards: their rankings as the tables have them.
        leads: of each task those with all labels.
        base: names of rows to names of models.
        results: by model.
        cards: metric to the hashes of the identity cards under which it was scored.
        real, phantom: whether there are records of these tracks.
    """

    tasks: dict[str, TaskSpec] = field(default_factory=dict)
    boards: dict[str, list[Board]] = field(default_factory=dict)
    leads: list[Ranking] = field(default_factory=list)
    base: dict[str, str] = field(default_factory=dict)
    results: dict[str, Results] = field(default_factory=dict)
    cards: dict[str, set[str]] = field(default_factory=dict)

    @property
    def real(self) -> bool:
        return any(not board.group.phantom for some in self.boards.values() for board in some)

    @property
    def phantom(self) -> bool:
        return any(board.group.phantom for some in self.boards.values() for board in some)


def _render(name: str, top: str, /, **context: object) -> str:
    return template(name, "medbench.site").render(top=top, policy=POLICY, **context)


def task_page(task: TaskSpec, found: Sequence[Ranking], replaced: int) -> str:
    """The page of one task."""
    groups = [ranking.board.group for ranking in found]
    rows = [row for r in found for row in (*r.board.rows, *r.board.unranked)]
    badges = sorted({row.badge for row in rows if row.badge})
    fractions = sorted({group.fraction for group in groups}, reverse=True)
    shown = {group.fraction: ranking.fraction for group, ranking in zip(groups, found, strict=True)}
    filters = [
        ("track", "Track", sorted({group.track for group in groups})),
        ("preset", "Preset", sorted({group.preset for group in groups})),
        ("protocol", "Protocol", sorted({group.protocol for group in groups})),
        ("adaptation", "Adaptation", sorted({g.adaptation or "as trained" for g in groups})),
        ("fraction", "Labels", [shown[fraction] for fraction in fractions]),
        ("badge", "Badge", badges),
    ]
    metrics = dict.fromkeys(name for ranking in found for name in ranking.board.metrics)
    return _render(
        "task.html",
        "../",
        task=task,
        metric_page=page_of("metrics", task.primary),
        metrics=[Link(page_of("metrics", name), name) for name in metrics],
        phantom=any(group.phantom for group in groups),
        real=any(not group.phantom for group in groups),
        replaced=replaced,
        rankings=found,
        leads=lead_table(f"Who leads {task.name}, ranking by ranking", found, whole=False),
        filters=filters,
        published=_published(task),
        about_subgroups=ABOUT,
        reading=READING,
        unpublished="" if task.type in PUBLISHED else UNPUBLISHED,
        badges=BADGES.replace("`", "") if set(badges) - {RERUN} else "",
    )


def _published(task: TaskSpec) -> Table | None:
    if not task.reference:
        return None
    lines = []
    for reference in task.reference:
        value = "not obtained"
        if reference.value is not None:
            value = f"{reference.value:g}" + (" %" if reference.unit == "percent" else "")
        texts = [reference.metric, value, reference.source]
        texts += ["yes" if reference.source_checked else "no", reference.note]
        lines.append(Line(Cell(reference.model), [Cell(text) for text in texts]))
    names = ("Model", "Metric", "Value", "Source", "Checked at the source", "Note")
    columns = [Column(name) for name in names]
    return Table("Published values, on real data", columns, lines, sortable=False)


def model_page(
    name: str,
    spec: ModelSpec | None,
    results: Results,
    tasks: Mapping[str, TaskSpec],
    place: Place,
) -> str:
    """The page of one model with all its variants; ``spec`` None where it is not installed."""
    groups = [ranking.board.group for ranking, _ in results.rows]
    facts = []
    if spec:
        facts = [
            ("Capabilities", ", ".join(spec.capabilities)),
            ("Default adaptation", spec.adaptation or "none: it is not adapted"),
            ("Presets", ", ".join(spec.presets)),
            ("Needs given weights", ", ".join(spec.needs_weights) or "never"),
            ("Trains on", ", ".join(spec.pretraining) or "nothing of its own"),
            ("Paper", spec.paper or DASH),
            ("Licence", spec.licence or DASH),
        ]
    facts.append(("Results made by", ", ".join(sorted(results.plugins))))
    return _render(
        "model.html",
        "../",
        name=name,
        spec=spec,
        facts=facts,
        phantom=any(group.phantom for group in groups),
        real=any(not group.phantom for group in groups),
        commands=commands(name, results),
        results=results_table(name, results, place),
        training=training_table(name, results),
        weights=sorted(results.weights),
        contamination=_contamination(spec, results, tasks),
        variants=variants_table(spec) if spec else None,
    )


def _contamination(
    spec: ModelSpec | None, results: Results, tasks: Mapping[str, TaskSpec]
) -> list[str]:
    lines = []
    for flag, meaning in _EXPOSED.items():
        rows = [(ranking, row) for ranking, row in results.rows if flag in row.flags]
        if rows:
            where = ", ".join(sorted({f"{row.name} on {r.task.name}" for r, row in rows}))
            lines.append(f"Flag {flag} ({meaning}): {where}.")
    if not lines:
        lines.append("None of its results here is flagged contaminated or undeclared.")
    if spec and spec.weights_data is not None:
        lines.append(f"Its published weights were trained on: {', '.join(spec.weights_data)}.")
    elif spec and spec.needs_weights:
        lines.append(
            "Its plugin does not declare what its published weights were trained on: results with "
            "them are flagged undeclared."
        )
    if spec and (exposed := suspected(spec, tasks)):
        lines.append(
            "By what its plugin and the task files declare, results with them would be flagged "
            f"contaminated on {', '.join(exposed)} (of the tasks on these pages, protocol clean)."
        )
    return lines


def metric_page(
    name: str, spec: MetricSpec | None, cards: set[str], tasks: Mapping[str, TaskSpec], seen: Seen
) -> str:
    """The page of one metric."""
    card = []
    direction = "Its plugin is not installed where this page was made."
    if spec:
        direction = f"{'Higher' if spec.higher_is_better else 'Lower'} is better."
        card = [
            ("Definition", spec.definition),
            ("Aggregation", spec.aggregation),
            ("Unit", spec.unit),
            ("Normalisation", spec.normalisation),
            ("Feature network", spec.backbone or "none"),
            ("Checked against", spec.reference or DASH),
            ("Version", str(spec.version)),
            ("Task types", ", ".join(spec.task_types)),
            ("Hash of the card", card_sha256(spec)[:12]),
        ]
    own = {card_sha256(spec)} if spec else set()
    if other := sorted(cards - own):
        card.append(("Scored under other cards too", ", ".join(sha[:12] for sha in other)))
    using = [n for n in sorted(tasks) if any(name in board.metrics for board in seen.boards[n])]
    ranks = [n for n in using if tasks[n].primary == name]
    return _render(
        "metric.html",
        "../",
        name=name,
        direction=direction,
        card=card,
        ranks=[Link(page_of("tasks", n), tasks[n].title) for n in ranks],
        beside=[Link(page_of("tasks", n), tasks[n].title) for n in using if n not in ranks],
    )


def study_page(study: Judged) -> str:
    """The page of one study."""
    settled = study.result.results if study.result else ()
    hypotheses = study.spec.hypotheses if study.spec else ()
    return _render(
        "study.html",
        "../",
        study=study,
        settings=[
            {
                "title": part.setting.title,
                "phantom": part.setting.track == "phantom",
                "table": verdict_table(part),
            }
            for part in settled
        ],
        metric_pages={h.metric: page_of("metrics", h.metric) for h in hypotheses},
    )


def index_page(
    seen: Seen,
    models: Mapping[str, ModelSpec | None],
    studies: Sequence[Judged],
    unreadable: Sequence[tuple[str, str]],
) -> tuple[str, list[Overview]]:
    """The first page, and the matrices that are too long for it."""
    views = overviews(seen.tasks, seen.boards, seen.base)
    leads = lead_table("Who leads, task by task", seen.leads, whole=True)
    tasks = []
    for name, task in sorted(seen.tasks.items()):
        rows = [row for board in seen.boards[name] for row in board.rows if row.kind == "model"]
        count = len({row.name for row in rows})
        about = f"{task.type}, {count} model{'s' * (count != 1)} ranked"
        tasks.append((Link(page_of("tasks", name), task.title), about))
    about_models = []
    for name, spec in sorted(models.items()):
        about = spec.description if spec else "not installed where these pages were made"
        about_models.append((Link(page_of("models", name), name), about))
    page = _render(
        "index.html",
        "",
        phantom=seen.phantom,
        real=seen.real,
        unreadable=unreadable,
        leads=leads,
        overviews=views,
        tasks=tasks,
        models=about_models,
        metrics=[Link(page_of("metrics", name), name) for name in sorted(seen.cards)],
        studies=studies,
    )
    return page, [view for view in views if view.page]


def overview_page(view: Overview) -> str:
    """A matrix of very many models."""
    return _render("overview.html", "../", view=view)

"""Build the site, and the tables with it: task by task, so that few records are held at once."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path

from medbench.errors import DataError, MedbenchError, UsageError
from medbench.leaderboard import build as tables
from medbench.leaderboard.collect import read
from medbench.leaderboard.index import Matrix, newest
from medbench.leaderboard.render import index_page
from medbench.plugins import Registry
from medbench.run.stores import write_atomically
from medbench.schemas.specs import MetricSpec, ModelSpec
from medbench.schemas.task import load_task
from medbench.site import pages
from medbench.site.models import gather
from medbench.site.rankings import Place, Ranking, rankings
from medbench.site.sources import BUILT_FROM, inputs_sha256, seal, sealed
from medbench.site.studies import Judged, cell_of, cells_of, judged, shown_studies
from medbench.site.tables import page_of

_SCHEMA = re.compile(r"medbench\.record/(\d+)\Z")
_KNOWN = 1


def build(
    records: Sequence[Path], out: Path, site: Path, root: Path, registry: Registry
) -> tuple[list[Path], list[tuple[str, str]]]:
    """Write the tables of `medbench.leaderboard.build` and the site of the same rankings.

    Args:
        records: record files; predictions are found beside them. Of two records of one cell the
            later given stands.
        out: folder of the tables.
        site: folder of the site: new, empty, or with an earlier site, whose files are replaced.
        root: folder that holds the records; pages link to records when ``site`` lies in it.
        registry: knows tasks, models, metrics and studies.

    Returns:
        The tables written and the site's first page; and the records of a newer schema, which are
        left out, each with the reason.

    Raises:
        DataError: a record or its predictions cannot be read, but for a newer schema.
        UsageError: ``site`` is a folder of something else; a record of an unknown task.
        VerificationError: a metric with unlike identity cards would share a table.
    """
    first = site / "index.html"
    records, root, site = [path.resolve() for path in records], root.resolve(), site.resolve()
    earlier = _earlier(site)
    known = {name: load_task(registry.task_file(name)) for name in registry.names("tasks")}
    metrics = [registry.metric(name) for name in registry.names("metrics")]
    by_task, cells, unreadable = _sorted(records, root)
    place, seen = Place(site, root), pages.Seen()
    texts: dict[str, str] = {}
    files: dict[str, str] = {}
    studies = shown_studies(registry, cells)
    wanted, compared = cells_of(studies, registry), []
    for name, paths in sorted(by_task.items()):
        given = [read(path, known) for path in paths]
        compared += [e for e in given if (e.record.model_id, name) in wanted]
        found = tables.rank(known[name], given, metrics)
        texts |= tables.task_texts(found)
        files[page_of("tasks", name)] = _enter(seen, found, place)
    texts[tables.INDEX] = index_page(known, seen.boards)
    files |= _others(
        seen, registry, metrics, judged(studies, compared, registry), unreadable, place
    )
    files |= _assets()
    # everything is known before anything is written; the seal before the pages, so that a site cut
    # short is known as one, is found stale, and can be built again
    hashes = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in files.items()}
    for name in set(earlier) - set(files):
        (site / name).unlink(missing_ok=True)
    write_atomically(site / BUILT_FROM, seal(inputs_sha256(records, root, known, registry), hashes))
    for name, text in files.items():
        write_atomically(site / name, text)
    written = tables.write(texts, out)
    return [*written, first], unreadable


def _earlier(site: Path) -> dict[str, str]:
    """The files of the site that stands there. Raises UsageError when something else does."""
    if site.exists() and not site.is_dir():
        raise UsageError(f"{site} is a file; --site names the folder of the site.")
    if not site.exists() or not any(site.iterdir()):
        return {}
    return sealed(site)[1]


def _sorted(
    records: Sequence[Path], root: Path
) -> tuple[dict[str, list[Path]], set[tuple[str, str]], list[tuple[str, str]]]:
    """Record files by task, in the order given; the models and tasks that they name; and those of a
    newer schema, each with a reason.

    Raises DataError for a file that is no record at all.
    """
    by_task: dict[str, list[Path]] = {}
    unreadable, cells = [], set()
    for path in records:
        try:
            content = json.loads(path.read_bytes())
            schema = _SCHEMA.match(str(content["schema"]))
            if schema and int(schema[1]) > _KNOWN:
                where = path.relative_to(root) if path.is_relative_to(root) else path.parent.name
                unreadable.append(
                    (
                        Path(where).as_posix(),
                        f"schema {schema[0]} is newer than this medbench, which knows "
                        f"medbench.record/{_KNOWN}. Build with a newer medbench.",
                    )
                )
                continue
            name = str(content["task"]["name"])
            cells.add((cell_of(content), name))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} is not a valid record: {error!r}.") from error
        by_task.setdefault(name, []).append(path)
    return by_task, cells, unreadable


def _enter(seen: pages.Seen, found: tables.Ranked, place: Place) -> str:
    """Note what other pages need of a task; returns its page."""
    name = found.task.name
    shown = rankings(found.task, found.boards, found.entries, place)
    seen.tasks[name] = found.task
    seen.boards[name] = found.boards
    seen.leads += _leads(shown)
    seen.base |= gather(seen.results, shown, found.entries)
    for entry in found.entries:
        for metric, value in entry.record.metrics.items():
            seen.cards.setdefault(metric, set()).add(value.card_sha256)
    return pages.task_page(found.task, shown, found.replaced)


def _leads(shown: Sequence[Ranking]) -> list[Ranking]:
    """The rankings that stand on the first page: with all labels, on the newest data."""
    alike: dict[Matrix, list[Ranking]] = {}
    for ranking in shown:
        group = ranking.board.group
        matrix = Matrix(group.phantom, group.preset, group.protocol, group.adaptation)
        alike.setdefault(matrix, []).append(ranking)
    latest = [newest([ranking.board for ranking in some]) for some in alike.values()]
    return [
        ranking
        for ranking in shown
        if ranking.lead.leader
        and ranking.board.group.fraction == 1
        and any(ranking.board is board for board in latest)
    ]


def _others(
    seen: pages.Seen,
    registry: Registry,
    metrics: Sequence[MetricSpec],
    studies: Sequence[Judged],
    unreadable: Sequence[tuple[str, str]],
    place: Place,
) -> Iterator[tuple[str, str]]:
    """All pages that are not a task's: name and text."""
    models = {name: _model(name, registry) for name in sorted(seen.results)}
    for name, spec in models.items():
        text = pages.model_page(name, spec, seen.results[name], seen.tasks, place)
        yield page_of("models", name), text
    specs: Mapping[str, MetricSpec] = {spec.name: spec for spec in metrics}
    named = {h.metric for study in studies if study.spec for h in study.spec.hypotheses}
    for name in sorted(set(seen.cards) | named):
        cards = seen.cards.setdefault(name, set())
        yield (
            page_of("metrics", name),
            pages.metric_page(name, specs.get(name), cards, seen.tasks, seen),
        )
    for study in studies:
        yield study.href, pages.study_page(study)
    first, long = pages.index_page(seen, models, studies, unreadable)
    yield "index.html", first
    for view in long:
        yield view.page, pages.overview_page(view)


def _model(name: str, registry: Registry) -> ModelSpec | None:
    """Its spec; None where it is not installed or its plugin is broken."""
    try:
        return registry.model(name)
    except MedbenchError:
        return None


def _assets() -> Iterator[tuple[str, str]]:
    folder = resources.files("medbench.site") / "assets"
    for part in sorted(folder.iterdir(), key=lambda part: part.name):
        yield f"assets/{part.name}", part.read_text(encoding="utf-8")

"""The matrix of a sweep as a graph of stages: what is made, for which cells, out of what.

A stage is identified by what its store entry is identified by, so that cells, variants and plugins
which ask for the same one share it. Where that is not known yet, since the data are not there, it
is identified by the configuration that will decide it; two such stages may turn out to be one, and
then the store's lock makes the second wait for the first and find it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

from medbench.errors import MedbenchError
from medbench.run.request import DataSource, Plan, RunSpec
from medbench.run.stores import Store, digest

if TYPE_CHECKING:
    from medbench.models.capabilities import Stage
    from medbench.run.features import Kind as Features
    from medbench.run.load import Loaded

Kind = Literal["dataset", "baselines", "base model", "pre-training", "features", "cell"]

#: What of a model says what its features depend on; whether it has ``pool_slices`` says it, too.
SEEN = ("image_size", "image_stages", "max_slices")

#: Kinds that a cell makes within itself where no other cell asks for the same.
SHARED = ("baselines", "features")


@dataclass(frozen=True)
class Node:
    """One stage of the graph.

    Attributes:
        id: hash of what identifies it.
        kind: which part of the work it is.
        title: one line for people.
        stage, name: what `medbench.run.runner.Runner.make` is asked for; ``cell`` is a whole cell.
        cells: indices in the plan of the cells that need it, in order.
        needs: ids of the stages that must be made before it.
        after: ids of stages that must have ended before it, however they did.
        there: True where the store, or for a cell the output folder, has it already.
        gpu: whether it computes on the device of its cells, rather than on CPU cores alone.
    """

    id: str
    kind: Kind
    title: str
    stage: str
    name: str
    cells: tuple[int, ...]
    needs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    there: bool = False
    gpu: bool = False


@dataclass(frozen=True)
class Graph:
    """The stages of a plan in an order in which they can be made; the last of a cell is itself."""

    plan: Plan
    nodes: tuple[Node, ...]

    def data_of(self, cell: int) -> set[str]:
        """Ids of the dataset stages of a cell."""
        return {n.id for n in self.nodes if n.kind == "dataset" and cell in n.cells}

    def describe(self) -> dict[str, Any]:
        """The graph as a document, for ``--dry-run``."""
        return {
            "schema": "medbench.sweep-plan/1",
            "stages": [
                {
                    "id": node.id[:12],
                    "kind": node.kind,
                    "stage": node.title,
                    "cells": [self.plan.cells[i].title for i in node.cells],
                    "needs": [need[:12] for need in node.needs],
                    "state": "there" if node.there else "to do",
                }
                for node in self.nodes
            ],
            "skipped": [
                {"model": s.model, "task": s.task, "reason": s.reason} for s in self.plan.skipped
            ],
        }


def draw(plan: Plan, store: Store) -> Graph:
    """The graph of a plan. Reads what is on disk; trains, renders and writes nothing.

    A cell whose stages cannot be told, since its plugin or its data are broken, is one stage: what
    is wrong shows when it is run.
    """
    drawing = _Drawing(plan, store)
    for index in range(len(plan.cells)):
        drawing.add_cell(index)
    nodes = list(drawing.nodes.values())
    lonely = {
        node.id
        for node in nodes
        if node.kind in SHARED and len(node.cells) == 1 and not _writes(plan, node)
    }
    return Graph(
        plan,
        tuple(
            replace(node, needs=tuple(need for need in node.needs if need not in lonely))
            for node in nodes
            if node.id not in lonely
        ),
    )


def _writes(plan: Plan, node: Node) -> bool:
    """Whether a task's writer is trained for some baselines: then others wait for it."""
    return node.kind == "baselines" and plan.cells[node.cells[0]].writer is not None


@dataclass
class _Traits:
    """What of a model decides the stages of its cells; the model itself may be large."""

    model: Any  # its attributes of `SEEN` alone
    size: int
    stages: list[Stage]
    keys: dict[str, str]  # of the given weights


@dataclass
class _Drawing:
    plan: Plan
    store: Store
    nodes: dict[str, Node] = field(default_factory=dict)
    traits: dict[tuple[str, str], _Traits] = field(default_factory=dict)
    divided: dict[tuple[Any, ...], Loaded | None] = field(default_factory=dict)
    decoded: dict[tuple[str, int], str] = field(
        default_factory=dict
    )  # the first of a dataset at a size
    written: dict[str, str] = field(default_factory=dict)  # the first baselines of a writer

    def add_cell(self, index: int) -> None:
        from medbench.run import records

        cell = self.plan.cells[index]
        loaded = self._loaded(cell)
        done = False
        needs: list[str] = []
        before = dict(self.nodes)
        try:
            if loaded is not None and not self.store.fresh:
                folder = self.plan.output / records.run_id(cell, loaded)
                done = records.find(folder, cell, loaded) is not None
            if not done:
                needs = self._stages(index, cell, loaded)
        except (MedbenchError, KeyError):  # KeyError: a stage names what there is not
            self.nodes, needs = before, []
        gpu = not (done or cell.baseline)
        self._add(["cell", index], index, "cell", cell.title, "cell", "", needs, done, gpu)

    def _stages(self, index: int, cell: RunSpec, loaded: Loaded | None) -> list[str]:
        """Add what a cell needs; the ids of it all."""
        from medbench.run.features import deciding_stages, kind_of
        from medbench.run.fit import with_needs
        from medbench.run.load import TASK_CORPUS

        data = self._render(index, cell, cell.source)
        if cell.baseline:
            from medbench.run.runner import BASELINE_SIZE

            data.append(self._decode(index, cell, loaded, BASELINE_SIZE, data))
            return [*data, self._baselines(index, cell, loaded, BASELINE_SIZE, data)]
        traits = self._traits(cell)
        data.append(self._decode(index, cell, loaded, traits.size, data))
        trivial = self._baselines(index, cell, loaded, traits.size, data)
        keys, ids = dict(traits.keys), dict[str, str]()
        rendered: dict[str, list[str]] = {TASK_CORPUS: data}
        for stage in traits.stages:
            if stage.weights in cell.stage_weights:
                keys[stage.name] = _given(cell, stage)
            elif stage.corpus not in rendered:
                source = cell.corpora[stage.corpus]
                rendered[stage.corpus] = self._render(index, cell, source)
        for stage in traits.stages:
            if stage.weights not in cell.stage_weights:
                before = [ids[name] for name in stage.needs if name in ids]
                ids[stage.name] = self._train(
                    index, cell, loaded, stage, keys, [*rendered[stage.corpus], *before], data[-1]
                )
        kind = kind_of(cell, traits.model)
        corpora = [one for some in rendered.values() for one in some]
        needs = list(dict.fromkeys([*data, trivial, *corpora, *ids.values()]))
        if kind:
            only = deciding_stages(cell, traits.model, kind)
            names = {s.name for s in with_needs(traits.stages, only)} if only is not None else ids
            decided = [ids[name] for name in ids if name in names]
            before = [*data, *(corpora if only is None else ()), *decided]
            needs.append(
                self._features(index, cell, loaded, kind, traits, keys, only, data[-1], before)
            )
        return needs

    def _render(self, index: int, cell: RunSpec, source: DataSource) -> list[str]:
        from medbench.run.load import phantom_key

        if source.root is not None:
            return []
        key, name = phantom_key(source.dataset, cell.preset), source.dataset.name
        there = self.store.has("phantoms", key)
        title = f"render {name} ({cell.preset})"
        return [self._add(["phantoms", key], index, "dataset", title, "render", name, (), there)]

    def _decode(
        self, index: int, cell: RunSpec, loaded: Loaded | None, size: int, needs: list[str]
    ) -> str:
        from medbench.run.load import images_key

        source = cell.source
        where = needs[0] if needs else str(source.root)
        there = False
        if loaded is None:
            part = [cell.task.sha256, cell.protocol, cell.limit]
            key: dict[str, Any] = {"source": where, "size": size, "part": part}
        else:
            key = images_key(loaded.dataset, size, loaded.samples)
            whole = images_key(loaded.dataset, size, loaded.dataset.samples)
            there = self.store.has("images", key) or self.store.has("images", whole)
        # of two parts of one dataset the second may find its images in the first, if that is whole
        first = self.decoded.setdefault((where, size), digest(["images", key]))
        name = source.dataset.name
        title = f"decode {name} at {size} px"
        return self._add(
            ["images", key], index, "dataset", title, "decode", name, needs, there, after=first
        )

    def _baselines(
        self, index: int, cell: RunSpec, loaded: Loaded | None, size: int, data: list[str]
    ) -> str:
        from medbench.run.job import baseline_key

        # the same as in `medbench.run.job.baseline_key`, with the images as this graph has them
        key = {
            "task": cell.task.sha256,
            "protocol": cell.protocol,
            "fraction": [cell.fraction, cell.seed if cell.fraction < 1 else 0],
            "seed": cell.seed if cell.task.synthetic else 0,
            "images": data[-1],
        }
        first = ""
        if cell.writer is not None:
            key["writer"] = _made_of(cell.writer)
            # whoever is first trains the writer, for all
            judge = digest([key["writer"], key["task"], key["protocol"], data[:-1]])
            first = self.written.setdefault(judge, digest(["baselines", key]))
        images: Any = SimpleNamespace(size=size)  # no pixel is looked at
        there = loaded is not None and all(
            self.store.has("baselines", baseline_key(cell, loaded, images, name))
            for name in cell.task.baselines
        )
        trained = cell.task.type != "classification" or cell.task.synthetic is not None
        title = f"baselines of {cell.task.name}"
        return self._add(
            ["baselines", key],
            index,
            "baselines",
            title,
            "baselines",
            "",
            data,
            there,
            trained,
            first,
        )

    def _train(
        self,
        index: int,
        cell: RunSpec,
        loaded: Loaded | None,
        stage: Stage,
        keys: dict[str, str],
        needs: list[str],
        decoded: str,
    ) -> str:
        """Add a training stage, and its key to ``keys``."""
        from medbench.run.fit import stage_key
        from medbench.run.load import TASK_CORPUS

        known = loaded is not None or stage.corpus != TASK_CORPUS
        if known:
            key = stage_key(cell, stage, keys, loaded)
        else:
            key = {
                "class": stage.cls or cell.model.cls,
                "stage": stage.name,
                "config": dict(stage.config),
                "needs": {name: keys[name] for name in ("weights", *stage.needs) if name in keys},
                "corpus": [decoded, cell.task.sha256, cell.protocol, cell.fraction],
                "seed": cell.seed,
            }
        keys[stage.name] = digest(key)
        there = known and self.store.has("checkpoints", key)
        kind: Kind = "base model" if stage.cls else "pre-training"
        title = f"{cell.model_id}: {stage.title or f'train {stage.name}'}, seed {cell.seed}"
        return self._add(
            ["checkpoints", key], index, kind, title, "train", stage.name, needs, there, gpu=True
        )

    def _features(
        self,
        index: int,
        cell: RunSpec,
        loaded: Loaded | None,
        kind: Features,
        traits: _Traits,
        keys: Mapping[str, str],
        only: Collection[str] | None,
        decoded: str,
        needs: list[str],
    ) -> str:
        wanted = keys if only is None else {n: keys[n] for n in ("weights", *only) if n in keys}
        loose = "weights" in wanted and not hasattr(traits.model, "image_stages")
        own = kind in ("tested", "texts")
        # the same as in `medbench.run.embed.Embedder.key`, with the images as this graph has them
        key = {
            "kind": kind,
            "model": cell.model.cls,
            "checkpoints": dict(wanted),
            "config": {} if wanted and not loose else dict(cell.config_values),
            "seed": cell.seed,
            "images": decoded,
            "slices": int(getattr(traits.model, "max_slices", 0)),
            "precision": cell.precision,
            "device": cell.device.partition(":")[0],
            "batch": cell.batch_size,
            "part": [cell.task.sha256, cell.protocol] if own else None,
        }
        there = kind in ("slices", "samples") and self._kept(cell, loaded, traits, wanted)
        title = f"{cell.model_id}: embed {cell.source.dataset.name} ({kind}), seed {cell.seed}"
        return self._add(
            ["features", key], index, "features", title, "features", kind, needs, there, gpu=True
        )

    def _kept(
        self, cell: RunSpec, loaded: Loaded | None, traits: _Traits, keys: Mapping[str, str]
    ) -> bool:
        from medbench.run.embed import Embedder
        from medbench.run.fit import Fitted
        from medbench.run.reporter import Reporter

        if loaded is None:
            return False
        fitted = Fitted(traits.model, dict(keys), {}, None, [])
        images: Any = None  # none is looked at
        samples, dataset = loaded.samples, loaded.dataset
        return Embedder(cell, dataset, samples, fitted, images, self.store, Reporter()).kept()

    def _add(
        self,
        key: list[Any],
        index: int,
        kind: Kind,
        title: str,
        stage: str,
        name: str,
        needs: Collection[str],
        there: bool,
        gpu: bool = False,
        after: str = "",
    ) -> str:
        """Add a stage, or a cell to a stage that is known; its id."""
        node_id = digest(key)
        known = self.nodes.get(node_id)
        if known is not None:
            cells = tuple(dict.fromkeys((*known.cells, index)))
            self.nodes[node_id] = replace(known, cells=cells)
        else:
            behind = (after,) if after not in ("", node_id) else ()
            ordered = tuple(dict.fromkeys(needs))
            self.nodes[node_id] = Node(
                node_id, kind, title, stage, name, (index,), ordered, behind, there, gpu
            )
        return node_id

    def _traits(self, cell: RunSpec) -> _Traits:
        from medbench.run.fit import construct, given_weights, stages_of

        name = (cell.model_id, cell.preset)
        if name not in self.traits:
            model = construct(cell)
            weights, sha256 = given_weights(cell)
            stages = list(stages_of(cell, model, weights))
            keys = {"weights": sha256} if sha256 else {}
            tags = SimpleNamespace(**{n: getattr(model, n) for n in SEEN if hasattr(model, n)})
            if hasattr(model, "pool_slices"):  # that it is there; a method would hold the model
                tags.pool_slices = True
            self.traits[name] = _Traits(tags, int(model.image_size), stages, keys)
        return self.traits[name]

    def _loaded(self, cell: RunSpec) -> Loaded | None:
        """The data of a cell, divided; None where they are not there, or cannot be."""
        from medbench.run.load import load, phantom_key
        from medbench.run.reporter import Reporter

        source = cell.source
        drawn = cell.seed if cell.fraction < 1 else 0
        name = (cell.task.name, cell.preset, cell.fraction, drawn)
        if name not in self.divided:
            self.divided[name] = None
            if source.root is not None or self.store.has(
                "phantoms", phantom_key(source.dataset, cell.preset)
            ):
                with suppress(MedbenchError):  # it is said when the cell is run
                    self.divided[name] = load(cell, self.store, Reporter())
        return self.divided[name]


def _made_of(writer: RunSpec) -> list[Any]:
    """What decides a writer's reports, as far as it is known without the data."""
    given = {name: str(path) for name, path in writer.stage_weights.items()}
    own = [writer.model_id, writer.preset, dict(writer.config_values), str(writer.weights), given]
    return [*own, writer.precision, writer.device.partition(":")[0], writer.batch_size]


def _given(cell: RunSpec, stage: Stage) -> str:
    from medbench.run.records import weights_sha256

    return str(weights_sha256(cell.stage_weights[stage.weights], cell.model.weight_files))

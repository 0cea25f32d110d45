"""The cells that a study needs, each once: what ``medbench run`` would be asked for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from medbench.errors import MedbenchError, UsageError
from medbench.plugins import Registry
from medbench.run.request import Plan, Request, RunSpec
from medbench.run.resolve import resolve
from medbench.schemas.study import Side, StudySpec
from medbench.study.catalogue import named


def plan(study: StudySpec, seeds: Sequence[int], request: Request, registry: Registry) -> Plan:
    """Every cell of both sides of every hypothesis, over the seeds.

    Args:
        study: checked by `medbench.study.catalogue.check`.
        seeds: instead of the study's.
        request: gives preset, device, limit and output; its models, tasks, seeds and settings are
            replaced.
        registry: knows models and tasks.

    Raises:
        UsageError: a cell that cannot be, or sides that would run at unlike presets.
        DataError, WeightsError: as of ``medbench run``.
    """
    cells: list[RunSpec] = []
    output = None
    for hypothesis in study.hypotheses:
        presets = []
        for letter, side in (("A", hypothesis.a), ("B", hypothesis.b)):
            try:
                part = resolve(_request(side, seeds, request), registry)
            except MedbenchError as error:
                raise named(error, study, hypothesis, letter) from error
            output = part.output
            presets.append(part.cells[0].preset)
            cells += [cell for cell in part.cells if cell not in cells]
        if presets[0] != presets[1]:
            unlike = UsageError(
                f"its sides would run at presets {presets[0]} and {presets[1]}, which are not "
                "compared. Name one that both have with --preset."
            )
            raise named(unlike, study, hypothesis)
    assert output is not None  # a study has hypotheses
    return Plan(tuple(cells), (), output)


def _request(side: Side, seeds: Sequence[int], request: Request) -> Request:
    return replace(
        request,
        models=(side.model,),
        tasks=(side.task,),
        adaptation=side.adaptation,
        protocol=side.protocol,
        fractions=(side.fraction,),
        seeds=tuple(seeds),
        # JSON values are TOML values, which is how --set reads them
        settings=tuple(f"{key}={json.dumps(value)}" for key, value in side.settings.items()),
    )

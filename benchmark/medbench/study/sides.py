"""Which runs are those of a side of a hypothesis."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from medbench.leaderboard.collect import Entry
from medbench.plugins import Registry
from medbench.run.settings import configure
from medbench.schemas.study import Setting, Side

#: Manifest of the data, and seed: a run of A is compared with the run of B that has both.
Draw = tuple[str, int]


def setting_of(entry: Entry) -> Setting:
    """What a run must share with another to be compared with it in a study."""
    record = entry.record
    return Setting(
        track=record.data.track,
        preset=record.model.preset,
        precision=record.precision,
        limited="limited" in record.flags,
    )


def runs_of(
    side: Side, entries: Iterable[Entry], registry: Registry
) -> dict[Setting, dict[Draw, Entry]]:
    """The runs of a side among ``entries``; of two runs of one cell the later given stands.

    A run belongs to a side when it has its model, task, protocol, adaptation, fraction and
    every setting: the configuration in the record is what this medbench gives the side at the
    record's preset.
    """
    found: dict[Setting, dict[Draw, Entry]] = {}
    configs: dict[str, Mapping[str, Any]] = {}
    for entry in entries:
        record = entry.record
        told = (
            record.model_id,
            record.task.name,
            record.protocol,
            record.adaptation,
            record.fraction,
        )
        asked = (side.model, side.task, side.protocol, side.adaptation, side.fraction)
        if told != asked:
            continue
        preset = record.model.preset
        if preset not in configs:
            configs[preset] = _config(side, preset, registry)
        if dict(configs[preset]) != record.model.config:
            continue
        draw = (record.data.manifest_sha256, record.seed)
        found.setdefault(setting_of(entry), {})[draw] = entry
    return found


def _config(side: Side, preset: str, registry: Registry) -> Mapping[str, Any]:
    base, _, name = side.model.partition("@")
    spec = registry.model(base)
    variant = spec.variant(name) if name else None
    owner = registry.owner("models", base)
    return configure(spec, owner, preset, variant, dict(side.settings))[1]

"""Curves of training are logs that TensorBoard reads."""

from __future__ import annotations

from pathlib import Path

from google.protobuf.message import Message
from tensorboardX.proto.event_pb2 import Event

from medbench.run.curves import Curves
from medbench.run.reporter import Reporter


def events(log: Path) -> list[Message]:
    """The records of an event file: length, checksum, content, checksum."""
    content, found = log.read_bytes(), []
    while content:
        length = int.from_bytes(content[:8], "little")
        found.append(Event.FromString(content[12 : 12 + length]))
        content = content[16 + length :]
    return found


def test_what_a_stage_reports_becomes_a_curve(tmp_path: Path) -> None:
    reporter = Reporter()
    reporter.curves = Curves(tmp_path)
    reporter.curves.cell = "radclip@clip x covid-ct, seed 0"
    with reporter.stage("slice pooling", "fit-volumes") as advance:
        for step in range(1, 4):
            advance(step * 8, 24, loss=1 / step, rate=0.1)
    with reporter.stage("embed", "embed") as advance:
        advance(1, 2)
    (log,) = tmp_path.rglob("events*")
    assert (
        log.parent.relative_to(tmp_path).as_posix() == "radclip@clip_x_covid-ct__seed_0/fit-volumes"
    )
    told = [(e.step, v.tag, round(v.simple_value, 3)) for e in events(log) for v in e.summary.value]  # type: ignore[attr-defined]
    assert [t for t in told if t[1] == "loss"] == [
        (8, "loss", 1.0),
        (16, "loss", 0.5),
        (24, "loss", 0.333),
    ]
    assert len([t for t in told if t[1] == "rate"]) == 3

"""The option ``--backbone``, the same on every verb that computes metrics."""

from __future__ import annotations

from typing import Annotated

import typer

Backbones = Annotated[
    list[str] | None,
    typer.Option(
        "--backbone",
        envvar="MEDBENCH_BACKBONE",
        metavar="NAME=PATH",
        help="Weights of a feature network of FID and KID: xrv, inception, inception-torchvision. "
        "Repeat for more.",
    ),
]


def choose_backbones(options: list[str] | None) -> None:
    """Hold the options against what there is, before any work; see `medbench.metrics.backbones`."""
    from medbench.metrics.backbones import choose

    choose(options or ())

"""Trained parameters against the ranking metric: what does adapting more of a model buy?

The picture of the Adaptor paper's Fig. 2: cost to the right, quality upwards, trivial predictors as
lines that a model must clear.
"""

from __future__ import annotations

from math import ceil, floor, log10

from medbench.report.drawing import FAINT, MUTED, PAPER, Block, canvas, finish, series, short
from medbench.report.runs import Section
from medbench.report.tables import arrow, baselines, number


def blocks(section: Section, name: str) -> list[Block]:
    """One figure, where at least two models have the ranking metric; ``name`` begins its id."""
    metric = section.primary
    runs = [run for run in section.models if metric in run.record.metrics]
    if metric is None or len(runs) < 2:
        return []
    direction = arrow(section.metrics[metric])
    trained = [run.record.model.parameters.trainable for run in runs]
    some = [count for count in trained if count > 0] or [1]
    decades = range(floor(log10(min(some))), ceil(log10(max(some) + 1)) + 1)
    frozen_at = 10.0 ** (decades[0] - 1)  # a place on the logarithmic axis for none at all
    places = _apart([float(count) if count > 0 else frozen_at for count in trained])
    with canvas(520, 380 + 16 * len(runs)) as (figure, axes):
        axes.set_xscale("log")
        for index, (run, x) in enumerate(zip(runs, places, strict=True)):
            colour, _, marker = series(index)
            value = run.record.metrics[metric]
            low, high = value.ci95
            axes.plot([x, x], [low, high], color=colour, linewidth=2)
            axes.plot(
                [x], [value.value], marker, color=colour, markersize=9, markeredgecolor=PAPER,
                label=f"{short(run.label)}: {number(value.value)} "
                f"[{number(low)}, {number(high)}]",
            )  # fmt: skip
            axes.annotate(str(run.number), (x, value.value), (8, 4), textcoords="offset points")
        left = frozen_at / 4 if 0 in trained else 10.0 ** (decades[0] - 0.3)
        right = 10.0 ** (decades[-1] + 0.3)
        _lines(section, metric, axes, right)
        if 0 in trained:
            axes.axvline(frozen_at * 4, color=FAINT, linewidth=1, linestyle=":")
        ticks = {frozen_at: "none"} if 0 in trained else {}
        if any(trained):
            ticks |= {10.0**power: _power(power) for power in decades}
        axes.set_xticks(list(ticks), list(ticks.values()))
        axes.set_xlim(left, right)
        axes.minorticks_off()
        axes.set_xlabel("trainable parameters")
        axes.set_ylabel(f"{metric} {direction}")
        axes.grid(axis="y", linewidth=0.6)
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower left")
        described = "; ".join(
            f"{run.label} with {count:,} trainable parameters: "
            f"{number(run.record.metrics[metric].value)}"
            for run, count in zip(runs, trained, strict=True)
        )
        drawn = finish(
            figure,
            f"{name}-parameters",
            f"Trainable parameters against {metric}",
            f"{described}.",
            "Bars are 95 % intervals over patients; dashed lines are baselines, whose intervals "
            "stand in the table of results. Numbers are those of the table. Runs of equally many "
            "parameters stand side by side.",
        )
    return [
        Block(
            f"What training buys: {metric} by trainable parameters",
            "Higher and further left is better: more quality for fewer trained parameters."
            if direction == "↑"
            else "Lower and further left is better: less error for fewer trained parameters.",
            [drawn],
        )
    ]


def _power(power: int) -> str:
    """1, 10, 100, 1k ... as the tick of a decade."""
    thousands, rest = divmod(power, 3)
    if thousands > 4:
        return f"1e{power}"
    return f"{10**rest}{['', 'k', 'M', 'G', 'T'][thousands]}"


def _apart(places: list[float]) -> list[float]:
    """Equal places next to each other, a sixth of a decade from one to the next."""
    return [
        place * 10 ** ((places[:index].count(place) - (places.count(place) - 1) / 2) / 6)
        for index, place in enumerate(places)
    ]


def _lines(section: Section, metric: str, axes: object, right: float) -> None:
    """A line for each baseline, named at its end."""
    from matplotlib.axes import Axes

    assert isinstance(axes, Axes)
    for name, values, owners in baselines(section):
        if metric in values:
            height = values[metric].value
            axes.axhline(height, color=MUTED, linewidth=1.2, linestyle="--")
            some = len(owners) < len(section.runs)
            whose = f" (beside {', '.join(str(run.number) for run in owners)})" if some else ""
            axes.annotate(
                f"{name}{whose} {number(height)}", (right, height), (-2, 2), ha="right",
                textcoords="offset points", color=MUTED, fontsize=10,
            )  # fmt: skip

"""Who leads a ranking, whether the lead is real, and what it cost: in words.

Nothing is computed here that the tables do not hold: ranks come from the paired tests of
`medbench.leaderboard.resampling`, and baselines are compared by their intervals.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from medbench.leaderboard.board import Board, Figure, Row
from medbench.leaderboard.cells import count, duration

#: What stands among the baselines and is no trivial predictor: real images held against real ones,
#: which is the best that a generator can come to.
CEILINGS = ("real", "real-versus-real")


#: A tied model is named as cheaper when its training took less than this share of the leader's:
#: wall times differ by as much as the rest from one run to the next.
CHEAPER = 0.8


@dataclass(frozen=True)
class Lead:
    """What one ranking says.

    Attributes:
        leader: the ranked model of best value; None where no model has a rank.
        tied: others of rank 1, which no other model is told apart from as better.
        ranked: how many models have a rank.
        trivial: the best trivial predictor, if there is one.
        against: how the leader stands to it, by their intervals; empty without one.
    """

    leader: Row | None
    tied: tuple[Row, ...]
    ranked: int
    trivial: Row | None
    against: Literal["", "above", "not apart", "below"]

    @property
    def verdict(self) -> Literal["none", "alone", "tie", "real"]:
        """``real``: told apart from every other model, or from one that is."""
        if self.leader is None:
            return "none"
        if self.ranked == 1:
            return "alone"
        return "tie" if self.tied else "real"

    @property
    def short(self) -> str:
        """The verdict in a few words."""
        return {
            "none": "nothing ranked",
            "alone": "only model",
            "tie": f"tie of {1 + len(self.tied)} of {self.ranked}",
            "real": f"real, over {self.ranked - 1} other{'s' * (self.ranked > 2)}",
        }[self.verdict]


def find_lead(board: Board, metric: str) -> Lead:
    """The lead of one ranking by its primary metric."""
    ranked = [row for row in board.rows if row.kind == "model" and row.rank and _has(row, metric)]
    trivial = [
        row
        for row in board.rows
        if row.kind == "baseline" and _has(row, metric) and plain(row) not in CEILINGS
    ]
    leader = ranked[0] if ranked else None  # rows are in order of the metric, the best first
    best = trivial[0] if trivial else None
    against: Literal["", "above", "not apart", "below"] = ""
    if leader is not None and best is not None:
        own, other = leader.figures[metric], best.figures[metric]
        if own.ci95[0] <= other.ci95[1] and other.ci95[0] <= own.ci95[1]:
            against = "not apart"
        else:
            higher = (own.value > other.value) == board.higher_is_better.get(metric, True)
            against = "above" if higher else "below"
    tied = tuple(row for row in ranked[1:] if row.rank == 1)
    return Lead(leader, tied, len(ranked), best, against)


def sentences(board: Board, lead: Lead, metric: str, device: str) -> list[str]:
    """The lead in words: who, whether it is real, against what, at what cost.

    ``device`` is what training was timed on; empty where records do not say.
    """
    leader = lead.leader
    if leader is None:
        return ["No model has a rank here."]
    own = f"{leader.name} ({metric} {words(leader.figures[metric])})"
    said = []
    if lead.verdict == "alone":
        said.append(f"{own} is the only model that is ranked here, so it leads nobody.")
    elif lead.verdict == "tie":
        others = _names([row.name for row in lead.tied])
        said.append(
            f"No clear leader. {own} has the best value, but {others} "
            f"{'is' if len(lead.tied) == 1 else 'are'} tied with it: {_how(board)} tells no other "
            "model apart as better."
        )
    else:
        second = next(row for row in board.rows if row.rank and row is not leader)
        said.append(f"{own} leads, and the lead is real: {_how(board)} tells it apart from")
        said[0] += f" the next model, {second.name} ({words(second.figures[metric])})."
    said += _seeds(board, lead, metric)
    if lead.trivial is not None:
        trivial = f"{plain(lead.trivial)} ({words(lead.trivial.figures[metric])})"
        said.append(
            {
                "above": f"{leader.name} beats the best trivial predictor, {trivial}.",
                "not apart": f"{leader.name} is not told apart from a trivial predictor, "
                f"{trivial}: their intervals overlap.",
                "below": f"A trivial predictor, {trivial}, is better than every model.",
            }[lead.against]
        )
    return [*said, *_cost(lead, device)]


def words(figure: Figure) -> str:
    """Value and interval as in the tables."""
    low, high = figure.ci95
    return f"{figure.value:.3f} [{low:.3f}, {high:.3f}]"


def plain(row: Row) -> str:
    """A baseline's own name, however it was run."""
    return row.name.removeprefix("baseline@")


def _has(row: Row, metric: str) -> bool:
    return metric in row.figures


def _how(board: Board) -> str:
    if not board.by_interval:
        return "the paired test over patients"
    if board.by_interval == board.pairs:
        return "comparing intervals, a cruder rule than the paired test,"
    return (
        f"the paired test over patients (or, for {board.by_interval} of {board.pairs} pairs, "
        "comparing intervals)"
    )


def _names(names: list[str], most: int = 6) -> str:
    shown = names[:most] + ([f"{len(names) - most} more"] if len(names) > most else [])
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def _seeds(board: Board, lead: Lead, metric: str) -> list[str]:
    """What another training seed might change."""
    assert lead.leader is not None
    own = lead.leader.figures[metric]
    rivals = [row for row in board.rows if row.rank and row is not lead.leader]
    if not rivals:
        return []
    if own.seed_sd is None:
        return ["One training seed: whether another would keep this order is not known."]
    worst = min(own.seeds) if board.higher_is_better.get(metric, True) else max(own.seeds)
    over = [row.name for row in rivals if _reaches(row.figures[metric], worst, board, metric)]
    if not over or lead.verdict == "tie":
        return []
    return [
        f"The seeds' ranges of {_names(over)} and the leader overlap: another training seed may "
        "turn the order round."
    ]


def _reaches(figure: Figure, worst: float, board: Board, metric: str) -> bool:
    if board.higher_is_better.get(metric, True):
        return max(figure.seeds) >= worst
    return min(figure.seeds) <= worst


def _cost(lead: Lead, device: str) -> list[str]:
    assert lead.leader is not None
    cost, said = lead.leader.cost, []
    where = f" on {device}" if device else ""
    if cost.parameters is not None:
        total, trained = cost.parameters
        text = f"{lead.leader.name} trains {count(trained)} of its {count(total)} parameters"
        if not trained:
            text = f"{lead.leader.name} trains none of its {count(total)} parameters"
        if cost.train_seconds:
            text += f"; all stages of training took {duration(cost.train_seconds)}{where}"
        said.append(f"{text}.")
    timed = [row for row in (lead.leader, *lead.tied) if row.cost.train_seconds is not None]
    if len(timed) > 1:
        quick = min(timed, key=lambda row: (row.cost.train_seconds or 0.0, row.name))
        least, own = quick.cost.train_seconds or 0.0, cost.train_seconds
        if own is None or least < CHEAPER * own:
            said.append(f"Of those tied, {quick.name} took least training, {duration(least)}.")
    return said

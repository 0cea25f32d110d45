"""Who leads, in words: from boards, without a record."""

from __future__ import annotations

from medbench.leaderboard.board import Board, Cost, Figure, Row
from medbench.leaderboard.collect import Group
from medbench.site.lead import find_lead, sentences

GROUP = Group(True, "tiny", "clean", "linear-probe", 1, 1.0, "d", "1", "ab" * 32)


def row(
    name: str, rank: int | None, value: float, *, seeds: tuple[float, ...] = (), **changes: object
) -> Row:
    seeds = seeds or (value,)
    figure = Figure(value, (value - 0.02, value + 0.02), True, seeds, 10)
    kind = "model" if rank else "baseline"
    found = Row(name, kind, {"auroc": figure}, tuple(range(len(seeds))), rank=rank)
    for key, change in changes.items():
        setattr(found, key, change)
    return found


def said(*rows: Row, higher: bool = True, pairs: int = 0, by_interval: int = 0) -> tuple[str, str]:
    board = Board(
        GROUP, ("auroc",), {"auroc": higher}, 10, 5, list(rows), [], [], pairs, by_interval
    )
    lead = find_lead(board, "auroc")
    return lead.short, " ".join(sentences(board, lead, "auroc", "cpu"))


def test_a_lead_is_real_when_the_next_model_has_a_worse_rank() -> None:
    short, text = said(row("a", 1, 0.9), row("b", 2, 0.8), row("c", 2, 0.7))
    assert short == "real, over 2 others"
    assert "a (auroc 0.900 [0.880, 0.920]) leads, and the lead is real: the paired test" in text
    assert "apart from the next model, b (0.800" in text


def test_a_tie_is_no_lead_and_the_cheapest_of_those_tied_is_named() -> None:
    short, text = said(
        row("a", 1, 0.9, cost=Cost((2_000_000, 1_000), 600.0)),
        row("b", 1, 0.89, cost=Cost((2_000_000, 0), 6.0)),
        row("c", 3, 0.7),
    )
    assert short == "tie of 2 of 3"
    assert "No clear leader" in text
    assert "but b is tied with it" in text
    assert "a trains 1.0 k of its 2.0 M parameters; all stages of training took 10 min" in text
    assert "Of those tied, b took least training, 6.0 s." in text


def test_a_tied_model_that_took_about_as_long_is_not_called_cheaper() -> None:
    costs = [Cost((2_000_000, 0), seconds) for seconds in (600.0, 590.0)]
    _, text = said(row("a", 1, 0.9, cost=costs[0]), row("b", 1, 0.89, cost=costs[1]))
    assert "least training" not in text


def test_one_model_leads_nobody_and_none_is_said() -> None:
    assert said(row("a", 1, 0.9))[0] == "only model"
    assert "leads nobody" in said(row("a", 1, 0.9))[1]
    assert said(row("prior", None, 0.5)) == ("nothing ranked", "No model has a rank here.")


def test_a_trivial_predictor_that_is_not_beaten_is_said() -> None:
    assert (
        "a beats the best trivial predictor, prior"
        in said(row("a", 1, 0.9), row("prior", None, 0.5))[1]
    )
    assert (
        "not told apart from a trivial predictor, prior"
        in said(row("baseline@prior", None, 0.91), row("a", 1, 0.9))[1]
    )
    assert (
        "A trivial predictor, pixels-32 (0.990 [0.970, 1.010]), is better than every model"
        in (said(row("pixels-32", None, 0.99), row("a", 1, 0.9))[1])
    )


def test_real_images_are_no_trivial_predictor_and_lower_may_be_better() -> None:
    _, text = said(row("real", None, 0.0), row("a", 1, 0.1), row("noise", None, 0.5), higher=False)
    assert "a beats the best trivial predictor, noise" in text
    assert "real (" not in text


def test_how_pairs_were_compared_and_what_seeds_may_change_is_said() -> None:
    rows = (row("a", 1, 0.9, seeds=(0.8, 1.0)), row("b", 2, 0.79, seeds=(0.75, 0.83)))
    _, text = said(*rows, pairs=1, by_interval=1)
    assert "comparing intervals, a cruder rule" in text
    assert "The seeds' ranges of b and the leader overlap" in text
    assert "for 1 of 3 pairs" in said(*rows, row("c", 2, 0.5), pairs=3, by_interval=1)[1]
    assert "One training seed" in said(row("a", 1, 0.9), row("b", 2, 0.8))[1]

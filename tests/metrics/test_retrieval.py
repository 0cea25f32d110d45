"""Retrieval metrics against enumeration of every order and against torchmetrics."""

from __future__ import annotations

import itertools
import tracemalloc
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medbench.metrics import retrieval as metrics
from medbench.metrics.cards import card_sha256
from medbench.metrics.retrieval_cards import RETRIEVAL
from medbench.metrics.values import FloatArray

Groups = npt.NDArray[np.int64]
FUNCTIONS = {spec.name: getattr(metrics, spec.function.partition(":")[2]) for spec in RETRIEVAL}


@dataclass(frozen=True, eq=False)
class Table:
    image: FloatArray
    text: FloatArray
    image_group: Groups
    text_group: Groups


def table(image, text, image_group=None, text_group=None) -> Table:
    """Row i matches row i where no groups are given."""
    pair = [np.arange(len(image)), np.arange(len(text))]
    given_groups = [image_group, text_group]
    groups = [p if g is None else np.asarray(g) for p, g in zip(pair, given_groups, strict=True)]
    return Table(np.asarray(image, float), np.asarray(text, float), *groups)


def ones(found: Table) -> FloatArray:
    return np.ones((1, len(found.image) + len(found.text)))


def value(name: str, found: Table) -> float:
    return float(FUNCTIONS[name](found, ones(found)).value[0])


def cosines(found: Table) -> FloatArray:
    """Straight from the definition, 0 for a row of zeros."""
    similar = np.zeros((len(found.image), len(found.text)))
    for i, a in enumerate(found.image):
        for j, b in enumerate(found.text):
            if a.any() and b.any():
                similar[i, j] = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    return similar


def enumerated(found: Table, direction: str) -> list[dict[str, float]]:
    """Per query: the mean of hits and of the first match's rank over every order of candidates."""
    similar = np.round(cosines(found), 9)
    own, other = found.image_group, found.text_group
    if direction == "t2i":
        similar, own, other = similar.T, other, own
    rows = []
    for row, group in zip(similar, own, strict=True):
        if group not in other:
            rows.append({"hit@1": 0.0, "hit@5": 0.0, "hit@10": 0.0, "rank": np.nan})
            continue
        first = []
        for order in itertools.permutations(range(len(other))):
            ranked = sorted(order, key=lambda j: -row[j])  # stable: equal ones stay as drawn
            first.append(1 + next(r for r, j in enumerate(ranked) if other[j] == group))
        drawn = np.array(first)
        rows.append({f"hit@{k}": float((drawn <= k).mean()) for k in (1, 5, 10)})
        rows[-1]["rank"] = float(drawn.mean())
    return rows


def tied(seed: int, images: int = 5, texts: int = 6, groups: int = 4) -> Table:
    """Embeddings of few values, some of them zero: most candidates are tied."""
    rng = np.random.default_rng(seed)
    return table(
        rng.integers(-1, 2, (images, 2)),
        rng.integers(-1, 2, (texts, 2)),
        rng.integers(0, groups, images),
        rng.integers(0, groups, texts),
    )


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("direction", ["i2t", "t2i"])
def test_ties_have_the_mean_over_every_order(seed: int, direction: str) -> None:
    found = tied(seed)
    rows = enumerated(found, direction)
    known = [row for row in rows if not np.isnan(row["rank"])]
    assert known
    for k in (1, 5, 10):
        expected = np.mean([row[f"hit@{k}"] for row in known])
        assert value(f"{direction}-recall@{k}", found) == pytest.approx(expected, abs=1e-12)
    precise = np.mean([row["hit@1"] for row in rows])
    assert value(f"{direction}-precision@1", found) == pytest.approx(precise, abs=1e-12)
    median = np.median([row["rank"] for row in known])
    assert value(f"{direction}-median-rank", found) == pytest.approx(median, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_class_level_matching_without_ties_agrees_with_torchmetrics(seed: int) -> None:
    import torch
    from torchmetrics.retrieval import RetrievalHitRate, RetrievalPrecision

    rng = np.random.default_rng(seed)
    found = table(
        rng.normal(size=(60, 8)),
        rng.normal(size=(40, 8)),
        rng.integers(0, 12, 60),
        rng.integers(2, 14, 40),
    )
    similar = torch.from_numpy(cosines(found))
    match = torch.from_numpy(found.image_group[:, None] == found.text_group[None])
    assert not match.any(dim=1).all()
    for direction in ("i2t", "t2i"):
        scores, target = (similar, match) if direction == "i2t" else (similar.T, match.T)
        index = torch.arange(len(scores))[:, None].expand(scores.shape)
        flat = (scores.flatten(), target.flatten(), index.flatten())
        for k in (1, 5, 10):
            # A query without a match is left out of recall.
            rate = RetrievalHitRate(top_k=k, empty_target_action="skip")
            expected = float(rate(flat[0], flat[1], indexes=flat[2]))
            assert value(f"{direction}-recall@{k}", found) == pytest.approx(expected, abs=1e-6)
        precision = RetrievalPrecision(top_k=1, empty_target_action="neg")
        expected = float(precision(flat[0], flat[1], indexes=flat[2]))
        assert value(f"{direction}-precision@1", found) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_pairs_without_ties_agree_with_the_position_in_a_sorted_list(seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(80, 16))
    found = table(image, image + rng.normal(size=(80, 16)))
    similar = cosines(found)
    for direction, scores in (("i2t", similar), ("t2i", similar.T)):
        order = np.argsort(-scores, axis=1)
        position = np.argmax(order == np.arange(80)[:, None], axis=1)
        for k in (1, 5, 10):
            recall = (position < k).mean()
            assert recall > 0
            assert value(f"{direction}-recall@{k}", found) == pytest.approx(recall, abs=1e-12)
        assert value(f"{direction}-median-rank", found) == np.median(position) + 1


def test_a_collapsed_model_scores_chance_exactly() -> None:
    """The degenerate case: one embedding for everything is a random order."""
    rng = np.random.default_rng(0)
    same = np.tile(rng.normal(size=768), (40, 1))
    for found in (table(same, same), table(np.zeros((40, 4)), rng.normal(size=(40, 4)))):
        for direction in ("i2t", "t2i"):
            for k in (1, 5, 10):
                assert value(f"{direction}-recall@{k}", found) == pytest.approx(k / 40, abs=1e-12)
            assert value(f"{direction}-median-rank", found) == pytest.approx(20.5, abs=1e-9)
    classes = np.repeat([0, 1], 20)
    grouped = table(same, same, classes, classes)
    assert value("i2t-precision@1", grouped) == pytest.approx(0.5, abs=1e-12)
    five = 1 - np.prod([(20 - j) / (40 - j) for j in range(5)])
    assert value("i2t-recall@5", grouped) == pytest.approx(five, abs=1e-12)


def test_equal_embeddings_tie_wherever_they_stand_in_the_gallery() -> None:
    """Products of equal rows may differ in the last bit with the place in the matrix."""
    rng = np.random.default_rng(1)
    text = np.repeat(rng.normal(size=(7, 513)).astype(np.float32), 9, axis=0)
    image = rng.normal(size=(63, 513)).astype(np.float32)
    standing = metrics.standings(table(image, text), "i2t")
    assert (standing.level == 9).all()
    assert (standing.above % 9 == 0).all()


def test_queries_without_a_match_are_left_out_of_recall_and_wrong_for_precision() -> None:
    found = table(np.eye(3), np.eye(3)[:2], [0, 1, 5], [0, 1])
    recall = metrics.i2t_recall_1(found, ones(found))
    assert recall.value[0] == 1.0
    assert recall.reason == "1 of 3 image queries match no text, left out"
    precision = metrics.i2t_precision_1(found, ones(found))
    assert precision.value[0] == pytest.approx(2 / 3)
    assert precision.reason == "1 of 3 image queries match no text, counted as wrong"
    assert metrics.t2i_precision_1(found, ones(found)).reason is None
    nothing = table(np.eye(2), np.eye(2), [0, 1], [2, 3])
    assert np.isnan(metrics.i2t_recall_5(nothing, ones(nothing)).value).all()
    assert np.isnan(metrics.t2i_median_rank(nothing, ones(nothing)).value).all()
    assert metrics.t2i_precision_1(nothing, ones(nothing)).value.tolist() == [0.0]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_integer_weights_repeat_queries_and_leave_the_gallery(name: str) -> None:
    found = tied(3, images=30, texts=20, groups=9)
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 3, 50).astype(float)
    got = FUNCTIONS[name](found, counts[None]).value[0]
    direction = "i2t" if name.startswith("i2t") else "t2i"
    standing = metrics.standings(found, direction)  # type: ignore[arg-type]
    mine = counts[:30] if direction == "i2t" else counts[30:]
    rows = np.repeat(np.arange(len(mine)), mine.astype(int))
    if name.endswith("median-rank"):
        expected = np.nanmedian(standing.rank()[rows])
    else:
        hits = standing.hit(int(name.rpartition("@")[2]))[rows]
        expected = hits.mean() if "precision" in name else hits[standing.known[rows]].mean()
    assert got == pytest.approx(expected, abs=1e-12)


def test_directions_read_their_own_columns_of_weights() -> None:
    found = table(np.eye(2), np.array([[1.0, 0.0], [1.0, 0.1]]))
    weights = np.array([[1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 1.0, 0.0]])
    assert metrics.i2t_recall_1(found, weights).value.tolist() == [1.0, 1.0]
    assert metrics.t2i_recall_1(found, weights).value.tolist() == [0.0, 1.0]
    assert metrics.t2i_median_rank(found, weights).value.tolist() == [2.0, 1.0]


def test_a_resample_without_queries_is_undefined_and_raises_no_warning() -> None:
    found = tied(0)
    with np.errstate(all="raise"):
        for name, function in FUNCTIONS.items():
            assert np.isnan(function(found, np.zeros((2, 11))).value).all(), name


@pytest.mark.parametrize("tile", [1, 7, 64])
def test_tiles_change_nothing(tile: int, monkeypatch) -> None:
    def everything() -> list[float]:
        found = tied(5, images=23, texts=17, groups=6)
        return [value(name, found) for name in FUNCTIONS]

    whole = everything()
    monkeypatch.setattr(metrics, "TILE", tile)
    assert everything() == pytest.approx(whole, abs=1e-12)


@pytest.mark.parametrize("groups", [1500, 3])
def test_the_whole_matrix_of_similarities_is_never_held(groups: int, monkeypatch) -> None:
    monkeypatch.setattr(metrics, "TILE", 1 << 16)
    rng = np.random.default_rng(0)
    image, text = rng.normal(size=(2, 1500, 8))
    found = table(image, text, np.arange(1500) % groups, np.arange(1500) % groups)
    tracemalloc.start()
    try:
        metrics.standings(found, "i2t")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1500 * 1500 * 8 / 4


def test_similarities_are_computed_once_for_all_metrics(monkeypatch) -> None:
    calls = []
    original = metrics._compute
    monkeypatch.setattr(metrics, "_compute", lambda t: calls.append(1) or original(t))
    found = tied(0)
    for function in FUNCTIONS.values():
        function(found, np.ones((20, 11)))
    assert len(calls) == 1


def test_length_of_embeddings_does_not_matter_however_long() -> None:
    rng = np.random.default_rng(0)
    image, text = rng.normal(size=(2, 12, 4))
    plain = table(image, text)
    factors = 10.0 ** rng.integers(-300, 300, (12, 1))
    scaled = table(image * factors, text * factors[::-1])
    for name in FUNCTIONS:
        assert value(name, scaled) == pytest.approx(value(name, plain), abs=1e-12), name


@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(1, 9), st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_more_candidates_seen_never_hurt_and_order_of_rows_does_not_matter(
    seed: int, images: int, texts: int, groups: int
) -> None:
    found = tied(seed, images, texts, groups)
    rng = np.random.default_rng(seed)
    rows, columns = rng.permutation(images), rng.permutation(texts)
    moved = table(
        found.image[rows], found.text[columns], found.image_group[rows], found.text_group[columns]
    )
    for name in FUNCTIONS:
        assert value(name, moved) == pytest.approx(value(name, found), abs=1e-12, nan_ok=True)
    for direction in ("i2t", "t2i"):
        one, five, ten = (value(f"{direction}-recall@{k}", found) for k in (1, 5, 10))
        if np.isnan(one):
            continue
        assert 0 <= one <= five + 1e-12 <= ten + 2e-12 <= 1 + 3e-12
        assert ten == pytest.approx(1.0)  # at most nine candidates
        assert value(f"{direction}-precision@1", found) <= one + 1e-12
        assert 1 <= value(f"{direction}-median-rank", found) <= max(images, texts)


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4)), min_size=1, max_size=12),
    st.lists(st.booleans(), min_size=12, max_size=12),
)
@settings(max_examples=100, deadline=None)
def test_weighted_median_is_the_median_of_repeated_values(rows, blank) -> None:
    values = np.array([np.nan if b else float(v) for (v, _), b in zip(rows, blank, strict=False)])
    counts = np.array([c for _, c in rows])
    repeated = np.repeat(values, counts)
    repeated = repeated[~np.isnan(repeated)]
    expected = np.median(repeated) if len(repeated) else np.nan
    got = metrics.weighted_median(values, np.stack([counts, 2 * counts]).astype(float))
    assert got == pytest.approx([expected, expected], nan_ok=True)


def test_cards_are_complete_and_distinct() -> None:
    assert [spec.name for spec in RETRIEVAL] == [
        "i2t-recall@1", "i2t-recall@5", "i2t-recall@10",
        "t2i-recall@1", "t2i-recall@5", "t2i-recall@10",
        "i2t-precision@1", "t2i-precision@1", "i2t-median-rank", "t2i-median-rank",
    ]  # fmt: skip
    assert len({card_sha256(spec) for spec in RETRIEVAL}) == len(RETRIEVAL)
    for spec in RETRIEVAL:
        assert "interval:" in spec.aggregation
        assert spec.reference
        assert spec.higher_is_better == (not spec.name.endswith("median-rank"))
        assert (spec.unit == "fraction") == spec.higher_is_better

"""Predictions under keys: recognised whatever the file did to their order and numbering."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from medbench.evaluation.keyed import hashes, keyed_digest, recognise, with_keys
from medbench.evaluation.mask_predictions import MaskPredictions
from medbench.evaluation.predictions import ClassPredictions
from medbench.evaluation.retrieval_predictions import RetrievalPredictions

MANIFEST = "ab" * 32


def embeddings(groups: list[int], texts: int) -> RetrievalPredictions:
    rng = np.random.default_rng(len(groups))
    return RetrievalPredictions(
        rng.normal(size=(len(groups), 3)).astype(np.float32).astype(np.float64),
        rng.normal(size=(texts, 3)).astype(np.float32).astype(np.float64),
        np.array(groups),
        np.arange(texts),
        [f"p{i // 2}" for i in range(len(groups))],
    )


def masks(count: int) -> MaskPredictions:
    found = np.random.default_rng(count).random((2, count, 5, 4)) > 0.5
    ids, owners = [f"s{i}" for i in range(count)], [f"p{i // 2}" for i in range(count)]
    return MaskPredictions(ids, owners, found[0], found[1])


@given(st.lists(st.integers(0, 14), min_size=1, max_size=30), st.randoms())
@settings(max_examples=40, deadline=None)
def test_the_numbers_of_groups_do_not_matter_and_who_shares_one_does(
    groups: list[int], random: object
) -> None:
    table = embeddings(groups, 15)
    order = list(range(100, 115))
    random.shuffle(order)  # type: ignore[attr-defined]
    number = np.array(order)
    renamed = replace(
        table, image_group=number[table.image_group], text_group=number[table.text_group]
    )
    assert keyed_digest(renamed) == keyed_digest(table)
    moved = table.image_group.copy()
    moved[0] = (moved[0] + 1) % 15
    assert keyed_digest(replace(table, image_group=moved)) != keyed_digest(table)


@given(st.permutations(range(7)))
@settings(max_examples=25, deadline=None)
def test_masks_in_any_order_have_one_published_form(order: list[int]) -> None:
    table = masks(7)
    mixed = table.take(order)
    assert hashes(mixed, MANIFEST) == hashes(table, MANIFEST)
    one, other = (with_keys(some, MANIFEST) for some in (table, mixed))
    assert isinstance(one, MaskPredictions)
    assert isinstance(other, MaskPredictions)
    assert one.sample_ids == other.sample_ids == sorted(one.sample_ids)
    assert np.array_equal(one.prediction, other.prediction)


def test_files_with_ids_and_with_keys_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "predictions.npz"
    for table in (masks(9), embeddings(list(range(12)), 13)):
        stated = hashes(table, MANIFEST)
        table.write(path)
        own = recognise(type(table).read(path), MANIFEST, stated)
        assert (own.keyed, own.sound) == (False, True)
        own.table.write(path)
        published = recognise(type(table).read(path), MANIFEST, stated)
        assert (published.keyed, published.sound) == (True, True)
        wrong = recognise(type(table).read(path), MANIFEST, stated | {"published": "00" * 32})
        assert not wrong.sound
        assert not recognise(type(table).read(path), MANIFEST, {}).sound


def test_a_mask_of_another_shape_has_another_hash() -> None:
    table = masks(4)
    turned = replace(
        table,
        reference=table.reference.reshape(4, 4, 5),
        prediction=table.prediction.reshape(4, 4, 5),
    )
    assert keyed_digest(turned) != keyed_digest(table)


def test_class_scores_keep_the_hash_that_they_had() -> None:
    """Published records of classification state no other."""
    table = ClassPredictions(["a", "b"], ["p", "q"], ["x"], [[1], [0]], [[0.2], [0.1]], False)
    assert hashes(table, MANIFEST) == {"predictions": table.digest(MANIFEST)}
    found = recognise(table, MANIFEST, hashes(table, MANIFEST))
    assert (found.keyed, found.sound) == (False, True)

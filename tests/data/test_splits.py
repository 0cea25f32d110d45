"""Dividing samples: what must hold for any dataset."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medbench.data.samples import Sample
from medbench.data.splits import (
    check_disjoint,
    classes_of,
    fraction,
    kfold,
    patients_of,
    shared_patients,
    stratified_limit,
)
from medbench.errors import DataError


def sample(name: str, patient: str | None = None, label: str = "a") -> Sample:
    return Sample(name, patient, (Path(name),), labels={"a": 0, "b": 0} | {label: 1})


@st.composite
def cohorts(draw: st.DrawFn, least: int = 5) -> tuple[list[str], list[str]]:
    """Patients and classes of samples: 2 to 4 classes, 1 to 3 samples per patient, any order."""
    rows: list[tuple[str, str]] = []
    for name in draw(st.sampled_from(["ab", "abc", "abcd"])):
        for number in range(draw(st.integers(least, least + 25))):
            rows += [(f"{name}{number}", name)] * draw(st.integers(1, 3))
    draw(st.randoms(use_true_random=False)).shuffle(rows)
    return [patient for patient, _ in rows], [name for _, name in rows]


seeds = st.integers(0, 2**31)


@given(cohorts(), st.integers(2, 5), seeds)
def test_folds_keep_patients_whole_and_classes_even(
    cohort: tuple[list[str], list[str]], folds: int, seed: int
) -> None:
    patients, classes = cohort
    fold = kfold(patients, classes, folds, seed)
    assert fold.dtype == np.int64
    assert set(fold.tolist()) == set(range(folds))
    of_patient: dict[str, set[int]] = defaultdict(set)
    for patient, number in zip(patients, fold.tolist(), strict=True):
        of_patient[patient].add(number)
    assert all(len(numbers) == 1 for numbers in of_patient.values())
    for name in set(classes):
        held = Counter(f for p, (f,) in of_patient.items() if p.startswith(name))
        assert max(held.values()) - min(held.get(f, 0) for f in range(folds)) <= 1
    sizes = Counter(f for (f,) in of_patient.values())
    assert max(sizes.values()) - min(sizes.values()) <= 1


@given(cohorts(), seeds, st.randoms(use_true_random=False))
def test_folds_do_not_depend_on_the_order_of_samples(
    cohort: tuple[list[str], list[str]], seed: int, shuffle: random.Random
) -> None:
    patients, classes = cohort
    order = list(range(len(patients)))
    shuffle.shuffle(order)
    fold = kfold(patients, classes, 5, seed)
    other = kfold([patients[i] for i in order], [classes[i] for i in order], 5, seed)
    np.testing.assert_array_equal(fold[order], other)


def test_folds_are_the_same_for_ever() -> None:
    """Published results rest on these numbers: they may not change with a library."""
    golden = [1, 0, 2, 3, 1, 3, 1, 2, 3, 0, 0, 2]
    patients = [f"p{n}" for n in range(12)]
    classes = ["a"] * 4 + ["b"] * 8
    assert kfold(patients, classes, 4, 7).tolist() == golden
    assert kfold(patients, classes, 4, 8).tolist() != golden


def test_a_class_with_fewer_patients_than_folds_is_refused() -> None:
    with pytest.raises(DataError, match="Class 'b' has 4 patients, too few for 5 folds"):
        kfold([f"p{n}" for n in range(24)], ["a"] * 20 + ["b"] * 4, 5, 0)


def test_a_patient_of_two_classes_counts_for_the_rarer() -> None:
    patients = ["p0", "p0", *(f"p{n}" for n in range(1, 12))]
    classes = ["a", "b", *["a"] * 10, "b"]
    fold = kfold(patients, classes, 2, 0)
    assert fold[0] == fold[1] != fold[-1]


@given(cohorts(least=50), seeds, st.floats(0.1, 1), st.floats(0.1, 1))
def test_fractions_are_nested_stratified_and_by_patient(
    cohort: tuple[list[str], list[str]], seed: int, one: float, other: float
) -> None:
    patients, classes = cohort
    small, large = (set(fraction(patients, classes, s, seed)) for s in sorted((one, other)))
    assert small <= large
    inside = {patients[i] for i in small}
    assert inside.isdisjoint(patients[i] for i in set(range(len(patients))) - small)
    share = min(one, other)
    for name in set(classes):
        total = len({p for p in patients if p.startswith(name)})
        assert abs(sum(p.startswith(name) for p in inside) - share * total) <= 0.5 + 1e-9


def test_one_percent_is_part_of_ten_and_ten_of_all() -> None:
    patients = [f"p{n}" for n in range(1000)]
    classes = ["a", "b"] * 500
    one, ten, all_ = (fraction(patients, classes, s, 3) for s in (0.01, 0.1, 1.0))
    assert (len(one), len(ten), len(all_)) == (10, 100, 1000)
    assert set(one) < set(ten) < set(all_)


def test_a_fraction_that_leaves_too_few_of_a_class_is_refused_with_the_number() -> None:
    patients = [f"p{n}" for n in range(140)]
    classes = ["a"] * 100 + ["b"] * 40
    with pytest.raises(DataError, match="leaves 4 of 40 training patients of class 'b'"):
        fraction(patients, classes, 0.1, 0)
    with pytest.raises(DataError, match="outside"):
        fraction(patients, classes, 0, 0)


@given(cohorts(), seeds, st.integers(1, 60))
def test_a_limit_keeps_proportions_and_every_class_it_can(
    cohort: tuple[list[str], list[str]], seed: int, n: int
) -> None:
    patients, classes = cohort
    samples = [
        Sample(f"s{i}", p, (), labels={"a": 0, c: 1})
        for i, (p, c) in enumerate(zip(patients, classes, strict=True))
    ]
    kept = stratified_limit(samples, n, seed)
    assert len(kept) == min(n, len(samples))
    positions = [samples.index(s) for s in kept]
    assert positions == sorted(set(positions))
    counts = Counter(classes_of(kept))
    if n >= len(set(classes)):
        assert set(counts) == set(classes)
    for name, total in Counter(classes).items():
        assert abs(counts[name] - len(kept) * total / len(samples)) <= len(set(classes))
    assert {s.id for s in stratified_limit(samples[::-1], n, seed)} == {s.id for s in kept}
    cut = [p for p in set(patients_of(kept)) if patients_of(kept).count(p) < patients.count(p)]
    assert len(cut) <= len(set(classes))


def test_splits_that_share_a_patient_are_refused() -> None:
    groups = {"train": [sample("1", "p1"), sample("2", "p2")], "test": [sample("3", "p2")]}
    with pytest.raises(DataError, match=r"'train' and 'test' share 1 patients, such as p2"):
        check_disjoint(groups)
    check_disjoint({"train": [sample("1", "p1")], "test": [sample("2"), sample("3")]})


def test_patients_in_task_and_corpus_are_found() -> None:
    task = [sample("1", "p1"), sample("2", "p2"), sample("3")]
    corpus = [sample("9", "p2"), sample("3")]
    assert shared_patients(task, corpus) == ["p2"]


def test_samples_without_a_patient_are_their_own() -> None:
    assert patients_of([sample("1"), sample("2", "p")]) == ["sample:1", "p"]

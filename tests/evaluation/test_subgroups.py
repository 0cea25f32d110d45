"""Subgroups: by hand against scikit-learn, comparable groups, and what is left out, by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from medbench.data.samples import Sample
from medbench.evaluation.mask_predictions import MaskPredictions
from medbench.evaluation.predictions import ClassPredictions
from medbench.evaluation.report_predictions import ReportPredictions
from medbench.evaluation.score import score
from medbench.evaluation.subgroups import Found, Membership, membership, subgroups
from medbench.metrics.cards import AUROC, ECE
from medbench.metrics.report_cards import FINDINGS
from medbench.metrics.segmentation_cards import DICE_POSITIVE
from medbench.schemas.record import Group
from medbench.statistics.bootstrap import content_clusters, patient_weights

MANIFEST = "cd" * 32
(FINDING_F1,) = (spec for spec in FINDINGS if spec.name == "finding-f1")
SEXES: tuple[Group, ...] = ("F", "M")
BANDS: tuple[Group, ...] = ("under 40", "40-64", "65 and over")


def table_of(patients: int = 75, each: int = 2, labels: int = 1, seed: int = 0) -> ClassPredictions:
    """Some images of each patient, which are alike."""
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(patients), each)
    y = (rng.random((patients, labels)) < 0.4).astype(float)[owner]
    scores = (y * 0.3 + rng.random((patients, labels))[owner] + 0.2 * rng.random(y.shape)) / 1.5
    return ClassPredictions(
        [f"s{i}" for i in range(len(owner))], [f"p{i}" for i in owner],
        [f"l{k}" for k in range(labels)], y, scores, False,
    )  # fmt: skip


def by_patient(table: ClassPredictions, groups: Sequence[Group]) -> list[Group | None]:
    """Groups dealt out to the patients in turn."""
    return [groups[int(name[1:]) % len(groups)] for name in table.patients]


def test_values_intervals_and_gap_are_those_of_a_loop_over_resampled_tables() -> None:
    table = table_of()
    bands = by_patient(table, BANDS)
    found = subgroups(table, AUROC, {"age": bands}, resamples=40, seed=3).subgroups["age"]
    codes = np.array([BANDS.index(band) for band in bands if band])
    clusters = content_clusters(table.patients, np.column_stack([table.content, codes]))
    values = []
    for counts in (np.ones(150, int), *patient_weights(clusters, 40, 3).astype(int)):
        rows = np.repeat(np.arange(150), counts)
        values.append(
            [
                roc_auc_score(table.y[some, 0], table.scores[some, 0])
                for some in (rows[codes[rows] == k] for k in range(3))
            ]
        )
    whole, drawn = values[0], np.array(values[1:])
    for k, band in enumerate(BANDS):
        assert found.groups[band].value == pytest.approx(whole[k])
        assert found.groups[band].ci95 == pytest.approx(np.quantile(drawn[:, k], [0.025, 0.975]))
        assert found.groups[band].n == 50
    best, worst = int(np.argmax(whole)), int(np.argmin(whole))
    assert found.gap.between == (BANDS[best], BANDS[worst])
    assert found.gap.value == pytest.approx(whole[best] - whole[worst])
    difference = drawn[:, best] - drawn[:, worst]
    assert found.gap.ci95 == pytest.approx(np.quantile(difference, [0.025, 0.975]))
    assert (drawn.max(axis=1) - drawn.min(axis=1) > difference).any(), "the same two throughout"


def test_groups_that_share_patients_are_compared_on_the_same_ones() -> None:
    table = table_of(patients=80)
    views: list[Group | None] = ["PA", "lateral"] * 80
    shared = subgroups(table, AUROC, {"view": views}).subgroups["view"].gap.ci95
    apart = replace(table, patients=table.sample_ids)
    loose = subgroups(apart, AUROC, {"view": views}).subgroups["view"].gap.ci95
    assert shared[1] - shared[0] < 0.8 * (loose[1] - loose[0])


def test_groups_of_few_patients_are_left_out_and_named() -> None:
    table = table_of()
    bands = by_patient(table, BANDS[1:])
    few = {f"p{i}" for i in range(19)}
    bands = [
        "under 40" if name in few else band
        for name, band in zip(table.patients, bands, strict=True)
    ]
    found = subgroups(table, AUROC, {"age": bands})
    assert list(found.subgroups["age"].groups) == ["40-64", "65 and over"]
    assert found.notes == ["subgroups by age: under 40 left out, 19 patients are fewer than 20"]


def test_one_group_alone_makes_no_gap() -> None:
    table = table_of()
    sexes: list[Group | None] = ["F" if name != "p0" else "M" for name in table.patients]
    found = subgroups(table, AUROC, {"sex": sexes})
    assert found.subgroups == {}
    (note,) = found.notes
    assert "M left out, 1 patients are fewer than 20" in note
    assert note.endswith("absent: F alone is left")


def test_samples_that_do_not_say_are_in_no_group_and_counted() -> None:
    table = table_of()
    sexes = by_patient(table, SEXES)
    sexes[:10] = [None] * 10
    found = subgroups(table, AUROC, {"sex": sexes, "age": [None] * 150})
    assert sum(part.n for part in found.subgroups["sex"].groups.values()) == 140
    assert found.notes == [
        "subgroups by age: no tested sample says",
        "subgroups by sex: 10 samples do not say, and are in no group",
    ]
    kept = table.take(range(10, 150))
    alone = subgroups(kept, AUROC, {"sex": sexes[10:]}).subgroups["sex"]
    for sex, part in found.subgroups["sex"].groups.items():
        assert part.value == alone.groups[sex].value


def test_data_that_say_nothing_have_no_subgroups() -> None:
    table = table_of()
    none: list[Group | None] = [None] * 150
    found = subgroups(table, AUROC, {"sex": none, "age": none, "view": none})
    assert found == Found({}, ["subgroups by sex, age, view: no tested sample says"])


def test_samples_without_a_label_take_no_part() -> None:
    table = table_of()
    y = table.y.copy()
    y[:60] = np.nan
    found = subgroups(replace(table, y=y), AUROC, {"sex": by_patient(table, SEXES)})
    assert [part.n for part in found.subgroups["sex"].groups.values()] == [46, 44]
    found = subgroups(replace(table, y=y), AUROC, {"sex": by_patient(table, SEXES)}, fewest=23)
    assert found.subgroups == {}, "22 patients are left of M"


def test_groups_of_several_labels_are_compared_on_the_labels_that_all_have() -> None:
    table = table_of(labels=3)
    y, sexes = table.y.copy(), by_patient(table, SEXES)
    men = np.array([sex == "M" for sex in sexes])
    y[men, 1] = 0
    found = subgroups(replace(table, y=y), AUROC, {"sex": sexes})
    assert found.notes == ["subgroups by sex: labels undefined in some group, left out of all: l1"]
    for sex, rows in zip(SEXES, (~men, men), strict=True):
        expected = np.mean([roc_auc_score(y[rows, k], table.scores[rows, k]) for k in (0, 2)])
        assert found.subgroups["sex"].groups[sex].value == pytest.approx(expected)


def test_a_group_without_one_of_several_classes_is_left_out() -> None:
    rng = np.random.default_rng(0)
    bands = [BANDS[i % 3] for i in range(120)]
    classes = np.array([i % 2 if band == "40-64" else i // 3 % 3 for i, band in enumerate(bands)])
    raw = rng.random((120, 3))
    ids = [f"s{i}" for i in range(120)]
    table = ClassPredictions(ids, ids, ["a", "b", "c"], np.eye(3)[classes], raw, True)
    found = subgroups(table, AUROC, {"age": bands})
    assert list(found.subgroups["age"].groups) == ["under 40", "65 and over"]
    (note,) = found.notes
    assert "40-64 left out" in note
    assert "one class only" in note
    assert "c" in note


def test_where_no_label_is_in_all_groups_there_is_no_gap() -> None:
    table = table_of(labels=2)
    y, sexes = table.y.copy(), by_patient(table, SEXES)
    men = np.array([sex == "M" for sex in sexes])
    y[men, 0] = 0
    y[~men, 1] = 1
    found = subgroups(replace(table, y=y), AUROC, {"sex": sexes})
    assert found.subgroups == {}
    assert "no label is defined in every group" in found.notes[0]


def test_of_a_metric_that_should_be_low_the_lowest_is_best() -> None:
    table = table_of()
    found = subgroups(table, ECE, {"sex": by_patient(table, SEXES)}).subgroups["sex"]
    best, worst = found.gap.between
    assert found.groups[best].value < found.groups[worst].value
    assert found.gap.value == found.groups[worst].value - found.groups[best].value


def test_neither_order_nor_names_of_samples_change_anything() -> None:
    table = table_of(labels=2)
    members: Membership = {"sex": by_patient(table, SEXES), "age": by_patient(table, BANDS)}
    first = subgroups(table, AUROC, members, resamples=50)
    order = np.random.default_rng(1).permutation(150).tolist()
    mixed: Any = {name: [groups[i] for i in order] for name, groups in members.items()}
    again = subgroups(table.take(order), AUROC, mixed, resamples=50)
    keys = table.publishable(MANIFEST)
    renamed = replace(table, sample_ids=sorted(keys.sample_ids), keyed=True)
    for other in (again, subgroups(renamed, AUROC, members, resamples=50)):
        for name, part in first.subgroups.items():
            for group, value in part.groups.items():
                found = other.subgroups[name].groups[group]
                assert (found.value, *found.ci95) == pytest.approx((value.value, *value.ci95))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), labels=st.integers(1, 3), each=st.integers(1, 3))
def test_groups_that_are_copies_of_each_other_have_no_gap(
    seed: int, labels: int, each: int
) -> None:
    one = table_of(30, each, labels, seed)
    count = len(one.sample_ids)
    table = ClassPredictions(
        [*one.sample_ids, *(f"copy-{name}" for name in one.sample_ids)],
        [*one.patients, *(f"copy-{name}" for name in one.patients)],
        one.labels, np.tile(one.y, (2, 1)), np.tile(one.scores, (2, 1)), False,
    )  # fmt: skip
    found = subgroups(table, AUROC, {"sex": ["F"] * count + ["M"] * count}, resamples=100)
    for part in found.subgroups.values():
        assert part.gap.value == 0
        assert part.gap.ci95[0] <= 0 <= part.gap.ci95[1]
        assert part.groups["F"].value == part.groups["M"].value


def test_reports_are_taken_apart_by_weight_as_they_would_be_by_rows() -> None:
    said = ("The heart is enlarged.", "Large right pneumothorax.", "Small left pleural effusion.")
    rng = np.random.default_rng(0)
    count = 60
    table = ReportPredictions(
        [f"study-{i}" for i in range(count)],
        [f"p{i}" for i in range(count)],
        [said[i] for i in rng.integers(0, 3, count)],
        [said[i] for i in rng.integers(0, 3, count)],
    )
    sexes: list[Group | None] = [SEXES[i % 2] for i in range(count)]
    found = subgroups(table, FINDING_F1, {"sex": sexes}).subgroups["sex"]
    for k, sex in enumerate(SEXES):
        alone = score(table.take(range(k, count, 2)), [FINDING_F1]).metrics["finding-f1"]
        assert found.groups[sex].value == pytest.approx(alone.value)
        assert found.groups[sex].n == 30


def test_masks_are_counted_where_the_metric_counts_them() -> None:
    rng = np.random.default_rng(0)
    reference = rng.random((90, 6, 6)) < 0.3
    reference[30:60] = False
    found_mask = reference ^ (rng.random(reference.shape) < 0.1)
    ids = [f"s{i}" for i in range(90)]
    table = MaskPredictions(ids, ids, reference, found_mask)
    bands = [BANDS[i // 30] for i in range(90)]
    found = subgroups(table, DICE_POSITIVE, {"age": bands})
    assert {band: part.n for band, part in found.subgroups["age"].groups.items()} == {
        "under 40": 30,
        "65 and over": 30,
    }
    alone = score(table.take(range(30)), [DICE_POSITIVE]).metrics["dice-positive"].value
    assert found.subgroups["age"].groups["under 40"].value == pytest.approx(alone)


@pytest.mark.parametrize(
    ("age", "band"),
    [
        (0, "under 40"), (39.9, "under 40"), (40, "40-64"), (64.9, "40-64"), (65, "65 and over"),
        (120, "65 and over"), (121, None), (-1, None), (float("nan"), None), (None, None),
    ],
)  # fmt: skip
def test_age_bands_meet_and_impossible_ages_say_nothing(age: float | None, band: str) -> None:
    sample = Sample("s", "p", (Path("x"),), age=age, sex="F", view="AP")
    assert membership([sample], ["sex", "age", "view"]) == {
        "sex": ["F"],
        "age": [band],
        "view": ["AP"],
    }

"""Findings read from reports: each rule, and agreement with terms that people chose."""

from __future__ import annotations

import tarfile
from collections import Counter
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medbench.data.mimic_cxr import LABELS, label_name
from medbench.data.openi import OpeniReport, parse_openi_report
from medbench.data.report_findings import FINDINGS, read_mesh, read_report, with_mesh
from medbench.data.reports import narrative
from medbench.phantom.shipped import shipped


def stated(text: str) -> dict[str, int]:
    return {
        name: value
        for name, value in read_report(text).labels.items()
        if value is not None and name != "no-finding"
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # Positive mentions.
        ("Small left pleural effusion.", {"pleural-effusion": 1}),
        ("Patchy opacity in the right base.", {"lung-opacity": 1}),
        ("A 6 mm nodule.", {"lung-lesion": 1}),
        ("Mild interstitial edema with cardiomegaly.", {"edema": 1, "cardiomegaly": 1}),
        ("Old rib fractures.", {"fracture": 1}),
        ("Right PICC with its tip in the SVC.", {"support-devices": 1}),
        ("Right apical pleural thickening.", {"pleural-other": 1}),
        ("Hydropneumothorax.", {"pneumothorax": 1, "pleural-effusion": 1}),
        # Words that only look like them.
        ("Pericardial effusion. Soft tissue edema.", {}),
        ("Persistent, consistent findings.", {}),
        ("Findings of a healed granulomatous infection.", {}),
        # Negation, to the end of its statement.
        ("No pleural effusion or pneumothorax.", {"pleural-effusion": 0, "pneumothorax": 0}),
        (
            "No focal consolidation, large pleural effusion, or pneumothorax is seen.",
            {"consolidation": 0, "pleural-effusion": 0, "pneumothorax": 0},
        ),
        ("Lungs are free of infiltrate.", {"lung-opacity": 0}),
        ("Negative for pneumothorax.", {"pneumothorax": 0}),
        ("Cardiomegaly without edema.", {"cardiomegaly": 1, "edema": 0}),
        ("A pneumothorax is not seen.", {"pneumothorax": 0}),
        ("The left effusion has resolved.", {"pleural-effusion": 0}),
        ("Interval removal of the chest tube.", {"support-devices": 0}),
        ("No pneumothorax, but a small effusion.", {"pneumothorax": 0, "pleural-effusion": 1}),
        ("No pneumothorax, there is a small effusion.", {"pneumothorax": 0, "pleural-effusion": 1}),
        ("No edema. Effusion on the left.", {"edema": 0, "pleural-effusion": 1}),
        # Words of negation that negate nothing.
        ("No change in the right effusion.", {"pleural-effusion": 1}),
        ("No significant interval change in bibasilar atelectasis.", {"atelectasis": 1}),
        ("Effusion without significant change.", {"pleural-effusion": 1}),
        # Uncertainty.
        ("Possible small effusion.", {"pleural-effusion": -1}),
        ("Opacity may represent pneumonia.", {"lung-opacity": 1, "pneumonia": -1}),
        ("Cannot exclude pneumonia.", {"pneumonia": -1}),
        ("A small pneumothorax cannot be excluded.", {"pneumothorax": -1}),
        ("Atelectasis versus scar.", {"atelectasis": -1}),
        ("Atelectasis is likely.", {"atelectasis": -1}),
        ("Infection is another consideration.", {"pneumonia": -1}),
        # Named, not stated.
        ("Evaluation for pneumothorax is limited.", {}),
        ("Correlate with history of heart failure.", {}),
        # States of the heart and mediastinum.
        ("Heart size is normal.", {"cardiomegaly": 0}),
        ("The heart is mildly enlarged.", {"cardiomegaly": 1}),
        ("Heart size at the upper limits of normal.", {"cardiomegaly": -1}),
        ("Enlarged cardiac silhouette.", {"cardiomegaly": 1}),
        ("Normal heart size and mediastinal contours.", {"cardiomegaly": 0}),
        ("The mediastinum is widened.", {"enlarged-cardiomediastinum": 1}),
        ("The mediastinum is unremarkable.", {"enlarged-cardiomediastinum": 0}),
        ("The heart size is stable.", {}),
        # Denials without the finding's name.
        ("The lungs are clear.", {"lung-opacity": 0}),
        ("Costophrenic angles are sharp.", {"pleural-effusion": 0}),
        ("", {}),
    ],
)  # fmt: skip
def test_rules(text: str, expected: dict[str, int]) -> None:
    assert stated(text) == expected


def test_positive_outweighs_uncertain_and_uncertain_negative() -> None:
    assert stated("No effusion. Possible effusion.") == {"pleural-effusion": -1}
    assert stated("No effusion. Possible effusion. Small effusion.") == {"pleural-effusion": 1}


@pytest.mark.parametrize(
    ("text", "side"),
    [
        ("Small left effusion.", "left"),
        ("Effusion on the right.", "right"),
        ("Bilateral effusions.", "both"),
        ("Left effusion. Small right effusion.", "both"),
        ("Small effusion.", None),
    ],
)
def test_sides(text: str, side: str | None) -> None:
    assert read_report(text).sides.get("pleural-effusion") == side


def test_a_denied_finding_has_no_side() -> None:
    assert read_report("No left effusion.").sides == {}


def test_no_finding_means_nothing_but_devices() -> None:
    assert read_report("Lungs are clear.").labels["no-finding"] == 1
    assert read_report("Pacemaker in place. Clear lungs.").labels["no-finding"] == 1
    assert read_report("Possible effusion.").labels["no-finding"] is None
    assert read_report("  ").labels["no-finding"] is None


def test_names_are_those_of_the_label_tables() -> None:
    assert set(FINDINGS) == {label_name(column) for column in LABELS}
    assert tuple(read_report("").labels) == FINDINGS


@given(st.text(max_size=200))
def test_any_text_can_be_read(text: str) -> None:
    assert set(read_report(text).labels.values()) <= {1, 0, -1, None}


_CLAUSES = st.sampled_from([
    "no pleural effusion or pneumothorax", "small left effusion", "heart size is normal",
    "possible pneumonia", "the lungs are clear", "mild cardiomegaly", "no change in the nodule",
])  # fmt: skip


@given(st.lists(_CLAUSES, max_size=5), st.randoms(use_true_random=False))
def test_capitals_line_breaks_and_order_of_sentences_change_nothing(
    clauses: list[str], random: object
) -> None:
    mixed = list(clauses)
    random.shuffle(mixed)  # type: ignore[attr-defined]
    plain = read_report(". ".join(clauses))
    other = read_report("".join(f"{clause.upper()}.\n".replace(" ", "\n ", 1) for clause in mixed))

    assert other.labels == plain.labels
    assert other.sides == plain.sides


def test_mesh_terms_name_positive_findings_and_their_sides() -> None:
    found = read_mesh(
        ["Opacity/lung/base/left/patchy", "Cardiac Shadow/enlarged", "Aorta/tortuous"]
    )

    assert {name for name, value in found.labels.items() if value} == {
        "lung-opacity", "cardiomegaly"
    }  # fmt: skip
    assert found.sides == {"lung-opacity": "left"}
    assert read_mesh(["Thickening/lung"]).labels["pleural-other"] is None


def test_mesh_completes_a_report_and_contradicts_nothing() -> None:
    report = read_report("Possible effusion. Heart size is normal.")

    found = with_mesh(report, ["Pleural Effusion/right", "Cardiomegaly", "Nodule/lung"])

    assert found.labels["pleural-effusion"] == -1
    assert found.labels["cardiomegaly"] == 0
    assert found.labels["lung-lesion"] == 1
    assert found.labels["no-finding"] is None
    assert found.sides["pleural-effusion"] == "right"


@cache
def real_reports() -> tuple[OpeniReport, ...]:
    """The Open-i reports that the installed torchxrayvision carries."""
    found = []
    with tarfile.open(shipped("NLMCXR_reports.tgz")) as archive:
        for member in archive:
            file = archive.extractfile(member) if member.name.endswith(".xml") else None
            if file is not None:
                found.append(parse_openi_report(file.read(), member.name))
    return tuple(found)


#: Least precision and recall (an uncertain mention counts as found) against the terms with which
#: people indexed the reports; the measured ones are two to five points higher.
AGREEMENT = {
    "cardiomegaly": (0.96, 0.95),
    "lung-opacity": (0.85, 0.96),
    "atelectasis": (0.95, 0.96),
    "pleural-effusion": (0.95, 0.95),
    "pneumothorax": (0.90, 0.80),
    "consolidation": (0.85, 0.95),
    "edema": (0.93, 0.75),
    "pneumonia": (0.65, 0.95),
    "fracture": (0.80, 0.93),
    "lung-lesion": (0.60, 0.95),
    "support-devices": (0.93, 0.77),
}


def test_agreement_with_the_terms_that_people_chose_for_real_reports() -> None:
    counts: Counter[tuple[str, str]] = Counter()
    for report in real_reports():
        text = narrative(report.sections, "")
        if not text or report.major == ("No Indexing",):
            continue
        found, mesh = read_report(text).labels, read_mesh(report.terms).labels
        for name in AGREEMENT:
            counts[name, "mesh"] += mesh[name] == 1
            counts[name, "found"] += mesh[name] == 1 and found[name] in (1, -1)
            counts[name, "said"] += found[name] == 1
            counts[name, "right"] += found[name] == 1 and mesh[name] == 1

    for name, (precision, recall) in AGREEMENT.items():
        assert counts[name, "mesh"] >= 20
        assert counts[name, "right"] / counts[name, "said"] >= precision, name
        assert counts[name, "found"] / counts[name, "mesh"] >= recall, name

"""Findings change pixels where they are drawn, in every modality, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medbench.phantom.cases import NAMES, Cases, sample_cases
from medbench.phantom.cohort import CAP, COVID, NORMAL, Cohort, build, subjects
from medbench.phantom.ct import Texture, Volume, render_ct, slice_heights
from medbench.phantom.findings import CONSOLIDATION, GROUND_GLASS
from medbench.phantom.radiograph import render_radiographs
from medbench.phantom.scanner import PAIRS_CT, PAIRS_XRAY

COUNT = 4
ROWS = range(COUNT)


def cases(name: str) -> Cases:
    return sample_cases("test", ROWS, np.full(COUNT, NAMES.index(name)))


def ct(some: Cases, disease: bool = True) -> Volume:
    owner, z = slice_heights(some.patients, [16] * COUNT)
    findings = some.findings if disease else some.findings.without_disease()
    texture = Texture.draw("test", ROWS, "cpu")
    return render_ct(some.patients, findings, owner, z, 64, PAIRS_CT, texture, None)


@pytest.mark.parametrize(
    "name",
    ["multifocal ground glass", "consolidation", "nodule", "focal ground glass", "atelectasis"],
)  # fmt: skip
def test_focal_findings_change_the_lung_they_fill_and_nothing_else(name: str) -> None:
    some = cases(name)
    some.findings.effusion.zero_()
    sick, well = ct(some), ct(some, disease=False)
    change = (sick.clean - well.clean).abs()
    # The reconstruction kernel and breathing spread a change by two pixels.
    near = torch.nn.functional.max_pool2d((sick.disease.abs() > 0).float()[:, None], 5, 1, 2)[:, 0]
    assert float(change[near > 0].max()) > 60
    assert float(change[near == 0].max()) < 1e-2


def test_ground_glass_is_fainter_than_consolidation() -> None:
    glass, dense = (ct(cases(n)).disease for n in ("multifocal ground glass", "consolidation"))
    typical = [float(v[v > 20].quantile(0.95)) for v in (glass, dense)]
    assert typical[0] < typical[1]


@pytest.mark.parametrize("name", ["effusion", "pneumothorax"])
def test_pleural_findings_show_in_ct(name: str) -> None:
    some = cases(name)
    change = (ct(some).clean - ct(some, disease=False).clean).abs()
    assert all(float(part.max()) > 80 for part in change.split(16))


@pytest.mark.parametrize("view", ["frontal", "lateral"])
@pytest.mark.parametrize(
    "name", ["consolidation", "effusion", "pneumothorax", "multifocal ground glass", "edema"]
)
def test_findings_show_in_the_same_patients_radiograph(name: str, view: str) -> None:
    some = cases(name)
    shots = [
        render_radiographs(
            some.patients, findings, "frontal" if view == "frontal" else "lateral", 64,
            PAIRS_XRAY, "test", ROWS,
        )
        for findings in (some.findings, some.findings.without_disease())
    ]  # fmt: skip
    change = (shots[0] - shots[1]).abs().amax((1, 2))
    assert float(change.max()) > 0.03
    assert shots[0].shape == (COUNT, 64, 64)
    assert 0 <= float(shots[0].min()) <= float(shots[0].max()) <= 1


def test_cardiomegaly_widens_the_heart_in_both_modalities() -> None:
    large, clear = cases("cardiomegaly"), cases("clear")
    assert (large.patients.heart_radii[:, 0] > 1.15 * clear.patients.heart_radii[:, 0]).all()
    assert float(ct(large).lung.sum()) < float(ct(clear).lung.sum())


def test_a_lobar_lesion_stays_in_its_lobe() -> None:
    some = cases("consolidation")
    lesions = some.findings.lesions
    assert (lesions.lobe[(lesions.kind == CONSOLIDATION) & (lesions.radii[:, 0] > 20)] >= 0).any()


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    """30 subjects of each class."""
    everyone = subjects()
    some = [s for s in everyone if s.number < 30]
    return build(some, 18, 30)


def classes(cohort: Cohort) -> torch.Tensor:
    return torch.tensor([s.label for s in cohort.subjects])


def test_confounders_are_drawn_in_all_classes(cohort: Cohort) -> None:
    label = classes(cohort)
    lesions = cohort.findings.lesions
    for k in (NORMAL, COVID, CAP):
        mine = label == k
        assert (cohort.findings.dependent[mine] > 0).any()
        assert (cohort.findings.motion[mine] > 0).any()
        assert (mine[lesions.owner] & ~lesions.marked).any()


def test_only_patients_with_disease_have_marked_lesions(cohort: Cohort) -> None:
    lesions = cohort.findings.lesions
    sick = set(lesions.owner[lesions.marked].tolist())
    expected = {k for k, s in enumerate(cohort.subjects) if s.label != NORMAL}
    assert sick == expected
    assert (cohort.findings.effusion[classes(cohort) == NORMAL] == 0).all()


def test_classes_overlap(cohort: Cohort) -> None:
    """Some COVID-19 has little disease; some CAP is ground glass without consolidation."""
    lesions, label = cohort.findings.lesions, classes(cohort)
    number = torch.bincount(lesions.owner[lesions.marked], minlength=len(label))
    assert int(number[label == COVID].min()) <= 3
    dense = torch.bincount(lesions.owner[lesions.kind == CONSOLIDATION], minlength=len(label))
    assert (dense[label == CAP] == 0).any()
    assert (dense[label == COVID] > 0).any()
    assert (lesions.kind[label[lesions.owner] == CAP] == GROUND_GLASS).any()


def test_noise_hides_nothing_that_the_reference_shows(cohort: Cohort) -> None:
    some = cohort[:2]
    seen, expected = some.render(64), some.render(64, reference=True)
    assert torch.equal(seen.lung, expected.lung)
    assert float(expected.disease.abs().max()) == 0
    assert 5 < float((seen.hu - seen.clean).std()) < 60

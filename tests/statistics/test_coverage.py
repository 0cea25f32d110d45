"""Coverage by simulation: how often a 95 % interval holds the truth, on images of patients.

Each case draws many data sets from a law whose true value is known, several images to a patient,
images of one patient alike. The clustered interval must hold the truth about as often as it says;
one that draws image by image must not, or the case would show nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
import pytest

from medbench.evaluation.predictions import ClassPredictions
from medbench.metrics.classification import accuracy, auroc
from medbench.metrics.segmentation import dice
from medbench.metrics.values import FloatArray
from medbench.statistics.bootstrap import interval, patient_weights

PATIENTS, RESAMPLES = 150, 400
Patients = npt.NDArray[np.intp]
Draw = Callable[[np.random.Generator, Patients, FloatArray], FloatArray]


def effects(rng: np.random.Generator, patient: Patients) -> FloatArray:
    """Standard normal per image, half of the variance shared by a patient's images."""
    shared = rng.normal(size=PATIENTS)[patient]
    return np.sqrt(0.5) * (shared + rng.normal(size=len(patient)))


def classes(y: FloatArray, scores: FloatArray, multiclass: bool) -> ClassPredictions:
    ids = [str(i) for i in range(len(y))]
    return ClassPredictions(ids, ids, [str(k) for k in range(y.shape[1])], y, scores, multiclass)


def accuracy_under(rng: np.random.Generator, patient: Patients, weights: FloatArray) -> FloatArray:
    """An image is decided rightly where its effect is above -.5."""
    y = np.eye(2)[np.zeros(len(patient), dtype=int)]
    right = effects(rng, patient) > -0.5
    scores = np.stack([np.where(right, 0.7, 0.3), np.where(right, 0.3, 0.7)], axis=1)
    return accuracy(classes(y, scores, True), weights).value


ACCURACY = NormalDist().cdf(0.5)


def auroc_under(rng: np.random.Generator, patient: Patients, weights: FloatArray) -> FloatArray:
    """A patient has the finding or not; scores of the positives are one higher on average."""
    y = (np.arange(PATIENTS) % 2 == 0).astype(float)[patient]
    return auroc(classes(y[:, None], (effects(rng, patient) + y)[:, None], False), weights).value


AUROC = NormalDist().cdf(1 / np.sqrt(2))

WIDTH = 6


@dataclass(frozen=True, eq=False)
class Strips:
    """Masks of one row."""

    reference: npt.NDArray[np.bool_]
    prediction: npt.NDArray[np.bool_]
    spacing: None = None


def dice_under(rng: np.random.Generator, patient: Patients, weights: FloatArray) -> FloatArray:
    """A lesion pixel k of six is found where the effect is above k / 2 - 1."""
    found = (effects(rng, patient)[:, None] + 1 > np.arange(WIDTH) / 2)[:, None]
    return dice(Strips(np.ones_like(found), found), weights).value


def dice_truth() -> float:
    reached = [1.0, *(1 - NormalDist(1).cdf(k / 2) for k in range(WIDTH)), 0.0]
    exactly = -np.diff(reached)
    counts = np.arange(WIDTH + 1)
    return float((exactly * 2 * counts / (WIDTH + counts)).sum())


CASES = [
    pytest.param(accuracy_under, ACCURACY, 1500, id="accuracy"),
    pytest.param(auroc_under, AUROC, 1000, id="auroc"),
    pytest.param(dice_under, dice_truth(), 1000, id="dice"),
]


@pytest.mark.parametrize(("values_under", "truth", "trials"), CASES)
def test_intervals_by_patient_hold_the_truth_and_intervals_by_image_do_not(
    values_under: Draw, truth: float, trials: int
) -> None:
    rng = np.random.default_rng(2024)
    patient = np.repeat(np.arange(PATIENTS), rng.integers(2, 7, PATIENTS))
    # The harness, too, draws with one seed whatever the data are.
    clustered = patient_weights(patient, RESAMPLES)
    by_image = patient_weights(np.arange(len(patient)), RESAMPLES)
    both = np.asfortranarray(np.concatenate([clustered, by_image]))
    held = np.zeros(2)
    for _ in range(trials):
        values = values_under(rng, patient, both)
        for k, part in enumerate((values[:RESAMPLES], values[RESAMPLES:])):
            low, high = interval(part)
            held[k] += low <= truth <= high
    by_patient, image_by_image = held / trials
    print(f"by patient {by_patient:.3f}, by image {image_by_image:.3f}, truth {truth:.4f}")
    assert 0.93 <= by_patient <= 0.97
    assert image_by_image < 0.85

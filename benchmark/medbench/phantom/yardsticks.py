"""Two model-free yardsticks that fix a phantom task's difficulty before any model is run.

- pixels: logistic regression on 32 x 32 pixels. It must stay clearly below the top.
- oracle: an observer who knows the renderer (each patient's body, what the slices would look like
  without disease) but sees its noise, and weighs what is left by lobe, depth and density. It must
  stay at or near the top.

For radiographs the oracle knows of every image what it would look like with and without each
finding, and measures how much of the difference is there.

Difficulty is set from these two alone and frozen under a renderer version in ``frozen.json``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from medbench.phantom.anatomy import lobe_of
from medbench.phantom.chest import UNCERTAIN, Chest, expected, render
from medbench.phantom.cohort import CLASSES, PRESETS, Cohort, build, subjects
from medbench.phantom.geometry import grid3
from medbench.phantom.hounsfield import to_unit
from medbench.phantom.parallel import in_order
from medbench.phantom.scanner import COVID_CT, XRAY_UNITS, XRayUnit
from medbench.phantom.shipped import shipped
from medbench.phantom.tissue import SHIFT_Y
from medbench.phantom.version import RENDERER_VERSION

Floats = npt.NDArray[np.float64]

#: Where the committed figures live.
FROZEN = Path(__file__).with_name("frozen.json")
#: Bounds of the oracle's density bins, in HU above the expected lung.
_BINS = (60.0, 150.0, 300.0, 480.0, 2000.0)
_FOLDS = 5
_STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
_PIXEL_STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0)


@dataclass
class Measured:
    """Features of N subjects: class [N], pixels of mean and central slice, the oracle's loads."""

    label: npt.NDArray[np.int64]
    mean: Floats
    central: Floats
    loads: Floats


def measure(preset: str, limit: int | None = None, batch: int = 4) -> Measured:
    """Render the cohort twice, with and without disease, and measure it."""
    size, fewest, most = PRESETS[preset]
    members = subjects(limit)

    def part(start: int) -> list[tuple[int, Floats, Floats, Floats]]:
        cohort = build(members[start : start + batch], fewest, most)
        image = cohort.render(size)
        expected = cohort.render(size, reference=True)
        small = functional.interpolate(to_unit(image.hu)[:, None], size=(32, 32), mode="area")
        found = []
        for index, subject in enumerate(cohort.subjects):
            mine = torch.nonzero(cohort.owner == index)[:, 0]
            mean = small[mine, 0].mean(0).flatten().double().numpy()
            central = small[mine[len(mine) // 2], 0].flatten().double().numpy()
            loads = _loads(cohort, index, mine, image.hu - expected.clean, expected.lung)
            found.append((subject.label, mean, central, loads))
        return found

    rows = [row for some in in_order(part, range(0, len(members), batch)) for row in some]
    label, mean, central, loads = zip(*rows, strict=True)
    return Measured(np.array(label), np.array(mean), np.array(central), np.array(loads))


def _loads(
    cohort: Cohort, index: int, slices: torch.Tensor, residual: torch.Tensor, lung: torch.Tensor
) -> Floats:
    """The oracle's measurement of one subject: millilitres of excess density by place.

    The residual is smoothed over 3 x 3 pixels, the matched filter of a small lesion in white
    noise, and binned by density, lobe and distance from the chest wall.
    """
    size = residual.shape[-1]
    pixel = COVID_CT.field_of_view / size
    inside = lung[slices]
    width = max(3, round(16.0 / pixel) // 2 * 2 + 1)
    pool = torch.nn.AvgPool2d(width, 1, width // 2, count_include_pad=False)
    weight = pool(inside[:, None])[:, 0].clamp_min(0.05)
    excess = pool((residual[slices] * inside)[:, None])[:, 0] / weight * (inside > 0.5)
    axis = (torch.arange(size) + 0.5) * pixel - COVID_CT.field_of_view / 2
    x, y = axis.view(1, 1, -1), axis.view(1, -1, 1) + SHIFT_Y
    z = cohort.z[slices].view(-1, 1, 1)
    grid = grid3(x, y, z).view(-1, 3)
    patient = cohort.patients[index : index + 1]
    lobe = lobe_of(patient, torch.zeros(len(grid), dtype=torch.long), grid).view(inside.shape)
    cage = (x / patient.cage[:, 0]).abs() ** 2.4 + (y / patient.cage[:, 1]).abs() ** 2.4
    outer = (cage > 0.55).expand(inside.shape)
    gap = float(abs(cohort.z[slices[0]] - cohort.z[slices[-1]])) / max(1, len(slices) - 1)
    voxel = pixel * pixel * gap / 1000
    table = torch.zeros(5, 2, len(_BINS) - 1)
    for k in range(len(_BINS) - 1):
        dense = ((excess >= _BINS[k]) & (excess < _BINS[k + 1])).float() * voxel
        for place in range(5):
            for depth in (0, 1):
                table[place, depth, k] = (dense * (lobe == place) * (outer == bool(depth))).sum()
    per_lobe = table.sum((1, 2))
    per_side = torch.stack([per_lobe[:2].sum(), per_lobe[2:].sum()])
    total = per_lobe.sum().clamp_min(0.5)
    by_density = table.sum((0, 1))
    features = [
        torch.log1p(by_density),
        torch.log1p(table.sum((0, 2))),
        torch.log1p(per_lobe),
        torch.log1p(per_side.amin())[None],
        (per_side.amin() / total)[None],
        (per_lobe.amax() / total)[None],
        (by_density[2:].sum() / total)[None],
        (table[:, 1].sum() / total)[None],
        ((per_lobe[0] + per_lobe[2]) / total)[None],
        torch.log1p(total)[None],
    ]
    return torch.cat(features).double().numpy()


def area(positive: npt.NDArray[np.bool_], value: Floats) -> float:
    """Area under the ROC curve; ties count a half."""
    order = np.argsort(value, kind="stable")
    ranks = np.empty(len(value))
    ranks[order] = np.arange(1, len(value) + 1)
    _, inverse = np.unique(value, return_inverse=True)
    ranks = (np.bincount(inverse, ranks) / np.bincount(inverse))[inverse]
    n = int(positive.sum())
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * (len(value) - n)))


def macro_auroc(label: npt.NDArray[np.int64], score: Floats) -> float:
    """Mean over classes of the one-versus-rest area under the ROC curve."""
    return float(np.mean([area(label == k, score[:, k]) for k in range(score.shape[1])]))


def cross_validated(label: npt.NDArray[np.int64], features: Floats) -> float:
    """Macro AUROC of logistic regression, patient-level stratified folds, out-of-fold scores.

    The strength of the penalty is chosen inside each training fold. Features are standardised and
    rotated onto the training subjects' span first: with an L2 penalty that changes no score, and
    1,024 pixels become at most as many numbers as there are subjects.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold

    def scores(train: Floats, target: Floats, test: Floats, strength: float) -> Floats:
        model = LogisticRegression(C=strength, max_iter=200, tol=1e-3)
        return np.asarray(model.fit(train, target).predict_proba(test))

    out = np.zeros((len(label), len(CLASSES)))
    for train, test in StratifiedKFold(_FOLDS, shuffle=True, random_state=0).split(features, label):
        centre, spread = features[train].mean(0), features[train].std(0) + 1e-6
        known = (features[train] - centre) / spread
        _, values, axes = np.linalg.svd(known, full_matrices=False)
        axes = axes[values > 1e-8 * values[0]].T
        known, asked = known @ axes, (features[test] - centre) / spread @ axes
        inner = list(StratifiedKFold(3, shuffle=True, random_state=1).split(known, label[train]))
        found = []
        for strength in _STRENGTHS:
            guess = np.zeros((len(train), len(CLASSES)))
            for fit, check in inner:
                guess[check] = scores(known[fit], label[train][fit], known[check], strength)
            found.append(macro_auroc(label[train], guess))
        best = _STRENGTHS[int(np.argmax(found))]
        out[test] = scores(known, label[train], asked, best)
    return macro_auroc(label, out)


def covid_ct(preset: str = "tiny", limit: int | None = None) -> dict[str, Any]:
    """Both yardsticks of the task covid-ct.

    Returns:
        Macro one-versus-rest AUROC of ``pixels-mean``, ``pixels-central`` and ``oracle``, and the
        number of subjects.
    """
    found = measure(preset, limit)
    return {
        "renderer": RENDERER_VERSION,
        "preset": preset,
        "subjects": len(found.label),
        "metric": "macro one-versus-rest AUROC, patient-level stratified 5-fold",
        "pixels-mean": round(cross_validated(found.label, found.mean), 3),
        "pixels-central": round(cross_validated(found.label, found.central), 3),
        "oracle": round(cross_validated(found.label, found.loads), 3),
    }


def _pixel_scores(
    features: Floats, positive: npt.NDArray[np.bool_], patients: npt.NDArray[np.int64]
) -> Floats:
    """Out-of-fold scores of logistic regression for one label, folds by patient."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold

    def fit(known: Floats, target: npt.NDArray[np.bool_], asked: Floats, strength: float) -> Floats:
        model = LogisticRegression(C=strength, max_iter=300, tol=1e-3)
        return np.asarray(model.fit(known, target).decision_function(asked))

    out = np.zeros(len(positive))
    folds = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=0)
    inner = StratifiedGroupKFold(3, shuffle=True, random_state=1)
    for train, test in folds.split(features, positive, patients):
        centre = features[train].mean(0)
        # The first 200 directions of the training images hold nearly all of their variance.
        _, _, axes = np.linalg.svd(features[train] - centre, full_matrices=False)
        known, asked = ((features[part] - centre) @ axes[:200].T for part in (train, test))
        target, found = positive[train], []
        splits = list(inner.split(known, target, patients[train]))
        for strength in _PIXEL_STRENGTHS:
            guess = np.zeros(len(target))
            for part, check in splits:
                guess[check] = fit(known[part], target[part], known[check], strength)
            found.append(area(target, guess))
        out[test] = fit(known, target, asked, _PIXEL_STRENGTHS[int(np.argmax(found))])
    return out


def radiographs(
    dataset: str, chests: Sequence[Chest], labels: Sequence[str], unit: XRayUnit, size: int = 128,
    observed: int = 240, fewest: int = 8,
) -> dict[str, Any]:  # fmt: skip
    """Both yardsticks of a set of frontal radiographs.

    A finding of severity 1 is positive, one that is absent negative, an uncertain one not scored.

    Args:
        dataset: seeds of the images.
        chests: what they show.
        labels: findings that are scored.
        unit: radiography unit.
        size: pixels.
        observed: how many of the images, from the first, the oracle looks at.
        fewest: a label with fewer positives or negatives is left out of a yardstick.

    Returns:
        Macro AUROC of ``pixels`` and ``oracle``, and both per label.
    """
    level = np.array([[c.findings.get(name, 0.0) for name in labels] for c in chests])
    sure = (level == 0) | (level == 1)
    names = {name: number for number, name in enumerate(dict.fromkeys(c.patient for c in chests))}
    patients = np.array([names[c.patient] for c in chests])
    batch = 32

    def shot(start: int) -> npt.NDArray[np.uint8]:
        return render(dataset, chests[start : start + batch], size, unit)

    seen = np.concatenate(list(in_order(shot, range(0, len(chests), batch))))
    small = functional.interpolate(
        torch.from_numpy(seen)[:, None].float() / 255, size=(32, 32), mode="area"
    )
    features = small.flatten(1).double().numpy()

    def look(index: int) -> Floats:
        """The oracle's score of every label for one image."""
        chest = chests[index]
        others = [
            replace(chest, findings={**chest.findings, name: 0.0 if level[index, k] else 1.0})
            for k, name in enumerate(labels)
        ]
        clean = expected(dataset, [chest, *others], size, unit).astype(np.float64)
        scores = np.zeros(len(labels))
        for k in range(len(labels)):
            without, within = clean[0], clean[k + 1]
            if level[index, k]:
                without, within = within, without
            sign = within - without
            strength = float(np.linalg.norm(sign))
            scores[k] = float(((seen[index] / 255 - without) * sign).sum()) / max(strength, 1e-9)
        return scores

    loads = np.array(list(in_order(look, range(min(observed, len(chests))))))
    found: dict[str, dict[str, float]] = {"pixels": {}, "oracle": {}}
    for k, name in enumerate(labels):
        some = np.flatnonzero(sure[:, k])
        positive = level[some, k] == 1
        if min(positive.sum(), (~positive).sum()) >= fewest:
            guess = _pixel_scores(features[some], positive, patients[some])
            found["pixels"][name] = round(area(positive, guess), 3)
        some = some[some < len(loads)]
        positive = level[some, k] == 1
        if min(positive.sum(), (~positive).sum()) >= fewest:
            found["oracle"][name] = round(area(positive, loads[some, k]), 3)
    return {
        "images": len(chests),
        "patients": len(names),
        **{name: round(float(np.mean(list(part.values()))), 3) for name, part in found.items()},
        "per-label": found,
    }


#: Columns of the CheXpert table to what is drawn.
_CHEXPERT = {
    "Enlarged Cardiomediastinum": "enlarged-cardiomediastinum", "Cardiomegaly": "cardiomegaly",
    "Lung Opacity": "lung-opacity", "Lung Lesion": "lung-lesion", "Edema": "edema",
    "Consolidation": "consolidation", "Pneumonia": "pneumonia", "Atelectasis": "atelectasis",
    "Pneumothorax": "pneumothorax", "Pleural Effusion": "effusion",
    "Pleural Other": "pleural-other", "Fracture": "fracture", "Support Devices": "support-devices",
}  # fmt: skip


def chest_radiographs(preset: str = "tiny", count: int = 1600) -> dict[str, Any]:
    """Both yardsticks of frontal radiographs whose findings occur, and occur together, as in
    ``count`` evenly spaced frontal rows of the CheXpert table."""
    import pandas as pd

    size = {"tiny": 128, "small": 256, "paper": 390}[preset]
    table = pd.read_csv(shipped("chexpert_train.csv.gz"))
    table = table[table["Frontal/Lateral"] == "Frontal"]
    table = table.iloc[:: max(1, len(table) // count)].head(count)
    chests = []
    for row in table.to_dict("records"):
        severity = {1.0: 1.0, -1.0: UNCERTAIN}
        findings = {
            name: severity[row[column]] for column, name in _CHEXPERT.items()
            if row[column] in severity
        }  # fmt: skip
        path = row["Path"]
        chests.append(
            Chest(
                path.split("/")[2], path, age=float(row["Age"]) or None,
                female=row["Sex"] == "Female", findings=findings,
            )
        )  # fmt: skip
    measured = radiographs(
        "yardstick", chests, list(_CHEXPERT.values()), XRAY_UNITS["chexpert"], size
    )
    return {
        "renderer": RENDERER_VERSION,
        "preset": preset,
        "metric": "macro AUROC over findings annotated for sure, 5 folds by patient",
        **measured,
    }


#: Task name to the function that measures its yardsticks at a preset.
YARDSTICKS: dict[str, Callable[[str], dict[str, Any]]] = {
    "covid-ct": covid_ct,
    "chest-radiographs": chest_radiographs,
}


def freeze(
    report: Callable[[str], None] = print, tasks: Sequence[str] = tuple(YARDSTICKS)
) -> dict[str, Any]:
    """Measure and write ``frozen.json``: once per renderer version, before any model is run."""
    figures = frozen() if FROZEN.is_file() else {}
    figures |= {task: {"tiny": YARDSTICKS[task]("tiny")} for task in tasks}
    FROZEN.write_text(json.dumps(figures, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    report(json.dumps(figures, indent=2, sort_keys=True))
    return figures


def frozen() -> dict[str, Any]:
    """The committed figures."""
    figures: dict[str, Any] = json.loads(FROZEN.read_text(encoding="utf-8"))
    if not all(
        math.isfinite(value)
        for task in figures.values()
        for entry in task.values()
        for value in entry.values()
        if isinstance(value, float)
    ):
        raise ValueError("frozen.json holds a figure that is not a number")
    return figures

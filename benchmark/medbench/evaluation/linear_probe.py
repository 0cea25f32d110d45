"""Linear probe: logistic regression on frozen features, with predictions out of fold.

Per fold, or once for a train, val and test split, everything is decided away from the test part:
means and scales of the features, the regularisation (by log-loss on the validation part, or where
there is none on inner folds of whole training patients), and the weights. The test part is only
multiplied with the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medbench.data.splits import VAL
from medbench.errors import DataError, PluginError
from medbench.metrics.thresholds import best_thresholds
from medbench.metrics.values import FloatArray

#: Inverse regularisation strengths tried, from strong to weak: each fit starts from the last.
GRID: tuple[float, ...] = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
#: Taken where a training part is too small to choose on.
FALLBACK = 1e-2
INNER_FOLDS = 3
#: Numbers in the training features from which on a GPU is worth its while (10,000 x 768).
LARGE = 5_000_000
#: Largest gradient of the mean loss at which the GPU's solver is done.
TOLERANCE = 1e-7
#: A probability below this costs no more: one hopeless sample must not decide the choice.
FLOOR = 1e-6

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Probe:
    """Out-of-fold predictions.

    Attributes:
        scores: float64 [N, L], probabilities; rows sum to 1 when multiclass; NaN where a sample
            is not tested.
        chosen: float64 [F, K], inverse regularisation chosen per fold (in ascending order of fold
            number); K is 1 when multiclass, else L.
        thresholds: float64 [L], of best F1 on the validation part; None when multiclass or
            without one. NaN for a label with one class there.
    """

    scores: FloatArray
    chosen: FloatArray
    thresholds: FloatArray | None = None


def linear_probe(
    features: npt.NDArray[np.floating],
    y: FloatArray,
    folds: npt.NDArray[np.integer],
    patients: Sequence[str],
    multiclass: bool,
    seed: int = 0,
    labelled: npt.NDArray[np.bool_] | None = None,
    device: str = "cpu",
) -> Probe:
    """Probabilities for every tested sample from a probe that saw none of its patient's samples.

    Multinomial when multiclass, else one binary probe per label over the samples where it is
    scored. A label with one class in a training part gets its frequency there. With more features
    than training samples the fit is done in the row space of the training part, where the
    L2-regularised solution lies: the same solution, and cheap. Deterministic: one thread, and
    ``seed`` deals the inner folds.

    Args:
        features: float [N, D], finite. Constant ones are harmless.
        y: float [N, L]: 1, 0, or NaN where not scored.
        folds: int [N], the fold in which each sample is tested, or `medbench.data.splits.TRAIN` or
            ``VAL``: such samples are trained on, or chosen on, and never tested.
        patients: [N], who must not be on both sides.
        multiclass: exactly one 1 per row of y.
        seed: of the inner folds.
        labelled: bool [N], training samples whose labels may be used; all by default.
        device: where large problems are fitted: on "cuda" or "cuda:N" those of `LARGE` numbers or
            more are, by another solver of the same problem; everything else is on the CPU.

    Raises:
        PluginError: features are not finite or of another shape.
        DataError: a patient is in two folds, or nothing is left to train on.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    features = np.asarray(features, dtype=np.float64)
    y, folds = np.asarray(y, dtype=np.float64), np.asarray(folds)
    if features.ndim != 2 or len(features) != len(y) or not np.isfinite(features).all():
        raise PluginError(
            f"Features of shape {features.shape} for {len(y)} samples: the probe needs one finite "
            "vector per sample."
        )
    _check_folds(folds, patients)
    groups = np.unique(np.asarray(patients), return_inverse=True)[1].astype(np.int64)
    may = np.ones(len(y), bool) if labelled is None else labelled
    val = folds == VAL
    on_val = np.zeros(y.shape)
    numbers = np.unique(folds[folds >= 0])
    scores = np.full(y.shape, np.nan)
    chosen = np.full((len(numbers), 1 if multiclass else y.shape[1]), np.nan)
    # One thread: sums in one order, so the same bits however many cores there are.
    with threadpool_limits(1):
        for row, fold in enumerate(numbers):
            test = folds == fold
            train = ~test & ~val & may
            if not train.any():
                raise DataError(f"No sample is left to train on outside fold {fold}.")
            inputs, outputs = _prepare(features[train], features[val | test])
            held = val[val | test]
            truth, owners = y[train], groups[train]
            for k in range(chosen.shape[1]):
                targets = y.argmax(axis=1) if multiclass else y[:, k]
                known = np.ones(len(truth), bool) if multiclass else ~np.isnan(truth[:, k])
                if not known.any():
                    raise DataError(f"Label {k} is scored nowhere outside fold {fold}.")
                judge = val if multiclass else val & ~np.isnan(y[:, k])
                everyone, chosen[row, k] = _probe(
                    inputs[known],
                    targets[train][known].astype(np.int64),
                    owners[known],
                    outputs[held][judge[val]],
                    targets[judge].astype(np.int64),
                    outputs,
                    y.shape[1] if multiclass else 2,
                    seed,
                    device,
                )
                found = everyone[~held]
                if multiclass:
                    scores[test] = found
                else:
                    scores[test, k] = found[:, 1]
                    on_val[val, k] = everyone[held][:, 1]
    if multiclass or not val.any():
        return Probe(scores, chosen)
    return Probe(scores, chosen, best_thresholds(y[val], on_val[val]))


def _check_folds(folds: npt.NDArray[np.integer], patients: Sequence[str]) -> None:
    if len(np.unique(folds[folds != VAL])) < 2:
        raise DataError("A linear probe needs two folds or more, or a training part.")
    home: dict[str, int] = {}
    for patient, fold in zip(patients, folds.tolist(), strict=True):
        if home.setdefault(patient, fold) != fold:
            raise DataError(f"Patient '{patient}' is in folds {home[patient]} and {fold}.")


def _prepare(train: FloatArray, test: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Standardise by the training part; more features than samples: rotate into its row space."""
    mean, scale = train.mean(axis=0), train.std(axis=0)
    # A constant feature may differ from its mean in the last bit: that is no scale to divide by.
    constant = scale <= 1e-12 * np.maximum(1.0, np.abs(mean))
    scale[constant] = np.inf
    inputs, outputs = (train - mean) / scale, (test - mean) / scale
    if inputs.shape[1] > inputs.shape[0]:
        _, singular, rotation = np.linalg.svd(inputs, full_matrices=False)
        basis = rotation[singular > 1e-10 * max(float(singular[0]), 1e-300)].T
        if basis.shape[1]:
            inputs, outputs = inputs @ basis, outputs @ basis
    return inputs, outputs


def _probe(
    inputs: FloatArray,
    classes: Integers,
    owners: Integers,
    judged: FloatArray,
    truth: Integers,
    outputs: FloatArray,
    k: int,
    seed: int,
    device: str,
) -> tuple[FloatArray, float]:
    """Fit on ``inputs``, the strength chosen on ``judged`` if there is any, else on inner folds.

    Returns probabilities of ``outputs``, float [M, k], and what was chosen.
    """
    seen = np.unique(classes)
    if len(seen) < 2:
        constant = np.bincount(classes, minlength=k) / len(classes)
        return np.tile(constant, (len(outputs), 1)), float("nan")
    if len(judged):
        both = _path(inputs, classes, np.concatenate([judged, outputs]), k, GRID, device)
        best = int(_log_loss(both[:, : len(judged)], truth).argmin())
        return both[best, len(judged) :], GRID[best]
    inner = _deal(classes, owners, seed)
    strength = FALLBACK
    if inner is not None:
        losses = np.zeros(len(GRID))
        for fold in range(int(inner.max()) + 1):
            held = inner == fold
            path = _path(inputs[~held], classes[~held], inputs[held], k, GRID, device)
            losses += _log_loss(path, classes[held])
        strength = GRID[int(losses.argmin())]  # the first of equal ones: the strongest
    return _path(inputs, classes, outputs, k, (strength,), device)[0], strength


def _log_loss(path: FloatArray, classes: Integers) -> FloatArray:
    """Summed log-loss of probabilities [G, M, k], float [G]."""
    right = path[:, np.arange(len(classes)), classes]
    losses: FloatArray = -np.log(np.maximum(right, FLOOR)).sum(axis=1)
    return losses


def _path(
    inputs: FloatArray,
    classes: Integers,
    outputs: FloatArray,
    k: int,
    grid: Sequence[float],
    device: str,
) -> FloatArray:
    """Probabilities float [len(grid), M, k] along the grid, each fit starting from the last."""
    if device.startswith("cuda") and inputs.size >= LARGE:
        return torch_path(inputs, classes, outputs, k, grid, device)
    from sklearn.linear_model import LogisticRegression

    found = np.zeros((len(grid), len(outputs), k))
    model = LogisticRegression(solver="lbfgs", max_iter=1000, tol=1e-4, warm_start=True)
    for row, strength in enumerate(grid):
        model.set_params(C=strength)
        model.fit(inputs, classes)
        found[row][:, model.classes_] = model.predict_proba(outputs)
    return found


def torch_path(
    inputs: FloatArray,
    classes: Integers,
    outputs: FloatArray,
    k: int,
    grid: Sequence[float],
    device: str,
) -> FloatArray:
    """What scikit-learn's L2-regularised logistic regression gives, fitted by torch on a device.

    The same problem in float64: mean log-loss plus |w|^2 / (2 C n), the bias not regularised;
    softmax over the classes that occur, or one logit where these are two. L-BFGS with a line
    search, to a gradient of `TOLERANCE`.

    Args:
        inputs: float [n, D], standardised.
        classes: int [n], at least two of them.
        outputs: float [M, D].
        k: number of classes; those that do not occur get 0.
        grid: inverse regularisation strengths, each fit starting from the last.
        device: torch's name of it.

    Returns:
        Probabilities float64 [len(grid), M, k].
    """
    import torch
    from torch.nn import functional as F

    seen, places = np.unique(classes, return_inverse=True)
    columns = 1 if len(seen) == 2 else len(seen)
    x = torch.from_numpy(inputs).to(device)
    target = torch.from_numpy(places.reshape(-1)).to(device)
    asked = torch.from_numpy(np.ascontiguousarray(outputs)).to(device)
    weight = torch.zeros(x.shape[1], columns, dtype=x.dtype, device=device, requires_grad=True)
    bias = torch.zeros(columns, dtype=x.dtype, device=device, requires_grad=True)
    found = np.zeros((len(grid), len(outputs), k))
    for row, strength in enumerate(grid):
        solver = torch.optim.LBFGS(
            [weight, bias],
            max_iter=1000,
            tolerance_grad=TOLERANCE,
            tolerance_change=0.0,
            history_size=20,
            line_search_fn="strong_wolfe",
        )

        def objective(solver: Any = solver, decay: float = 1 / (2 * strength * len(x))) -> Any:
            solver.zero_grad()
            logits = x @ weight + bias
            if columns == 1:
                loss = F.binary_cross_entropy_with_logits(logits[:, 0], target.to(x.dtype))
            else:
                loss = F.cross_entropy(logits, target)
            loss = loss + decay * weight.square().sum()
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        solver.step(objective)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            logits = asked @ weight + bias
            if columns == 1:
                logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
            found[row][:, seen] = torch.softmax(logits, dim=1).cpu().numpy()
    return found


def _deal(classes: Integers, owners: Integers, seed: int) -> Integers | None:
    """Inner folds of whole patients, stratified by each patient's highest class: int [n].

    None when a class has fewer than two patients: then nothing can be chosen honestly.
    """
    people, index = np.unique(owners, return_inverse=True)
    stratum = np.zeros(len(people), dtype=np.int64)
    np.maximum.at(stratum, index, classes)
    counts = np.bincount(stratum)
    if counts[counts > 0].min() < 2 or (counts > 0).sum() < len(np.unique(classes)):
        return None
    count = min(INNER_FOLDS, int(counts[counts > 0].min()))
    order = np.random.default_rng(seed).permutation(len(people))
    order = order[np.argsort(stratum[order], kind="stable")]
    fold = np.empty(len(people), dtype=np.int64)
    fold[order] = np.arange(len(people)) % count
    dealt: Integers = fold[index]
    return dealt

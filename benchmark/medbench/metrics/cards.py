"""Identity cards of the metrics that ship with medbench. Imports nothing heavy."""

from __future__ import annotations

import hashlib
import json

from medbench.schemas.specs import MetricSpec

_MACRO = "unweighted mean over labels with both classes among the scored samples"

AUROC = MetricSpec(
    name="auroc",
    function="medbench.metrics.classification:auroc",
    task_types=("classification",),
    definition=(
        "area under the receiver operating characteristic: the probability that a random positive "
        "scores above a random negative, ties counting one half; multiclass: one label versus "
        "the rest"
    ),
    higher_is_better=True,
    aggregation=f"{_MACRO}; samples pooled over folds",
    reference="Hanley and McNeil 1982; scikit-learn roc_auc_score(average='macro', "
    "multi_class='ovr')",
)

AUPRC = MetricSpec(
    name="auprc",
    function="medbench.metrics.classification:auprc",
    task_types=("classification",),
    definition=(
        "average precision: the sum over distinct scores of the step in recall times the "
        "precision there, without interpolation; multiclass: one label versus the rest"
    ),
    higher_is_better=True,
    aggregation=f"{_MACRO}; samples pooled over folds",
    reference="scikit-learn average_precision_score(average='macro')",
)

ACCURACY = MetricSpec(
    name="accuracy",
    function="medbench.metrics.classification:accuracy",
    task_types=("classification",),
    definition=(
        "fraction of samples decided rightly; multiclass: arg max of the scores, the first of "
        "equal ones; multi-label: score at or above the label's threshold"
    ),
    higher_is_better=True,
    aggregation="mean over samples; multi-label: then unweighted mean over labels",
    reference="scikit-learn accuracy_score",
)

BALANCED_ACCURACY = MetricSpec(
    name="balanced-accuracy",
    function="medbench.metrics.classification:balanced_accuracy",
    task_types=("classification",),
    definition=(
        "multiclass: mean over classes of the fraction of its samples decided rightly (arg max); "
        "multi-label: mean of sensitivity and specificity at the label's threshold"
    ),
    higher_is_better=True,
    aggregation="unweighted mean over classes that occur; multi-label: over labels with both "
    "classes",
    reference="scikit-learn balanced_accuracy_score",
)

F1 = MetricSpec(
    name="f1",
    function="medbench.metrics.classification:f1",
    task_types=("classification",),
    definition=(
        "2 TP / (2 TP + FP + FN) per label; multiclass: decided by arg max; multi-label: by "
        "the label's threshold"
    ),
    higher_is_better=True,
    aggregation="unweighted mean over labels that occur in the reference or in the decisions",
    reference="scikit-learn f1_score(average='macro')",
)

ECE = MetricSpec(
    name="ece",
    function="medbench.metrics.classification:ece",
    task_types=("classification",),
    definition=(
        "expected calibration error: mean absolute gap between confidence and frequency in 15 "
        "equal bins [a, b), the last closed, weighted by samples; multiclass: confidence of the "
        "arg max; multi-label: probability of the label"
    ),
    higher_is_better=False,
    aggregation="over samples; multi-label: then unweighted mean over labels",
    reference="Guo et al. 2017; torchmetrics CalibrationError(n_bins=15, norm='l1')",
)

SENSITIVITY = MetricSpec(
    name="sensitivity-at-specificity-90",
    function="medbench.metrics.classification:sensitivity",
    task_types=("classification",),
    definition=(
        "largest sensitivity among the thresholds at which specificity is at least .90, a score "
        "at or above the threshold meaning present, without interpolation; multiclass: one "
        "label versus the rest"
    ),
    higher_is_better=True,
    aggregation=f"{_MACRO}; samples pooled over folds; interval: percentile, patients resampled, "
    "the threshold sought anew in each resample",
    reference="scikit-learn roc_curve(drop_intermediate=False); torchmetrics "
    "SensitivityAtSpecificity(min_specificity=0.9)",
)

#: Every classification metric, in the order of the contract.
CLASSIFICATION: tuple[MetricSpec, ...] = (
    AUROC,
    AUPRC,
    ACCURACY,
    BALANCED_ACCURACY,
    F1,
    ECE,
    SENSITIVITY,
)


def card_sha256(spec: MetricSpec) -> str:
    """Hash of the identity card: values are compared only when these agree.

    >>> card_sha256(AUROC) == card_sha256(AUPRC)
    False
    """
    text = json.dumps(spec.card(), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()

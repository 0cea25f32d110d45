"""Identity cards of the segmentation metrics. Imports nothing heavy."""

from __future__ import annotations

from medbench.schemas.specs import MetricSpec

_INTERVAL = "interval: percentile, patients resampled"

DICE = MetricSpec(
    name="dice",
    function="medbench.metrics.segmentation:dice",
    task_types=("segmentation",),
    definition="2 |A and B| / (|A| + |B|) of reference and predicted mask; an image empty on both "
    "sides counts 1",
    higher_is_better=True,
    aggregation=f"mean over all images; {_INTERVAL}",
    reference="Dice 1945; MONAI DiceHelper(ignore_empty=False), where an image empty on both "
    "sides counts 1",
)

DICE_POSITIVE = MetricSpec(
    name="dice-positive",
    function="medbench.metrics.segmentation:dice_positive",
    task_types=("segmentation",),
    definition="2 |A and B| / (|A| + |B|) of reference and predicted mask, of images whose "
    "reference is not empty",
    higher_is_better=True,
    aggregation=f"mean over images whose reference is not empty; {_INTERVAL}",
    reference="Dice 1945; MONAI DiceHelper(ignore_empty=True)",
)

IOU = MetricSpec(
    name="iou",
    function="medbench.metrics.segmentation:iou",
    task_types=("segmentation",),
    definition="|A and B| / |A or B| of reference and predicted mask; an image empty on both "
    "sides counts 1",
    higher_is_better=True,
    aggregation=f"mean over all images; {_INTERVAL}",
    reference="Jaccard 1912; MONAI compute_iou(ignore_empty=False)",
)

SURFACE_DISTANCE = MetricSpec(
    name="surface-distance",
    function="medbench.metrics.segmentation:surface_distance",
    task_types=("segmentation",),
    definition="average symmetric surface distance: mean over the surface pixels of both masks of "
    "the Euclidean distance to the nearest surface pixel of the other; a surface pixel has "
    "one of its four neighbours, or the border of the image, outside the mask",
    higher_is_better=False,
    aggregation="mean over images with something in the reference and in the prediction; the "
    f"others are left out and counted; {_INTERVAL}",
    unit="mm at the spacing of the image; pixels where no spacing is given",
    reference="MONAI compute_average_surface_distance(symmetric=True)",
)

#: Every segmentation metric, in the order of the contract.
SEGMENTATION: tuple[MetricSpec, ...] = (DICE, DICE_POSITIVE, IOU, SURFACE_DISTANCE)

"""What a table of generated images must hold together; each broken rule is named."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from medbench.errors import DataError

if TYPE_CHECKING:
    from medbench.evaluation.image_predictions import ImagePredictions


def check_counts(table: ImagePredictions) -> None:
    """Raises DataError: no images, or images, features, prompts and patients of unlike numbers."""
    if table.generated is None and not table.given:
        raise DataError("Predictions hold neither images nor features.")
    for what, pixels in (("real", table.real), ("generated", table.generated)):
        if pixels is not None and (pixels.ndim != 3 or not len(pixels)):
            raise DataError(f"The {what} images have shape {pixels.shape}, not [N, H, W].")
    sizes = {pair[1].shape[0] for pair in table.given.values()}
    if table.generated is not None:
        sizes.add(len(table.generated))
    if len(sizes) != 1:
        raise DataError(f"Generated images and their features are of {sorted(sizes)} rows.")
    if table.prompts is not None and len(table.prompts) != table.count:
        raise DataError(f"{table.count} generated images have {len(table.prompts)} prompts.")
    if table.real_patients is not None and len(table.real_patients) != table.reals:
        raise DataError(f"{table.reals} real images have {len(table.real_patients)} patients.")


def check_findings(table: ImagePredictions) -> None:
    """Raises DataError: labels or scores of another shape, or of values that cannot be."""
    if list(table.label_names) != sorted(set(table.label_names)):
        raise DataError(
            f"Findings {', '.join(table.label_names)} are not each once in the alphabet's order."
        )
    for what, array, count in (
        ("labels of the prompts", table.labels, table.count),
        ("labels of the real images", table.real_labels, table.reals),
        ("scores", table.scores, table.count),
    ):
        expected = (count, len(table.label_names))
        if array is not None and array.shape != expected:
            raise DataError(f"The {what} have shape {array.shape}, not {expected}.")
    for what, array in (("prompts", table.labels), ("real images", table.real_labels)):
        if array is not None and not np.isin(array[~np.isnan(array)], (0, 1)).all():
            raise DataError(f"Labels of the {what} are 1, 0, or NaN where not scored.")
    if table.scores is not None:
        if table.labels is None:
            raise DataError("There are scores of findings, and no labels to hold them against.")
        known = table.scores[:, ~np.isnan(table.scores).all(axis=0)]
        if not np.isfinite(known).all():
            raise DataError(
                f"{int((~np.isfinite(known)).any(axis=1).sum()):,} of {table.count:,} generated "
                "images have a score that is NaN or infinite."
            )


def check_judge(table: ImagePredictions) -> None:
    """Raises DataError: images and prompts that are in no common space."""
    images, texts, real = table.judge_images, table.judge_texts, table.judge_real
    if images is None and texts is None and real is None:
        return
    if images is None or texts is None or table.prompts is None:
        raise DataError(
            "An independent space needs the generated images, the prompts, and which image "
            "was generated from which prompt."
        )
    if images.ndim != 2 or texts.ndim != 2 or images.shape[1] != texts.shape[1]:
        raise DataError(
            f"Images and prompts of shapes {images.shape} and {texts.shape} are in no common "
            "space: [G, E] and [P, E] are expected."
        )
    if len(images) != table.count:
        raise DataError(f"{table.count} generated images have {len(images)} rows in the space.")
    if real is not None and real.shape != (table.reals, images.shape[1]):
        raise DataError(
            f"Real images of shape {real.shape} are not in the space: "
            f"{(table.reals, images.shape[1])} is expected."
        )
    if not all(np.isfinite(some).all() for some in (images, texts, real) if some is not None):
        raise DataError("The space of images and prompts holds values that are not finite.")
    empty = np.flatnonzero(~texts.any(axis=1))
    if len(empty):
        raise DataError(f"Prompt {empty[0]} has no text: its vector is zero.")


def check_prompts(table: ImagePredictions) -> None:
    """Raises DataError: texts, reports or real images of prompts that there are not."""
    if table.prompts is None:
        if table.prompt_texts or table.reports or table.prompt_reports:
            raise DataError(
                "There are texts of prompts or reports, and nothing says which image was generated "
                "from which prompt."
            )
        return
    numbers = {
        "prompts in the space": table.judge_texts,
        "texts of prompts": table.prompt_texts,
        "reports of prompts": table.prompt_reports,
    }
    known = {what: len(some) for what, some in numbers.items() if some is not None}
    for what, count in known.items():
        last = int(table.prompts.max())
        if table.prompts.min() < 0 or last >= count:
            raise DataError(
                f"Images are of prompts up to number {last}, and there are {count} {what}, counted "
                "from 0."
            )
        if table.real_prompts is not None and table.real_prompts.max() >= count:
            raise DataError(f"A real image is of a prompt that is not among {count} {what}.")
    if len(set(known.values())) > 1:
        told = ", ".join(f"{count} {what}" for what, count in known.items())
        raise DataError(f"There are unequal numbers of prompts: {told}.")
    if table.real_prompts is not None and len(table.real_prompts) != table.reals:
        raise DataError(f"{table.reals} real images have {len(table.real_prompts)} prompts.")
    blank = [i for i, text in enumerate(table.prompt_texts or ()) if not text.strip()]
    if blank:
        raise DataError(f"Prompt {blank[0]} has no text.")
    if (table.reports is None) != (table.prompt_reports is None):
        raise DataError(
            "Reports of images need those of their prompts beside them, and these them."
        )
    if table.reports is not None and len(table.reports) != table.count:
        raise DataError(f"{table.count} generated images have {len(table.reports)} reports.")


def check_distances(table: ImagePredictions) -> None:
    """Raises DataError: distances to training images of another number, or that cannot be."""
    if (table.train_distances is None) != (table.real_train_distances is None):
        raise DataError(
            "Distances to training images are needed of the generated and of the real images."
        )
    for what, some, count in (
        ("generated", table.train_distances, table.count),
        ("real", table.real_train_distances, table.reals),
    ):
        if some is None:
            continue
        if some.shape != (count,):
            raise DataError(f"{count} {what} images have distances of shape {some.shape}.")
        bad = int((~np.isfinite(some) | (some < 0)).sum())
        if bad:
            raise DataError(
                f"{bad:,} of {count:,} {what} images have a distance to training images that is "
                "negative, NaN or infinite."
            )

"""Denoising strips: how a few images came out of noise, step by step, kept beside a run.

A generator may offer ``explain_images(prompts, seeds, count)`` -> float [B, count, 3, H, W] in
[0, 1]: what it takes the finished image to be at ``count`` evenly spaced steps of its sampling,
the last of them the finished image, as ``generate_images`` gives it for that prompt and seed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from medbench.errors import PluginError
from medbench.evaluation.arrays import write_npz
from medbench.evaluation.image_cases import first_images
from medbench.evaluation.image_predictions import ImagePredictions
from medbench.run.job import Job

NAME = "strips.npz"  # image int64 [K], steps uint8 [K, COUNT, S, S]
COUNT = 8  #: steps of a strip


def write_strips(folder: Path, job: Job, table: object) -> None:
    """Write ``folder/strips.npz`` where the model can tell; else see that none is left there.

    ``image`` int64 [K] are the rows of ``table.generated`` that the strips end in, ``steps`` uint8
    [K, COUNT, S, S] are grey and of the size at which images are compared.

    Args:
        folder: of the run.
        job: the cell, with its fitted model.
        table: its predictions; those of other task types than image-generation have no strips.

    Raises:
        PluginError: what ``explain_images`` gives is of another shape, or not finite.
        StorageError: it cannot be written.
    """
    (folder / NAME).unlink(missing_ok=True)
    if not isinstance(table, ImagePredictions) or table.generated is None or job.fitted is None:
        return
    rows = first_images(table) if hasattr(job.fitted.model, "explain_images") else []
    if rows:
        steps = _drawn(job, table, rows)
        write_npz(folder / NAME, {"image": np.array(rows, np.int64), "steps": steps})


def _drawn(job: Job, table: ImagePredictions, rows: list[int]) -> npt.NDArray[np.uint8]:
    """uint8 [K, COUNT, S, S]: how the generated images ``rows`` came about."""
    import torch

    from medbench.data.images import resize
    from medbench.run.fit import guarded
    from medbench.run.generation import prompt_of, seed_of

    assert table.prompts is not None
    assert table.generated is not None
    cell, tested, made = job.cell, job.loaded.tested.tolist(), []
    with job.reporter.stage("denoising strips", "strips") as done:
        for row in rows:  # one at a time: they are few, and their steps need memory
            prompt = prompt_of(job, tested[int(table.prompts[row])])
            with guarded(cell, "explain_images"), torch.inference_mode():
                found = job.model.model.explain_images([prompt], [seed_of(job, row)], COUNT)
            shape = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
            if (
                not isinstance(found, torch.Tensor)
                or found.ndim != 5
                or found.shape[:3] != (1, COUNT, 3)
                or not bool(torch.isfinite(found).all())
            ):
                raise PluginError(
                    f"{cell.title}: explain_images of model '{cell.model.name}' breaks its "
                    f"contract: finite [B, {COUNT}, 3, H, W] in [0, 1] of one image, not {shape}."
                )
            grey = (found[0].float().mean(1).clamp(0, 1) * 255).round().byte().cpu().numpy()
            side = table.generated.shape[1]
            made.append(np.stack([resize(picture, side) for picture in grey]))
            done(len(made), len(rows))
    return np.stack(made)

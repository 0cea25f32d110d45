"""The training image nearest to each image, in the features of a network that judges both."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from medbench.errors import DataError
from medbench.metrics.values import FloatArray


def nearest_images(
    images: FloatArray, training: FloatArray
) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """Row of the nearest training image of each image, int64 [N], and its distance, float64 [N],
    Euclidean; 0 for a copy.

    Args:
        images: float [N, D].
        training: float [M, D]; the first of equally near ones is taken.

    Raises DataError: there is no training image.
    """
    from sklearn.metrics import pairwise_distances_argmin_min

    if not len(training):
        raise DataError("There is no training image that generated images could be nearest to.")
    found = np.asarray(pairwise_distances_argmin_min(images, training)[0], np.int64)
    # of differences, since products leave a copy a trace of rounding away
    return found, np.asarray(np.linalg.norm(images - training[found], axis=1), np.float64)

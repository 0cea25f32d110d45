"""Hounsfield units and the one lung window that every chest CT image of medbench goes through."""

from __future__ import annotations

from typing import Any

#: Lower and upper end of the lung window in HU: level -600, width 1500. The reader of COVID-CT-MD
#: and the 8-bit CT images of the pre-training pairs share it, so that a grey value means the same.
LUNG_WINDOW: tuple[float, float] = (-1350.0, 150.0)


def to_unit(hu: Any, window: tuple[float, float] = LUNG_WINDOW) -> Any:
    """Map Hounsfield units to [0, 1] through a window, clipping outside it.

    Args:
        hu: numpy array or torch tensor of any shape, in HU.
        window: lower and upper end in HU.

    Returns:
        The same kind of array, 0 at the lower end and 1 at the upper.
    """
    low, high = window
    return ((hu - low) / (high - low)).clip(0.0, 1.0)

"""What the phantoms of the two Kaggle challenges in DICOM share: presets, frame, and writing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from medbench.phantom.chest import Chest, render
from medbench.phantom.dicom import Radiograph, write_radiograph
from medbench.phantom.parallel import in_order
from medbench.phantom.scanner import XRAY_UNITS

#: Preset to side of the images in pixels, and number of images.
PRESETS = {"tiny": (128, 3_400), "small": (256, 6_000), "paper": (1024, 20_000)}

#: Width and height of the frame that both challenges' tables count pixels in.
FRAME = 1024


@dataclass(frozen=True)
class Case:
    """One image: what to draw, what its header says, and its path below the root."""

    chest: Chest
    header: Radiograph
    path: str


def write_cases(
    root: Path,
    dataset: str,
    rows: Sequence[int],
    case: Callable[[int], Case],
    size: int,
    advance: Callable[[int, int], None],
) -> int:
    """Draw and write images, a batch at a time.

    Args:
        root: an existing folder; folders below it are made.
        dataset: name of the dataset.
        rows: what to write.
        case: makes a row's case, when its turn comes.
        size: side of the images in pixels.
        advance: called with (done, total).

    Returns:
        Bytes written.
    """
    step = max(1, round(32 * (128 / size) ** 2))
    unit = XRAY_UNITS[dataset]

    def batch(start: int) -> tuple[int, int]:
        cases = [case(row) for row in rows[start : start + step]]
        images = render(dataset, [c.chest for c in cases], size, unit)
        written = 0
        for one, image in zip(cases, images, strict=True):
            path = root / one.path
            path.parent.mkdir(parents=True, exist_ok=True)
            written += write_radiograph(one.header, path, image)
        return len(cases), written

    done = total = 0
    for count, written in in_order(batch, range(0, len(rows), step)):
        done, total = done + count, total + written
        advance(done, len(rows))
    return total

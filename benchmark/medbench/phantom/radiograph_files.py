"""What phantoms of radiographs in picture files share: whole patients, and drawing them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from PIL import Image

from medbench.phantom.chest import Chest, render
from medbench.phantom.parallel import in_order
from medbench.phantom.scanner import XRAY_UNITS

#: Images in a batch at 128 px; temporaries stay in the cache.
_BATCH = 32


def draw_files(
    root: Path,
    dataset: str,
    chests: Sequence[Chest],
    paths: Sequence[str],
    size: int,
    advance: Callable[[int, int], None],
) -> int:
    """Draw radiographs and write them as JPEG or PNG, 8-bit grey, a batch at a time.

    Args:
        root: an existing folder; folders below it are made.
        dataset: names the radiography unit.
        chests: what to draw.
        paths: of the files, relative to ``root``, one for each of ``chests``.
        size: side of the images in pixels.
        advance: called with images done and their total.

    Returns:
        Bytes written.
    """
    for folder in sorted({(root / path).parent for path in paths}):
        folder.mkdir(parents=True, exist_ok=True)
    step = max(1, round(_BATCH * (128 / size) ** 2))
    batches = [slice(start, start + step) for start in range(0, len(chests), step)]

    def batch(part: slice) -> tuple[int, int]:
        written = 0
        images = render(dataset, chests[part], size, XRAY_UNITS[dataset])
        for path, pixels in zip(paths[part], images, strict=True):
            picture = Image.fromarray(pixels)
            if path.endswith(".png"):
                picture.save(root / path, compress_level=1)
            else:
                picture.save(root / path, quality=95)
            written += (root / path).stat().st_size
        return len(images), written

    done, written = 0, 0
    for number, count in in_order(batch, batches):
        done, written = done + number, written + count
        advance(done, len(chests))
    return written


def whole_patients(patients: Iterable[tuple[str, int]], most: int) -> list[str]:
    """As many patients, with all of their images, as have at most ``most`` images together.

    Args:
        patients: patient and number of images, in the order of preference; one who does not fit
            any more is passed over.
        most: number of images.
    """
    chosen, images = [], 0
    for patient, count in patients:
        if images + count <= most:
            chosen.append(patient)
            images += count
    return chosen

"""A third party's dataset with a phantom of six pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medbench import DatasetSpec, hookimpl


def write(root: Path, *, preset: str, limit: int | None, advance: Any) -> dict[str, Any]:
    import numpy as np
    from PIL import Image

    lines = ["image,text,patient"]
    for number in range(6):
        coarse = Image.fromarray(np.random.default_rng(number).integers(0, 255, (7, 7), np.uint8))
        coarse.resize((40, 40), Image.Resampling.BICUBIC).save(root / f"{number}.png")
        lines.append(f"{number}.png,picture {number},p{number}")
        advance(number + 1, 6)
    (root / "pairs.csv").write_text("\n".join(lines))
    return {"images": 6}


@hookimpl
def medbench_datasets() -> list[DatasetSpec]:
    return [
        DatasetSpec(
            name="toy-pairs",
            title="Toy pairs",
            description="Six pictures.",
            reader="medbench.data.image_text_pairs:ImageTextPairs",
            phantom="toy_dataset:write",
            unit="pair",
            published={"1": {"images": 600}},
            phantom_of="all drawn",
        )
    ]

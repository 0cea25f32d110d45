"""Where memory ends, a model is given less at once, and the user hears of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from medbench.data.decoded import Decoded, decode
from medbench.data.images import to_tensor
from medbench.data.samples import Pixels, Sample
from medbench.errors import CellError
from medbench.run import segmentation
from medbench.run.back_off import BackOff
from medbench.run.embed import Embedder, encode, text_features
from medbench.run.fit import Fitted
from medbench.run.generation import generate
from medbench.run.reports import write_reports

CELL: Any = SimpleNamespace(
    device="cpu", precision="fp32", batch_size=16, title="toy on noise",
    model=SimpleNamespace(name="toy"),
)  # fmt: skip


class Volumes:
    """A reader of volumes of noise, of 3 to 39 slices."""

    def samples(self) -> list[Sample]:
        return [Sample(id=str(i), patient=str(i), files=(), kind="volume") for i in range(5)]

    def pixels(self, sample: Sample) -> Pixels:
        number = int(sample.id)  # several threads ask, in any order
        draws = np.random.default_rng(number)
        return draws.random((3 + 9 * number, 8, 8), dtype=np.float32)


class Model:
    """Encodes at most ``fits`` things at once."""

    def __init__(self, fits: int) -> None:
        self.fits = fits
        self.tried: list[int] = []

    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        self.tried.append(len(images))
        if len(images) > self.fits:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nMore.")
        return images.flatten(1)[:, :32]

    def encode_patches(self, images: torch.Tensor) -> list[torch.Tensor]:
        self.encode_images(images)
        return [images, images[..., ::2, ::2]]

    def generate_images(self, prompts: list[str], seeds: list[int]) -> torch.Tensor:
        self.encode_images(torch.zeros(len(seeds), 3, 8, 8))
        levels = torch.tensor(seeds, dtype=torch.float32)[:, None, None, None] / 255
        return levels.expand(len(seeds), 3, 8, 8)

    def generate_reports(self, images: torch.Tensor, mask: torch.Tensor) -> list[str]:
        self.encode_images(images[:, 0])
        return [str(int(image.max())) for image in images]

    def encode_texts(self, texts: list[str]) -> torch.Tensor:
        self.tried.append(len(texts))
        if len(texts) > self.fits:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return torch.tensor([[float(text)] for text in texts])


class Heard:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    @contextmanager
    def stage(self, title: str, name: str) -> Iterator[Callable[..., None]]:
        yield lambda *done: None


def embedded(folder: Path, fits: int) -> tuple[Any, Model, Heard]:
    reader = Volumes()
    decode(reader, reader.samples(), 8, folder / "images")
    images, model, heard = Decoded.open(folder / "images"), Model(fits), Heard()
    embedder: Any = Embedder(
        CELL, None, reader.samples(), Fitted(model, {}, {}, None, []), images, None, heard  # type: ignore[arg-type]
    )  # fmt: skip
    return embedder._encode_slices(lambda done, total: None), model, heard


def test_embedding_goes_on_with_half_and_gives_the_same(tmp_path: Path) -> None:
    whole, model, heard = embedded(tmp_path / "whole", 99)
    assert (set(model.tried), heard.lines) == ({16, 105 % 16}, [])
    found, model, heard = embedded(tmp_path / "parts", 5)
    assert np.array_equal(found, whole)
    assert len(found) == 105
    assert model.tried[:6] == [16, 8, 4, 4, 4, 4]
    assert max(model.tried[2:]) == 4  # later batches, too, and it is found out once
    assert heard.lines == [
        f"  toy on noise: encode_images: out of memory, {size} samples at once from here on"
        for size in (8, 4)
    ]


def test_texts_go_on_with_half(capsys: pytest.CaptureFixture[str]) -> None:
    model = Model(3)
    texts = [str(number) for number in range(40)]
    found = text_features(CELL, Fitted(model, {}, {}, None, []), texts)
    assert found[:, 0].tolist() == list(range(40))
    assert capsys.readouterr().err.count("out of memory") == 3


def test_feature_maps_go_on_with_half_and_pictures_in_colour_stand_beside_grey_ones() -> None:
    draws, model, heard = np.random.default_rng(0), Model(2), Heard()
    shapes = [(1, 8, 8)] * 4 + [(1, 8, 8, 3)]
    pictures = [draws.integers(0, 256, shape, np.uint8) for shape in shapes]
    job: Any = SimpleNamespace(cell=CELL, images=pictures, model=SimpleNamespace(model=model))
    fine, coarse = segmentation._encode(job, range(5), BackOff("toy", heard.say))
    assert torch.equal(fine, torch.cat([to_tensor(picture) for picture in pictures]))
    assert torch.equal(coarse, fine[..., ::2, ::2])
    assert (model.tried, len(heard.lines)) == ([5, 2, 2, 1], 1)


def test_drawing_goes_on_with_half_and_keeps_prompt_and_seed_together() -> None:
    model, heard = Model(3), Heard()
    samples = [Sample(id=str(i), patient="p", files=(), text=f"number {i}") for i in range(20)]
    job: Any = SimpleNamespace(
        cell=SimpleNamespace(**vars(CELL), seed=0),
        loaded=SimpleNamespace(
            samples=samples, dataset=SimpleNamespace(spec=SimpleNamespace(name="noise"))
        ),
        model=SimpleNamespace(model=model),
        reporter=heard,
    )
    made = generate(job, np.arange(20), 8)
    assert made[:, 0, 0].tolist() == list(range(20))  # each in the grey of its seed
    assert (max(model.tried[3:]), len(heard.lines)) == (2, 3)


def test_writing_goes_on_with_half() -> None:
    model, heard = Model(5), Heard()

    def views(part: slice) -> tuple[torch.Tensor, torch.Tensor]:
        images = torch.arange(part.start, part.stop)[:, None, None, None, None].expand(
            -1, 1, 3, 8, 8
        )
        return images.float(), torch.ones(len(images), 1, dtype=torch.bool)

    reporter: Any = heard
    texts = write_reports(CELL, model, 40, views, "reports", reporter)
    assert texts == [str(number) for number in range(40)]
    assert (max(model.tried[2:]), len(heard.lines)) == (4, 2)


def test_one_sample_that_does_not_fit_ends_the_cell() -> None:
    with pytest.raises(CellError, match="encode_images ran out of memory with one sample") as told:
        encode(CELL, Model(0), "encode_images", torch.zeros(3, 3, 4, 4))
    assert "More" not in str(told.value)


def test_every_sample_is_worked_on_once_whatever_fits() -> None:
    for count in range(1, 12):
        for fits in range(1, 12):
            seen: list[int] = []

            def work(part: slice, seen: list[int] = seen, fits: int = fits) -> None:
                rows = list(range(part.start, part.stop))
                if len(rows) > fits:
                    raise torch.OutOfMemoryError("no more")
                seen.extend(rows)

            BackOff("toy", lambda line: None)(work, count)
            assert seen == list(range(count))


def test_no_samples_are_one_call_as_without() -> None:
    assert BackOff("toy")(lambda part: (part.start, part.stop), 0) == [(0, 0)]

"""The corpus that a worker trains on is the harness's, sample by sample."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medbench import Sample
from medbench.data.samples import Annotates, Box, Corpus
from medbench.errors import DataError
from medbench.isolation.training import CHUNK, Host, remote_corpus
from medbench.isolation.values import Tensors, pack, unpack
from medbench.testing.corpus import Drawn, corpus
from medbench.testing.training import Recorded


class Annotated(Drawn):
    """Pictures with a box and a mask."""

    def boxes(self, sample: Sample) -> tuple[Box, ...]:
        return (Box("opacity", 0.1, 0.2, 0.3, 0.4),)

    def mask(self, sample: Sample) -> Any:
        return np.eye(5, dtype=bool)


class Shortcut:
    """A worker's end without a worker: questions and answers are packed as for the pipe."""

    def __init__(self, host: Host) -> None:
        self.host = host

    def ask(self, name: str, *arguments: Any) -> Any:
        tensors: Tensors = {}
        return unpack(pack(getattr(self.host, name)(*arguments), tensors), tensors)


def remote(whole: Corpus, folder: Path) -> Corpus:
    host = Host(whole, Recorded(folder, folder / "alive"), None)
    peer: Any = Shortcut(host)
    return remote_corpus(peer, **host.description()["corpus"])


def test_samples_and_pixels_are_the_same(tmp_path: Path) -> None:
    whole = corpus("image-text-pairs", "pair")
    found = remote(whole, tmp_path)
    assert list(found.samples) == list(whole.samples)
    assert (found.name, found.manifest_sha256, found.track) == (
        whole.name, whole.manifest_sha256, whole.track,
    )  # fmt: skip
    for sample in (found.samples[0], found.samples[-1]):
        assert (found.reader.pixels(sample) == whole.reader.pixels(sample)).all()
    assert not isinstance(found.reader, Annotates)


def test_a_corpus_larger_than_a_frame_of_samples_comes_whole(tmp_path: Path) -> None:
    many = [Sample(id=str(i), patient=None, files=()) for i in range(2 * CHUNK + 1)]
    found = remote(Corpus("many", many, Drawn(), "0" * 64, "phantom"), tmp_path)
    assert list(found.samples) == many


def test_annotations_come_where_there_are_any(tmp_path: Path) -> None:
    whole = corpus("image-text-pairs", "image")
    annotated = Corpus(whole.name, whole.samples, Annotated(), "0" * 64, "phantom")
    reader = remote(annotated, tmp_path).reader
    assert isinstance(reader, Annotates)
    assert reader.boxes(whole.samples[0]) == Annotated().boxes(whole.samples[0])
    assert (reader.mask(whole.samples[0]) == np.eye(5, dtype=bool)).all()


def test_what_is_not_in_the_corpus_is_not_given(tmp_path: Path) -> None:
    found = remote(corpus("image-text-pairs", "image"), tmp_path)
    validation = Sample(id="image-5-0", patient="p", files=())
    assert validation.id not in {sample.id for sample in found.samples}
    with pytest.raises(DataError, match="'image-5-0' is not in corpus 'image-text-pairs'"):
        found.reader.pixels(validation)


def test_precision_goes_with_the_run(tmp_path: Path) -> None:
    class Half(Recorded):
        def autocast(self) -> Any:
            return torch.autocast("cpu", torch.bfloat16)

    whole = corpus("image-text-pairs", "image")
    for kind, expected in ((Recorded, None), (Half, "bfloat16")):
        told = Host(whole, kind(tmp_path, tmp_path / "alive"), None).description()["run"]
        assert told["autocast"] == ("cpu", expected)

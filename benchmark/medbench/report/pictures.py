"""The images that were tested, where they are at hand on this machine.

A run's folder holds masks, not images. They are read again from the dataset as it is configured
here, or from the phantom in the store; and only if its reader gives the very reference mask that
the run was scored on, so that no contour is drawn on another image.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from medbench.data.images import load, resize
from medbench.data.samples import Annotates
from medbench.errors import MedbenchError
from medbench.plugins import Registry
from medbench.run.load import opened, phantom_key
from medbench.run.reporter import Reporter
from medbench.run.resolve import find_data
from medbench.run.stores import Store, home
from medbench.schemas.record import Record

if TYPE_CHECKING:
    from medbench.data.dataset import OpenDataset

Bytes = npt.NDArray[np.uint8]


class Pictures:
    """Tested images of the data of a record.

    ``where`` says, once pictures were asked for, what they are drawn on.
    """

    def __init__(self, record: Record, registry: Registry, reporter: Reporter) -> None:
        self._record, self._registry, self._reporter = record, registry, reporter
        self._missing = 0
        self._found = 0

    def of(self, sample: str, reference: npt.NDArray[np.bool_], side: int) -> Bytes:
        """uint8 [side, side] of a sample; black where it is not at hand.

        Args:
            sample: its id.
            reference: bool [S, S], the mask that the run was scored on.
            side: in pixels.
        """
        picture = self._read(sample, reference, side)
        if picture is None:
            self._missing += 1
            return np.zeros((side, side), np.uint8)
        self._found += 1
        return picture if picture.ndim == 2 else picture.mean(axis=-1).astype(np.uint8)

    @property
    def where(self) -> str:
        data = self._record.data
        what = f"the {data.track} images of {data.dataset}"
        if not self._missing:
            return f"Drawn on {what}, read again from this machine."
        how = "they" if not self._found else f"{self._missing} of them"
        return (
            f"Contours on black: {how} could not be drawn on {what}, which are not on this machine "
            "as they were scored (configure the dataset, or run the cell here)."
        )

    @cached_property
    def _dataset(self) -> OpenDataset | None:
        """The data on this machine, of the record's own track; None when they are not here."""
        data = self._record.data
        try:
            spec = self._registry.dataset(data.dataset)
            source = find_data(spec, None)
            root = source.root
            if root is None or source.track != data.track:
                if data.track != "phantom":
                    return None
                key = phantom_key(spec, self._record.model.preset)
                root = Store(home(), say=self._reporter.say).find("phantoms", key)
            return None if root is None else opened(spec, root)
        except MedbenchError as error:
            self._reporter.say(f"The images of {data.dataset} cannot be shown: {error}")
            return None

    @cached_property
    def _samples(self) -> dict[str, int]:
        dataset = self._dataset
        return {} if dataset is None else {s.id: i for i, s in enumerate(dataset.samples)}

    def _read(self, sample: str, reference: npt.NDArray[np.bool_], side: int) -> Bytes | None:
        dataset, row = self._dataset, self._samples.get(sample)
        if dataset is None or row is None or not isinstance(dataset.reader, Annotates):
            return None
        found = dataset.samples[row]
        try:
            full = dataset.reader.mask(found).astype(np.uint8) * 255
            if not np.array_equal(resize(full, len(reference)) >= 128, reference):
                return None
            return load(dataset.reader, found, side)
        except MedbenchError as error:
            self._reporter.say(f"An image cannot be shown: {error}")
            return None

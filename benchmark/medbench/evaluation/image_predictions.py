"""Generated images beside real ones: the arrays, their file and their hash."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from medbench.errors import DataError
from medbench.evaluation.arrays import Array, names, numbers, read_npz, row_content, write_npz
from medbench.metrics.values import FloatArray

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class ImagePredictions:
    """N real and G generated images, as pixels, as features, or both.

    Attributes:
        real: uint8 [N, H, W], or None where only features are given.
        generated: uint8 [G, H, W], or None.
        prompts: int [G], images of one prompt share a number; None: there is no prompt.
        real_patients: [N] patient of each real image; None: each is its own.
        given: backbone to features of the real [N, D] and the generated images [G, D].

    Raises:
        DataError: neither pixels nor features, or shapes that differ.
    """

    real: Bytes | None
    generated: Bytes | None
    prompts: npt.NDArray[np.int64] | None = None
    given: Mapping[str, tuple[FloatArray, FloatArray]] = field(default_factory=dict)
    real_patients: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if self.generated is None and not self.given:
            raise DataError("Predictions hold neither images nor features.")
        for what, pixels in (("real", self.real), ("generated", self.generated)):
            if pixels is not None and (pixels.ndim != 3 or not len(pixels)):
                raise DataError(f"The {what} images have shape {pixels.shape}, not [N, H, W].")
        sizes = {pair[1].shape[0] for pair in self.given.values()}
        if self.generated is not None:
            sizes.add(len(self.generated))
        if len(sizes) != 1:
            raise DataError(f"Generated images and their features are of {sorted(sizes)} rows.")
        if self.prompts is not None and len(self.prompts) != self.count:
            raise DataError(f"{self.count} generated images have {len(self.prompts)} prompts.")

        if self.real_patients is not None and len(self.real_patients) != self.reals:
            raise DataError(f"{self.reals} real images have {len(self.real_patients)} patients.")

    @property
    def count(self) -> int:
        """Number of generated images."""
        if self.generated is not None:
            return len(self.generated)
        return len(next(iter(self.given.values()))[1])

    @property
    def reals(self) -> int:
        """Number of real images."""
        if self.real is not None:
            return len(self.real)
        return len(next(iter(self.given.values()))[0]) if self.given else 0

    def features(self, backbone: str) -> tuple[FloatArray, FloatArray] | None:
        """Features of a backbone that were given, or None."""
        return self.given.get(backbone)

    @cached_property
    def patients(self) -> list[str]:
        """[N + G] clusters: each real image, and the generated images of one prompt."""
        real = [f"real {i}" for i in range(self.reals)]
        if self.real_patients is not None:
            real = [f"patient {name}" for name in self.real_patients]
        if self.prompts is None:
            return [*real, *(f"generated {i}" for i in range(self.count))]
        return [*real, *(f"prompt {p}" for p in self.prompts.tolist())]

    @cached_property
    def content(self) -> FloatArray:
        """float [N + G, 4]: stands for everything that a metric reads of an image."""
        return row_content([*self._rows(0, self.real), *self._rows(1, self.generated)])

    def _rows(self, side: int, pixels: Bytes | None) -> list[bytes]:
        count = self.count if side else self.reals
        rows = [bytes([side])] * count
        if pixels is not None:
            rows = [head + picture.tobytes() for head, picture in zip(rows, pixels, strict=True)]
        for name in sorted(self.given):
            some = self.given[name][side]
            rows = [r + f.astype("<f8").tobytes() for r, f in zip(rows, some, strict=True)]
        return rows

    def support(self, _: str | None = None) -> int:
        """Number of generated images."""
        return self.count

    def digest(self, _: str = "") -> str:
        """Hash of the content, whatever the order of rows. It holds no ids."""
        rows = [*self._rows(0, self.real), *self._rows(1, self.generated)]
        state = hashlib.sha256()
        # prompts by number: which images go together
        owner = [-1] * self.reals + (
            list(range(self.count)) if self.prompts is None else self.prompts.tolist()
        )
        for row, prompt in sorted(zip(rows, owner, strict=True)):
            state.update(hashlib.sha256(row).digest() + str(prompt).encode())
        return state.hexdigest()

    def write(self, path: Path) -> None:
        """Write ``.npz`` with the arrays of the contract. Only the first backbone's features."""
        arrays: dict[str, Array] = {}
        if self.real is not None:
            arrays["real"] = self.real
        if self.generated is not None:
            arrays["generated"] = self.generated
        if self.prompts is not None:
            arrays["prompt_id"] = self.prompts
        if self.real_patients is not None:
            arrays["patient_id"] = np.array(self.real_patients, str)
        for name, (real, generated) in list(self.given.items())[:1]:
            arrays |= {"real_features": real, "generated_features": generated}
            arrays["backbone"] = np.array(name)
        write_npz(path, arrays)

    @classmethod
    def read(cls, path: Path) -> ImagePredictions:
        """Read ``.npz``. Raises DataError naming the file and what is wrong."""
        pairs = ("real", "generated"), ("real_features", "generated_features")
        found = read_npz(path, (), (*pairs[0], *pairs[1], "prompt_id", "backbone", "patient_id"))
        for pair in pairs:
            half = [name for name in pair if name in found]
            if len(half) == 1:
                raise DataError(f"{path} has '{half[0]}' but not its other half of {pair}.")
        if not any(pair[0] in found for pair in pairs):
            raise DataError(
                f"{path} has neither 'real' and 'generated' nor 'real_features' and "
                "'generated_features'."
            )
        for name in pairs[0]:
            if name in found and found[name].dtype != np.uint8:
                raise DataError(f"{path}: '{name}' is {found[name].dtype}; images are uint8.")
        given = {}
        if "real_features" in found:
            if "backbone" not in found:
                raise DataError(
                    f"{path} has features but no 'backbone' that says what they are of, such as "
                    "np.array('inception')."
                )
            real, generated = (numbers(path, name, found[name], 2) for name in pairs[1])
            if real.shape[1] != generated.shape[1]:
                raise DataError(
                    f"{path}: real features have {real.shape[1]} dimensions and generated ones "
                    f"{generated.shape[1]}."
                )
            if found["backbone"].shape != () or found["backbone"].dtype.kind != "U":
                raise DataError(f"{path}: 'backbone' is not one string, such as np.array('xrv').")
            given[str(found["backbone"])] = (real, generated)
        prompts = None
        if "prompt_id" in found:
            ids = names(path, "prompt_id", found["prompt_id"], len(found["prompt_id"]))
            number = {name: i for i, name in enumerate(dict.fromkeys(ids))}
            prompts = np.array([number[name] for name in ids], np.int64)
        owners = None
        if "patient_id" in found:
            owners = names(path, "patient_id", found["patient_id"], len(found["patient_id"]))
        try:
            return cls(found.get("real"), found.get("generated"), prompts, given, owners)
        except DataError as error:
            raise DataError(f"{path}: {error}") from error

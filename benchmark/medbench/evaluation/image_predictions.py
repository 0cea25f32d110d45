"""Generated images beside real ones: the arrays, their file and their hash.

Beside pixels and features a table may hold what was asked for (prompts, and labels and reports of
the samples that they are of), what an independent classifier sees in the generated images and a
generator of reports says of them, images and prompts in an independent space, and how near images
are to those that a generator was trained on.
"""

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
from medbench.evaluation.finding_arrays import finding_arrays, read_findings
from medbench.evaluation.image_checks import (
    check_counts,
    check_distances,
    check_findings,
    check_judge,
    check_prompts,
)
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
        label_names: of L findings, in the order of the alphabet.
        labels: float [G, L], findings of the sample whose prompt an image was generated from:
            1, 0, or NaN where not scored.
        real_labels: float [N, L], findings of the real images.
        scores: float [G, L], what an independent classifier sees in the generated images: finite,
            any scale; a column of NaN for a finding that it does not know.
        judge_images: float [G, E], the generated images in an independent space.
        judge_texts: float [P, E], prompts in that space; ``prompts`` are rows of it.
        judge_real: float [N, E], the real images in that space.
        real_prompts: int [N], the prompt of each real image, counted as ``prompts`` are; -1: it is
            of none of these.
        prompt_texts: [P] the prompts themselves; ``prompts`` are rows of it.
        train_distances: float [G], of each generated image to the nearest training image.
        real_train_distances: float [N], of each real image likewise.
        reports: [G] what a generator of reports says of each generated image.
        prompt_reports: [P] the report that each prompt is taken from.

    Raises:
        DataError: neither pixels nor features, shapes that differ, or values that cannot be.
    """

    real: Bytes | None
    generated: Bytes | None
    prompts: npt.NDArray[np.int64] | None = None
    given: Mapping[str, tuple[FloatArray, FloatArray]] = field(default_factory=dict)
    real_patients: Sequence[str] | None = None
    label_names: tuple[str, ...] = ()
    labels: FloatArray | None = None
    real_labels: FloatArray | None = None
    scores: FloatArray | None = None
    judge_images: FloatArray | None = None
    judge_texts: FloatArray | None = None
    judge_real: FloatArray | None = None
    real_prompts: npt.NDArray[np.int64] | None = None
    prompt_texts: Sequence[str] | None = None
    train_distances: FloatArray | None = None
    real_train_distances: FloatArray | None = None
    reports: Sequence[str] | None = None
    prompt_reports: Sequence[str] | None = None

    def __post_init__(self) -> None:
        check_counts(self)
        check_findings(self)
        check_judge(self)
        check_prompts(self)
        check_distances(self)

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
        more: list[FloatArray | None] = [self.given[name][side] for name in sorted(self.given)]
        if side:
            more += [self.labels, self.scores, self.judge_images]
            if self.judge_texts is not None and self.prompts is not None:
                more.append(self.judge_texts[self.prompts])
            more.append(self.train_distances)
        else:
            more += [self.real_labels, self.judge_real, self.real_train_distances]
        for some in more:
            if some is not None:
                # one spelling of NaN, and of zero
                plain = np.where(np.isnan(some), np.inf, some + 0.0).astype("<f8")
                rows = [r + f.tobytes() for r, f in zip(rows, plain, strict=True)]
        for texts in self._texts(side):
            rows = [r + b"\0" + text.encode() for r, text in zip(rows, texts, strict=True)]
        return rows

    def _texts(self, side: int) -> list[Sequence[str]]:
        """What is said of each image of a side: its prompt, that one's report, its own report."""
        asked = self.prompts if side else self.real_prompts
        by_prompt = [some for some in (self.prompt_texts, self.prompt_reports) if some is not None]
        said: list[Sequence[str]] = []
        if asked is not None:
            rows = asked.tolist()
            said = [[some[row] if row >= 0 else "" for row in rows] for some in by_prompt]
        return [*said, self.reports] if side and self.reports is not None else said

    def support(self, _: str | None = None) -> int:
        """Number of generated images."""
        return self.count

    def digest(self, _: str = "") -> str:
        """Hash of the content, whatever the order of rows. It holds no ids."""
        rows = [*self._rows(0, self.real), *self._rows(1, self.generated)]
        state = hashlib.sha256()
        # prompts by number: which images go together
        own = [-1] * self.reals if self.real_prompts is None else self.real_prompts.tolist()
        owner = own + (list(range(self.count)) if self.prompts is None else self.prompts.tolist())
        for row, prompt in sorted(zip(rows, owner, strict=True)):
            state.update(hashlib.sha256(row).digest() + str(prompt).encode())
        if self.label_names:
            state.update("\0".join(self.label_names).encode())
        if self.judge_texts is not None:
            for text in sorted(text.astype("<f8").tobytes() for text in self.judge_texts):
                state.update(text)
        return state.hexdigest()

    def halves(self, seed: int = 0) -> ImagePredictions:
        """The real images in two halves of whole patients, the second as the generated ones: what
        no generator can be expected to beat. With half the images, a Frechet distance has about
        twice the bias of the whole.

        Patients are drawn in a seeded order and each goes to the half with fewer images; the
        draw depends on their names, not on the order of rows. Pixels, features, labels and
        distances to training images are kept.

        Raises DataError: fewer than two patients.
        """
        owners = self.real_patients or [f"{i:09d}" for i in range(self.reals)]
        known, at, sizes = np.unique(owners, return_inverse=True, return_counts=True)
        if len(known) < 2:
            raise DataError(f"Real images of {len(known)} patient(s) cannot be halved.")
        held = [0, 0]
        half = np.empty(len(known), np.int64)
        for patient in np.random.default_rng(seed).permutation(len(known)):
            half[patient] = held[1] < held[0]
            held[half[patient]] += sizes[patient]
        first, second = (np.flatnonzero(half[at] == side) for side in (0, 1))
        distances = self.real_train_distances
        return ImagePredictions(
            real=None if self.real is None else self.real[first],
            generated=None if self.real is None else self.real[second],
            prompts=_numbered(at[second].tolist()),
            given={name: (pair[0][first], pair[0][second]) for name, pair in self.given.items()},
            real_patients=[owners[i] for i in first.tolist()],
            label_names=self.label_names,
            labels=None if self.real_labels is None else self.real_labels[second],
            real_labels=None if self.real_labels is None else self.real_labels[first],
            train_distances=None if distances is None else distances[second],
            real_train_distances=None if distances is None else distances[first],
        )

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
        for kind, table in (("label", self.labels), ("real_label", self.real_labels)):
            arrays |= finding_arrays(kind, self.label_names, table)
        arrays |= finding_arrays("score", self.label_names, self.scores)
        if self.judge_images is not None and self.judge_texts is not None:
            arrays |= {"judge_images": self.judge_images, "judge_texts": self.judge_texts}
        for name, array in (
            ("judge_real", self.judge_real),
            ("real_prompt_id", self.real_prompts),
            ("train_distance", self.train_distances),
            ("real_train_distance", self.real_train_distances),
        ):
            if array is not None:
                arrays[name] = array
        for name, texts in (
            ("prompt_text", self.prompt_texts),
            ("report", self.reports),
            ("prompt_report", self.prompt_reports),
        ):
            if texts is not None:
                arrays[name] = np.array(list(texts), str)
        write_npz(path, arrays)

    @classmethod
    def read(cls, path: Path) -> ImagePredictions:
        """Read ``.npz``. Raises DataError naming the file and what is wrong."""
        pairs = ("real", "generated"), ("real_features", "generated_features")
        spaces = ("judge_images", "judge_texts", "judge_real")
        distances = ("train_distance", "real_train_distance")
        texts = ("prompt_text", "report", "prompt_report")
        ids = ("prompt_id", "real_prompt_id", "patient_id")
        found = read_npz(
            path, (), (*pairs[0], *pairs[1], *spaces, *distances, *texts, *ids, "backbone")
        )
        findings, tables = read_findings(path)
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
        told = {
            name: names(path, name, found[name], len(found[name]))
            for name in (*ids, *texts)
            if name in found
        }
        prompts = _numbered(told["prompt_id"]) if "prompt_id" in told else None
        real_prompts = None
        if "real_prompt_id" in told:
            number = {name: i for i, name in enumerate(dict.fromkeys(told.get("prompt_id", ())))}
            real_prompts = np.array([number.get(n, -1) for n in told["real_prompt_id"]], np.int64)
        try:
            return cls(
                found.get("real"),
                found.get("generated"),
                prompts,
                given,
                told.get("patient_id"),
                label_names=findings,
                labels=tables.get("label"),
                real_labels=tables.get("real_label"),
                scores=tables.get("score"),
                **{name: numbers(path, name, found[name], 2) for name in spaces if name in found},
                real_prompts=real_prompts,
                prompt_texts=told.get("prompt_text"),
                reports=told.get("report"),
                prompt_reports=told.get("prompt_report"),
                **{f"{n}s": numbers(path, n, found[n], 1) for n in distances if n in found},
            )
        except DataError as error:
            raise DataError(f"{path}: {error}") from error


def _numbered(names: Sequence[object]) -> npt.NDArray[np.int64]:
    """A number for each name, from 0 in the order in which they first occur."""
    number = {name: i for i, name in enumerate(dict.fromkeys(names))}
    return np.array([number[name] for name in names], np.int64)

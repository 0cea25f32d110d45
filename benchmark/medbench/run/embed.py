"""Features: each forward pass done once, kept, and held against the contract."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from medbench.errors import PluginError
from medbench.run.back_off import BackOff
from medbench.run.fit import Fitted, guarded
from medbench.run.load import images_key
from medbench.run.reporter import Advance, Reporter
from medbench.run.request import RunSpec
from medbench.run.stores import Store, code_sha256, code_there, digest

if TYPE_CHECKING:
    import torch

    from medbench.data.dataset import OpenDataset
    from medbench.data.decoded import Decoded
    from medbench.data.samples import Sample

Features = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Embedder:
    """Features of a cell's samples, each forward pass done once and kept."""

    cell: RunSpec
    dataset: OpenDataset
    samples: Sequence[Sample]
    fitted: Fitted
    images: Decoded
    store: Store
    reporter: Reporter

    def features(self) -> Features:
        """One vector per sample, float32 [N, D]. Raises PluginError (exit 4) when the model gives
        another shape or type, or NaN."""
        if self.cell.task.unit == "image":
            return self.embeddings()
        if hasattr(self.fitted.model, "pool_slices"):
            return self._pooled()
        return self._stored("samples", self._encode_volumes)

    def kept(self) -> bool:
        """Whether the features are there from an earlier run."""
        pools = hasattr(self.fitted.model, "pool_slices") or self.cell.task.unit == "image"
        return self.store.has("features", self.key("slices" if pools else "samples"))

    def embeddings(self) -> Features:
        """``encode_images`` of every chosen slice of every sample, float32 [T, D]."""
        return self._stored("slices", self._encode_slices)

    def text_embeddings(self, texts: Sequence[str]) -> Features:
        """``encode_texts`` of a text for each sample, float32 [N, D]; equal ones are encoded once.
        Kept as the features of images are."""
        from safetensors.numpy import load_file, save_file

        different = list(dict.fromkeys(texts))

        def build(payload: Path, _: Path) -> None:
            title = f"embed texts of {self.dataset.spec.name}"
            with self.reporter.stage(title, "embed-texts", items=len(different)):
                features = text_features(self.cell, self.fitted, different)
            save_file({"features": features}, payload / "features.safetensors")

        key = self.key("texts") | {"texts": digest(different)}
        folder, _ = self.store.get("features", key, build)
        found = load_file(folder / "features.safetensors")["features"]
        row = {text: i for i, text in enumerate(different)}
        features: Features = found[[row[text] for text in texts]]
        return features

    def key(self, what: str) -> dict[str, Any]:
        """Everything that determines the features of ``what``: "slices" or "samples"; of "texts",
        everything but these.

        Slice embeddings depend only on the stages that the model names in ``image_stages``, so
        that variants which pool them differently share them.
        """
        cell, model = self.cell, self.fitted.model
        keys = self.fitted.keys
        if what == "slices" and hasattr(model, "image_stages"):
            wanted = ("weights", *model.image_stages)
            keys = {name: key for name, key in keys.items() if name in wanted}
        loose = "weights" in keys and not hasattr(model, "image_stages")
        packages = (cell.plugin_package, "medbench.run", "medbench.models")
        return {
            "what": what,
            "model": cell.model.cls,
            "checkpoints": keys,
            # what is trained here is keyed by what decides it; given weights may fit two networks
            "config": {} if keys and not loose else dict(cell.config_values),
            "seed": cell.seed,
            "images": images_key(self.dataset, int(model.image_size), self.samples),
            "slices": int(getattr(model, "max_slices", 0)),
            "precision": cell.precision,
            "device": cell.device.partition(":")[0],
            "batch": cell.batch_size,
            "code": {p: code_there(cell.model, p) or code_sha256(p) for p in packages},
        }

    def _stored(self, what: str, encode_all: Callable[[Advance], Features]) -> Features:
        from safetensors.numpy import load_file, save_file

        def build(payload: Path, _: Path) -> None:
            title = f"embed {self.dataset.spec.name}"
            slices = sum(len(chosen) for chosen in self._choice)
            with self.reporter.stage(title, "embed", items=slices) as advance:
                features = encode_all(advance)
            save_file({"features": features}, payload / "features.safetensors")

        folder, _ = self.store.get("features", self.key(what), build)
        features: Features = load_file(folder / "features.safetensors")["features"]
        return features

    def _encode_slices(self, advance: Advance) -> Features:
        import torch

        from medbench.models.prefetch import ahead

        total = sum(len(chosen) for chosen in self._choice)
        parts: list[Features] = []
        done = 0
        back_off = self._back_off("encode_images")
        with closing(ahead(self._batches(), torch.device(self.cell.device))) as arriving:
            for batch in arriving:
                parts.append(
                    encode(self.cell, self.fitted.model, "encode_images", batch, back_off=back_off)
                )
                done += len(batch)
                advance(done, total)
        return np.concatenate(parts)

    def _back_off(self, method: str) -> BackOff:
        # the reporter is asked for when there is something to say
        return BackOff(f"{self.cell.title}: {method}", lambda text: self.reporter.say(text))

    def _encode_volumes(self, advance: Advance) -> Features:
        """A volume at a time: memory is bounded by the largest."""
        import torch

        from medbench.data.images import to_tensor

        rows = []
        for index, chosen in enumerate(self._choice):
            slices = to_tensor(self.images[index][chosen])[None]
            mask = torch.ones(slices.shape[:2], dtype=torch.bool)
            rows.append(encode(self.cell, self.fitted.model, "encode_volumes", slices, mask))
            advance(index + 1, len(self.images))
        return np.concatenate(rows)

    def _pooled(self) -> Features:
        import torch

        embeddings = torch.from_numpy(self.embeddings())
        counts = [len(chosen) for chosen in self._choice]
        volumes = torch.split(embeddings, counts)
        rows = []
        back_off = self._back_off("pool_slices")
        for first in range(0, len(volumes), 32):
            group = volumes[first : first + 32]
            slices = torch.nn.utils.rnn.pad_sequence(list(group), batch_first=True)
            lengths = torch.tensor([len(volume) for volume in group])
            mask = torch.arange(slices.shape[1]) < lengths[:, None]
            rows.append(
                encode(self.cell, self.fitted.model, "pool_slices", slices, mask, back_off=back_off)
            )
        return np.concatenate(rows)

    @cached_property
    def _choice(self) -> list[npt.NDArray[np.int64]]:
        most = int(getattr(self.fitted.model, "max_slices", 0))
        return [uniform_slices(count, most) for count in self.images.slices]

    def _batches(self) -> Iterator[torch.Tensor]:
        """Batches uint8 [B, H, W] or [B, H, W, 3] of all chosen slices, filled across volumes."""
        import torch

        from medbench.data.images import Bytes, joined

        size = self.cell.batch_size
        waiting: list[Bytes] = []
        held = 0
        for index, chosen in enumerate(self._choice):
            pixels = self.images[index]
            waiting.append(pixels if len(chosen) == len(pixels) else pixels[chosen])
            held += len(chosen)
            if held >= size:
                block = joined(waiting)
                whole = held - held % size
                yield from torch.split(block[:whole], size)
                waiting, held = [block[whole:].numpy()], held - whole
        if held:
            yield joined(waiting)


def uniform_slices(count: int, most: int) -> npt.NDArray[np.int64]:
    """Indices of the slices that are embedded: all, or ``most`` of them spread uniformly.

    >>> uniform_slices(5, 3).tolist(), uniform_slices(2, 3).tolist(), uniform_slices(2, 0).tolist()
    ([0, 2, 4], [0, 1], [0, 1])
    """
    if most == 0 or count <= most:
        return np.arange(count)
    return np.linspace(0, count - 1, most).round().astype(np.int64)


def encode(
    cell: RunSpec,
    model: Any,
    method: str,
    *inputs: torch.Tensor,
    back_off: BackOff | None = None,
) -> Features:
    """Call a capability on one batch, and hold the answer against the contract.

    Inputs of bytes are pictures, which the model is given as `to_unit` makes them. What a batch too
    large for memory has shown is kept in ``back_off``.
    """
    import torch

    from medbench.data.images import to_unit

    def answer(part: slice) -> Features:
        moved = [tensor[part].to(cell.device) for tensor in inputs]
        given = [to_unit(tensor) if tensor.dtype == torch.uint8 else tensor for tensor in moved]
        found = getattr(model, method)(*given)
        return check_features(cell, method, found, len(inputs[0][part]))

    back_off = back_off or BackOff(f"{cell.title}: {method}")
    autocast = torch.autocast(
        cell.device.partition(":")[0], torch.bfloat16, enabled=cell.precision == "bf16"
    )
    with guarded(cell, method), torch.inference_mode(), autocast:
        parts = back_off(answer, len(inputs[0]))
    return np.concatenate(parts)


def check_features(cell: RunSpec, method: str, answer: Any, expected: int) -> Features:
    """Raises PluginError (exit 4) unless ``answer`` is a finite float tensor [expected, D]."""
    import torch

    def refuse(what: str) -> PluginError:
        return PluginError(
            f"{cell.title}: {method} of model '{cell.model.name}' breaks its contract: {what}."
        )

    if not isinstance(answer, torch.Tensor):
        raise refuse(f"it returned {type(answer).__name__}, not a tensor")
    if not answer.is_floating_point():
        raise refuse(f"it returned {answer.dtype}, not floating point")
    if answer.ndim != 2 or len(answer) != expected:
        raise refuse(f"it returned shape {tuple(answer.shape)} for {expected} inputs, not [B, D]")
    features: Features = answer.float().cpu().numpy()
    if not np.isfinite(features).all():
        count = int((~np.isfinite(features)).any(axis=1).sum())
        raise refuse(f"{count} of {expected} rows hold NaN or infinity")
    return features


def text_features(cell: RunSpec, fitted: Fitted, texts: Sequence[str]) -> Features:
    """``encode_texts`` of some texts, float32 [M, D], in batches."""
    import torch

    back_off = BackOff(f"{cell.title}: encode_texts")
    parts: list[Features] = []
    for start in range(0, len(texts), cell.batch_size):
        batch = list(texts[start : start + cell.batch_size])

        def answer(part: slice, batch: list[str] = batch) -> Features:
            found = fitted.model.encode_texts(batch[part])
            return check_features(cell, "encode_texts", found, len(batch[part]))

        with guarded(cell, "encode_texts"), torch.inference_mode():
            parts += back_off(answer, len(batch))
    return np.concatenate(parts)


def prompt_features(cell: RunSpec, fitted: Fitted) -> list[Features]:
    """Text features of the model's prompts: per label float32 [P, D]."""
    with guarded(cell, "class_prompts"):
        prompts = [list(texts) for texts in fitted.model.class_prompts(cell.task)]
    if len(prompts) != len(cell.task.labels) or not all(prompts):
        raise PluginError(
            f"{cell.title}: class_prompts of model '{cell.model.name}' breaks its contract: "
            f"{len(prompts)} groups for {len(cell.task.labels)} labels, or an empty group."
        )
    return [text_features(cell, fitted, texts) for texts in prompts]

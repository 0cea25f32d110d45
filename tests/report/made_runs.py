"""Small but genuine runs written by hand: predictions, features, and a record scored from them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from medbench.evaluation.files import AnyPredictions, trivial
from medbench.evaluation.image_predictions import ImagePredictions
from medbench.evaluation.predictions import ClassPredictions
from medbench.evaluation.report_attention import Attention
from medbench.evaluation.report_cases import attended as shown_with_attention
from medbench.evaluation.report_predictions import ReportPredictions
from medbench.evaluation.retrieval_predictions import RetrievalPredictions
from medbench.evaluation.score import baseline_estimates, score
from medbench.plugins import discover
from medbench.schemas.record import Record, predictions_name
from medbench.schemas.task import load_task

MANIFEST = "12" * 32
METRICS = {
    "classification": ("auroc", "accuracy"),
    "image-generation": ("label-auroc",),
    "report-generation": ("finding-f1", "distinct-reports"),
    "retrieval": ("i2t-recall@1", "i2t-median-rank", "t2i-recall@1"),
}


def classes(count: int = 60, skill: float = 1.0, seed: int = 0) -> ClassPredictions:
    """Three classes; ``skill`` says how far the right one stands out."""
    rng = np.random.default_rng(seed)
    truth = np.eye(3)[np.arange(count) % 3]
    raw = np.exp(skill * truth + rng.normal(size=truth.shape))
    return ClassPredictions(
        [f"s{i:03d}" for i in range(count)],
        [f"p{i // 2:03d}" for i in range(count)],
        ("normal", "covid-19", "cap"),
        truth,
        raw / raw.sum(axis=1, keepdims=True),
        multiclass=True,
    )


def pairs(count: int = 40, skill: float = 1.0, seed: int = 0) -> RetrievalPredictions:
    """As many images as texts, row by row."""
    image, text = np.random.default_rng(seed).normal(size=(2, count, 8)).astype(np.float32)
    rows = np.arange(count)
    patients = [f"p{i // 2}" for i in rows]
    return RetrievalPredictions(
        image.astype(np.float64), (text + skill * image).astype(np.float64), rows, rows, patients
    )


#: Made up for these tests; no report of anybody.
SAID = (
    "The heart is enlarged.",
    "Heart size is normal.",
    "There is a large right pneumothorax.",
    "No pneumothorax or pleural effusion.",
    "There is a small left pleural effusion.",
    "The lungs are clear.",
    "Patchy opacity in the right lower lobe.",
    "A healing rib fracture is seen.",
)


def reports(count: int = 30, seed: int = 0, attended: int = 6) -> ReportPredictions:
    """Studies of made-up sentences; each prediction has some of its reference's. The first
    ``attended`` of the cases that are shown have attention to two views of 4 x 4 places."""
    rng = np.random.default_rng(seed)
    references, predictions = [], []
    for _ in range(count):
        told = rng.permutation(len(SAID))[:4]
        kept = [SAID[i] for i in told[: rng.integers(0, 5)]]
        references.append(" ".join(SAID[i] for i in told))
        predictions.append(" ".join([*kept, SAID[rng.integers(len(SAID))]]).lower())
    ids = [f"study-{i:02d}" for i in range(count)]
    table = ReportPredictions(ids, [f"p{i // 2}" for i in range(count)], references, predictions)
    rows = shown_with_attention(table)[:attended]
    if not rows:
        return table
    words = [predictions[row].split() for row in rows]
    maps = [rng.random((len(some), 2, 4, 4)) for some in words]
    told = list(zip(words, maps, strict=True))
    return replace(table, attention=Attention.of([ids[row] for row in rows], told))


#: Impressions made up for these tests, with the findings that they ask for.
ASKED = {
    "Enlarged heart & <b>no</b> effusion.": ("cardiomegaly",),
    "Opacity in the right lower lobe.": ("lung-opacity",),
    "Enlarged heart with a small effusion.": ("cardiomegaly", "pleural-effusion"),
    "Normal chest.": (),
}
FINDINGS = ("cardiomegaly", "lung-opacity", "pleural-effusion")


def smooth(count: int, side: int, seed: int) -> npt.NDArray[np.uint8]:
    """uint8 [N, side, side]: clouds, which a JPEG shows as they are."""
    coarse = np.random.default_rng(seed).integers(0, 255, (count, 5, 5), np.uint8)
    size, way = (side, side), Image.Resampling.BICUBIC
    return np.stack([np.asarray(Image.fromarray(some).resize(size, way)) for some in coarse])


def drawn(
    count: int = 24, each: int = 2, seed: int = 0, model: int = 0, side: int = 32
) -> ImagePredictions:
    """``each`` images of smooth noise, another for each ``model``, for the prompt of every real
    image; two real images a patient. Prompts are those of `ASKED`, again and again."""
    real = smooth(count, side, seed)
    told = list(ASKED.values())
    y = np.array([[float(f in told[i % len(told)]) for f in FINDINGS] for i in range(count)])
    asked = np.repeat(np.arange(count), each)
    return ImagePredictions(
        real=real,
        generated=smooth(len(asked), side, 1000 + model),
        prompts=asked,
        real_patients=[f"p{i // 2:02d}" for i in range(count)],
        label_names=FINDINGS,
        labels=y[asked],
        real_labels=y,
        real_prompts=np.arange(count),
        prompt_texts=[list(ASKED)[i % len(ASKED)] for i in range(count)],
        scores=np.random.default_rng(model).normal(size=(len(asked), len(FINDINGS))),
    )


def write_run(
    folder: Path,
    model: str = "toy",
    *,
    table: AnyPredictions | None = None,
    task: str = "covid-ct",
    track: str = "phantom",
    fraction: float = 1.0,
    seed: int = 0,
    trainable: int = 1000,
    timing: dict[str, Any] | None = None,
    flags: tuple[str, ...] = (),
    features: bool = False,
    **changes: Any,
) -> Path:
    """Write ``folder/<run-id>/`` as a run does; returns it."""
    registry = discover(third_party=False)
    spec = load_task(registry.task_file(task))
    table = table or classes(seed=seed)
    specs = [registry.metric(name) for name in METRICS[spec.type]]
    name, _, variant = model.partition("@")
    safe = "".join(c if c.isalnum() else "." for c in model).strip(".")
    run_id = f"{safe}_{task}_tiny_s{seed}_{fraction:g}_{track}"
    test = table.support()
    content: dict[str, Any] = {
        "status": "complete",
        "run_id": run_id,
        "model": {
            "name": name,
            "variant": variant or None,
            "preset": "tiny",
            "config": {},
            "plugin": {"distribution": "medbench", "version": "0.1.0"},
            "parameters": {"total": 5000, "trainable": trainable},
            "weights_sha256": None,
            "pretraining_data": [],
        },
        "task": {"name": task, "version": spec.version, "type": spec.type, "sha256": spec.sha256},
        "data": {
            "dataset": spec.dataset,
            "track": track,
            "manifest_sha256": MANIFEST,
            "samples": {"train": 0, "val": 0, "test": test},
            "patients": {"train": 0, "val": 0, "test": len(set(table.patients))},
        },
        "protocol": "clean",
        "adaptation": "linear-probe" if spec.type == "classification" else None,
        "fraction": fraction,
        "seed": seed,
        "precision": "fp32",
        "metrics": score(table, specs).metrics,
        "baselines": {k: baseline_estimates(t, specs) for k, t in trivial(table).items()},
        "counts": {"expected": test, "scored": test, "failed": 0},
        "timing": timing or {},
        "environment": {"medbench": "0.1.0", "device": "cpu", "commit": None},
        "hashes": {"checkpoint": None, "predictions": table.digest(MANIFEST)},
        "flags": list(flags),
        "notes": ["a note with <b>markup</b>"],
    }
    record = Record.model_validate({**content, **changes})
    target = folder / run_id
    target.mkdir(parents=True)
    table.write(target / predictions_name(spec.type))
    text = record.model_dump_json(by_alias=True, indent=2) + "\n"
    (target / "record.json").write_text(text, encoding="utf-8")
    if features:
        assert isinstance(table, ClassPredictions)
        vectors = (
            np.random.default_rng(seed).normal(size=(test, 8)) + 3 * table.y.repeat(3, 1)[:, :8]
        )
        np.savez(
            target / "features.npz",
            sample_id=np.array(table.sample_ids, str),
            features=vectors.astype(np.float32),
            y=table.y,
        )
    return target

"""Clinical report metrics of other packages, for whoever has them and their weights.

RadGraph F1, CheXbert F1, RaTEScore and GREEN run neural networks whose weights come from a model
hub. Nothing is downloaded here: packages are imported on first use and run with the hub switched
off, and a metric whose package or weights are missing is undefined, with a reason that names the
command that fetches them. Each report is scored once per table; a resample is a weighted sum over
reports. A blank prediction scores zero in all of them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import cache
from importlib import import_module
from tempfile import TemporaryDirectory
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from medbench.errors import MedbenchError
from medbench.metrics.reports import agreement
from medbench.metrics.values import FloatArray, ReportTable, Values

#: Model behind GREEN.
GREEN_MODEL = "StanfordAIMI/GREEN-radllama2-7b"
#: Model behind RadGraph F1.
RADGRAPH_MODEL = "radgraph-xl"

Scorer = Callable[[Sequence[str], Sequence[str]], FloatArray]
#: Loaded networks, by metric.
_LOADED: dict[str, Any] = {}
#: What each report of a table got, by metric.
_SCORED: WeakKeyDictionary[ReportTable, dict[str, FloatArray]] = WeakKeyDictionary()


class ClinicalError(MedbenchError):
    """A package or its weights are missing."""


def radgraph_f1(table: ReportTable, weights: FloatArray) -> Values:
    """Mean RadGraph F1 of the reports, reward level "partial". In [0, 1]."""
    return _mean_of("radgraph-f1", _radgraph, table, weights)


def ratescore(table: ReportTable, weights: FloatArray) -> Values:
    """Mean RaTEScore of the reports. In [0, 1]."""
    return _mean_of("ratescore", _ratescore, table, weights)


def green(table: ReportTable, weights: FloatArray) -> Values:
    """Mean GREEN of the reports that it could judge. In [0, 1]."""
    return _mean_of("green", _green, table, weights)


def chexbert_f1(table: ReportTable, weights: FloatArray) -> Values:
    """F1 of CheXbert's 14 labels, pooled (micro-averaged) and per label. In [0, 1]."""
    try:
        both = _scores("chexbert-f1", _chexbert, table)
    except ClinicalError as error:
        return Values(np.full(len(weights), np.nan), None, str(error))
    half = both.shape[1] // 2
    names = [str(name).lower().replace(" ", "-") for name in _LOADED["chexbert-f1"].target_names]
    return agreement("f1", names, both[:, :half], both[:, half:], weights)


def _mean_of(name: str, scorer: Scorer, table: ReportTable, weights: FloatArray) -> Values:
    try:
        scores = _scores(name, scorer, table)
    except ClinicalError as error:
        return Values(np.full(len(weights), np.nan), None, str(error))
    known = ~np.isnan(scores)
    total = weights @ known.astype(np.float64)
    value = np.divide(
        weights @ np.where(known, scores, 0.0),
        total,
        out=np.full(len(weights), np.nan),
        where=total > 0,
    )
    lost = int((~known).sum())
    reason = f"{lost} of {len(scores)} reports got no readable judgement and are left out"
    return Values(value, None, reason if lost else None)


def _scores(name: str, scorer: Scorer, table: ReportTable) -> FloatArray:
    kept = _SCORED.setdefault(table, {})
    if name not in kept:
        found = scorer(list(table.predictions), list(table.references))
        blank = [i for i, text in enumerate(table.predictions) if not text.strip()]
        # CheXbert's columns are labels of both sides, read from the text; others are scores.
        if found.ndim == 1:
            found[blank] = 0.0
        kept[name] = found
    return kept[name]


def _radgraph(predictions: Sequence[str], references: Sequence[str]) -> FloatArray:
    fetch = (
        "from radgraph import F1RadGraph; "
        f"F1RadGraph(reward_level='partial', model_type='{RADGRAPH_MODEL}')"
    )
    with _offline():
        network = _load(
            "radgraph-f1", "radgraph", "clinical", fetch,
            lambda package: package.F1RadGraph(
                reward_level="partial", model_type=RADGRAPH_MODEL
            ),
        )  # fmt: skip
        _, rewards, _, _ = network(hyps=predictions, refs=references)
    return np.array(rewards, dtype=np.float64)


def _ratescore(predictions: Sequence[str], references: Sequence[str]) -> FloatArray:
    import torch

    use_gpu = torch.cuda.is_available()
    fetch = "from RaTEScore import RaTEScore; RaTEScore(use_gpu=False)"
    with _offline():
        network = _load(
            "ratescore", "RaTEScore", "clinical", fetch,
            lambda package: package.RaTEScore(use_gpu=use_gpu),
        )  # fmt: skip
        return np.array(network.compute_score(predictions, references), dtype=np.float64)


def _green(predictions: Sequence[str], references: Sequence[str]) -> FloatArray:
    fetch = f"from huggingface_hub import snapshot_download; snapshot_download('{GREEN_MODEL}')"
    with _offline():
        network = _load(
            "green", "green_score", "green", fetch,
            lambda package: package.GREEN(GREEN_MODEL, output_dir=_scratch()),
        )  # fmt: skip
        _, _, scores, *_ = network(references, predictions)
    return np.array([np.nan if s is None else float(s) for s in scores], dtype=np.float64)


@cache
def _folder() -> TemporaryDirectory[str]:
    return TemporaryDirectory(prefix="medbench-")


def _scratch() -> str:
    """A folder for what a package insists on writing; gone when the process ends."""
    return _folder().name


def _chexbert(predictions: Sequence[str], references: Sequence[str]) -> FloatArray:
    """float [N, 28]: labels of each prediction, then of its reference."""
    with _offline():
        network = _load(
            "chexbert-f1", "f1chexbert", "clinical",
            "from f1chexbert import F1CheXbert; F1CheXbert()",
            lambda package: package.F1CheXbert(),
        )  # fmt: skip
        width = len(network.target_names)
        sides = [
            [network.get_label(text.strip()) if text.strip() else [0] * width for text in side]
            for side in (predictions, references)
        ]
    return np.concatenate([np.array(side, dtype=np.float64) for side in sides], axis=1)


def _load(name: str, module: str, extra: str, fetch: str, make: Callable[[Any], Any]) -> Any:
    """The network of a metric, made once; ``extra`` is the optional part of medbench that brings
    its package. Raises ClinicalError naming what to do."""
    if name not in _LOADED:
        try:
            found = import_module(module)
        except ImportError as error:
            raise ClinicalError(
                f"needs the package {module}, which cannot be imported ({error}): "
                f"`pip install 'medbench[{extra}]'`, best in an environment of its own"
            ) from error
        try:
            _LOADED[name] = make(found)
        except Exception as error:
            raise _no_weights(module, fetch, error) from error
    return _LOADED[name]


def _no_weights(module: str, fetch: str, error: Exception) -> ClinicalError:
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return ClinicalError(
        f"the weights of {module} cannot be loaded from this machine ({first[:200]}); medbench "
        f'downloads none: fetch them once with `python -c "{fetch}"`'
    )


@contextmanager
def _offline() -> Iterator[None]:
    """Run with the model hub switched off, and what is printed sent to stderr."""
    from huggingface_hub import constants

    hub, setting = constants.HF_HUB_OFFLINE, os.environ.get("HF_HUB_OFFLINE")
    constants.HF_HUB_OFFLINE = True
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        constants.HF_HUB_OFFLINE = hub
        if setting is None:
            os.environ.pop("HF_HUB_OFFLINE", None)
        else:
            os.environ["HF_HUB_OFFLINE"] = setting

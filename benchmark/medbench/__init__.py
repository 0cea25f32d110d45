"""medbench: benchmark and evaluation harness for radiology vision-language models.

This module is the public API for plugin authors. Names load on first use, so that
``import medbench`` costs nothing that the caller does not need.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

#: The version of the plugin contract (hooks, specs, capabilities) that this harness speaks.
API_VERSION = 1

if TYPE_CHECKING:
    from medbench.data.samples import Corpus, Sample
    from medbench.errors import DataError, MedbenchError, WeightsError
    from medbench.hookspecs import hookimpl
    from medbench.models.capabilities import FitRun, Stage
    from medbench.schemas.specs import DatasetSpec, MetricSpec, ModelSpec, Variant

_PUBLIC = {
    "Corpus": "medbench.data.samples",
    "DataError": "medbench.errors",
    "DatasetSpec": "medbench.schemas.specs",
    "FitRun": "medbench.models.capabilities",
    "MedbenchError": "medbench.errors",
    "MetricSpec": "medbench.schemas.specs",
    "ModelSpec": "medbench.schemas.specs",
    "Sample": "medbench.data.samples",
    "Stage": "medbench.models.capabilities",
    "Variant": "medbench.schemas.specs",
    "WeightsError": "medbench.errors",
    "hookimpl": "medbench.hookspecs",
}

__all__ = [
    "API_VERSION",
    "Corpus",
    "DataError",
    "DatasetSpec",
    "FitRun",
    "MedbenchError",
    "MetricSpec",
    "ModelSpec",
    "Sample",
    "Stage",
    "Variant",
    "WeightsError",
    "hookimpl",
]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'medbench' has no attribute {name!r}")

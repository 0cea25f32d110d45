"""Subgroups of a cell: which sample a row of its predictions is of."""

from __future__ import annotations

from medbench.data.samples import Sample
from medbench.evaluation.files import AnyPredictions
from medbench.evaluation.report_predictions import ReportPredictions
from medbench.evaluation.subgroups import Divisible, Found, membership, subgroups
from medbench.run.load import Loaded
from medbench.run.request import RunSpec
from medbench.schemas.record import Attribute
from medbench.schemas.specs import MetricSpec


def find_subgroups(
    cell: RunSpec, loaded: Loaded, predictions: AnyPredictions, specs: list[MetricSpec]
) -> Found:
    """The task's primary metric by sex, age band and view; nothing for tasks that have no sample
    to a row. A study of several views has none of its own, nor has a text."""
    primary = [spec for spec in specs if spec.name == cell.task.primary]
    if not isinstance(predictions, Divisible) or not primary:
        return Found({}, [])
    of_studies = isinstance(predictions, ReportPredictions)
    named: dict[str, Sample] = {}
    for row in loaded.tested:
        sample = loaded.samples[row]
        named.setdefault((sample.study or sample.id) if of_studies else sample.id, sample)
    samples = [named[name] for name in predictions.sample_ids]
    attributes: list[Attribute] = ["sex", "age"]
    if not of_studies and cell.task.input != "text":
        attributes.append("view")
    return subgroups(predictions, primary[0], membership(samples, attributes))

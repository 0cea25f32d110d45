"""Identity cards of the retrieval metrics. Imports nothing heavy."""

from __future__ import annotations

from medbench.schemas.specs import MetricSpec

_NORMALISATION = "embeddings scaled to unit length; a row of zeros has cosine 0 with everything"
_INTERVAL = "interval: percentile, queries resampled by patient, the gallery held fixed"
_TIES = (
    "candidates ranked by cosine; equal ones (within 1e-12) have no order, the value is its "
    "expectation over all of them"
)
_SIDES = {"i2t": ("image", "text"), "t2i": ("text", "image")}


def _recall(direction: str, k: int) -> MetricSpec:
    query, candidate = _SIDES[direction]
    first = "" if k == 1 else f" {k}"
    return MetricSpec(
        name=f"{direction}-recall@{k}",
        function=f"medbench.metrics.retrieval:{direction}_recall_{k}",
        task_types=("retrieval",),
        definition=f"share of {query} queries with a {candidate} of their group among the "
        f"first{first}; {_TIES}",
        higher_is_better=True,
        aggregation=f"mean over {query} queries that have a match; {_INTERVAL}",
        normalisation=_NORMALISATION,
        reference="torchmetrics RetrievalHitRate; one match per query: RetrievalRecall and the "
        "recall of open_clip's training loop",
    )


def _precision(direction: str) -> MetricSpec:
    query, candidate = _SIDES[direction]
    return MetricSpec(
        name=f"{direction}-precision@1",
        function=f"medbench.metrics.retrieval:{direction}_precision_1",
        task_types=("retrieval",),
        definition=f"share of {query} queries whose first {candidate} is of their group; a query "
        f"without a match counts 0; {_TIES}",
        higher_is_better=True,
        aggregation=f"mean over all {query} queries; {_INTERVAL}",
        normalisation=_NORMALISATION,
        reference="torchmetrics RetrievalPrecision(top_k=1, empty_target_action='neg')",
    )


def _median_rank(direction: str) -> MetricSpec:
    query, candidate = _SIDES[direction]
    return MetricSpec(
        name=f"{direction}-median-rank",
        function=f"medbench.metrics.retrieval:{direction}_median_rank",
        task_types=("retrieval",),
        definition=f"median over {query} queries of the rank of the first {candidate} of their "
        f"group; {_TIES}, per query",
        higher_is_better=False,
        aggregation=f"median over {query} queries that have a match, the mean of the two in the "
        f"middle where their number is even; {_INTERVAL}",
        unit="rank, from 1",
        normalisation=_NORMALISATION,
        reference="numpy median of ranks found by enumeration",
    )


#: Every retrieval metric, in the order of the contract.
RETRIEVAL: tuple[MetricSpec, ...] = (
    *(_recall(direction, k) for direction in _SIDES for k in (1, 5, 10)),
    *(_precision(direction) for direction in _SIDES),
    *(_median_rank(direction) for direction in _SIDES),
)

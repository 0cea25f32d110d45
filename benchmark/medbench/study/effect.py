"""The effect of A against B: mean over seeds, with an interval over patients and seeds.

Two things would change with another study of the same claim: the patients, and what the
training's random numbers made of the models. Both are in the interval.

Patients are resampled. The test patients are the same for every seed, so they are not drawn anew
within each, which would average out a hardship that all seeds share: one draw of patients serves
both models and all seeds, and the differences are averaged over seeds.

Seeds are too few to resample: where three of them agree by chance, all of their resamples do. So
to each resample an independent value of Student's t with S - 1 degrees of freedom is added, times
the standard error of the mean over seeds: the sum of the two errors, as in the Behrens-Fisher
problem (Fisher 1935, "The fiducial argument in statistical inference"). Where patients make all
the difference this is the percentile bootstrap, where seeds do it is the t interval. With one seed
the interval is over patients alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from medbench.errors import UsageError
from medbench.evaluation.files import AnyPredictions
from medbench.evaluation.pairing import common, same_references
from medbench.evaluation.score import evaluate, with_ones
from medbench.metrics.values import FloatArray
from medbench.schemas.specs import MetricSpec
from medbench.statistics.bootstrap import SEED, interval, patient_weights, undefined
from medbench.statistics.paired import paired

Tables = Sequence[AnyPredictions]

#: As many resamples for each hypothesis that Holm's correction counts keep the smallest corrected p
#: at .01, up to the most that are drawn.
PER_HYPOTHESIS, FEWEST, MOST = 200, 2_000, 10_000
BLOCK = 1_000  # resamples held in memory at once


class Effect(NamedTuple):
    """A against B.

    Attributes:
        a, b: [S] the metric by seed.
        by_seed: [S] differences, above 0 in favour of A whichever way the metric points.
        effect: their mean.
        ci95: its interval.
        p_value: two-sided, of the effect against the margin.
        undefined: resamples in which the metric is undefined.
        patients, samples: compared.
    """

    a: tuple[float, ...]
    b: tuple[float, ...]
    by_seed: tuple[float, ...]
    effect: float
    ci95: tuple[float, float]
    p_value: float
    undefined: int
    patients: int
    samples: int


def resamples_for(hypotheses: int) -> int:
    """How many resamples a study of so many hypotheses takes.

    >>> [resamples_for(m) for m in (1, 20, 100)]
    [2000, 4000, 10000]
    """
    return min(MOST, max(FEWEST, PER_HYPOTHESIS * hypotheses))


def effect(a: Tables, b: Tables, spec: MetricSpec, margin: float, resamples: int) -> Effect:
    """Compare A with B by their predictions of the same samples.

    Args:
        a, b: [S] tables, one per seed, seed by seed.
        spec: the metric.
        margin: the effect is tested against this, not against 0.
        resamples: B.

    Raises:
        UsageError: tables that are not of the same samples, references that differ, a metric that
            cannot be resampled from them or is undefined.
    """
    _require_pairs([*a, *b])
    owners = list(a[0].patients)
    sign = 1.0 if spec.higher_is_better else -1.0
    values: list[FloatArray] = []  # [2 S, 1 + block]
    for block in range(0, resamples, BLOCK):
        count = min(BLOCK, resamples - block)
        weights = patient_weights(owners, count, seed=(SEED, block))
        weights = weights if block else with_ones(weights)
        values.append(np.stack([_values(spec, table, weights) for table in (*a, *b)]))
    drawn = np.concatenate(values, axis=1)
    whole, count = drawn[:, 0], len(a)
    if np.isnan(whole).any():
        raise UsageError(f"{spec.name} is undefined on these samples")
    differences = sign * (drawn[:count] - drawn[count:])
    mean = float(differences[:, 0].mean())
    means = differences[:, 1:].mean(axis=0) + _seed_error(differences[:, 0], resamples)
    tested = paired(mean, margin, means, np.full(len(means), margin))
    return Effect(
        a=tuple(whole[:count].tolist()),
        b=tuple(whole[count:].tolist()),
        by_seed=tuple(differences[:, 0].tolist()),
        effect=mean,
        ci95=interval(means),
        p_value=tested.p_value,
        undefined=undefined(means),
        patients=len(set(owners)),
        samples=a[0].support(),
    )


def _seed_error(by_seed: FloatArray, resamples: int) -> FloatArray:
    """[S] -> [B]: draws of the error of the mean over seeds; zeros for one seed.

    One from each B-th of the distribution, in random order: the tails are heavy, and the interval
    would depend on the luck of a few draws from them.
    """
    count = len(by_seed)
    if count == 1:
        return np.zeros(resamples)
    from scipy.stats import t

    error = by_seed.std(ddof=1) / np.sqrt(count)
    quantiles = t.ppf((np.arange(resamples) + 0.5) / resamples, count - 1)
    drawn: FloatArray = np.random.default_rng(SEED).permutation(quantiles) * error
    return drawn


def _values(spec: MetricSpec, table: AnyPredictions, weights: FloatArray) -> FloatArray:
    found = evaluate(spec, table, weights)
    if found.interval is not None:
        raise UsageError(
            f"{spec.name} has an interval that is not made by resampling patients, so it cannot be "
            "compared in pairs"
        )
    return found.value


def _require_pairs(tables: Tables) -> None:
    """Raise UsageError unless all tables are of the same samples in the same order."""
    first = tables[0]
    names = common(first, first)
    for table in tables[1:]:
        if common(first, table) != names or list(first.patients) != list(table.patients):
            raise UsageError("the runs were not tested on the same samples")
        if not same_references(first, table):
            raise UsageError(
                "the runs disagree on the references of their samples, or on the network in whose "
                "features they are measured"
            )

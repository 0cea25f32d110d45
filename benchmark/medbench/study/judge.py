"""From runs to verdicts: a pure function of a study and the records and predictions given.

A hypothesis says that A is better than B by more than a margin. Its effect is tested against that
margin, two-sided; p values are corrected by Holm's method over all hypotheses of the study, tested
or not. Below .05 the side on which the effect lies decides: supported, or not supported (the data
speak against the claim). Above, nothing is concluded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from medbench.errors import DataError, UsageError, VerificationError
from medbench.evaluation.files import AnyPredictions
from medbench.leaderboard.collect import UNRANKED, Entry
from medbench.metrics.cards import card_sha256
from medbench.plugins import Registry
from medbench.schemas.specs import MetricSpec
from medbench.schemas.study import (
    Arm,
    Hypothesis,
    Setting,
    Settled,
    StudyResult,
    StudySpec,
    Tested,
    Verdict,
)
from medbench.statistics.paired import holm
from medbench.statistics.ranking import ALPHA
from medbench.study.effect import Effect, effect, resamples_for
from medbench.study.sides import Draw, runs_of

#: With fewer seeds nothing is known of what another training would give.
LEAST_SEEDS = 2


@dataclass
class _Case:
    """A hypothesis on its way to a verdict."""

    hypothesis: Hypothesis
    a: list[Entry] = field(default_factory=list)
    b: list[Entry] = field(default_factory=list)
    found: Effect | None = None
    barred: list[str] = field(default_factory=list)  # why there can be no verdict
    notes: list[str] = field(default_factory=list)


def judge(
    study: StudySpec,
    entries: Sequence[Entry],
    registry: Registry,
    seeds: Sequence[int] | None = None,
    failed: Sequence[str] = (),
) -> StudyResult:
    """Test every hypothesis on every track, preset and precision that ``entries`` hold.

    Args:
        study: checked by `medbench.study.catalogue.check`.
        entries: runs, their predictions beside them; those of other cells are passed over.
        registry: knows models and metrics.
        seeds: the runs to take; the study's own if None.
        failed: cells that ended in an error, for the result.

    Raises:
        UsageError: runs of one hypothesis on two versions of the data.
        VerificationError: predictions that do not have the hash in their record.
    """
    wanted = tuple(study.seeds if seeds is None else seeds)
    chosen = [entry for entry in entries if entry.record.seed in wanted]
    found = {
        hypothesis.name: tuple(
            runs_of(side, chosen, registry) for side in (hypothesis.a, hypothesis.b)
        )
        for hypothesis in study.hypotheses
    }
    settings = {setting for a, b in found.values() for setting in set(a) & set(b)}
    resamples = resamples_for(len(study.hypotheses))
    results = []
    for setting in sorted(settings, key=lambda s: s.title):
        cases = []
        for hypothesis in study.hypotheses:
            a, b = (side.get(setting, {}) for side in found[hypothesis.name])
            case = _Case(hypothesis)
            _pair(case, a, b, wanted)
            if case.a:
                _measure(case, registry, resamples)
            cases.append(case)
        results.append(_settle(setting, cases))
    return StudyResult(
        study=study.name,
        title=study.title,
        resamples=resamples,
        results=tuple(results),
        failed=tuple(failed),
    )


def _pair(case: _Case, a: dict[Draw, Entry], b: dict[Draw, Entry], seeds: Sequence[int]) -> None:
    """Runs of A and B on the same data with the same seed."""
    shared = sorted(set(a) & set(b))
    if len({manifest for manifest, _ in shared}) > 1:
        raise UsageError(
            f"Hypothesis '{case.hypothesis.name}': the runs given are of two versions of the data "
            "(two manifests). Give the folder of one."
        )
    case.a = [a[draw] for draw in shared]
    case.b = [b[draw] for draw in shared]
    if not shared:
        missing = [letter for letter, runs in (("A", a), ("B", b)) if not runs]
        case.barred.append(
            f"no runs of {' and '.join(missing)}"
            if missing
            else "the runs of A and B share no seed on the same data"
        )
        return
    lacking = [str(seed) for seed in seeds if seed not in {s for _, s in shared}]
    if lacking:
        case.notes.append(f"without seed {', '.join(lacking)}")
    if len(shared) < LEAST_SEEDS:
        case.barred.append("one seed: what another training would give is not known")
    flags = {flag for run in (*case.a, *case.b) for flag in run.reasons}
    case.barred += [f"{flag} runs support nothing" for flag in UNRANKED if flag in flags]
    case.barred += sorted(flags - set(UNRANKED))


def _measure(case: _Case, registry: Registry, resamples: int) -> None:
    spec = registry.metric(case.hypothesis.metric)
    refusal = _refusal(case, spec)
    if refusal:
        case.barred.append(refusal)
        return
    try:
        a, b = (_predictions(side) for side in (case.a, case.b))
        case.found = effect(a, b, spec, case.hypothesis.margin, resamples)
    except (UsageError, DataError) as error:
        case.barred.append(str(error))
        return
    if case.found.undefined:
        case.notes.append(f"undefined in {case.found.undefined} of {resamples} resamples")


def _refusal(case: _Case, spec: MetricSpec) -> str:
    """Why values of these records are not to be compared; empty when they are."""
    runs = [entry.record for entry in (*case.a, *case.b)]
    if any(spec.name not in run.metrics for run in runs):
        return f"{spec.name} is absent from a record, whose notes say why"
    if any(run.metrics[spec.name].card_sha256 != card_sha256(spec) for run in runs):
        return f"{spec.name} was scored by another identity card than this medbench has"
    if len({run.judge(spec.name) for run in runs}) > 1:
        return f"{spec.name} was measured in the features of unlike networks"
    return ""


def _predictions(runs: Sequence[Entry]) -> list[AnyPredictions]:
    tables = []
    for run in runs:
        found = run.recognised()
        if found is None:
            raise DataError("no predictions beside the records, so nothing can be compared")
        if not found.sound:
            raise VerificationError(
                f"{run.table} does not have the hash in its record. Run the cell again with "
                "`medbench run --fresh`."
            )
        tables.append(found.table)
    return tables


def _settle(setting: Setting, cases: Sequence[_Case]) -> Settled:
    # a hypothesis that was not tested counts as one that was, and failed: what is at hand must
    # not decide how strict the others are tested
    corrected = holm([case.found.p_value if case.found else 1.0 for case in cases])
    tested = tuple(_tested(case, p) for case, p in zip(cases, corrected, strict=True))
    return Settled(setting=setting, hypotheses=tested)


def _tested(case: _Case, p_holm: float) -> Tested:
    hypothesis, found = case.hypothesis, case.found
    a, b = (
        Arm(
            title=side.title,
            values=values,
            trained=runs[0].record.model.parameters.trainable if runs else None,
            runs=tuple(run.record.run_id for run in runs),
        )
        for side, runs, values in (
            (hypothesis.a, case.a, found.a if found else ()),
            (hypothesis.b, case.b, found.b if found else ()),
        )
    )
    verdict = _verdict(case, a, b, p_holm)
    return Tested(
        name=hypothesis.name,
        claim=hypothesis.claim,
        metric=hypothesis.metric,
        margin=hypothesis.margin,
        a=a,
        b=b,
        seeds=tuple(run.record.seed for run in case.a),
        effects=found.by_seed if found else (),
        effect=found.effect if found else None,
        ci95=found.ci95 if found else None,
        p_value=found.p_value if found else None,
        p_holm=p_holm if found else None,
        patients=found.patients if found else 0,
        samples=found.samples if found else 0,
        verdict=verdict,
        reasons=(*case.barred, *case.notes),
        published=hypothesis.published,
    )


def _verdict(case: _Case, a: Arm, b: Arm, p_holm: float) -> Verdict:
    if case.barred or case.found is None:
        return "inconclusive"
    most = case.hypothesis.trained_share
    if most is not None and a.trained is not None and b.trained is not None:
        share = f"A trains {a.trained:,} parameters and B {b.trained:,}"
        if a.trained > most * b.trained:  # counted, not sampled: no test is needed
            case.notes.append(f"{share}: more than {100 * most:g} % of them")
            return "not supported"
        case.notes.append(share)
    if p_holm >= ALPHA:
        return "inconclusive"
    return "supported" if case.found.effect > case.hypothesis.margin else "not supported"

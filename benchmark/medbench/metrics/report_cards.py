"""Identity cards of the report-generation metrics. Imports nothing heavy."""

from __future__ import annotations

from medbench.schemas.specs import MetricSpec

_TYPES = ("report-generation",)
_RAW = (
    "reference and prediction alike: runs of white space are one blank; Penn Treebank tokens of "
    "Stanford CoreNLP 3.4.1, lower-cased; punctuation dropped"
)
_R2GEN = (
    "reference and prediction alike, as R2Gen's MIMIC-CXR reader: lower-cased, list numbers 1 to 5 "
    "and punctuation but hyphens dropped, '.' after each sentence; cut to the task's number of "
    "words; words outside the vocabulary of the training reports are <unk>; a text without a word "
    "is empty"
)
#: Suffix of the name, of the function, and what is done to texts.
_CONVENTIONS = (("", "", _RAW), ("-r2gen", "_r2gen", _R2GEN))
_BOOTSTRAP = "interval: percentiles over resamples of whole patients"


def _bleu(order: int, suffix: str, function: str, normalisation: str) -> MetricSpec:
    return MetricSpec(
        name=f"bleu-{order}{suffix}",
        function=f"medbench.metrics.reports:bleu_{order}{function}",
        task_types=_TYPES,
        definition=(
            f"corpus BLEU-{order}: geometric mean, over n = 1 to {order}, of the share of "
            "predicted n-grams that the reference has, each counted at most as often as there; "
            "times exp(1 - reference words / predicted words) where predictions are shorter in "
            "all; 1e-15 is added to matches and 1e-9 to counts"
        ),
        higher_is_better=True,
        aggregation=f"counts are summed over reports before division; {_BOOTSTRAP}, whose counts "
        "are summed",
        normalisation=normalisation,
        reference="Papineni et al. 2002; pycocoevalcap 1.2 Bleu(4), closest reference length",
    )


def _meteor(suffix: str, function: str, normalisation: str) -> MetricSpec:
    return MetricSpec(
        name=f"meteor{suffix}",
        function=f"medbench.metrics.reports:meteor{function}",
        task_types=_TYPES,
        definition=(
            "METEOR 1.5, English: words aligned by exact form, stem, synonym and paraphrase "
            "(weights 1, .6, .8, .6; content words .75, function words .25); mean of precision and "
            "recall with recall at .85, times 1 - .6 (chunks / matched words)^.2"
        ),
        higher_is_better=True,
        aggregation="statistics of the alignments are summed over reports, then the formula once; "
        f"{_BOOTSTRAP}, whose statistics are summed",
        normalisation=f"{normalisation}; then METEOR's own (-norm)",
        reference="Denkowski and Lavie 2014; pycocoevalcap 1.2 Meteor",
    )


def _rouge_l(suffix: str, function: str, normalisation: str) -> MetricSpec:
    return MetricSpec(
        name=f"rouge-l{suffix}",
        function=f"medbench.metrics.reports:rouge_l{function}",
        task_types=_TYPES,
        definition=(
            "F-measure of the longest common subsequence of words: (1 + b^2) P R / (R + b^2 P), "
            "b = 1.2; 0 where prediction or reference has no word"
        ),
        higher_is_better=True,
        aggregation=f"mean over reports; {_BOOTSTRAP}",
        normalisation=normalisation,
        reference="Lin 2004; pycocoevalcap 1.2 Rouge",
    )


def _cider(suffix: str, function: str, normalisation: str) -> MetricSpec:
    return MetricSpec(
        name=f"cider{suffix}",
        function=f"medbench.metrics.reports:cider{function}",
        task_types=_TYPES,
        definition=(
            "ten times the mean over n = 1 to 4 of the cosine of n-gram counts, weighted by log "
            "(references / references with the n-gram), predicted counts clipped to the "
            "reference's, times exp(-d^2 / 72) for texts whose bigrams differ by d in number; "
            "known as CIDEr-D"
        ),
        higher_is_better=True,
        aggregation=f"mean over reports; {_BOOTSTRAP}, document frequencies held at those of the "
        "whole table",
        unit="0 to 10",
        normalisation=normalisation,
        reference="Vedantam et al. 2015; pycocoevalcap 1.2 Cider",
    )


def _captions(suffix: str, function: str, normalisation: str) -> tuple[MetricSpec, ...]:
    return (
        *(_bleu(order, suffix, function, normalisation) for order in (1, 2, 3, 4)),
        _meteor(suffix, function, normalisation),
        _rouge_l(suffix, function, normalisation),
        _cider(suffix, function, normalisation),
    )


#: On raw text: bleu-1 to bleu-4, meteor, rouge-l, cider.
CAPTIONS = _captions(*_CONVENTIONS[0])
#: The same in the R2Gen convention.
CAPTIONS_R2GEN = _captions(*_CONVENTIONS[1])


def _finding(measure: str, definition: str) -> MetricSpec:
    return MetricSpec(
        name=f"finding-{measure}",
        function=f"medbench.metrics.reports:finding_{measure}",
        task_types=_TYPES,
        definition=definition,
        higher_is_better=True,
        aggregation="micro: counts are pooled over reports and the 14 CheXpert labels, no-finding "
        f"and support-devices among them; per label beside it; {_BOOTSTRAP}, whose counts are "
        "pooled",
        normalisation="labels read from the text by the rules of medbench.data.report_findings; "
        "only a label stated as present counts, an uncertain one does not",
        reference="compare Liu et al. 2019 (clinically accurate generation) and Smit et al. 2020 "
        "(CheXbert), whose labellers differ; scikit-learn precision_recall_fscore_support"
        "(average='micro') on the labels",
    )


FINDINGS = (
    _finding(
        "precision",
        "share of the labels stated in predictions that the reference states too",
    ),
    _finding("recall", "share of the labels stated in references that the prediction states too"),
    _finding(
        "f1", "2 TP / (2 TP + FP + FN) of the labels stated in predictions against references"
    ),
)

_WORDS = (
    "words of the R2Gen convention: lower-cased, punctuation but hyphens and list numbers dropped; "
    "full stops are no words here"
)


def _wording(
    name: str, definition: str, better: bool, aggregation: str, unit: str = "fraction"
) -> MetricSpec:
    return MetricSpec(
        name=name,
        function=f"medbench.metrics.report_wording:{name.replace('-', '_')}",
        task_types=_TYPES,
        definition=definition,
        higher_is_better=better,
        aggregation=f"{aggregation}; {_BOOTSTRAP}",
        unit=unit,
        normalisation=_WORDS,
        reference="medbench.metrics.report_wording; compare distinct-n of Li et al. 2016",
    )


#: How long, how varied, how much copied: statistics to read beside the others.
WORDING = (
    _wording(
        "report-length",
        "mean words of a prediction; a statistic, not a quality: longer is not better. That of the "
        "references is report-length / length-ratio",
        True,
        "mean over reports",
        "words",
    ),
    _wording(
        "length-ratio",
        "words of all predictions / words of all references; 1 is as long as the references, and "
        "more is not better",
        True,
        "words are summed over reports before division",
        "ratio",
    ),
    _wording(
        "distinct-reports",
        "different predictions / predictions; reports of equal words are equal. One report for "
        "everybody gives 1 / predictions",
        True,
        "each of m equal predictions counts 1 / m, mean over reports; m is that of the whole table "
        "in every resample",
    ),
    _wording(
        "copied-reports",
        "share of the predictions whose words are exactly those of a training report",
        False,
        "mean over reports",
    ),
)

_HUB = "weights must be on the machine; nothing is downloaded; a blank prediction scores 0"

#: Of other packages, which bring their own weights.
CLINICAL = (
    MetricSpec(
        name="radgraph-f1",
        function="medbench.metrics.clinical:radgraph_f1",
        task_types=_TYPES,
        definition="F1 of entities and whether they have a relation (RadGraph reward 'partial')",
        higher_is_better=True,
        aggregation=f"mean over reports; {_BOOTSTRAP}",
        normalisation=f"the package's; {_HUB}",
        backbone="radgraph-xl",
        reference="Delbrouck et al. 2022; radgraph 0.1 F1RadGraph(reward_level='partial')",
    ),
    MetricSpec(
        name="chexbert-f1",
        function="medbench.metrics.clinical:chexbert_f1",
        task_types=_TYPES,
        definition="2 TP / (2 TP + FP + FN) of 14 labels read by CheXbert, uncertain as present",
        higher_is_better=True,
        aggregation="micro: counts are pooled over reports and labels; per label beside it; "
        f"{_BOOTSTRAP}, whose counts are pooled",
        normalisation=f"labels read by the network; {_HUB}",
        backbone="chexbert",
        reference="Smit et al. 2020; f1chexbert 0.0.2, micro average",
    ),
    MetricSpec(
        name="ratescore",
        function="medbench.metrics.clinical:ratescore",
        task_types=_TYPES,
        definition="F-measure of medical entities matched by type and embedding, affinity 'long'",
        higher_is_better=True,
        aggregation=f"mean over reports; {_BOOTSTRAP}",
        normalisation=f"the package's; {_HUB}",
        backbone="RaTE-NER-Deberta, BioLORD-2023-C",
        reference="Zhao et al. 2024; RaTEScore 0.6",
    ),
    MetricSpec(
        name="green",
        function="medbench.metrics.clinical:green",
        task_types=_TYPES,
        definition="matched findings / (matched findings + significant errors), as counted by a "
        "language model",
        higher_is_better=True,
        aggregation=f"mean over the reports whose judgement could be read; {_BOOTSTRAP}",
        normalisation=f"the package's prompt; {_HUB}",
        backbone="GREEN-radllama2-7b",
        reference="Ostmeier et al. 2024; green-score GREEN",
    ),
)

#: Every report-generation metric, in the order of the contract.
REPORT_GENERATION: tuple[MetricSpec, ...] = (
    *CAPTIONS, *CAPTIONS_R2GEN, *FINDINGS, *WORDING, *CLINICAL,
)  # fmt: skip

"""Identity cards of the image-generation metrics. Imports nothing heavy."""

from __future__ import annotations

from medbench.schemas.specs import MetricSpec

#: What is said of the values of short, medium and long prompts.
_THIRDS = (
    "also of thirds of the prompts by their number of words (prompts-short, -medium, -long; equal "
    "lengths together, 20 generated images at least)"
)
_TYPES = ("image-generation",)
_MODULE = "medbench.metrics"

#: Backbone to the network and the layer its features are taken from.
BACKBONES: dict[str, str] = {
    "xrv": "DenseNet121 of torchxrayvision with the user's weights (densenet121-res224-all is "
    "meant), pooled last features, D = 1024",
    "inception": "Inception-v3 of 2015-12-05 as ported by pytorch-fid (1,008 outputs, pooling "
    "without padding, last block with maximum pooling), last average pooling, D = 2048",
    "inception-torchvision": "Inception-v3 of torchvision with its ImageNet weights (1,000 "
    "outputs), last average pooling, D = 2048",
    "phantom": "classifier trained by the run on the phantom's training split, its features",
}

#: Backbone to what is done to uint8 [N, H, W] first.
PREPROCESSING: dict[str, str] = {
    "xrv": "grey levels to [-1024, 1024], centre square, 224 x 224 (bilinear, antialiased)",
    "inception": "grey to three equal channels, levels to [-1, 1], 299 x 299 (bilinear, "
    "antialiased, not rounded)",
    "inception-torchvision": "grey to three equal channels, levels to [-1, 1], 299 x 299 "
    "(bilinear, antialiased, not rounded)",
    "phantom": "as the classifier was trained",
}


def _fid(backbone: str) -> MetricSpec:
    return MetricSpec(
        name=f"fid-{backbone}",
        function=f"{_MODULE}.image_frechet:fid_{backbone.replace('-', '_')}",
        task_types=_TYPES,
        definition=(
            "squared Frechet distance between the Gaussians fitted to the features of real and of "
            "generated images, |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)), covariances divided by "
            "n - 1; biased upward, the more the fewer the images: values are comparable at equal "
            "numbers of real and of generated images only"
        ),
        higher_is_better=False,
        aggregation=(
            "one distance between two sets of images; interval: value +- Student's t times the "
            "standard error of a delete-group jackknife over 20 groups (fewer where there are "
            "fewer clusters) of whole patients and prompts, cut at 0; it leaves the bias in"
        ),
        unit="squared distance of features",
        normalisation=PREPROCESSING[backbone],
        backbone=BACKBONES[backbone],
        reference="Heusel et al. 2017; scipy.linalg.sqrtm; jackknife: Kott 2001",
    )


def _kid(backbone: str) -> MetricSpec:
    return MetricSpec(
        name=f"kid-{backbone}",
        function=f"{_MODULE}.image_kernel:kid_{backbone.replace('-', '_')}",
        task_types=_TYPES,
        definition=(
            "squared maximum mean discrepancy between the features of real and of generated "
            "images, kernel (x.y / D + 1)^3, unbiased: no image is paired with itself; all images, "
            "no subsets; may be negative"
        ),
        higher_is_better=False,
        aggregation=(
            "mean over pairs of images; interval: percentiles over resamples of whole patients "
            "and prompts, in which copies of one patient or prompt are never paired with each "
            "other; per finding: real images with it against images generated from prompts of "
            f"samples with it, 20 of each at least; {_THIRDS}, against the real images of these"
        ),
        unit="squared discrepancy",
        normalisation=PREPROCESSING[backbone],
        backbone=BACKBONES[backbone],
        reference="Binkowski et al. 2018; torchmetrics KernelInceptionDistance(subset_size=n)",
    )


def _ms_ssim(name: str, scales: str, size: str) -> MetricSpec:
    return MetricSpec(
        name=name,
        function=f"{_MODULE}.image_diversity:{name.replace('-', '_')}",
        task_types=_TYPES,
        definition=(
            "how alike images of one prompt are: multi-scale structural similarity of two "
            f"generated images of the same prompt, {scales}; Gaussian window of 11 with sigma 1.5, "
            "K1 .01, K2 .03; a negative mean contrast or similarity of a scale counts as 0; the "
            "coarsest scale over the whole map with mirrored borders, the others where the window "
            f"fits; {size}; lower is more diverse"
        ),
        higher_is_better=False,
        aggregation=(
            "mean over the pairs of up to four images of a prompt (of more, the four with the "
            "smallest SHA-256 of their pixels), then mean over prompts with two images or more; "
            "interval: percentiles over resamples of whole prompts"
        ),
        normalisation="uint8 levels, range 255",
        reference="Wang, Simoncelli and Bovik 2003; torchmetrics "
        "multiscale_structural_similarity_index_measure(normalize='relu')",
    )


FID: tuple[MetricSpec, ...] = tuple(_fid(name) for name in BACKBONES)
KID: tuple[MetricSpec, ...] = tuple(_kid(name) for name in BACKBONES)

MS_SSIM = _ms_ssim(
    "ms-ssim",
    "5 scales weighted .0448, .2856, .3001, .2363, .1333",
    "images of at least 176 px",
)
MS_SSIM_3 = _ms_ssim(
    "ms-ssim-3",
    "3 scales weighted .0448, .2856, .3001 divided by their sum",
    "images of 44 px to 175 px",
)

LABEL_AUROC = MetricSpec(
    name="label-auroc",
    function=f"{_MODULE}.image_fidelity:label_auroc",
    task_types=_TYPES,
    definition=(
        "label fidelity: area under the receiver operating characteristic of an independent "
        "classifier's scores of the generated images, against the labels of the samples whose "
        "prompts they were generated from; the classifier is torchxrayvision's with the user's "
        "weights, on phantoms one trained on the training split, or whatever gave the scores of "
        "the file; .5 for images that ignore their prompts"
    ),
    higher_is_better=True,
    aggregation=(
        "unweighted mean over labels with both classes; interval: percentiles over resamples of "
        f"whole prompts; {_THIRDS}"
    ),
    normalisation="of the classifier",
    reference="scikit-learn roc_auc_score(average='macro')",
)


def _alignment(k: int) -> MetricSpec:
    return MetricSpec(
        name=f"alignment-recall@{k}",
        function=f"{_MODULE}.image_alignment:alignment_recall_{k}",
        task_types=_TYPES,
        definition=(
            f"text-image alignment: whether an image's own prompt is among the {k} nearest of the "
            "tested prompts, by cosine in the space of an independent judge; equal prompts count "
            "as one, candidates of equal cosine by expectation; on phantoms the judge is trained "
            "on the training split, else its features are those of the file; falls with the "
            "number of prompts"
        ),
        higher_is_better=True,
        aggregation=(
            "mean over generated images; interval: percentiles over resamples of whole prompts, "
            f"the candidates held fixed; {_THIRDS}"
        ),
        normalisation="of the judge",
        reference="torchmetrics RetrievalHitRate(top_k)",
    )


def _image_recall(k: int) -> MetricSpec:
    return MetricSpec(
        name=f"image-recall@{k}",
        function=f"{_MODULE}.image_alignment:image_recall_{k}",
        task_types=_TYPES,
        definition=(
            f"image-image retrieval: whether the {k} nearest of the real test images hold one of "
            "the image's own prompt, or of an equal one, by cosine in the space of the judge of "
            "alignment; candidates of equal cosine by expectation; falls with the number of real "
            "images"
        ),
        higher_is_better=True,
        aggregation=(
            "mean over generated images whose prompt has a real image; interval: percentiles over "
            f"resamples of whole prompts, the candidates held fixed; {_THIRDS}"
        ),
        normalisation="of the judge",
        reference="torchmetrics RetrievalHitRate(top_k)",
    )


ALIGNMENT: tuple[MetricSpec, ...] = tuple(_alignment(k) for k in (1, 5, 10))
IMAGE_RECALL: tuple[MetricSpec, ...] = tuple(_image_recall(k) for k in (1, 5, 10))

MEMORISED_SHARE = MetricSpec(
    name="memorised-share",
    function=f"{_MODULE}.image_memory:memorised_share",
    task_types=_TYPES,
    definition=(
        "memorisation: share of generated images that are at least as near to a training image as "
        "the nearest 5 % of the real test images are (their 5th percentile, the least distance up "
        "to which 5 % of them go); distances to the nearest training image in the features of an "
        "independent judge, Euclidean; .05 for new real images, 1 for copies"
    ),
    higher_is_better=False,
    aggregation=(
        "mean over generated images; interval: percentiles over resamples of whole patients and "
        "prompts, the percentile anew in each; 20 real images at least"
    ),
    normalisation="of the judge",
    reference="numpy.quantile(method='inverted_cdf')",
)


def _report(name: str, function: str, definition: str, aggregation: str, source: str) -> MetricSpec:
    return MetricSpec(
        name=name,
        function=f"{_MODULE}.image_reports:{function}",
        task_types=_TYPES,
        definition=(
            f"what a generator of reports says of a generated image: {definition}, against the "
            "whole report that the prompt is the impression of; in runs the report is written by "
            "the task's writer or, where it has none, looked up: that of the training image "
            "nearest in the space of the judge of alignment"
        ),
        higher_is_better=True,
        aggregation=f"{aggregation}; interval: percentiles over resamples of whole prompts",
        normalisation="lower case, no punctuation but hyphens, full stops as words; no vocabulary, "
        "no cut",
        reference=source,
    )


REPORTS: tuple[MetricSpec, ...] = (
    _report(
        "report-finding-f1",
        "report_finding_f1",
        "F1 of the 14 findings that rules read as present, as finding-f1",
        "counts pooled over images and findings; per finding beside it",
        "medbench.data.report_findings",
    ),
    _report(
        "report-bleu-4",
        "report_bleu_4",
        "BLEU-4 of its words, as bleu-4",
        "corpus: counts summed over images",
        "pycocoevalcap 1.2",
    ),
    _report(
        "report-rouge-l",
        "report_rouge_l",
        "ROUGE-L of its words, as rouge-l",
        "mean over images",
        "pycocoevalcap 1.2",
    ),
)

#: Every image-generation metric.
IMAGE_GENERATION: tuple[MetricSpec, ...] = (
    *FID,
    *KID,
    MS_SSIM,
    MS_SSIM_3,
    LABEL_AUROC,
    *ALIGNMENT,
    *IMAGE_RECALL,
    MEMORISED_SHARE,
    *REPORTS,
)

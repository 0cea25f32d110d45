"""The trivial predictors scored beside every model, and what each does. Imports nothing heavy."""

from __future__ import annotations

#: Task type to its baselines: name to what it does.
BASELINES: dict[str, dict[str, str]] = {
    "classification": {
        "prior": "the class frequencies of the labels it may see, the same for every sample: it "
        "cannot rank (AUROC .5) and always decides for the most frequent class",
        "all-positive": "every label is called present in every sample: it cannot rank, and its "
        "F1 is what calling everything ill gives",
        "nearest-32": "the labels of the training sample nearest in 32 x 32 mean-slice pixels",
        "pixels-32": "logistic regression on the 32 x 32 mean-slice pixels, chosen and tested "
        "exactly as the linear probe of a model",
        "real-only": "where images are generated to train on: the same classifier, as many "
        "updates, on the real images alone",
    },
    "segmentation": {
        "all-empty": "no lesion anywhere: every image without a lesion scores 1",
        "nearest-32-mask": "the mask of the training image nearest in 32 x 32 pixels",
    },
    "report-generation": {
        "most-frequent-report": "the training report that occurs most often, for every study",
        "normal-report": "the most frequent training report in which no finding is read",
        "nearest-32-report": "the report of the training image nearest in 32 x 32 pixels",
    },
    "retrieval": {
        "chance": "every candidate ties: the expectation over their order",
    },
    "image-generation": {
        "real-versus-real": "the real test images in two halves, by patient: what a perfect "
        "generator reaches at half the size",
        "real": "the real test images themselves in the place of generated ones: how much the "
        "judges, and the task's writer of reports, can see at all",
        "nearest-prompt": "the training image whose report is nearest to the prompt, by cosine of "
        "TF-IDF of its words: looking up instead of drawing",
        "noise": "grey noise with the mean and spread of the training images: the worst",
    },
}


def names(kind: str) -> tuple[str, ...]:
    """The baselines of a task type."""
    return tuple(BASELINES[kind])

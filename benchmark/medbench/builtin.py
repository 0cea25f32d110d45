"""What the harness itself contributes, through the hooks that anybody may use."""

from __future__ import annotations

from collections.abc import Sequence

from medbench.evaluation.baseline_cards import BASELINES
from medbench.hookspecs import hookimpl
from medbench.metrics.cards import CLASSIFICATION
from medbench.metrics.image_cards import IMAGE_GENERATION
from medbench.metrics.report_cards import REPORT_GENERATION
from medbench.metrics.retrieval_cards import RETRIEVAL
from medbench.metrics.segmentation_cards import SEGMENTATION
from medbench.schemas.specs import DatasetSpec, MetricSpec, ModelSpec, Variant


@hookimpl
def medbench_datasets() -> Sequence[DatasetSpec]:
    return [
        DatasetSpec(
            name="covid-ct-md",
            title="COVID-CT-MD",
            description="Chest CT of 305 patients: 169 COVID-19, 60 community-acquired pneumonia, "
            "76 normal. Three folders of subjects, one DICOM series each.",
            reader="medbench.data.covid_ct_md:CovidCtMd",
            phantom="medbench.phantom.layouts.covid_ct_md:write",
            unit="volume",
            access="open, on Figshare: COVID-CT-MD",
            licence="as stated on Figshare; to be verified by the user",
            homepage="https://doi.org/10.1038/s41597-021-00900-3",
        ),
        DatasetSpec(
            name="iu-xray",
            title="IU X-Ray (Open-i)",
            description="Chest radiographs of 3,955 studies with English reports. The R2Gen "
            "folder (annotation.json, two views per study) or the raw Open-i folders of PNG "
            "images and report XMLs.",
            reader="medbench.data.iu_xray:IuXray",
            phantom="medbench.phantom.layouts.iu_xray:write",
            published={
                "Open-i": {"images": 7470, "studies": 3955},
                "R2Gen": {"images": 5910, "studies": 2955},
            },
            phantom_of="real: studies, images, reports, MeSH terms, views, age, sex where the "
            "report tells it; derived "
            "by rule: findings, the R2Gen-style split",
            access="open, from Open-i (openi.nlm.nih.gov)",
            licence="CC BY-NC-ND",
            homepage="https://openi.nlm.nih.gov",
        ),
        DatasetSpec(
            name="mimic-cxr",
            title="MIMIC-CXR-JPG",
            description="Chest radiographs of 227,835 studies with reports. JPG layout with "
            "split, chexpert and metadata tables and the report tree, or R2Gen's "
            "annotation.json.",
            reader="medbench.data.mimic_cxr:MimicCxr",
            phantom="medbench.phantom.layouts.mimic_cxr:write",
            published={
                "2.0.0": {
                    "images": 377110,
                    "studies": 227827,
                    "train": 368960,
                    "val": 2991,
                    "test": 5159,
                }
            },
            phantom_of="all drawn: ids outside the real ranges, labels from published "
            "prevalences; wording of reports from Open-i reports outside every evaluation split",
            access="PhysioNet, credentialed (physionet.org/content/mimic-cxr-jpg)",
            licence="PhysioNet Credentialed Health Data License 1.5.0",
            homepage="https://physionet.org/content/mimic-cxr-jpg/",
        ),
        DatasetSpec(
            name="chexpert",
            title="CheXpert",
            description="Chest radiographs of 64,540 patients with 14 labels, each present, "
            "absent, uncertain or not mentioned. v1.0 or v1.0-small.",
            reader="medbench.data.chexpert:CheXpert",
            phantom="medbench.phantom.layouts.chexpert:write",
            published={"v1.0": {"images": 223648, "train": 223414, "val": 234}},
            phantom_of="real: train rows (paths, labels, age, sex, views); drawn: valid.csv, "
            "from the prevalences of the train table",
            access="Stanford AIMI, research agreement",
            licence="Stanford University Dataset Research Use Agreement",
            homepage="https://stanfordmlgroup.github.io/competitions/chexpert/",
        ),
        DatasetSpec(
            name="chexpert-5x200",
            title="CheXpert 5x200",
            description="200 frontal images for each of five findings, each image positive for "
            "that one alone, from the train part of CheXpert: derived by rule, or read from an "
            "id list.",
            reader="medbench.data.chexpert_5x200:CheXpert5x200",
            phantom="medbench.phantom.layouts.chexpert_5x200:write",
            published={"GLoRIA": {"images": 1000}},
            phantom_of="real: train rows of CheXpert chosen by the rule",
            access="as CheXpert; official list from GLoRIA",
            licence="as CheXpert",
            homepage="https://github.com/marshuang80/gloria",
        ),
        DatasetSpec(
            name="mimic-5x200",
            title="MIMIC 5x200",
            description="200 frontal images for each of five findings, each image positive for "
            "that one alone, from MIMIC-CXR: derived by rule, or read from an id list.",
            reader="medbench.data.mimic_5x200:Mimic5x200",
            phantom="medbench.phantom.layouts.mimic_5x200:write",
            published={"MedCLIP": {"images": 1000}},
            phantom_of="all drawn, as mimic-cxr",
            access="as MIMIC-CXR",
            licence="as MIMIC-CXR",
            homepage="https://physionet.org/content/mimic-cxr-jpg/",
        ),
        DatasetSpec(
            name="nih-chestxray14",
            title="NIH ChestX-ray14",
            description="112,120 frontal chest radiographs of 30,805 patients with 14 "
            "text-mined findings and 984 boxes.",
            reader="medbench.data.nih_chestxray14:NihChestXray14",
            phantom="medbench.phantom.layouts.nih_chestxray14:write",
            published={
                "2017": {"images": 112120, "patients": 30805, "trainval": 86524, "test": 25596}
            },
            phantom_of="real: table rows (ids, findings, age, sex, view, several images per "
            "patient) and boxes; derived by rule: the official train_val and test lists, by "
            "patient in the published proportion",
            access="open, from NIH (nihcc.app.box.com)",
            licence="free to use with citation",
            homepage="https://nihcc.app.box.com/v/ChestXray-NIHCC",
        ),
        DatasetSpec(
            name="rsna-pneumonia",
            title="RSNA Pneumonia (stage 2)",
            description="26,684 frontal chest radiographs (DICOM) with boxes around lung "
            "opacities.",
            reader="medbench.data.rsna_pneumonia:RsnaPneumonia",
            phantom="medbench.phantom.layouts.rsna_pneumonia:write",
            published={
                "stage 2": {"images": 26684, "rows": 30227, "boxes": 9555, "positive": 6012}
            },
            phantom_of="real: table rows, boxes, age, sex, view, spacing; drawn: the detailed "
            "classes of negatives",
            access="Kaggle, competition rules (rsna-pneumonia-detection-challenge)",
            licence="Kaggle competition rules",
            homepage="https://www.kaggle.com/c/rsna-pneumonia-detection-challenge",
        ),
        DatasetSpec(
            name="siim-pneumothorax",
            title="SIIM-ACR Pneumothorax",
            description="12,047 frontal chest radiographs (DICOM) with run-length encoded "
            "pneumothorax masks.",
            reader="medbench.data.siim_pneumothorax:SiimPneumothorax",
            phantom="medbench.phantom.layouts.siim_pneumothorax:write",
            published={"stage 1": {"images": 12047, "rows": 12954, "negative": 9378}},
            phantom_of="real: image ids and masks; drawn: age, sex, view",
            access="Kaggle (siim-acr-pneumothorax-segmentation)",
            licence="Kaggle competition rules",
            homepage="https://www.kaggle.com/c/siim-acr-pneumothorax-segmentation",
        ),
        DatasetSpec(
            name="covidx",
            title="COVIDx CXR",
            description="Chest radiographs with label lists: normal, pneumonia, COVID-19 "
            "(version 9A), or negative and positive (9B).",
            reader="medbench.data.covidx:CovidX",
            phantom="medbench.phantom.layouts.covidx:write",
            published={"9A": {"train": 30130, "test": 400}, "9B": {"train": 30482, "test": 400}},
            phantom_of="all drawn: ids, classes in the published proportions, sources",
            access="Kaggle (andyczhao/covidx-cxr2) and the COVID-Net label lists",
            licence="as its sources state",
            homepage="https://github.com/lindawangg/COVID-Net",
        ),
        DatasetSpec(
            name="crystal-clean",
            title="Crystal Clean brain MRI",
            description="Brain MR slices in folders: normal, glioma, meningioma, pituitary "
            "adenoma.",
            reader="medbench.data.crystal_clean:CrystalClean",
            phantom="medbench.phantom.layouts.crystal_clean:write",
            published={"2022": {"images": 3264}},
            phantom_of="all drawn: classes in the published proportions",
            access="Kaggle (mohammadhossein77/brain-tumors-dataset)",
            licence="CC0",
            homepage="https://www.kaggle.com/datasets/mohammadhossein77/brain-tumors-dataset",
        ),
        DatasetSpec(
            name="image-text-pairs",
            title="Image-text pairs",
            description="Any CSV or Parquet table of image path, text, optional patient and split. "
            "Its phantom is RadCLIP's pre-training corpus: many anatomies and modalities.",
            reader="medbench.data.image_text_pairs:ImageTextPairs",
            phantom="medbench.phantom.layouts.image_text_pairs:write",
            unit="pair",
            access="your own",
        ),
        DatasetSpec(
            name="scenes",
            title="Scenes",
            description="Procedurally drawn coloured everyday scenes with captions: the general "
            "domain of the phantom world, on which base models are pre-trained.",
            reader="medbench.data.image_text_pairs:ImageTextPairs",
            phantom="medbench.phantom.layouts.scenes:write",
            unit="pair",
            access="rendered here",
            licence="Apache-2.0",
        ),
    ]


@hookimpl
def medbench_models() -> Sequence[ModelSpec]:
    return [
        ModelSpec(
            name="baseline",
            title="Baselines",
            description="The trivial predictors of a task, run alone: all of them, or one as "
            "baseline@NAME. They stand beside every model's result anyway.",
            cls="medbench.evaluation.baselines:baseline_scores",
            variants=tuple(
                Variant(name=name, description=what)
                for some in BASELINES.values()
                for name, what in some.items()
            ),
        )
    ]


@hookimpl
def medbench_metrics() -> Sequence[MetricSpec]:
    families = (CLASSIFICATION, REPORT_GENERATION, RETRIEVAL, SEGMENTATION, IMAGE_GENERATION)
    return [spec for family in families for spec in family]

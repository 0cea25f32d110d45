"""Texts of the pre-training corpus: "<region> <modality>, <info>" and short reports.

They describe appearances and never name a class of a task: a corpus that names the targets would
turn contrastive pre-training into label look-up. All wording is this project's own.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from medbench.phantom import abdomen, brain
from medbench.phantom.anatomy import LOBES, cage_scale, lobe_of
from medbench.phantom.cases import Cases
from medbench.phantom.draws import Floats, seed
from medbench.phantom.findings import (
    BAND,
    CONSOLIDATION,
    CRAZY_PAVING,
    GROUND_GLASS,
    NODULE,
    SCAR,
)
from medbench.phantom.patient import CAGE_PLANE

#: Words that name a target class of a task, in any case; no corpus text may hold one.
FORBIDDEN = (
    "covid", "coronavirus", "sars", "ncov", "pneumonia", "pneumonitis", "community", "acquired",
    "cap", "normal", "healthy",
)  # fmt: skip
_FORBIDDEN = re.compile(
    r"covid|coronavirus|\bsars|\bncov|pneumoni|\bcommunity\b|\bacquired\b|\bcap\b|\bnormal|\bhealthy\b",
    re.IGNORECASE,
)


def names_target(text: str) -> bool:
    """True when a text names a target class: the corpus is tested to hold none."""
    return _FORBIDDEN.search(text) is not None


class Words:
    """Picks wordings from one row's own stream."""

    def __init__(self, dataset: str, row: int, purpose: str) -> None:
        self._random = random.Random(seed(dataset, purpose, row))

    def pick(self, options: Sequence[str]) -> str:
        """One of the options."""
        return options[int(self._random.random() * len(options))]

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self._random.random() < probability


@dataclass(frozen=True)
class Spot:
    """A lesion as a text sees it: kind, disease or confounder, lobe, near the wall, z, radius."""

    kind: int
    marked: bool
    lobe: int
    peripheral: bool
    z: float
    reach: float


def spots(cases: Cases) -> list[list[Spot]]:
    """The lesions of every patient of a batch."""
    lesions = cases.findings.lesions
    own = cases.patients[lesions.owner]
    scale = cage_scale(own, lesions.centre[:, 2])
    edge = (lesions.centre[:, 0] / (own.cage[:, 0] * scale)).abs() ** CAGE_PLANE
    edge = edge + (lesions.centre[:, 1] / (own.cage[:, 1] * scale)).abs() ** CAGE_PLANE
    columns = (
        lesions.owner, lesions.kind, lesions.marked,
        lobe_of(cases.patients, lesions.owner, lesions.centre), edge > 0.55,
        lesions.centre[:, 2], lesions.radii[:, 2],
    )  # fmt: skip
    found: list[list[Spot]] = [[] for _ in cases.rows]
    for owner, *rest in zip(*(c.tolist() for c in columns), strict=True):
        found[owner].append(Spot(*rest))
    return found


_CT = ("Chest CT", "Lung CT", "Thorax CT", "CT of the chest", "Chest CT slice", "Axial chest CT")
_VOLUME = ("Chest CT", "Lung CT", "Thorax CT", "CT of the chest", "Chest CT volume")
_FRONTAL = ("Chest X-ray", "Frontal chest X-ray", "Chest radiograph", "Frontal chest radiograph")
_LATERAL = ("Lateral chest X-ray", "Chest X-ray, lateral view", "Lateral chest radiograph")
_CLEAR = (
    "clear lungs", "no focal opacity", "lungs are clear", "no focal lung lesion",
    "both lungs well aerated", "no consolidation or effusion", "unremarkable lung parenchyma",
)  # fmt: skip

_PHRASES: dict[int, tuple[str, ...]] = {
    GROUND_GLASS: (
        "ground glass opacities {where}", "ground glass opacity {where}",
        "patchy ground glass {where}", "hazy ground glass opacity {where}",
        "areas of ground glass attenuation {where}", "faint ground glass opacities {where}",
    ),
    CRAZY_PAVING: (
        "crazy paving {where}", "ground glass with septal thickening {where}",
        "ground glass opacities with a crazy paving pattern {where}",
    ),
    CONSOLIDATION: (
        "consolidation {where}", "dense consolidation {where}", "airspace consolidation {where}",
        "consolidation with air bronchograms {where}", "opacified lung {where}",
    ),
    NODULE: (
        "nodule {where}", "pulmonary nodule {where}", "round nodule {where}",
        "solid nodule {where}", "a well defined nodule {where}",
    ),
    BAND: (
        "atelectasis {where}", "plate-like atelectasis {where}", "linear atelectasis {where}",
        "volume loss with a band of atelectasis {where}",
    ),
    SCAR: (
        "scarring {where}", "fibrotic strands {where}", "old scars {where}", "linear scar {where}",
    ),
}  # fmt: skip
_EFFUSION = (
    "{side} pleural effusion",
    "pleural fluid on the {side}",
    "{side} sided pleural effusion",
)
_BOTH_EFFUSION = ("bilateral pleural effusions", "pleural effusion on both sides")
_AIR = ("{side} pneumothorax", "pneumothorax on the {side}", "free pleural air on the {side}")
_HEART = ("cardiomegaly", "enlarged heart", "enlarged cardiac silhouette", "the heart is enlarged")
_WET = (
    "pulmonary edema", "vascular congestion with perihilar haze", "interstitial edema",
    "widened vessels and septal lines in keeping with edema",
)  # fmt: skip
_NEGATIVES = ("no pleural effusion", "no pneumothorax", "no nodule", "no consolidation")


def _where(words: Words, lobes: set[int], peripheral: bool | None) -> str:
    """Where, in words: lobes, sides, periphery."""
    left, right = lobes & {0, 1}, lobes & {2, 3, 4}
    levels = {LOBES[k].split()[1] for k in lobes}
    if left and right:
        if levels == {"lower"}:
            place = words.pick(("in both lower lobes", "in the lower lobes", "at both lung bases"))
        elif levels <= {"upper", "middle"}:
            place = words.pick(("in both upper lobes", "in the upper zones of both lungs"))
        else:
            place = words.pick(("in both lungs", "bilaterally", "in several lobes of both lungs"))
    elif len(lobes) == 1:
        lobe = LOBES[next(iter(lobes))]
        place = words.pick(
            (f"in the {lobe} lobe", f"of the {lobe} lobe", f"in the {lobe.split()[0]} lung")
        )
    else:
        side = "left" if left else "right"
        place = words.pick(
            (f"in the {side} lung", f"on the {side}", f"in two lobes of the {side} lung")
        )
    if peripheral is None or words.chance(0.25):
        return place
    if peripheral:
        return words.pick(
            (f"{place}, peripheral", f"in the periphery {place}", f"subpleural {place}")
        )
    return words.pick((place, f"{place}, central", f"near the hilum {place}"))


def _lesion_phrases(words: Words, shown: Sequence[Spot], mention_minor: float) -> list[str]:
    """Phrases for the lesions that an image shows, main kinds first."""
    phrases: list[str] = []
    solid = False
    for kind in (CONSOLIDATION, CRAZY_PAVING, GROUND_GLASS, NODULE, BAND, SCAR):
        for marked in (True, False):
            some = [s for s in shown if s.kind == kind and s.marked == marked]
            if not some or (not marked and not words.chance(mention_minor)):
                continue
            if kind == GROUND_GLASS and solid and words.chance(0.35):
                phrases.append(
                    words.pick(("with a ground glass halo", "with surrounding ground glass"))
                )
                continue
            solid = solid or kind == CONSOLIDATION
            outer = sum(s.peripheral for s in some) > 0.6 * len(some)
            where = _where(words, {s.lobe for s in some}, None if kind == NODULE else outer)
            text = words.pick(_PHRASES[kind]).format(where=where)
            if kind == GROUND_GLASS and len(some) > 4 and words.chance(0.5):
                text = words.pick(
                    ("multifocal ", "widespread ", "diffuse patchy ")
                ) + text.removeprefix("patchy ")
            if kind == NODULE and not marked:
                text = "tiny " + text.removeprefix("a ")
            if kind == NODULE and len(some) > 1:
                text = text.replace("a well defined nodule", "well defined nodules")
                text = text.replace("nodule ", "nodules ")
            phrases.append(text)
    return phrases


def _global_phrases(words: Words, cases: Cases, index: int, parts: set[str]) -> list[str]:
    """Effusion, free air, heart and edema, of those ``parts`` that the image can show."""
    findings, phrases = cases.findings, []
    fluid, air = findings.effusion[index].tolist(), findings.pneumothorax[index].tolist()
    if "effusion" in parts and max(fluid) > 0:
        side = "right" if fluid[0] > 0 else "left"
        both = min(fluid) > 0
        phrases.append(
            words.pick(_BOTH_EFFUSION) if both else words.pick(_EFFUSION).format(side=side)
        )
    if "pneumothorax" in parts and max(air) > 0:
        phrases.append(words.pick(_AIR).format(side="right" if air[0] > 0 else "left"))
    if "heart" in parts and cases.name(index) == "cardiomegaly":
        phrases.append(words.pick(_HEART))
    if float(findings.congestion[index]) > 0:
        phrases.append(words.pick(_WET))
    return phrases


def _join(words: Words, head: str, phrases: list[str], shown: str) -> str:
    if not phrases:
        phrases = [words.pick(_CLEAR)]
    elif words.chance(0.2):
        stems = {"no pleural effusion": "pleural", "no pneumothorax": "pneumothorax",
                 "no nodule": "nodule", "no consolidation": "consolidation"}  # fmt: skip
        text = (" ".join(phrases) + " " + shown).lower()
        free = [n for n in _NEGATIVES if stems[n] not in text and "opacified" not in text]
        if free:
            phrases = [*phrases, words.pick(free)]
    if len(phrases) > 1 and words.chance(0.5):
        info = ", ".join(phrases[:-1]) + words.pick((" and ", ", ", "; ")) + phrases[-1]
    else:
        info = ", ".join(phrases)
    if words.chance(0.25):
        return f"{head}. {info[0].upper()}{info[1:]}."
    return f"{head}, {info}"


def describe_slice(
    dataset: str, cases: Cases, lesions: Sequence[Spot], index: int, z: float, number: int
) -> str:
    """Text of one CT slice: only what this slice shows.

    Args:
        dataset: part of the seed of the wording.
        cases, index: the patient.
        lesions: the patient's lesions.
        z: height of the slice in mm.
        number: number of the slice, part of the seed.
    """
    words = Words(dataset, cases.rows[index], f"slice-text-{number}")
    shown = [s for s in lesions if abs(s.z - z) < 0.75 * s.reach]
    phrases = _lesion_phrases(words, shown, 0.3)
    parts = set()
    top = max((cases.patients.dome[index, :, 2] + cases.patients.dome_radii[index, :, 2]).tolist())
    if z < top + 45:
        parts.add("effusion")
    if z > top + 20:
        parts.add("pneumothorax")
    if abs(z - float(cases.patients.heart[index, 2])) < 35:
        parts.add("heart")
    phrases += _global_phrases(words, cases, index, parts)
    return _join(words, words.pick(_CT), phrases, cases.name(index))


def describe_volume(dataset: str, cases: Cases, lesions: Sequence[Spot], index: int) -> str:
    """Text of a whole CT volume."""
    words = Words(dataset, cases.rows[index], "volume-text")
    phrases = _lesion_phrases(words, lesions, 0.35)
    phrases += _global_phrases(words, cases, index, {"effusion", "pneumothorax", "heart"})
    return _join(words, words.pick(_VOLUME), phrases, cases.name(index))


def describe_radiograph(
    dataset: str, cases: Cases, lesions: Sequence[Spot], index: int, view: str
) -> str:
    """Text of a radiograph: what a projection can show, so no tiny nodules and no faint scars."""
    words = Words(dataset, cases.rows[index], f"{view}-text")
    phrases = _lesion_phrases(words, [s for s in lesions if s.marked], 0.0)
    phrases += _global_phrases(words, cases, index, {"effusion", "pneumothorax", "heart"})
    hazy = words.pick(("hazy opacities", "ground glass opacities"))
    plain = [phrase.replace("ground glass opacities", hazy) for phrase in phrases]
    head = words.pick(_FRONTAL if view == "frontal" else _LATERAL)
    return _join(words, head, plain, cases.name(index))


_BRAIN = {
    "clear": ("no focal lesion", "no mass or bleed", "unremarkable brain", "no acute finding"),
    "glioma": (
        "glioma with surrounding edema {side}",
        "ring enhancing tumor {side}",
        "{side} intra-axial glioma",
    ),
    "meningioma": (
        "meningioma {side}",
        "extra-axial mass {side}, meningioma",
        "dural based tumor {side}",
    ),
    "metastases": ("multiple brain metastases", "several enhancing lesions, metastases"),
    "haemorrhage": (
        "intracerebral hemorrhage {side}",
        "hematoma {side}",
        "parenchymal bleed {side}",
    ),
    "infarct": ("infarct {side}", "territorial infarction {side}", "ischemic stroke {side}"),
    "white matter": ("white matter lesions", "small vessel disease", "scattered white matter foci"),
    "hydrocephalus": ("hydrocephalus", "dilated lateral ventricles", "enlarged ventricles"),
    "atrophy": ("brain atrophy", "widened sulci and atrophy", "cerebral volume loss"),
}
_ABDOMEN = {
    "clear": ("no focal lesion", "unremarkable abdominal organs", "no acute finding"),
    "liver lesion": ("liver lesion", "hypodense liver lesions", "focal lesion in the liver"),
    "liver cyst": ("liver cyst", "simple hepatic cyst", "cyst in the liver"),
    "kidney cyst": (
        "{side} renal cyst",
        "cyst of the {side} kidney",
        "simple cyst in the {side} kidney",
    ),
    "kidney stone": ("{side} kidney stone", "stone in the {side} kidney", "{side} renal calculus"),
    "gallstone": ("gallstone", "stone in the gallbladder", "cholelithiasis"),
    "ascites": ("ascites", "free abdominal fluid", "fluid around the liver and spleen"),
    "splenomegaly": ("splenomegaly", "enlarged spleen"),
    "hydronephrosis": ("{side} hydronephrosis", "dilated {side} renal pelvis"),
    "fatty liver": ("fatty liver", "hepatic steatosis", "diffuse low attenuation of the liver"),
}


def describe_brain(dataset: str, brains: brain.Brains, index: int) -> str:
    """Text of a brain MR slice."""
    words = Words(dataset, brains.rows[index], "brain-text")
    sequence = brain.SEQUENCES[int(brains.sequence[index])]
    head = words.pick(
        (
            "Brain MRI",
            "Head MRI",
            "MRI of the brain",
            f"Brain MRI {sequence}",
            f"{sequence} brain MRI",
        )
    )
    side = "left" if brains.side[index] > 0 else "right"
    where = words.pick((f"in the {side} hemisphere", f"on the {side}", f"{side} sided"))
    info = words.pick(_BRAIN[brain.FINDINGS[int(brains.finding[index])]])
    if info.startswith("{side}"):
        where = side
    return f"{head}, {info.format(side=where)}"


def describe_abdomen(dataset: str, slices: abdomen.Abdomens, index: int) -> str:
    """Text of an abdomen CT slice."""
    words = Words(dataset, slices.rows[index], "abdomen-text")
    plain = ("Abdomen CT", "Abdominal CT", "CT of the abdomen")
    contrast = ("Contrast enhanced abdomen CT", "Abdomen CT with contrast")
    head = words.pick((*plain, *contrast) if bool(slices.contrast[index]) else plain)
    side = "left" if slices.side[index] > 0 else "right"
    info = words.pick(_ABDOMEN[abdomen.FINDINGS[int(slices.finding[index])]])
    return f"{head}, {info.format(side=side)}"


def lesion_heights(cases: Cases, lesions: Sequence[Spot], index: int, draws: Floats) -> list[float]:
    """Heights of slices worth showing: half through marked lesions, half anywhere in the lungs."""
    patients = cases.patients
    top = float(patients.cage_z[index] + patients.cage[index, 2]) - 22
    bottom = float((patients.dome[index, :, 2] + patients.dome_radii[index, :, 2]).amin()) - 28
    found = [s.z for s in lesions if s.marked]
    heights = []
    for number, value in enumerate(draws.tolist()):
        if found and number % 2 == 0:
            heights.append(min(max(found[int(value * len(found))], bottom), top))
        else:
            heights.append(bottom + value * (top - bottom))
    return sorted(heights, reverse=True)

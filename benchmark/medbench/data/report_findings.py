"""Findings that a radiology report states, read by rules.

The 14 names of CheXpert's labels; each is positive (1), negative (0), uncertain (-1) or not
mentioned (None). The rules, in order:

1. A report is cut into sentences, and these into clauses at "but", "however", "except" and such.
2. A clause mentions a finding by one of the terms in `TERMS`. Heart and mediastinum are mentioned
   by their state: "heart size is normal" is a negative cardiomegaly, "the heart is enlarged" a
   positive one. Clear lungs are a negative lung opacity, sharp costophrenic angles a negative
   pleural effusion.
3. A mention is negative behind a negation in its clause ("no", "without", "free of", "negative
   for"), up to a comma that begins another statement, or before one ("is not seen", "has
   resolved"). "No change in", "not only" and such negate nothing.
4. Else it is uncertain behind "may represent", "possible", "likely", "cannot exclude", "versus" and
   such, or before "cannot be excluded", "is possible".
5. Else it is positive. Over all mentions, positive outweighs uncertain, and uncertain negative.
6. ``no-finding`` is 1 when no other finding except support devices is positive or uncertain, and
   the report says something at all; else None, as in CheXpert, where it is never 0.

What it cannot do: co-reference ("it has resolved"), history told in the same words as findings,
negation across sentences, misspellings beyond a few that are frequent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

Side = Literal["left", "right", "both"]

#: Names of the labels, in CheXpert's order.
FINDINGS = (
    "no-finding", "enlarged-cardiomediastinum", "cardiomegaly", "lung-opacity", "lung-lesion",
    "edema", "consolidation", "pneumonia", "atelectasis", "pneumothorax", "pleural-effusion",
    "pleural-other", "fracture", "support-devices",
)  # fmt: skip

#: Terms that mention a finding: regular expressions over lower-case text.
TERMS: Mapping[str, str] = {
    "cardiomegaly": r"cardiomegal\w*|cardiac enlargement|enlargement of the (?:heart|cardiac \w+)",
    "enlarged-cardiomediastinum": (
        r"mediastinal (?:widening|enlargement|prominence)|(?:widening|enlargement|prominence) of "
        r"the (?:upper |superior )?(?:cardio)?mediastin\w+"
    ),
    "lung-opacity": (
        r"opacit\w*|opacif\w*|infiltrat\w*|air[ -]?space (?:disease|process|consolidation)|"
        r"interstitial (?:markings?|prominence|pattern|disease|thickening|changes?|infiltrat\w+|"
        r"opacit\w+|lung disease)|reticula\w*|haz(?:e|y|iness)|ground[ -]glass|"
        r"(?:increased|patchy|focal|parenchymal|airspace|basilar|lung|pulmonary|lobe|streaky) "
        r"densit(?:y|ies)"
    ),
    "lung-lesion": (
        r"nodul(?:e|es|ar\b(?! (?:contour|margin)))|nodules?\b|(?<!body )mass(?:es)?\b(?! effect)|"
        r"tumou?rs?|neoplas\w*|metasta\w*|malignan\w*|carcinoma|"
        r"(?:lung|pulmonary|cavitary|parenchymal|lobe) lesions?"
    ),
    "edema": (
        r"(?<!tissue )(?<!pedal )(?<!extremity )o?edema\w*|"
        r"(?<!history of )(?:heart failure|\bchf\b)|"
        r"(?:vascular|venous|pulmonary|interstitial|hilar) (?:congestion|engorgement)"
        r"(?! (?:appears? )?(?:is )?within (?:normal )?limits)|"
        r"fluid overload|cephali[sz]ation|kerley"
    ),
    "consolidation": r"consolidat\w*",
    "pneumonia": (
        r"(?:broncho)?pneumoni(?:a|as|c|tis)\b|(?<!granulomatous )infecti(?:on|ons|ous)\b"
        r"(?! (?:of|control))"
    ),
    "atelectasis": (
        r"atelecta\w*|(?:lobe|lobar|lung|segmental) collapse|"
        r"collapse of the (?:left|right|lung|\w+ lobe)"
    ),
    "pneumothorax": r"(?:hydro|hemo|tension )?pneumo?thora\w*|\bptx\b",
    "pleural-effusion": (
        r"(?<!pericardial )(?<!joint )(?:effusions?|efffusion\w*)\b|pleural (?:fluid|collection)|"
        r"hydro(?:pneumo)?thorax|hemo(?:pneumo)?thorax"
    ),
    "pleural-other": (
        r"pleural[ -](?:based )?(?:thickening|scar\w*|plaques?|calcif\w*|fibrosis|capping)|"
        r"pleuro?-?parenchymal scar\w*|fibrothorax|apical cap(?:ping)?\b|thickening of the pleura|"
        r"calcified pleura\w*"
    ),
    "fracture": r"fractur\w*",
    "support-devices": (
        r"pacemakers?|pacer\b|pacing (?:wires?|leads?|device)|defibrillator\w*|\ba?icd\b|"
        r"(?<!without )catheters?|\bpicc\b|"
        r"(?:central (?:venous )?|picc |subclavian |jugular |arterial )lines?\b|port-?a-?caths?|"
        r"mediports?|infuse-?a-?ports?|"
        r"(?:chest|subclavian|jugular|right|left)[ -](?:sided )?port\b|"
        r"(?:endotracheal|tracheostomy|nasogastric|orogastric|enteric|feeding|chest|thoracostomy|"
        r"ng|et|og|gastrostomy|drainage) tubes?\b|\bett\b|tracheostomy|dobb?hoff|swan[ -]ganz|"
        r"balloon pump|\bleads?\b|electrodes?|\bstents?\b|prosthetic (?:\w+ )?valve|"
        r"valve (?:prosthesis|replacement)|stimulator|support devices?|monitoring devices?|"
        r"spinal rods?|(?:fixation|surgical|orthopa?edic) (?:hardware|plates?|screws?)"
    ),
}

#: Structures that are mentioned by their state, and the finding that an abnormal state is.
_STATES = (
    (
        "cardiomegaly",
        r"heart(?: size| silhouette| shadow| and mediastinum)?\b"
        r"(?! (?:failure|rate|disease|valve))|"
        r"card(?:iac|io) (?:silhouette|size|shadow|contours?|heart)|cardiac and mediastinal|"
        r"cardiac\b(?= (?:is|and|appears|within))",
    ),
    (
        "enlarged-cardiomediastinum",
        r"(?:cardio-?)?mediastin(?:um|al (?:contours?|silhouettes?|structures|shadow|borders?|"
        r"configuration|width))|cardiac and mediastinal|heart and mediastinum|"
        r"(?:cardio-?)?mediastinal\b(?= (?:and|is|are|appears|silhou))",
    ),
)
_LARGE = (
    r"\b(?:enlarged|enlargement|widened|prominen\w+|increased|dilated|generous)|"
    r"\b(?:is|appears|remains) (?:\w+ )?(?:large|big)\b"
)
_BORDER = (
    r"upper limits? of normal|upper normal|borderline|top[ -]normal|at the upper|high normal|"
    r"mildly prominent|slightly prominent|accentuated|exaggerated"
)
_NORMAL = (
    r"normal|unremarkable|within limits|not (?:significantly |grossly )?(?:enlarged|widened)|"
    r"not dilated|nonenlarged|non-enlarged|without enlargement"
)
_STATE = re.compile(rf"(?P<border>{_BORDER})|(?P<normal>{_NORMAL})|(?P<large>{_LARGE})")
#: Says that nothing has changed, so that a state further on may be another structure's.
_SAME = re.compile(r"\b(?:stable|unchanged|similar|no (?:\w+ )?change)\b")
_STATE_SUBJECTS = tuple((name, re.compile(subject)) for name, subject in _STATES)
#: A state stands directly before its structure ("normal heart size", "enlarged heart").
_STATE_BEFORE = re.compile(
    rf"\b(?:(?P<border>{_BORDER})|(?P<normal>normal|unremarkable)|(?P<large>{_LARGE}|increase))"
    r"(?: in)?(?: size)?(?: of| and)?(?: the)?(?: \w+)? ?$"
)
#: Statements whose words name no finding but deny one.
_DENIALS = (
    (
        "lung-opacity",
        re.compile(
            r"(?:lungs?|lung (?:fields|zones|parenchyma|volumes|xxxx)|bilaterally)\b[^.;]{0,40}?"
            r"\b(?:are|is|appear|appears|remain|remains|otherwise|grossly)?\s*(?<!not )"
            r"\b(?:clear|normally aerated)\b(?! of)|"
            r"clear (?:lungs?|bilaterally|lung (?:fields|zones))|no (?:acute )?(?:parenchymal |"
            r"airspace |pulmonary )?(?:abnormality|disease) (?:in|within|of) the lungs?"
        ),
    ),
    (
        "pleural-effusion",
        re.compile(
            r"(?:costophrenic (?:angles?|sulci|sulcus|recess\w*)|pleural spaces?|cp angles?)"
            r"[^.;,]{0,30}\b(?:clear|sharp|preserved|unremarkable|normal|intact)|"
            r"(?:sharp|clear|normal) costophrenic (?:angles?|sulci)"
        ),
    ),
)

_SENTENCE = re.compile(r"[.;?!](?=\s|$)|\n\s*\n|(?<=\w)\.(?=[A-Z][a-z])|\s(?=\d{1,2}\.\s)")
_CLAUSE = re.compile(
    r"\b(?:but|however|although|though|except|aside from|apart from|other than|otherwise|"
    r"nevertheless|yet|whereas|while)\b"
)
#: Words with "no" or "not" that negate nothing, blanked before negations are looked for.
_NOT_NEGATION = re.compile(
    r"\bno (?:\w+ ){0,2}?(?:change|changes|increase|decrease|improvement|progression|interval|"
    r"difference)\b(?: (?:in|of|from|since|to))?|\bnot (?:only|significantly changed|changed|"
    r"increased|decreased|well|completely|entirely|optimally|definitely changed|included)\b|"
    r"\bwithout (?:\w+ )?change\b|\bno longer (?:enlarged)\b"
)
_NEGATION = re.compile(
    r"\bno\b|\bnot\b(?= (?:have|show|demonstrate|identify|see|appreciate|appear|a|an)\b)|"
    r"\bwithout\b|"
    r"\bnegative for\b|\bfree of\b|\bfree from\b|\bclear of\b|\babsence of\b|\black of\b|"
    r"\bdenies\b|\brather than\b|\bneither\b|\bnor\b|\bresolution of\b|\bresolved\b(?= \w)|"
    r"\bdevoid of\b|\bremoval of\b"
)
_NEGATED_AFTER = re.compile(
    r"\b(?:is|are|was|were|has|have|been|being|can|could)?\s*(?:\w+ly )?"
    r"(?:not (?:\w+ly )?(?:seen|present|identified|evident|visuali[sz]ed|demonstrated|noted|"
    r"appreciated|apparent|detected|suspected|visible|observed)|"
    r"(?:has|have) (?:\w+ly )?(?:resolved|cleared|disappeared)|(?:is|are) absent|"
    r"(?:has|have) been (?:\w+ )?removed|"
    r"(?:is|are) (?:\w+ly )?(?:excluded|ruled out)|no longer (?:\w+ly )?"
    r"(?:seen|present|identified|evident|visuali[sz]ed|visible))"
)
#: Where the reach of a negation ends: a comma that begins another statement.
_REACH = re.compile(
    r",(?= (?:the|there|heart|lungs?|with|which|suggest\w*|consistent|compatible|likely|possibl\w+|"
    r"probabl\w+|status post)\b)|"
    # A list that ends with "or" is one statement, whatever adjectives its items have.
    r",(?= (?:mild\w*|moderate\w*|severe|small|stable|unchanged|a|an|right|left|bilateral|minimal|"
    r"slight\w*)\b)(?!.*\b(?:or|nor)\b)|"
    r"\b(?:and|with) (?:there (?:is|are)|the|a|mild|moderate|stable|unchanged|small)\b|"
    r"\bthere (?:is|are|has|have)\b|\bconsistent with\b|\bcompatible with\b|\bis (?:seen|noted|"
    r"present|enlarged)\b|\bto suggest\b(?=$)|\bhas (?:increased|developed)\b|\bsecondary to\b|"
    r"\bdue to\b|\bstatus post\b"
)
_UNCERTAIN = re.compile(
    r"\b(?:may|might|could|can)\b(?! not\b)|\bpossib(?:le|ly|ility)\b|\bprobab(?:le|ly)\b|"
    r"\blikely\b|"
    r"\bsuspicious\b|\bsuspicion\b|\bsuspect(?:ed)?\b|\bsuggest\w*\b|\bconcern\w*\b|\bquestion\w*\b|"
    r"\b(?:cannot|can not|can't|not|difficult to|unable to) (?:\w+ly |be )?(?:exclude|rule out)\b|"
    r"\bversus\b|\bvs\b|\bconsider\w*\b|\bdifferential\b|\bworrisome\b|\bequivocal\b|\bperhaps\b|"
    r"\bpresum\w+\b|\bfavou?r(?:s|ed)?\b|\braise\b|\bapparent\b|\bpotential(?:ly)?\b|\bindetermin\w+"
)
_UNCERTAIN_AFTER = re.compile(
    r"(?:\b(?:is|are|was|were) )?\b(?:cannot|can not|could not|not|difficult to|hard to) "
    r"(?:\w+ly )?(?:be )?(?:\w+ly )?(?:excluded?|ruled out)|"
    r"\b(?:is|are|was|remains?) (?:\w+ ){0,2}?(?:possible|likely|questioned|questionable|probable|"
    r"considered|possibility|consideration|concern)\b|\bsuspected\b|\bnot excluded\b|"
    r"\b(?:is|are) in the differential|"
    r"\bmay (?:be|also be) (?:present|considered)|\bversus\b|\bvs\b"
)
_LEFT, _RIGHT = re.compile(r"\bleft\b|\blingula\w*"), re.compile(r"\bright\b")
_BOTH = re.compile(r"\bbilateral\w*|\bboth\b|\bbibasi\w+|\bbiapical\b|\bdiffuse\w*")
_MENTIONS = tuple((name, re.compile(pattern)) for name, pattern in TERMS.items())
#: A sentence without any of these words mentions nothing, whatever else it says.
_ANY = re.compile("|".join(TERMS.values()))
#: Words after which a finding is named without being stated.
_UNSTATED = re.compile(
    r"\b(?:(?:evaluat\w+|assess\w*|correlat\w+|exam\w*|sensitiv\w+|follow-?up|history|risk|signs?|"
    r"limited|technique|search) (?:for|of|with)|rule out|r/o|prior|previous|previously "
    r"(?:seen|noted|described|identified|demonstrated))(?: \w+)?(?: \w+)? $"
)
_NOWHERE: frozenset[str] = frozenset()
_VERB = re.compile(r"\b(?:is|are|was|were|has|have|there)\b")


@dataclass(frozen=True, slots=True)
class ReportFindings:
    """What a report states.

    Attributes:
        labels: each of `FINDINGS` to 1, 0, -1 (uncertain) or None (not mentioned).
        sides: side of those that are positive or uncertain, where it is said.
    """

    labels: Mapping[str, int | None]
    sides: Mapping[str, Side] = field(default_factory=dict)


def read_report(text: str) -> ReportFindings:
    """Findings stated in a report or in any piece of one. Any capitals, any line breaks."""
    found: dict[str, set[int]] = {}
    sides: dict[str, set[str]] = {}
    for sentence in _SENTENCE.split(text):
        if sentence and not sentence.isspace():
            for clause in _CLAUSE.split(" ".join(sentence.lower().split())):
                for name, state, where in _mentions(clause):
                    found.setdefault(name, set()).add(state)
                    sides.setdefault(name, set()).update(where)
    return _summary(found, sides, bool(text.strip()))


#: Heads of the MeSH terms with which Open-i's reports were indexed by hand, and their findings.
MESH: Mapping[str, tuple[str, ...]] = {
    "pulmonary atelectasis": ("atelectasis",),
    "cardiomegaly": ("cardiomegaly",),
    "pleural effusion": ("pleural-effusion",),
    "hemothorax": ("pleural-effusion",),
    "pneumothorax": ("pneumothorax",),
    "hydropneumothorax": ("pneumothorax", "pleural-effusion"),
    "hemopneumothorax": ("pneumothorax", "pleural-effusion"),
    "pneumonia": ("pneumonia",),
    "consolidation": ("consolidation",),
    "pulmonary edema": ("edema",),
    "pulmonary congestion": ("edema",),
    "heart failure": ("edema",),
    "opacity": ("lung-opacity",),
    "airspace disease": ("lung-opacity",),
    "infiltrate": ("lung-opacity",),
    "nodule": ("lung-lesion",),
    "mass": ("lung-lesion",),
    "fractures, bone": ("fracture",),
    "catheters, indwelling": ("support-devices",),
    "implanted medical device": ("support-devices",),
    "medical device": ("support-devices",),
    "tube, inserted": ("support-devices",),
    "stents": ("support-devices",),
}
#: Heads that are a finding only with certain qualifiers.
_QUALIFIED = (
    (("cardiac shadow", "heart"), ("enlarged",), "cardiomegaly"),
    (("thickening",), ("pleura",), "pleural-other"),
    (("mediastinum",), ("enlarged", "prominent", "widened"), "enlarged-cardiomediastinum"),
)


def read_mesh(terms: Iterable[str]) -> ReportFindings:
    """Findings that MeSH terms such as "Pleural Effusion/right/small" name; all are positive.

    Terms tell what was found, never what was not: all other labels are None.
    """
    found: dict[str, set[int]] = {}
    sides: dict[str, set[str]] = {}
    for term in terms:
        head, *qualifiers = (part.strip() for part in term.lower().split("/"))
        names = [*MESH.get(head, ())]
        names += [
            name
            for heads, needed, name in _QUALIFIED
            if head in heads and not set(needed).isdisjoint(qualifiers)
        ]
        named = {side for side in ("left", "right") if side in qualifiers}
        for name in names:
            found.setdefault(name, set()).add(1)
            both = {"left", "right"} if "bilateral" in qualifiers else named
            sides.setdefault(name, set()).update(both)
    return _summary(found, sides, said=False)


def with_mesh(report: ReportFindings, terms: Iterable[str]) -> ReportFindings:
    """A report's findings, completed by those of its MeSH terms that the text does not mention."""
    mesh = read_mesh(terms)
    labels = dict(report.labels)
    sides = dict(report.sides)
    for name in FINDINGS[1:]:
        if labels[name] is None and mesh.labels[name]:
            labels[name] = 1
        if labels[name] and name not in sides and name in mesh.sides:
            sides[name] = mesh.sides[name]
    ill = any(labels[name] for name in FINDINGS[1:] if name != "support-devices")
    labels["no-finding"] = None if ill else report.labels["no-finding"]
    return ReportFindings(labels, sides)


# Reports share most of their clauses, and generated ones nearly all.
@lru_cache(maxsize=1 << 16)
def _mentions(clause: str) -> tuple[tuple[str, int, frozenset[str]], ...]:
    """Each mention of a clause: finding, state, and its sides where it is not negative."""
    found: list[tuple[str, int, frozenset[str]]] = []
    for name, subject in _STATE_SUBJECTS:
        for match in subject.finditer(clause):
            state = _state(clause, match)
            if state is not None:
                found.append((name, state, _NOWHERE))
    for name, denial in _DENIALS:
        if denial.search(clause):
            found.append((name, 0, _NOWHERE))
    if not _ANY.search(clause):
        return tuple(found)
    cues = _Cues(clause)
    for name, pattern in _MENTIONS:
        for match in pattern.finditer(clause):
            state = cues.state(match.start(), match.end())
            if state == 0:
                found.append((name, 0, _NOWHERE))
            elif not _UNSTATED.search(clause, 0, match.start()):
                found.append((name, state, _side(clause, match.start(), match.end())))
    return tuple(found)


class _Cues:
    """Stretches of one clause that are negated or uncertain."""

    def __init__(self, clause: str) -> None:
        blanked = _NOT_NEGATION.sub(lambda match: "_" * len(match[0]), clause)
        self.negated = [
            (match.end(), _reach(clause, match.end())) for match in _NEGATION.finditer(blanked)
        ]
        self.negated += [
            (_statement(clause, match.start()), match.start())
            for match in _NEGATED_AFTER.finditer(blanked)
        ]
        self.uncertain = [(match.end(), len(clause)) for match in _UNCERTAIN.finditer(clause)]
        self.uncertain += [
            (_statement(clause, match.start()), match.start())
            for match in _UNCERTAIN_AFTER.finditer(clause)
        ]

    def state(self, start: int, end: int) -> int:
        """1, 0 or -1 for the mention between ``start`` and ``end``."""
        if any(a <= start and end <= b for a, b in self.negated):
            return 0
        return -1 if any(a <= start and end <= b for a, b in self.uncertain) else 1


def _reach(clause: str, start: int) -> int:
    end = _REACH.search(clause, start)
    return end.start() if end else len(clause)


def _statement(clause: str, end: int) -> int:
    """Where the statement that ends with a cue begins: behind the last verb before it."""
    start = 0
    for verb in _VERB.finditer(clause, 0, end):
        start = verb.end()
    return start


def _state(clause: str, subject: re.Match[str]) -> int | None:
    before = _STATE_BEFORE.search(clause, 0, subject.start())
    end = min(len(clause), subject.end() + 90)
    same = _SAME.search(clause, subject.end(), end)
    match = before or _STATE.search(clause, subject.end(), same.end() + 30 if same else end)
    if match is None:
        return None
    return {"border": -1, "normal": 0, "large": 1}[match.lastgroup or ""]


def _side(clause: str, start: int, end: int) -> frozenset[str]:
    """Sides named near a mention: those before it in its statement, else those behind it."""
    for stretch in (clause[max(0, start - 60) : end], clause[end : end + 60]):
        if _BOTH.search(stretch):
            return frozenset(("left", "right"))
        named = {
            side
            for side, pattern in (("left", _LEFT), ("right", _RIGHT))
            if pattern.search(stretch)
        }
        if named:
            return frozenset(named)
    return _NOWHERE


def _summary(
    found: Mapping[str, set[int]], sides: Mapping[str, set[str]], said: bool
) -> ReportFindings:
    labels: dict[str, int | None] = dict.fromkeys(FINDINGS)
    for name, states in found.items():
        labels[name] = 1 if 1 in states else -1 if -1 in states else 0
    ill = any(labels[name] for name in FINDINGS[1:] if name != "support-devices")
    labels["no-finding"] = 1 if said and not ill else None
    named: dict[str, Side] = {}
    for name, which in sides.items():
        if labels[name] and which:
            named[name] = "both" if len(which) == 2 else "left" if "left" in which else "right"
    return ReportFindings(labels, named)

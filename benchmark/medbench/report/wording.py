"""Reference and generated report side by side: the phrases that both have, marked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from markupsafe import Markup, escape

_TOKEN = re.compile(r"\S+")
_EDGES = re.compile(r"^[^\w]+|[^\w]+$")
_STOP = re.compile(r"[.!?;:][\"')\]]*$")

#: A token's place in its text, its word ("" for punctuation), and the number of its sentence.
Token = tuple[int, int, str, int]


def tokens(text: str) -> list[Token]:
    """What white space separates, in lower case and without punctuation at its edges."""
    found, sentence = [], 0
    for match in _TOKEN.finditer(text):
        word = _EDGES.sub("", match[0]).lower()
        found.append((match.start(), match.end(), word, sentence))
        sentence += bool(_STOP.search(match[0]))
    return found


def phrases(text: str) -> set[tuple[str, str]]:
    """Pairs of words that follow each other within a sentence."""
    return {(a[2], b[2]) for a, b in _pairs(text)}


def shared(text: str, other: str) -> list[tuple[int, int]]:
    """Spans of ``text``, from and to, of two or more words in a row that ``other`` has too, in
    whatever order the two tell things; ascending, apart from each other."""
    known = phrases(other)
    spans: list[tuple[int, int]] = []
    for first, second in _pairs(text):
        if (first[2], second[2]) not in known:
            continue
        if spans and spans[-1][1] == first[1]:
            spans[-1] = (spans[-1][0], second[1])
        else:
            spans.append((first[0], second[1]))
    return spans


def marked(text: str, other: str) -> Markup:
    """``text`` as HTML, what it shares with ``other`` in ``<mark>``; whatever it holds is text."""
    parts, end = [], 0
    for start, stop in shared(text, other):
        parts += [escape(text[end:start]), Markup("<mark>{}</mark>").format(text[start:stop])]
        end = stop
    return Markup("").join([*parts, escape(text[end:])])


def _pairs(text: str) -> Sequence[tuple[Token, Token]]:
    worded = [token for token in tokens(text) if token[2]]
    return [(a, b) for a, b in pairwise(worded) if a[3] == b[3]]

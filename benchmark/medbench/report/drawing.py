"""Drawings as inline SVG that follow the page: its font, its colours, light or dark.

matplotlib draws with stand-in colours; what it writes is then taken apart and put together again:
colours become CSS variables, sizes a ``viewBox``, so that a drawing fits a telephone; ids are made
unique on the page; and nothing that names a date, a program or another document stays.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

#: Colours that colour-blind readers tell apart (Okabe and Ito 2008), and grey.
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7e")
LINES = ("-", "--", "-.", ":")
MARKERS = ("o", "^", "s", "D", "v", "P", "X")
INK, MUTED, FAINT, PAPER = "#000001", "#606061", "#d0d0d1", "#fffffe"

_VARIABLES = {
    INK: "currentColor",
    MUTED: "var(--muted)",
    FAINT: "var(--line)",
    PAPER: "var(--paper)",
    **{colour: f"var(--s{k})" for k, colour in enumerate(SERIES, 1)},
}
_STYLE = {
    "svg.fonttype": "none",  # text stays text: it can be searched and read out
    "svg.hashsalt": "medbench",
    "text.parse_math": False,  # a name with two dollar signs is no formula
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": FAINT,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


@dataclass(frozen=True)
class Figure:
    """A drawing with its caption; ``width`` in pixels is what it is drawn for."""

    svg: Markup
    caption: str
    width: int


@dataclass(frozen=True)
class Block:
    """Figures that belong together, under a heading.

    Attributes:
        title: the heading.
        reading: how to read them.
        figures: side by side where there is room.
        notes: what is missing, and why.
        folded: shown on demand only.
    """

    title: str
    reading: str
    figures: list[Figure]
    notes: list[str] = field(default_factory=list)
    folded: bool = False


@contextmanager
def canvas(width: int = 360, height: int = 340) -> Iterator[tuple[Canvas, Axes]]:
    """An empty drawing with one pair of axes, sizes in pixels; draw on it and call `finish`
    within, since the style holds only here."""
    from matplotlib import style
    from matplotlib.figure import Figure as Canvas

    with style.context(_STYLE, after_reset=True):
        figure = Canvas(figsize=(width / 72, height / 72), layout="constrained")
        yield figure, figure.add_subplot()


def finish(figure: Canvas, name: str, title: str, description: str, caption: str) -> Figure:
    """The drawing as it stands on the page.

    Args:
        figure: as `canvas` gave it.
        name: unique on the page; letters, digits and hyphens.
        title: what it is, read out in place of it, together with
        description: what it shows.
        caption: stands below it.
    """
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(buffer, format="svg", dpi=72, metadata=nothing)
    root = ElementTree.fromstring(buffer.getvalue())
    _mend(root, name)
    for index, (tag, text) in enumerate((("title", title), ("desc", description))):
        element = ElementTree.Element(tag, {"id": f"{name}-{tag}"})
        element.text = text
        root.insert(index, element)
    width, height = (round(float(v)) for v in root.attrib["viewBox"].split()[2:])
    attributes = {
        "viewBox": root.attrib["viewBox"],
        "width": str(width),
        "height": str(height),
        "role": "img",
        "aria-labelledby": f"{name}-title {name}-desc",
    }
    root.attrib.clear()
    root.attrib.update(attributes)
    return Figure(Markup(ElementTree.tostring(root, encoding="unicode")), caption, width)


def _mend(root: ElementTree.Element, name: str) -> None:
    """In place: no namespaces, metadata and styles; ids of this drawing's own; page colours."""
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.rpartition("}")[2] in ("metadata", "style"):
                parent.remove(child)
    whole = " ".join(value for e in root.iter() for value in e.attrib.values())
    used = set(re.findall(r"#([\w-]+)", whole))
    for element in root.iter():
        element.tail = None
        if element.text and not element.text.strip():
            element.text = None
        element.tag = element.tag.rpartition("}")[2]
        for key, value in list(element.attrib.items()):
            del element.attrib[key]
            plain = key.rpartition("}")[2]
            if plain == "id":
                if value in used:
                    element.set("id", f"{name}-{value}")
                continue
            if plain == "href" and value.startswith("#"):
                value = f"#{name}-{value[1:]}"
            elif plain == "style":
                value = _page_style(value)
            elif plain == "transform" and value.startswith("rotate(-0 "):
                continue
            value = re.sub(r"url\(#", f"url(#{name}-", value)
            element.set(plain, value)


def _page_style(style: str) -> str:
    style = re.sub(r"#[0-9a-f]{6}\b", lambda m: _VARIABLES.get(m[0], m[0]), style)
    # the page's own font: sizes and weights stay, families go
    style = re.sub(r"font: (?:(bold|\d+) )?([\d.]+px)[^;]*", _font, style)
    return re.sub(r"font-family:[^;]*;?\s*", "", style)


def _font(found: re.Match[str]) -> str:
    weight = f"font-weight: {found[1]}; " if found[1] else ""
    return f"{weight}font-size: {found[2]}"


def series(index: int) -> tuple[str, str, str]:
    """Colour, line style and marker of the run at that place of its section."""
    return (
        SERIES[index % len(SERIES)],
        LINES[index % len(LINES)],
        MARKERS[index % len(MARKERS)],
    )


def short(text: str, most: int = 34) -> str:
    """A name that fits a legend."""
    return text if len(text) <= most else text[: most - 1] + "…"


def below(axes: Axes) -> None:
    """The legend of the axes, below them."""
    handles, labels = axes.get_legend_handles_labels()
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.legend(handles, labels, loc="outside lower left", handlelength=2.6)

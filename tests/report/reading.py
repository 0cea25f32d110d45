"""A page as a reader's browser would take it apart."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """Tags must be closed in order; headings, tables, drawings and links are collected."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.ids: list[str] = []
        self.headings: list[int] = []
        self.drawings: list[dict[str, str]] = []
        self.titled: list[str] = []  # the title attributes of table cells
        self.described = 0
        self.links: list[str] = []
        self.scripts = 0
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values: dict[str, Any] = {name: value or "" for name, value in attrs}
        if tag not in VOID:
            self.open.append(tag)
        self._note(tag, values)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._note(tag, {name: value or "" for name, value in attrs})

    def _note(self, tag: str, values: dict[str, str]) -> None:
        self.scripts += tag == "script" or any(name.startswith("on") for name in values)
        if "id" in values:
            self.ids.append(values["id"])
        if len(tag) == 2 and tag[0] == "h" and tag[1].isdigit():
            self.headings.append(int(tag[1]))
        if tag in ("img", "svg"):
            self.drawings.append(values)
        if tag == "td" and "title" in values:
            self.titled.append(values["title"])
        self.links += [values[name] for name in ("href", "src", "srcset", "data") if name in values]

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1] == tag, f"</{tag}> closes <{self.open[-1]}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text += data

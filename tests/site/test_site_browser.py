"""The site in a browser, opened from disk: what scripts add, and that nothing is asked for
elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import CHROMIUM, Browser

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")

#: The first table of results on a task's page: names in order, and the state of a head.
NAMES = """[...document.querySelectorAll('section.ranking table')[0].tBodies[0].rows]
  .map((row) => row.cells[0].textContent.trim())"""
HEAD = "document.querySelector('section.ranking th[data-metric=auroc]')"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = Browser()
    yield found
    found.close()


@pytest.fixture(autouse=True)
def _quiet(browser: Browser) -> Iterator[None]:
    """No test may leave an error on the console or ask for anything but files of the site."""
    browser.errors.clear()
    browser.requests.clear()
    yield
    assert browser.errors == []
    assert [url for url in browser.requests if not url.startswith(("file:", "data:"))] == []


@pytest.fixture
def task(browser: Browser, boards: Path) -> Path:
    page = boards / "site" / "tasks" / "covid-ct.html"
    browser.open(page)
    return page


def test_every_page_opens_without_a_complaint(browser: Browser, boards: Path) -> None:
    for path in sorted((boards / "site").rglob("*.html")):
        browser.open(path)
        assert browser.run("document.querySelector('h1').textContent").strip()


def test_a_click_sorts_and_another_turns_the_order_round(browser: Browser, task: Path) -> None:
    first = browser.run(NAMES)
    browser.run(f"{HEAD}.querySelector('button').click()")
    assert browser.run(f"{HEAD}.getAttribute('aria-sort')") == "descending"
    assert browser.run(NAMES)[0] == "radclip"
    browser.run(f"{HEAD}.querySelector('button').click()")
    assert browser.run(f"{HEAD}.getAttribute('aria-sort')") == "ascending"
    assert browser.run(NAMES) == first[::-1]
    assert "Sorted by auroc" in browser.run("document.querySelector('[role=status]').textContent")
    others = browser.run(
        "document.querySelectorAll('section.ranking [aria-sort=ascending]').length"
    )
    assert others == 1


def test_the_keyboard_alone_sorts_and_the_focus_is_seen(browser: Browser, task: Path) -> None:
    browser.press("Tab", 9)
    assert browser.run("document.activeElement.textContent") == "Skip to the content"
    browser.press("Enter", 13, "\r")
    browser.run(f"{HEAD}.previousElementSibling.querySelector('button').focus()")
    browser.press("Tab", 9)
    assert browser.run(f"{HEAD}.contains(document.activeElement)")
    assert browser.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    browser.press("Enter", 13, "\r")
    assert browser.run(f"{HEAD}.getAttribute('aria-sort')") == "descending"


def test_filters_leave_the_rankings_that_were_asked_for(browser: Browser, task: Path) -> None:
    count = "[...document.querySelectorAll('section.ranking')].filter((s) => !s.hidden).length"
    assert browser.run(count) == 3
    choose = """((name, value) => { const select = document.querySelector(`select[name=${name}]`);
      select.value = value; select.dispatchEvent(new Event('change', {bubbles: true})); })"""
    browser.run(f"{choose}('fraction', '10 %')")
    assert browser.run(count) == 1
    assert browser.run("document.querySelector('output').textContent") == ("1 of 3 rankings shown")
    rows = "[...document.querySelectorAll('section[aria-labelledby=leads] tbody tr')]"
    assert browser.run(f"{rows}.filter((row) => !row.hidden).length") == 1
    browser.run(f"{choose}('fraction', '')")
    browser.run(f"{choose}('adaptation', 'zero-shot')")
    assert browser.run(count) == 1
    browser.run(f"{choose}('adaptation', '')")
    assert browser.run(count) == 3
    names = browser.run(
        "[...document.querySelectorAll('.filters select')].map((select) => select.name)"
    )
    assert names == ["track", "preset", "protocol", "adaptation", "fraction", "badge"]


def test_charts_say_in_words_what_they_draw_and_follow_the_sorted_metric(
    browser: Browser, task: Path
) -> None:
    label = """document.querySelector('section.ranking [data-chart=values] svg')
      .getAttribute('aria-label')"""
    assert browser.run(label).startswith("auroc ↑: radclip 0.974 from 0.942 to 0.995;")
    assert "prior 0.500" in browser.run(label)
    browser.run("document.querySelector('th[data-metric=f1] button').click()")
    assert browser.run(label).startswith("f1 ↑: radclip")
    drawn = browser.run("document.querySelectorAll('.drawing svg[role=img]').length")
    assert drawn >= 3


def test_light_and_dark_follow_the_system_and_the_switch(browser: Browser, boards: Path) -> None:
    page = boards / "site" / "index.html"
    paper = "getComputedStyle(document.body).backgroundColor"
    browser.open(page, scheme="dark")
    dark = browser.run(paper)
    browser.open(page, scheme="light")
    light = browser.run(paper)
    assert light != dark
    browser.run("document.getElementById('theme').click()")
    assert browser.run(paper) == dark
    browser.open(page, scheme="light")
    assert browser.run(paper) == dark, "the choice is kept"
    browser.run("document.getElementById('theme').click()")
    assert browser.run(paper) == light


def test_a_telephone_scrolls_tables_and_never_the_page(browser: Browser, boards: Path) -> None:
    for name in ("index.html", "tasks/covid-ct.html", "models/radclip.html"):
        browser.open(boards / "site" / name, width=390, height=800)
        assert browser.run("document.documentElement.scrollWidth") <= 390, name


def test_without_scripts_the_tables_are_there(browser: Browser, task: Path) -> None:
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(task)
        assert browser.run("document.querySelectorAll('table').length") >= 4
        assert browser.run("document.querySelector('.filters').hidden")
        assert browser.run("document.querySelectorAll('th button').length") == 0
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)

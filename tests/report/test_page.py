"""The report's page, in a real browser without a server."""

from __future__ import annotations

import base64
import hashlib
import html.parser
import re

import pytest

from easyedit_mm_plugins.evaluation import RunFolder
from easyedit_mm_plugins.report import write_report

from ..support.browser import Browser, browser_needed
from ..support.report_runs import NASTY, change_config, make_cases, make_run, page_json


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Two base models, two data sets, markup in a case, a failed row and a published number."""
    folder = tmp_path_factory.mktemp("report")
    records = make_cases(24, folder / "images", nasty=True)
    first = make_run(
        folder / "runs" / "one & two",
        records,
        backbones=("scenes-blip2", "blip2-hf"),
        dataset="test_data",
    )
    change_config(first.path, lambda v: v["backbones"]["blip2-hf"].update(parameters=4e9))
    run = RunFolder.read(first.path)
    run.status.fail(("visedit", "scenes-blip2", "test_data"), f"no editor {NASTY}")
    second = make_run(folder / "runs" / "evqa", records[:4], dataset="scenes-evqa", suite="evqa")
    (folder / "images" / "3.png").unlink()
    return write_report([first.path, second.path], folder / "a page", title=NASTY).page


@pytest.fixture
def records_without_gaps(tmp_path):
    return make_cases(6, tmp_path / "images")


@pytest.fixture(scope="module")
def browser():
    browser = Browser()
    yield browser
    browser.close()


def opened(browser, page, fragment="", width=1280, height=900, dark=False):
    browser.devtools(
        "Emulation.setDeviceMetricsOverride",
        width=width,
        height=height,
        deviceScaleFactor=1,
        mobile=width < 700,
    )
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.devtools("Emulation.setEmulatedMedia", features=[scheme])
    browser.open("about:blank")
    browser.open(page.as_uri() + fragment)
    return browser


def texts(browser, selector):
    script = "return [...document.querySelectorAll(arguments[0])].map(e => e.textContent)"
    return browser.run(script, selector)


def press(browser, selector, text):
    """Click the button of that text."""
    script = (
        "const found = [...document.querySelectorAll(arguments[0])]"
        ".find(e => e.textContent.startsWith(arguments[1])); found.click(); return true"
    )
    assert browser.run(script, selector, text)


@browser_needed
def test_nothing_in_a_run_becomes_markup_or_runs(page, browser):
    opened(browser, page)
    assert browser.run("return document.title") == NASTY
    assert texts(browser, "#title") == [NASTY]
    assert browser.run("return document.querySelectorAll('script').length") == 2
    browser.type("#search", "broken in")
    assert browser.ids() == ["c1"]
    (question,) = texts(browser, "[data-id=c1] h3")
    assert question == f"{NASTY}→{NASTY}"
    assert NASTY in texts(browser, "#missing")[0]
    assert browser.run("return document.querySelectorAll('[onerror], #list script').length") == 0
    assert browser.problems() == []


@browser_needed
def test_figures_stand_as_in_the_data(page, browser):
    opened(browser, page)
    assert texts(browser, "#paper thead tr:first-child th") == ["blip2-hf", "scenes-blip2"]
    rows = browser.run(
        "return [...document.querySelectorAll('#paper tbody tr')].map(r => [...r.children]"
        ".map(c => (c.tagName === 'TD' ? c.firstChild : c).textContent))"
    )
    rows = {row[0]: row[1:] for row in rows}
    assert rows["MSCKE"] == ["100.0"] * 8 and rows["Unedited"][:2] == ["0.0", "100.0"]
    assert texts(browser, "#paper td.first span").count("100.0") > 8
    # The published number stands where the base model is the paper's, and only there.
    assert "paper 61.60 (+38.4)" in texts(browser, "#paper td small.published")
    cells = (
        "return [...document.querySelectorAll('#paper tbody tr:last-child td')]"
        ".map(c => !!c.querySelector('.published'))"
    )
    assert browser.run(cells) == [True] * 4 + [False] * 4
    assert "of 2,778 cases of FGVEdit" in texts(browser, "#paper-note")[0]
    data = page_json(page)
    bars = browser.run("return document.querySelectorAll('#bars svg').length")
    assert bars == len(data["boards"][0]["metrics"]) == 7
    assert browser.run("return document.querySelectorAll('#bars .mark').length") == 7 * 4
    labels = browser.run(
        "return [...document.querySelectorAll('#bars svg:first-of-type g')]"
        ".map(g => g.getAttribute('aria-label'))"
    )
    assert any(label.startswith("MSCKE, Reliability 100.0, 95 % interval") for label in labels)
    # Only methods with scores have a histogram; the unedited model is left out of the scatter.
    assert texts(browser, "#scores h3") == ["FT-LLM", "SERAC", "MSCKE"]
    assert browser.run("return document.querySelectorAll('#scatter .mark').length") == 3
    assert texts(browser, "#costs h3")[0] == "Seconds per case"
    assert "one & two" in texts(browser, "#run-list h3") and "evqa" in texts(
        browser, "#run-list h3"
    )


@browser_needed
def test_data_base_model_and_methods_are_chosen(page, browser):
    opened(browser, page)
    press(browser, "#backbones button", "scenes-blip2")
    assert set(texts(browser, "h2 .of")) == {"scenes-blip2 · test_data · 24 cases · run one & two"}
    press(browser, "#methods button", "FT-LLM")
    assert texts(browser, "#scores h3") == ["SERAC", "MSCKE"]
    heads = texts(browser, "article:first-of-type thead th")
    assert heads[1:] == ["SERAC", "MSCKE"]
    browser.choose("#table", "1")
    assert texts(browser, "#paper thead tr:last-child th")[1:] == [
        "Rel.",
        "T-Gen.",
        "V-Gen.",
        "T-Loc.",
        "M-Loc.",
        "Average",
    ]
    assert texts(browser, "#scatter svg > text")[-2:] == ["↑ M-Loc.", "Reliability →"]
    address = browser.run("return location.hash")
    opened(browser, page, address)
    assert browser.run("return document.querySelector('#table').value") == "1"
    pressed = "#methods button[aria-pressed=false]"
    assert texts(browser, pressed) == ["FT-LLM"]
    assert browser.problems() == []


@browser_needed
def test_differences_follow_the_reference(page, browser):
    opened(browser, page)
    choice = "return document.querySelector('#reference').selectedOptions[0].textContent"
    assert browser.run(choice) == "MSCKE"
    rows = texts(browser, "#differences tbody th")
    assert rows == ["Unedited", "FT-LLM", "SERAC"]
    reliability = "#differences tbody tr:first-child td:nth-of-type(1) span"
    assert texts(browser, reliability) == ["−100.0"]
    browser.choose("#reference", "0")
    assert texts(browser, "#differences tbody tr:last-child td:nth-of-type(1) span") == ["+100.0"]
    sure = "#differences tbody tr:last-child td:nth-of-type(1).sure .up"
    assert len(texts(browser, sure)) == 1
    assert "24 common cases (10,000 flips)" in texts(browser, "#tests-note")[0]


@browser_needed
def test_cases_are_filtered_searched_and_shown_in_parts(page, browser):
    opened(browser, page)
    assert len(browser.ids()) == 10 and browser.count() == 24
    assert browser.ids()[:4] == ["c0", "c1", "c2", "c3"]
    press(browser, "#more", "Show more")
    assert len(browser.ids()) == 20
    # FT-LLM forgets every fifth edit; all other answers to it are right.
    press(browser, "#filters button", "Edit failed")
    failed = browser.ids()
    assert browser.count() == len(failed) == 4
    counts = dict(
        browser.run(
            "return [...document.querySelectorAll('#filters button')]"
            ".map(b => [b.dataset.filter, Number(b.querySelector('.n').textContent)])"
        )
    )
    assert counts == {"all": 24, "disagree": 24, "failed": 4, "broken": 20}
    # With the leaky method switched off nobody fails, and nothing is broken.
    press(browser, "#methods button", "FT-LLM")
    assert browser.count() == 0 and "No case fits" in texts(browser, "#list")[0]
    press(browser, "#filters button", "Methods disagree")
    assert browser.count() == 24  # SERAC does not know what follows
    press(browser, "#filters button", "All")
    browser.type("#search", "THING 12?")
    assert browser.ids() == ["c12"]
    address = browser.run("return location.hash")
    opened(browser, page, address)
    assert browser.ids() == ["c12"]


@browser_needed
def test_a_case_shows_who_is_right(page, browser):
    opened(browser, page, "#model=scenes-blip2&find=c12")
    article = "[data-id=c12] "
    rows = browser.run(
        "return [...document.querySelectorAll(arguments[0] + 'tbody tr')].map(r => "
        "[...r.children].map(c => c.className ? c.className + ':' + c.lastChild.textContent "
        ": c.innerText))",
        article,
    )
    by_kind = {row[0].split("\n")[0]: row[1:] for row in rows}
    # FT-LLM, SERAC, MSCKE
    assert by_kind["the edit"] == ["right:red", "right:red", "right:red"]
    assert by_kind["in scope"] == ["wrong:red", "wrong:blue", "right:yes"]
    assert by_kind["out of scope"] == ["wrong:red", "right:blue", "right:blue"]
    shown = browser.run("return document.querySelector(arguments[0] + 'tbody').innerText", article)
    assert "blue → red" in shown and "stays blue" in shown and "✓" in shown and "✗" in shown
    browser.run("document.querySelector('#detail').click()")
    assert "this edit, 1.000" in texts(browser, article + "td small")
    state = (
        "const i = document.querySelector(arguments[0] + 'img');return [i.complete, i.naturalWidth]"
    )
    assert browser.run(state, article) == [True, 32]
    opened(browser, page, "#model=scenes-blip2&find=c3")
    assert texts(browser, "[data-id=c3] .gone") == ["picture not there"]
    opened(browser, page, "#data=1")
    captions = texts(browser, "article:first-of-type figcaption")
    assert captions[0] == "picture A: the edit's" and len(captions) == 3


@browser_needed
@pytest.mark.parametrize("dark", [False, True])
def test_a_phone_shows_everything_without_scrolling_sideways(page, browser, dark):
    opened(browser, page, width=390, height=844, dark=dark)
    sizes = "return [document.documentElement.scrollWidth, innerWidth]"
    assert browser.run(sizes) == [390, 390]
    # Charts keep their text size: one unit is one pixel.
    scale = (
        "const s = document.querySelector('#bars svg');"
        "return s.viewBox.baseVal.width / s.getBoundingClientRect().width"
    )
    assert browser.run(scale) == pytest.approx(1, abs=0.02)
    # Answers stand below their question, each with its method's name.
    places = browser.run(
        "const r = document.querySelector('article tbody tr').getClientRects()[0];"
        "const q = document.querySelector('article tbody th').getBoundingClientRect();"
        "const a = document.querySelector('article tbody td').getBoundingClientRect();"
        "return [q.bottom <= a.top, r.right <= innerWidth]"
    )
    assert places == [True, True]
    shown = browser.run("return document.querySelector('article tbody').innerText")
    assert "MSCKE" in shown and "FT-LLM" in shown
    assert browser.run("return document.documentElement.dataset.theme") == (
        "dark" if dark else "light"
    )


@browser_needed
@pytest.mark.parametrize("dark", [False, True])
def test_text_has_contrast(page, browser, dark):
    """WCAG AA: 4.5 to 1 for text against what is behind it."""
    opened(browser, page, dark=dark)
    poor = browser.run(
        """
        const rgb = (c) => c.match(/[\\d.]+/g).map(Number);
        const light = (c) => { const [r, g, b] = c.map((v) => { v /= 255;
          return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
          return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
        const over = (top, below) => top.slice(0, 3).map((v, i) => {
          const a = top.length > 3 ? top[3] : 1; return v * a + below[i] * (1 - a); });
        const behind = (e) => { const layers = [];
          for (; e; e = e.parentElement) layers.unshift(rgb(getComputedStyle(e).backgroundColor));
          return layers.reduce((b, t) => over(t, b), [255, 255, 255]); };
        const found = [];
        for (const e of document.querySelectorAll("body *")) {
          if (e.closest("svg, script, option")) continue;
          const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
          if (!own || !e.getClientRects().length || e.closest("noscript, .skip")) continue;
          const below = behind(e), ink = over(rgb(getComputedStyle(e).color), below);
          const [a, b] = [light(ink), light(below)].sort((x, y) => y - x);
          if ((a + 0.05) / (b + 0.05) < 4.5)
            found.push([e.className, e.textContent.slice(0, 30), (a + 0.05) / (b + 0.05)]);
        }
        return found;
        """
    )
    assert poor == []


@browser_needed
def test_it_can_be_used_by_keyboard_and_by_ear(page, browser):
    opened(browser, page)
    nameless = browser.run(
        "return [...document.querySelectorAll('button, select, input, svg, svg [tabindex], "
        "[role=region], img')].filter(e => !(e.getAttribute('aria-label') || e.textContent.trim() "
        "|| (e.labels && e.labels.length) || e.alt)).map(e => e.outerHTML.slice(0, 80))"
    )
    assert nameless == []
    assert browser.run("return document.documentElement.lang") == "en"
    # A choice by keyboard keeps the focus where it was.
    focused = browser.run(
        "const b = [...document.querySelectorAll('#filters button')][2]; b.focus(); b.click();"
        "return document.activeElement.dataset.filter"
    )
    assert focused == "failed"
    # A bar that has the focus tells its value.
    tip = browser.run(
        "document.querySelector('#bars svg g').focus();"
        "const t = document.querySelector('#tip'); return [t.hidden, t.textContent]"
    )
    assert tip[0] is False and tip[1].startswith("Unedited\nReliability 0.0")
    press(browser, "#theme", "☾")
    assert browser.run("return document.documentElement.dataset.theme") == "dark"


@browser_needed
def test_a_run_in_which_nothing_worked_is_a_page_too(tmp_path, browser, records_without_gaps):
    run = make_run(tmp_path / "r", records_without_gaps, ["unedited"])
    (run.path / "cases.jsonl").unlink()
    RunFolder.read(run.path).status.fail(("mscke", "scenes-blip2", "scenes"), "out of memory")
    opened(browser, write_report([run.path]).page)
    assert "out of memory" in texts(browser, "#missing")[0]
    hidden = "return getComputedStyle(document.querySelector('#metrics')).display"
    assert browser.run(hidden) == "none"
    assert browser.problems() == []


def test_the_page_needs_no_other_file_and_only_its_own_script_may_run(page):
    text = page.read_text(encoding="utf-8")

    class Reader(html.parser.HTMLParser):
        tags: list

        def handle_starttag(self, tag, attributes):
            self.tags.append((tag, dict(attributes)))

    reader = Reader()
    reader.tags = []
    reader.feed(text)
    assert [t for t, _ in reader.tags].count("script") == 2
    assert not [a for _, a in reader.tags if "src" in a or not a.get("href", "#").startswith("#")]
    assert not [t for t, _ in reader.tags if t in ("link", "iframe", "img", "object")]
    policy = next(a["content"] for _, a in reader.tags if a.get("http-equiv"))
    assert policy.startswith("default-src 'none'; img-src data:")
    script = text[text.rindex("<script>") + 8 : text.rindex("</script>")]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    addresses = set(re.findall(r"https?://[\w./]+", text))
    assert addresses == {"http://www.w3.org/2000/svg"}  # the name of a namespace, not fetched
    data = re.search(r'id="data">(.*?)</script>', text, re.S)[1]
    assert "<" not in data and "&" not in data and page_json(page)["title"] == NASTY

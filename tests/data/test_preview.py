"""The preview page, in a real browser without a server."""

from __future__ import annotations

import html.parser
import json
import re

import pytest
from typer.testing import CliRunner

from easyedit_mm_plugins.cli.data import app
from easyedit_mm_plugins.core.errors import DataError
from easyedit_mm_plugins.data.tools.preview import write_preview

from ..conftest import picture
from ..support.browser import Browser, browser_needed

NASTY = (
    '</script><script>document.title = "broken in"</script><img src=x onerror=document.title="in">'
)


def record(i, **changes):
    return {
        "case_id": f"case-{i}",
        "src": f"what color is thing {i}?",
        "pred": "red",
        "alt": "green",
        "rephrase": f"which color has thing {i}?",
        "image": f"{i % 3}.png",
        "fg_gen_q": "is it green?",
        "fg_gen_a": "yes",
        "fg_gen_hard": i % 2 == 0,
        "fg_loc_q": "how many?",
        "fg_loc_a": "two",
        "loc": "nq question: capital of france",
        "loc_ans": "paris",
    } | changes


@pytest.fixture
def page(tmp_path):
    for i in range(2):
        picture(i).save(tmp_path / f"{i}.png")  # 2.png is missing
    train = [record(i) for i in range(45)]
    train[5] |= {"src": NASTY, "alt": "blåbær &amp; <b>", "rephrase": ["zebra one?", "two?"]}
    train[7] |= {"alt": "7", "src": "how many zebras?"}
    (tmp_path / "train.json").write_text(json.dumps(train))
    (tmp_path / "test.json").write_text(
        json.dumps([record(90, fg_gen_q=None), record(91, case_id=NASTY)])
    )
    out = tmp_path / "page with space.html"
    files = [tmp_path / "train.json", tmp_path / "test.json"]
    assert write_preview(files, out, images=tmp_path, title=NASTY) == 47
    return out


@pytest.fixture(scope="module")
def browser():
    browser = Browser()
    yield browser
    browser.close()


@browser_needed
def test_the_page_works_from_a_file(page, browser):
    browser.open(page.as_uri())
    assert browser.count() == 47 and len(browser.ids()) == 20
    # Nothing in the records became markup or ran.
    assert browser.run("return document.title") == NASTY
    assert browser.run("return document.getElementById('title').textContent") == NASTY
    assert browser.run("return document.querySelectorAll('script').length") == 2
    shown = browser.run("return document.querySelector('[data-id=case-5] dd').textContent")
    assert NASTY in shown and "blåbær &amp; <b>" in shown
    # Pictures are in the page, and a missing one is said to be missing.
    state = browser.run(
        "return [...document.querySelectorAll('article')].slice(0, 3).map(a => {"
        "const i = a.querySelector('img'); return i && [i.complete, i.naturalWidth]})"
    )
    assert state == [[True, 32], [True, 32], None]
    assert "image not there" in browser.run(
        "return document.querySelectorAll('.gone')[0].textContent"
    )
    texts = browser.run("return document.querySelector('[data-id=case-0]').innerText")
    for part in ("what color is thing 0?", "which color has", "is it green?", "how many?", "paris"):
        assert part in texts
    assert browser.problems() == []


@browser_needed
def test_search_filters_and_pages(page, browser):
    browser.open(page.as_uri())
    browser.run("document.getElementById('next').click()")
    assert browser.ids()[0] == "case-20"
    browser.type("#q", "ZEBRA")
    assert browser.ids() == ["case-5", "case-7"]
    browser.choose("#kind", "number")
    assert browser.ids() == ["case-7"]
    browser.choose("#q", "")
    browser.choose("#kind", "")
    browser.choose("#split", "test")
    assert browser.count() == 2
    browser.choose("#scope", "no-in")
    assert browser.ids() == ["case-90"]
    browser.choose("#split", "")
    browser.choose("#scope", "hard-in")
    assert browser.count() == 23
    browser.choose("#image", "missing")
    assert browser.count() == len([i for i in range(0, 45, 2) if i % 3 == 2])
    # The address keeps the view.
    address = browser.run("return location.hash")
    browser.open("about:blank")
    browser.open(page.as_uri() + address)
    assert browser.count() == 8
    assert browser.run("return document.getElementById('image').value") == "missing"


def test_the_page_needs_no_other_file_and_escapes_its_data(page):
    text = page.read_text()

    class Reader(html.parser.HTMLParser):
        tags: list

        def handle_starttag(self, tag, attributes):
            self.tags.append((tag, dict(attributes)))

    reader = Reader()
    reader.tags = []
    reader.feed(text)
    assert [t for t, _ in reader.tags].count("script") == 2
    assert not [a for _, a in reader.tags if "src" in a or "href" in a]
    assert "http://" not in text and "https://" not in text
    data = re.search(r'id="data">(.*?)</script>', text, re.S)[1]
    assert "<" not in data and json.loads(data)["records"][5]["src"] == NASTY


def test_odd_records_are_shown_as_they_are(tmp_path):
    rows = [3, {"src": 5, "alt": None, "fg_extra": "x"}, {"fg_gen_q": ["a", "b"], "fg_gen_a": "c"}]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    assert write_preview(tmp_path / "a.json", tmp_path / "a.html") == 2
    (tmp_path / "a.json").write_text("[]")
    with pytest.raises(DataError, match="no record"):
        write_preview(tmp_path / "a.json", tmp_path / "a.html")


def test_the_command_limits_the_page(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps([record(i) for i in range(9)]))
    out = tmp_path / "p.html"
    arguments = ["preview", str(tmp_path / "a.json"), "--out", str(out), "--limit", "4"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0 and "4 records" in result.stdout

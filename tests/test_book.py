"""The book in a real browser: every page, its links, pictures, search and folds; what is asked of elsewhere fails."""

import functools
import re
import shutil
import subprocess
import sys
import threading
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

import nbformat
import pytest

from browser import browser, runs_over
from tools import book

SPAN = '<span class="n">{}</span>'


def test_names_lead_to_the_library(root):
    assert book.places()["rerank.windows"] == "library/rerank.listwise.html#rerank-listwise-windows"
    notebook = root / "notebooks" / "05_gpu_evaluation.ipynb"
    app = SimpleNamespace(env=SimpleNamespace(doc2path=lambda page: notebook))
    code = SPAN.format("evaluation") + '<span class="o">.</span>' + SPAN.format("evaluate")
    other = SPAN.format("json") + '<span class="o">.</span>' + SPAN.format("loads")
    word = '<code class="docutils literal notranslate"><span class="pre">{}</span></code>'
    highlighted = f'<div class="highlight-ipython3 notranslate"><pre>{code} {other}</pre>'
    body = f"{highlighted}{word.format('answers')}{word.format('ok')}"
    book.link_names(app, "notebooks/05", "", context := {"body": body}, object())
    found = re.findall(r'<a class="place" href="([^"]+)">', context["body"])
    assert found == ["../library/evaluation.score.html#evaluation-score-evaluate", "../library/answers.html"]
    assert re.sub("</?a[^>]*>", "", context["body"]) == body


def test_a_folder_without_notebooks_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="no executed notebook in it"):
        book.main(tmp_path, tmp_path / "book")


@pytest.fixture(scope="module")
def built(tmp_path_factory, root):
    """The book of the committed notebooks and of one with a formula."""
    folder = tmp_path_factory.mktemp("book")
    shutil.copytree(root / "notebooks", folder / "notebooks")
    cells = [nbformat.v4.new_markdown_cell("# A formula\n\nThe area is $x^2$.")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / "notebooks" / "08_formula.ipynb")
    command = [sys.executable, "-m", "tools.book", str(folder / "notebooks"), str(folder / "book")]
    subprocess.run(command, cwd=root, check=True)
    return folder / "book"


@pytest.fixture(scope="module")
def address(built):
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *words):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(built)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="module")
def chromium():
    with browser() as opened:
        yield opened


class Page(HTMLParser):
    """What a page names: addresses, and places in it."""

    def __init__(self, text):
        super().__init__()
        self.asked, self.ids = [], set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.ids.add(found.get("id"))
        self.asked += [found[key] for key in ("href", "src") if found.get(key)]


@pytest.mark.slow
def test_no_link_is_broken_and_nothing_is_loaded_from_elsewhere(built):
    pages = {
        path: Page(path.read_text(encoding="utf-8"))
        for path in built.rglob("*.html")
        if "_static" not in path.parts
    }
    assert len(list(built.glob("notebooks/*.html"))) == 9
    for path, page in pages.items():
        for target in page.asked:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                assert parts.scheme in ("https", "http", "data", "mailto"), f"{path}: {target}"
                continue
            place = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert place.is_file(), f"{path.relative_to(built)} names {target}"
            if parts.fragment and place in pages:
                assert unquote(parts.fragment) in pages[place].ids, (
                    f"{path.relative_to(built)} names {target}"
                )
    linked = pages[built / "notebooks" / "05_gpu_evaluation.html"].asked
    assert "../library/answers.html#answers-parse" in linked


@pytest.mark.slow
@pytest.mark.parametrize("width", [1200, 390])
def test_every_page_opens(built, address, chromium, width):
    for path in sorted(built.glob("**/*.html")):
        name = path.relative_to(built).as_posix()
        if "_static" in name:
            continue
        page = chromium.open(f"{address}/{name}", width)
        broken = "[...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src)"
        assert not page.evaluate(broken) and not runs_over(page), name
        page.close()
    assert not chromium.problems


@pytest.mark.slow
def test_search_folds_formula_and_dark(address, chromium):
    page = chromium.open(f"{address}/search.html?q=RBO")
    page.wait_for_selector("#search-results li a")
    assert page.locator("#search-results li a", has_text="04 ").count() > 0
    page = chromium.open(f"{address}/notebooks/04_rl.html", scheme="dark")
    code = page.locator(".cell_input .highlight-ipython3, .cell_input .highlight-python").first
    assert code.is_visible() and page.locator("html").get_attribute("data-theme") == "dark"
    page.locator("#fold-all").click()
    assert not code.is_visible()
    page.reload()
    assert not code.is_visible()
    page.locator(".cell_input .fold").first.click()
    assert code.is_visible()
    page = chromium.open(f"{address}/notebooks/08_formula.html")
    page.wait_for_selector(".MathJax")
    assert not chromium.problems

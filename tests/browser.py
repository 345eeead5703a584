"""A headless browser for tests of pages: the system's Chromium, which reaches nothing but the pages themselves."""

import shutil
from contextlib import contextmanager

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)


@contextmanager
def browser():
    """A browser whose `open(address, width)` gives a page; at the end, `problems` of all pages must be none."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium, as `apt-get install chromium` brings it")
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        try:
            yield Browser(launched)
        finally:
            launched.close()


class Browser:
    """Pages, and what went wrong in them: requests to elsewhere or in vain, errors on the console."""

    def __init__(self, launched):
        self.launched, self.problems = launched, []

    def open(self, address, width=1200, scheme="light"):
        size = {"width": width, "height": 900}
        page = self.launched.new_page(viewport=size, color_scheme=scheme)
        page.set_default_timeout(120_000)
        inside = address.split("/", 3)[:3]

        def route(request):
            if request.request.url.split("/", 3)[:3] == inside or request.request.url.startswith("data:"):
                request.continue_()
            else:
                self.problems.append(f"{address} asks for {request.request.url}")
                request.abort()

        page.route("**/*", route)
        page.on("pageerror", lambda error: self.problems.append(f"{address}: {error}"))
        page.on(
            "console", lambda line: line.type == "error" and self.problems.append(f"{address}: {line.text}")
        )
        page.on("requestfailed", lambda asked: self.problems.append(f"{address}: no {asked.url}"))
        page.goto(address)
        return page


def runs_over(page) -> bool:
    """Whether something is wider than the page."""
    return page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")

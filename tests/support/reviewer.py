"""A reviewer at Label Studio's page, in a headless browser, with the keyboard alone."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Error, Page, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
"""Debian's name of the browser, and Alpine's."""
_PATIENCE_MS = 20_000
_BLINK_MS = 500
_HEARD_MS = 5000
_TRIES = 10


class Reviewer:
    """Somebody who decides one listing after another.

    Attributes:
        elsewhere: Addresses that the pages asked for on other servers.
    """

    def __init__(self, page: Page, url: str) -> None:
        self._page = page
        self.elsewhere: list[str] = []
        host = urlsplit(url).netloc
        page.set_default_timeout(_PATIENCE_MS)
        page.on(
            "request",
            lambda request: (
                urlsplit(request.url).netloc == host
                or not request.url.startswith("http")
                or self.elsewhere.append(request.url)
            ),
        )

    def log_in(self, url: str, user: str, password: str) -> None:
        """Open the page of the queue."""
        at = urlsplit(url)
        self._page.goto(f"{at.scheme}://{at.netloc}/user/login/")
        self._page.fill("input[name=email]", user)
        self._page.fill("input[name=password]", password)
        self._page.press("input[name=password]", "Enter")
        self._page.wait_for_load_state("networkidle")
        self._page.goto(url)

    def see(self, listing: str) -> None:
        """Wait until a listing is shown, with all its photos that can be."""
        self._page.get_by_text(listing, exact=True).first.wait_for()
        self._page.locator(".lsf-choice__item").first.wait_for()
        self._page.wait_for_function(
            "[...document.querySelectorAll('#photos img')].every(photo => photo.complete)"
        )

    def press(self, key: str) -> None:
        """Choose an answer by its key, again if the page was not ready for it yet."""
        answer = self._page.locator(".lsf-choice__item", has_text=f"[{key}]")
        for _ in range(_TRIES):
            self._page.keyboard.press(key)
            with suppress(Error):
                answer.locator(".ant-radio-checked").wait_for(timeout=_BLINK_MS)
                return
        raise AssertionError(f"no answer to {key}")

    def search(self, name: str) -> None:
        """Look for a category in the tree, and choose the first that is found."""
        self._page.locator(".ant-select-selector").click()
        self._page.get_by_placeholder("Search").fill(name)
        self._page.locator(".ant-select-tree-title", has_text=name).last.click()
        self._leave_search()

    def submit(self) -> None:
        """Submit the answer, again if the page did not hear it, and wait until it is kept."""
        for _ in range(_TRIES):
            with suppress(Error):
                with self._page.expect_response(
                    lambda answer: "/annotations" in answer.url and answer.request.method == "POST",
                    timeout=_HEARD_MS,
                ) as kept:
                    self._page.keyboard.press("Control+Enter")
                assert kept.value.ok
                return
            self._leave_search()
        raise AssertionError("the answer was not submitted")

    def _leave_search(self) -> None:
        """The tree's search keeps the keys to itself until something else is clicked."""
        self._page.locator(".lsf-richtext").first.click()

    def texts(self) -> list[str]:
        """The answers as they are shown."""
        return self._page.locator(".lsf-choice__item").all_inner_texts()

    def photos(self) -> int:
        """How many photos are shown."""
        shown: int = self._page.evaluate(
            "[...document.querySelectorAll('#photos img')].filter(p => p.naturalWidth).length"
        )
        return shown

    def picture(self, path: Path) -> None:
        """Take a screenshot."""
        self._page.screenshot(path=path)


@contextmanager
def reviewer(url: str, user: str, password: str) -> Iterator[Reviewer]:
    """Start the browser, and open the page of the queue."""
    with sync_playwright() as play:
        # Chromium refuses its sandbox to root.
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            page = browser.new_page(viewport={"width": 1400, "height": 800})
            person = Reviewer(page, url)
            person.log_in(url, user, password)
            yield person
        finally:
            browser.close()

"""Open every page of the built site in a browser: nothing may fail there, and nothing may come from another host."""

from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from playwright.sync_api import BrowserContext, ConsoleMessage, Page, Request, Response, sync_playwright
from playwright.sync_api import Error as PlaywrightError

_AT_ONCE = 8
"""Pages that are open at a time."""

# Material draws each diagram into a closed shadow root, and only then takes the class from its text.
_DRAWN = "document.querySelectorAll('pre.mermaid').length === 0"


def main(site: Path) -> int:
    """Print what is wrong with the pages of a site, and return 1 if anything is."""
    pages = sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html"))
    if not pages:
        print(f"{site} has no pages; build it with `make docs`", file=sys.stderr)
        return 1
    with _served(site) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_chromium(), args=["--no-sandbox"])
        context = browser.new_context()
        faults = []
        for first in range(0, len(pages), _AT_ONCE):
            faults += _faults(context, address, pages[first : first + _AT_ONCE])
        browser.close()
    for fault in faults:
        print(fault, file=sys.stderr)
    print(f"{len(pages)} pages, {len(faults)} faults")
    return 1 if faults else 0


def _chromium() -> str:
    for name in ("chromium", "google-chrome"):
        if path := shutil.which(name):
            return path
    raise SystemExit("no chromium: install Debian's package chromium to check the site's pages")


@contextmanager
def _served(site: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing of requests."""

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=site)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def _faults(context: BrowserContext, address: str, paths: list[str]) -> list[str]:
    faults: list[str] = []
    opened = [(context.new_page(), path) for path in paths]
    for page, path in opened:
        _listen(page, path, address, faults.append)
        page.goto(address + path, wait_until="commit")
    for page, path in opened:
        page.wait_for_load_state("networkidle")
        try:
            page.wait_for_function(_DRAWN, timeout=20_000)
        except PlaywrightError:
            faults.append(f"{path}: a diagram was not drawn")
        page.close()
    return faults


def _listen(page: Page, path: str, address: str, report: Callable[[str], None]) -> None:
    def console(message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            report(f"{path}: {message.text}")

    def request(asked: Request) -> None:
        if not asked.url.startswith((address, "data:", "blob:")):
            report(f"{path}: asks another host: {asked.url}")

    def response(got: Response) -> None:
        if got.status >= 400:
            report(f"{path}: {got.status} for {got.url}")

    page.on("console", console)
    page.on("pageerror", lambda error: report(f"{path}: {error}"))
    page.on("request", request)
    page.on("response", response)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

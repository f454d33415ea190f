"""Debian's Chromium, headless, driven by Playwright."""

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence

from playwright.sync_api import BrowserContext, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def wanted() -> bool:
    """Whether the browser tests run: where there is a browser, and in CI whether or not."""
    return bool(CHROMIUM or os.environ.get("CI"))


@contextlib.contextmanager
def browsing(*, flags: Sequence[str] = (), **options: object) -> Iterator[BrowserContext]:
    """A fresh profile, with further `flags` of Chromium's. Raises AssertionError where there is no
    Chromium."""
    assert CHROMIUM, "no Chromium: scripts/setup --dev installs it as root, or apt install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*_FLAGS, *flags])
        try:
            yield browser.new_context(**options)
        finally:
            browser.close()

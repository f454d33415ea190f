"""A server for the tests of this area that ask nothing special of it."""

from collections.abc import Iterator

import pytest

from tests.server.browser import CHROMIUM, wanted
from tests.serving import Server, serving


@pytest.fixture(scope="session")
def live_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real process with a data directory of its own, shared by the tests of one worker."""
    with serving(tmp_path_factory.mktemp("live") / "data") as server:
        yield server


collect_ignore = [] if wanted() else ["test_portal_in_browser.py"]


def pytest_report_header() -> str:
    if wanted():
        return f"Chromium: {CHROMIUM or 'none, and its tests will fail'}"
    return "Chromium: none, so the portal is not looked at (apt install chromium)."

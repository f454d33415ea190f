"""One server for the tests of a worker, and accounts on it."""

import itertools
from collections.abc import Callable, Iterator

import pytest

from tests.oauth2.parts import PASSWORD, Flow, cookie_of, running
from tests.server.browser import wanted
from tests.server.http import ask, bearer
from tests.serving import Server

collect_ignore = [] if wanted() else ["test_in_browser.py"]
_NUMBERS = itertools.count(1)


@pytest.fixture(scope="session")
def oauth_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("oauth2")) as server:
        yield server


@pytest.fixture
def flow(oauth_server: Server) -> Flow:
    """The administrator's browser and a public client that is not asked for consent."""
    return Flow(oauth_server.url, cookie_of(oauth_server.url, "admin", PASSWORD))


@pytest.fixture
def browser_of(oauth_server: Server) -> Callable[[], tuple[str, str]]:
    """Makes an account; its name and the cookie of its browser."""

    def make() -> tuple[str, str]:
        name = f"person-{next(_NUMBERS)}"
        made = ask(
            f"{oauth_server.url}/sage/api/user/add",
            "POST",
            {"username": name, "password": PASSWORD, "email": f"{name}@example.com"},
            bearer(oauth_server.url, "admin", PASSWORD),
        )
        assert made.status == 200, made
        return name, cookie_of(oauth_server.url, name, PASSWORD)

    return make

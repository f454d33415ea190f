"""A provider that misbehaves on demand, a server that trusts it, and browsers."""

from collections.abc import Callable, Iterator

import pytest

from tests.server.browser import wanted
from tests.serving import Server
from tests.upstream.issuer import Issuer
from tests.upstream.parts import Browser, running

collect_ignore = [] if wanted() else ["test_in_browser.py"]


@pytest.fixture(scope="session")
def the_issuer() -> Iterator[Issuer]:
    made = Issuer()
    yield made
    made.close()


@pytest.fixture
def issuer(the_issuer: Issuer) -> Issuer:
    the_issuer.behave()
    return the_issuer


@pytest.fixture(scope="session")
def server(the_issuer: Issuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    away = {"client_id": "quartet", "issuer": "http://127.0.0.1:9"}
    providers = [
        the_issuer.openid(),
        the_issuer.plain(),
        the_issuer.openid(id="members", admits=False, redirect_uris=["https://app.example.com/x"]),
        the_issuer.plain(id="posts", client_auth="client_secret_post"),
        {"id": "away", **away},
        {"id": "metadata", "client_id": "q", "issuer": "https://169.254.169.254"},
        {"id": "inside", "client_id": "q", "issuer": "https://10.0.0.1"},
    ]
    with running(tmp_path_factory.mktemp("upstream"), providers) as started:
        yield started


@pytest.fixture
def browser_at() -> Iterator[Callable[[Server], Browser]]:
    """Makes browsers, none of which knows another's cookies."""
    made: list[Browser] = []

    def make(server: Server) -> Browser:
        made.append(Browser(server))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def browser(server: Server, browser_at: Callable[[Server], Browser]) -> Browser:
    return browser_at(server)

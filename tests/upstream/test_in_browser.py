"""Logging in elsewhere in a real browser, at a provider of another origin."""

from collections.abc import Callable, Iterator

import httpx
import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.server.browser import browsing
from tests.server.test_portal_in_browser import readable
from tests.serving import Server
from tests.upstream.parts import Browser, mock_provider, running


@pytest.fixture(scope="module")
def mock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The provider; its host is another than the server's, so that cookies are apart."""
    with mock_provider(tmp_path_factory.mktemp("mock")) as issuer:
        yield issuer.replace("127.0.0.1", "localhost")


def listed(mock: str) -> list[dict[str, str]]:
    client = {"issuer": mock, "client_id": "q", "client_secret": "s"}
    return [
        {"id": "mock", "name": "Corporate <login>", **client},
        {"id": "away", "name": "Away", "issuer": "http://127.0.0.1:9", "client_id": "q"},
    ]


@pytest.fixture(scope="module")
def server(mock: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("browser"), listed(mock)) as started:
        yield started


def session_of(context: BrowserContext, server: Server) -> dict[str, object] | None:
    """Who the browser's cookies say it is."""
    answer = context.request.get(f"{server.url}/api/auth/session")
    return answer.json()["data"]["user"] if answer.ok else None


def log_in_there(page: Page, mock: str, subject: str) -> None:
    expect(page.get_by_role("heading", level=1)).to_have_text("Authorize Client")
    assert page.url.startswith(mock)
    page.get_by_placeholder("sub").fill(subject)
    page.get_by_role("button", name="Authorize", exact=True).click()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_from_the_button_to_the_page_that_was_wanted(
    server: Server, mock: str, scheme: str
) -> None:
    claims = {"preferred_username": f"grace-{scheme}", "name": "Grace"}
    httpx.put(f"{mock}/users/{scheme}", json=claims).raise_for_status()
    with browsing(color_scheme=scheme) as context:
        page = context.new_page()
        page.goto(f"{server.url}/login?next=/sage/docs")
        button = page.get_by_role("link", name="Corporate <login>")
        expect(button).to_be_visible()
        expect(page.get_by_label("Password")).to_be_visible()
        assert readable(page) == []
        page.set_viewport_size({"width": 360, "height": 700})
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        button.click()
        log_in_there(page, mock, scheme)
        page.wait_for_url(f"{server.url}/sage/docs")
        found = session_of(context, server)
        assert found is not None
        assert found["username"] == f"grace-{scheme}"
        cookies = {each["name"]: each for each in context.cookies(server.url)}
        assert "sage_upstream" not in cookies
        session = cookies["sage_session"]
        assert (session["httpOnly"], session["sameSite"]) == (True, "Lax")
        assert page.evaluate("document.cookie") == ""


def test_coming_back_in_another_browser_opens_nothing(
    server: Server, mock: str, browser_at: Callable[[Server], Browser]
) -> None:
    """An attacker logs in and has the victim, who was about to, follow the last redirect."""
    caught = httpx.post(browser_at(server).begin("mock"), data={"sub": "attacker"})
    with browsing() as context:
        page = context.new_page()
        page.goto(f"{server.url}/api/auth/upstream/login/mock")
        expect(page.get_by_role("heading", level=1)).to_have_text("Authorize Client")
        page.goto(caught.headers["location"])
        expect(page.get_by_role("alert").first).to_contain_text("That login did not work")
        assert session_of(context, server) is None


def test_a_provider_that_is_away(server: Server) -> None:
    with browsing() as context:
        page = context.new_page()
        page.goto(f"{server.url}/login?next=/sage/docs")
        page.get_by_role("link", name="Away").click()
        expect(page.get_by_role("alert").first).to_have_text(
            "The provider does not answer. Try again later."
        )
        assert readable(page) == []
        # the way that was wanted is kept
        href = page.get_by_role("link", name="Away").get_attribute("href")
        assert href == "/api/auth/upstream/login/away?next=%2Fsage%2Fdocs"


def test_the_login_page_of_the_mode_oauth(
    mock: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("oauth")
    with running(folder, listed(mock), AUTH_MODE="oauth") as server, browsing() as context:
        page = context.new_page()
        page.goto(f"{server.url}/login")
        expect(page.get_by_role("link", name="Corporate <login>")).to_be_visible()
        assert page.locator("form").count() == 0
        assert readable(page) == []
        page.get_by_role("link", name="Corporate <login>").click()
        log_in_there(page, mock, "somebody")
        page.wait_for_url(f"{server.url}/")

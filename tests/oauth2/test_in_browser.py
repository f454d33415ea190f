"""The code flow in a real browser, with a standard client library at its end."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from authlib.integrations.httpx_client import OAuth2Client
from playwright.sync_api import Page, expect

from tests.oauth2.parts import PASSWORD, running
from tests.server.browser import browsing
from tests.server.test_portal_in_browser import Watched, readable
from tests.serving import Server


@pytest.fixture(scope="module")
def callback() -> Iterator[str]:
    """Where the client gets its codes: a page of another origin."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>client</title><h1>back at the client</h1>")

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/callback"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, callback: str) -> Iterator[Server]:
    clients = [
        {"client_id": "asks", "name": "Wiki <of> ours", "redirect_uris": [callback]},
        {"client_id": "known", "redirect_uris": [callback], "skip_consent": True},
    ]
    folder = tmp_path_factory.mktemp("browser")
    with running(folder, OAUTH_CLIENTS=json.dumps(clients)) as started:
        yield started


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTHLIB_INSECURE_TRANSPORT", "1")


def client(client_id: str, callback: str, scope: str = "openid profile email") -> OAuth2Client:
    return OAuth2Client(
        client_id,
        redirect_uri=callback,
        scope=scope,
        code_challenge_method="S256",
        token_endpoint_auth_method="none",
    )


def log_in(page: Page, password: str = PASSWORD) -> None:
    page.get_by_label("Username or e-mail").fill("admin")
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Log in").click()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_log_in_agree_and_read_userinfo(
    server: Server, callback: str, library: None, scheme: str
) -> None:
    verifier = "v" * 60
    scope = "openid profile email" if scheme == "light" else "openid email"
    oauth = client("asks", callback, scope)
    url, state = oauth.create_authorization_url(
        f"{server.url}/oauth2/authorize", code_verifier=verifier, scope=scope
    )
    with browsing(color_scheme=scheme) as context:
        watched = Watched(context, server.url)
        page = watched.page
        page.goto(url)
        expect(page.get_by_role("heading", level=1)).to_have_text("Log in")
        assert readable(page) == []
        log_in(page, "wrong-password-1")
        expect(page.get_by_role("alert")).to_have_text("The username or the password is wrong.")
        watched.faults.clear()  # the browser reports the 401 itself
        log_in(page)
        expect(page.get_by_role("heading", level=1)).to_have_text("Wiki <of> ours")
        expect(page.get_by_text("see your e-mail address")).to_be_visible()
        expect(page.get_by_text(callback)).to_be_visible()
        assert readable(page) == []
        page.set_viewport_size({"width": 360, "height": 700})
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        watched.assert_clean()
        page.get_by_role("button", name="Allow").click()
        expect(page.get_by_role("heading")).to_have_text("back at the client")
        token = oauth.fetch_token(
            f"{server.url}/oauth2/token",
            authorization_response=page.url,
            state=state,
            code_verifier=verifier,
        )
        assert token["scope"] == scope
        info = oauth.get(f"{server.url}/oauth2/userinfo").json()
        assert info["preferred_username"] == "admin"
        oauth.refresh_token(f"{server.url}/oauth2/token")
        assert oauth.get(f"{server.url}/oauth2/userinfo").status_code == 200
        # remembered: not asked again for the same scopes, asked for others
        for again, heading in ((scope, "back at the client"), ("profile", "Wiki <of> ours")):
            url, _ = oauth.create_authorization_url(
                f"{server.url}/oauth2/authorize", code_verifier=verifier, scope=again
            )
            page.goto(url)
            expect(page.get_by_role("heading", level=1)).to_have_text(heading)
    oauth.close()


def test_saying_no(server: Server, callback: str, library: None) -> None:
    url, state = client("asks", callback).create_authorization_url(
        f"{server.url}/oauth2/authorize", code_verifier="v" * 60, scope="openid"
    )
    with browsing() as context:
        page = context.new_page()
        page.goto(url)
        log_in(page)
        page.get_by_role("button", name="Deny").click()
        expect(page.get_by_role("heading")).to_have_text("back at the client")
        assert "error=access_denied" in page.url
        assert f"state={state}" in page.url
        page.goto(url)
        expect(page.get_by_role("button", name="Allow")).to_be_visible()


def test_a_trusted_client_is_not_asked_for(server: Server, callback: str, library: None) -> None:
    url, _ = client("known", callback).create_authorization_url(
        f"{server.url}/oauth2/authorize", code_verifier="v" * 60
    )
    with browsing() as context:
        page = context.new_page()
        page.goto(url)
        log_in(page)
        expect(page.get_by_role("heading")).to_have_text("back at the client")
        assert "code=" in page.url


def test_logging_in_leads_to_our_pages_alone(server: Server) -> None:
    with browsing() as context:
        page = context.new_page()
        page.goto(f"{server.url}/sage/login?next=https://evil.example/")
        log_in(page)
        page.wait_for_url(f"{server.url}/")
        expect(page.get_by_role("heading", level=1)).to_have_text("Quartet")

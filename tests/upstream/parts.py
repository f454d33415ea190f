"""Servers that people log in to elsewhere, the providers, and a browser by plain HTTP."""

import contextlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx

from tests.serving import Server, environment, serving

PASSWORD = "Administrator-password-1"


@contextlib.contextmanager
def running(
    folder: Path, providers: list[dict[str, Any]], *flags: str, **given: str
) -> Iterator[Server]:
    """A server whose people may log in at `providers`."""
    settings = {
        "ADMIN_PASSWORD": PASSWORD,
        "UPSTREAM_PROVIDERS": json.dumps(providers),
        "OUTBOUND_ALLOW": "oauth=127.0.0.0/8,oauth=localhost",
        "LOGIN_NEXT": "/agent/chat",
        "LOGIN_RATE": "100000/minute",
        "VALIDATE_RESPONSES": "true",
        **given,
    }
    with serving(folder / "data", *flags, given=settings) as server:
        yield server


@contextlib.contextmanager
def mock_provider(folder: Path) -> Iterator[str]:
    """oidc-provider-mock in a process of its own; its issuer."""
    log = folder / "provider.log"
    command = [sys.executable, "-m", "oidc_provider_mock", "--port", "0", "--require-nonce", "true"]
    with log.open("wb") as written:
        process = subprocess.Popen(
            command,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=subprocess.STDOUT,
        )
    try:
        until = time.monotonic() + 30
        while not (found := re.search(r"(http://127\.0\.0\.1:[1-9]\d*)", log.read_text())):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.02)
        yield found[1]
    finally:
        process.terminate()
        process.wait(20)


class Browser:
    """Cookies, and no redirect that the test does not follow itself."""

    def __init__(self, server: Server) -> None:
        self.url = server.url
        self._client = httpx.Client(follow_redirects=False, trust_env=False, timeout=30)

    def get(self, url: str) -> httpx.Response:
        return self._client.get(url if url.startswith("http") else self.url + url)

    def begin(self, provider: str = "", **query: str) -> str:
        """Where the browser is sent to log in."""
        sent = self.get(f"/api/auth/upstream/login{provider and f'/{provider}'}?{urlencode(query)}")
        assert sent.status_code == 302, sent.text
        return sent.headers["location"]

    def back(self, location: str) -> str:
        """Where the callback leads."""
        sent = self.get(location)
        assert sent.status_code == 302, sent.text
        return sent.headers["location"]

    @property
    def account(self) -> dict[str, Any] | None:
        """Who is logged in."""
        found = self.get("/api/auth/session")
        return found.json()["data"]["user"] if found.status_code == 200 else None

    @property
    def cookies(self) -> dict[str, str]:
        return dict(self._client.cookies)

    def keep(self, name: str, value: str) -> None:
        self._client.cookies.set(name, value, domain="127.0.0.1")

    def close(self) -> None:
        self._client.close()


def failed(location: str) -> tuple[str, str]:
    """The error's name and the `next` of a way back to the login page."""
    parts = urlsplit(location)
    assert (parts.netloc, parts.path) == ("", "/login"), location
    said = dict(parse_qsl(parts.query))
    return said["error"], said.get("next", "")

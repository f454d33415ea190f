"""A server with OAuth2 clients, and what a client and a browser do by plain HTTP."""

import base64
import contextlib
import hashlib
import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import msgspec

from tests.server.http import Answer, ask
from tests.serving import Server, serving

BACK = "https://client.example.com/callback"
SECRET = "a-random-secret-of-the-confidential-client"
PASSWORD = "Administrator-password-1"
CLIENTS: list[dict[str, Any]] = [
    {"client_id": "spa", "name": "Single page", "redirect_uris": [BACK], "skip_consent": True},
    {"client_id": "asks", "name": "Asking <client>", "redirect_uris": [BACK]},
    {
        "client_id": "web",
        "redirect_uris": [BACK, f"{BACK}?tenant=1"],
        "secret_hash": f"sha256:{hashlib.sha256(SECRET.encode()).hexdigest()}",
        "skip_consent": True,
        "scopes": ["openid", "profile"],
    },
    {
        "client_id": "old",
        "redirect_uris": [BACK],
        "secret_hash": f"sha256:{hashlib.sha256(SECRET.encode()).hexdigest()}",
        "skip_consent": True,
        "pkce": "optional",
    },
]


class Flow(msgspec.Struct):
    """One client's view of one server; `cookie` is a browser's that has logged in."""

    url: str
    cookie: str = ""
    client_id: str = "spa"
    secret: str = ""
    verifier: str = msgspec.field(default_factory=lambda: secrets.token_urlsafe(48))

    @property
    def challenge(self) -> str:
        digest = hashlib.sha256(self.verifier.encode()).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

    def query(self, **changes: str | None) -> dict[str, str]:
        """An authorization request; None leaves a parameter out."""
        query = {
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": BACK,
            "scope": "openid profile",
            "state": "xyz",
            "code_challenge": self.challenge,
            "code_challenge_method": "S256",
            **changes,
        }
        return {name: value for name, value in query.items() if value is not None}

    def get(self, path: str, **headers: str) -> Answer:
        sent = {"Cookie": f"sage_session={self.cookie}"} if self.cookie else {}
        return ask(self.url + path, headers={**sent, **headers})

    def authorize(self, **changes: str | None) -> Answer:
        return self.get(f"/oauth2/authorize?{urlencode(self.query(**changes))}")

    def code(self, **changes: str | None) -> str:
        answer = self.authorize(**changes)
        assert answer.status == 302, answer
        return told(answer)["code"]

    def token(self, **form: str | None) -> Answer:
        """A token request; the client named in the form unless told otherwise."""
        fields: dict[str, str | None] = {"client_id": self.client_id}
        if self.secret:
            fields["client_secret"] = self.secret
        fields.update(form)
        kept = {name: value for name, value in fields.items() if value is not None}
        return post(f"{self.url}/oauth2/token", urlencode(kept))

    def exchange(self, code: str, /, **form: str | None) -> Answer:
        given: dict[str, str | None] = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": BACK,
            "code_verifier": self.verifier,
        }
        return self.token(**{**given, **form})

    def refresh(self, token: str, **form: str | None) -> Answer:
        return self.token(**{"grant_type": "refresh_token", "refresh_token": token, **form})

    def userinfo(self, token: str, method: str = "GET") -> Answer:
        headers = {"Authorization": f"Bearer {token}"}
        return ask(f"{self.url}/oauth2/userinfo", method, headers=headers)


def post(url: str, form: str, **headers: str) -> Answer:
    media = {"Content-Type": "application/x-www-form-urlencoded"}
    return ask(url, "POST", form.encode(), {**media, **headers})


def told(answer: Answer) -> dict[str, str]:
    """The query of a redirect to the client."""
    location = answer.headers["location"]
    assert location.startswith(BACK), location
    return {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}


def cookie_of(url: str, username: str, password: str) -> str:
    """The cookie of a fresh login."""
    body = {"username_or_email": username, "password": password}
    answer = ask(f"{url}/sage/api/auth/login", "POST", body)
    assert answer.status == 200, answer
    return answer.headers["set-cookie"].partition("=")[2].partition(";")[0]


@contextlib.contextmanager
def running(folder: Path, **given: str) -> Iterator[Server]:
    settings = {
        "ADMIN_PASSWORD": PASSWORD,
        "OAUTH_CLIENTS": json.dumps(CLIENTS),
        "LOGIN_RATE": "100000/minute",
        "VALIDATE_RESPONSES": "true",
        **given,
    }
    with serving(folder / "data", given=settings) as server:
        yield server

"""A login provider over HTTP that keeps the protocol, but for what a test has it break."""

import base64
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote_plus, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey

CLIENT_ID = "quartet&co"
CLIENT_SECRET = "a secret: with +signs and %20"
DISCOVERY = "/.well-known/openid-configuration"


class Asked(NamedTuple):
    """A request that came."""

    path: str
    headers: dict[str, str]
    form: dict[str, str]


class Issuer:
    """Speaks OpenID Connect and, at the same endpoints, plain OAuth 2.

    `person` is who logs in. `token`, `metadata` and `told` change what the id_token, the metadata
    and userinfo say; None takes a claim away. `answers` outranks an endpoint: a status and a body.
    """

    def __init__(self) -> None:
        self.key = RSAKey.generate_key(2048, {"kid": "one", "use": "sig"})
        self.person: dict[str, Any] = {"sub": "ada"}
        self.token: dict[str, Any] = {}
        self.metadata: dict[str, Any] = {}
        self.told: dict[str, Any] = {}
        self.answers: dict[str, tuple[int, Any]] = {}
        self.sign: Callable[[dict[str, Any]], str] = self._signed
        self.asked: list[Asked] = []
        self._codes: dict[str, dict[str, str]] = {}
        handler = type("Handler", (_Handler,), {"issuer": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def behave(self) -> None:
        """Keep the protocol again."""
        self.person = {"sub": "ada"}
        self.sign = self._signed
        for changes in (self.token, self.metadata, self.told, self.answers):
            changes.clear()

    def openid(self, **changes: Any) -> dict[str, Any]:
        """Its entry in UPSTREAM_PROVIDERS, by discovery."""
        return {"id": "issuer", "issuer": self.url, **_CLIENT, **changes}

    def plain(self, **changes: Any) -> dict[str, Any]:
        """Its entry as a plain OAuth 2 provider."""
        return {
            "id": "plain",
            "authorize_url": f"{self.url}/authorize",
            "token_url": f"{self.url}/token",
            "userinfo_url": f"{self.url}/userinfo",
            **_CLIENT,
            **changes,
        }

    def agreed(self, location: str, **changes: str | None) -> str:
        """Where a browser that agreed is sent back to; None leaves a parameter out."""
        asked = dict(parse_qsl(urlsplit(location).query))
        code = secrets.token_urlsafe(8)
        self._codes[code] = asked
        answer = {"code": code, "state": asked["state"], "iss": self.url, **changes}
        query = urlencode({name: value for name, value in answer.items() if value is not None})
        return f"{asked['redirect_uri']}?{query}"

    def answer(self, asked: Asked) -> tuple[int, Any]:
        self.asked.append(asked)
        if asked.path in self.answers:
            return self.answers[asked.path]
        return {
            DISCOVERY: self._described,
            "/jwks": lambda _: (200, KeySet([self.key]).as_dict(private=False)),
            "/token": self._exchanged,
            "/userinfo": self._userinfo,
        }.get(asked.path, lambda _: (404, {}))(asked)

    def _described(self, _: Asked) -> tuple[int, Any]:
        metadata = {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/jwks",
            "userinfo_endpoint": f"{self.url}/userinfo",
        }
        return 200, _changed(metadata, self.metadata)

    def _exchanged(self, asked: Asked) -> tuple[int, Any]:
        kept = self._codes.pop(asked.form.get("code", ""), None)
        if _client(asked) != (CLIENT_ID, CLIENT_SECRET):
            return 401, {"error": "invalid_client"}
        if (
            kept is None
            or _challenge(asked.form["code_verifier"]) != kept["code_challenge"]
            or asked.form["redirect_uri"] != kept["redirect_uri"]
        ):
            return 400, {"error": "invalid_grant"}
        now = int(time.time())
        claims = {
            "iss": self.url,
            "aud": CLIENT_ID,
            "iat": now,
            "exp": now + 300,
            "nonce": kept.get("nonce"),
            **self.person,
        }
        answer = {"access_token": "an-access-token", "token_type": "Bearer"}
        if "openid" in kept["scope"].split():
            answer["id_token"] = self.sign(_changed(claims, self.token))
        return 200, answer

    def _userinfo(self, asked: Asked) -> tuple[int, Any]:
        if asked.headers.get("authorization") != "Bearer an-access-token":
            return 401, {}
        return 200, _changed(self.person, self.told)

    def _signed(self, claims: dict[str, Any]) -> str:
        return jwt.encode({"alg": "RS256", "kid": "one"}, claims, self.key)


_CLIENT = {"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET}


class _Handler(BaseHTTPRequestHandler):
    issuer: Issuer

    def do_GET(self) -> None:
        length = int(self.headers.get("content-length", 0))
        form = dict(parse_qsl(self.rfile.read(length).decode()))
        headers = {name.lower(): value for name, value in self.headers.items()}
        status, body = self.issuer.answer(Asked(urlsplit(self.path).path, headers, form))
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        if 300 <= status < 400:
            self.send_header("location", body["location"])
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    do_POST = do_GET

    def log_message(self, *_: Any) -> None:
        return


def _changed(claims: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**claims, **changes}.items() if value is not None}


def _challenge(verifier: str) -> str:
    digest = hashlib.sha256(verifier.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _client(asked: Asked) -> tuple[str, str]:
    header = asked.headers.get("authorization", "")
    if not header.startswith("Basic "):
        return asked.form.get("client_id", ""), asked.form.get("client_secret", "")
    name, _, secret = base64.b64decode(header[6:]).decode().partition(":")
    return unquote_plus(name), unquote_plus(secret)

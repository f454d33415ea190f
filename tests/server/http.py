"""Plain HTTP for the tests of this area: what was sent is what the test says, nothing more."""

import http.client
import json
from typing import Any, NamedTuple
from urllib.parse import urlsplit


class Answer(NamedTuple):
    """A whole answer; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    url: str, method: str = "GET", body: Any = None, headers: dict[str, str] | None = None
) -> Answer:
    """One request on a connection of its own; a body that is not bytes goes as JSON."""
    parts = urlsplit(url)
    sent = dict(headers or {})
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
        sent.setdefault("Content-Type", "application/json")
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=30)
    try:
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        connection.request(method, target, body, sent)
        answer = connection.getresponse()
        data = answer.read()
        return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, data)
    finally:
        connection.close()


def bearer(url: str, username: str, password: str) -> dict[str, str]:
    """The Authorization header of a fresh login."""
    answer = ask(
        f"{url}/sage/api/auth/login",
        "POST",
        {"username_or_email": username, "password": password},
    )
    assert answer.status == 200, answer
    return {"Authorization": f"Bearer {answer.json()['data']['access_token']}"}

"""The client that every test of the suite sends through: no response goes unjudged."""

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

import requests

from contracts.document import Contract, Operation
from contracts.judging import Judge, Verdict, events
from contracts.reach import Reach

READ_MAX = 4 * 1024 * 1024
READ_S = 20.0
ENDLESS = ("/api/stream/active_sessions", "/api/sessions/stream")
"""Ends of the paths of streams that only their reader ends."""
ABSENT: Any = object()
Form = Sequence[tuple[str, str | tuple[str, bytes]]]
"""Parts of a multipart form: a name, and a text or a file's name and content."""


class Reply(NamedTuple):
    """A judged response. `status` is the effective one, `http` the wire's."""

    status: int
    http: int
    success: bool
    headers: Mapping[str, str]
    body: Any
    """The JSON value, else bytes."""

    @property
    def data(self) -> Any:
        """What stands under `data` of an envelope."""
        return self.body["data"]

    @property
    def lines(self) -> list[Any]:
        """The JSON lines of a stream."""
        return [json.loads(line) for line in self.body.split(b"\n") if line[:1] == b"{"]

    @property
    def events(self) -> list[tuple[str, Any]]:
        """(name, JSON value) of the events of a `text/event-stream`."""
        return [(name, json.loads(data)) for name, data in events(self.body)]


class Session(requests.Session):
    """Reads every body to its end within bounds; of an endless stream the first event alone."""

    def __init__(self) -> None:
        super().__init__()
        self.trust_env = False

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        options["stream"] = True
        options["timeout"] = options.get("timeout") or READ_S
        options["allow_redirects"] = False
        response = super().send(request, **options)
        response._content = _read(response)
        response._content_consumed = True
        return response


def _parts(form: Form) -> list[tuple[str, tuple[str | None, str | bytes]]]:
    return [(name, (None, part) if isinstance(part, str) else part) for name, part in form]


def _read(response: requests.Response) -> bytes:
    endless = urlsplit(response.url).path.rstrip("/").endswith(ENDLESS)
    chunks, size, until = [], 0, time.monotonic() + READ_S
    try:
        for chunk in response.iter_content(1 if endless else 65536):
            chunks.append(chunk)
            size += len(chunk)
            if endless and b"".join(chunks[-4:]).replace(b"\r", b"").endswith(b"\n\n"):
                break
            if size > READ_MAX or time.monotonic() > until:
                raise AssertionError(f"{response.url} went on for {size} bytes")
    finally:
        response.close()
    return b"".join(chunks)


class Client:
    """Sends to one contract at one address with one credential.

    `token` is a bearer token. Cookies of answers are not kept: a test says what it sends.
    """

    def __init__(
        self,
        base_url: str,
        contract: Contract,
        judge: Judge,
        reach: Reach,
        token: str = "",
        session: Session | None = None,
    ) -> None:
        self.base_url = base_url
        self.contract = contract
        self.token = token
        self._judge = judge
        self._reach = reach
        self._session = session or Session()

    def holding(self, token: str) -> "Client":
        """The same client with another credential, or "" for none."""
        return Client(self.base_url, self.contract, self._judge, self._reach, token, self._session)

    def at(self, base_url: str) -> "Client":
        """The same client of another server."""
        return Client(base_url, self.contract, self._judge, self._reach, self.token, self._session)

    def url(self, operation: Operation, path: Mapping[str, str] | None, query: Any) -> str:
        """Where an operation stands; parameters of the path are encoded whole."""
        where = operation.path
        for name, value in (path or {}).items():
            where = where.replace(f"{{{name}}}", quote(value, safe=""))
        asked = query if isinstance(query, str) else urlencode(query or {}, doseq=True)
        return f"{self.base_url}/{self.contract.name}{where}" + (f"?{asked}" if asked else "")

    def call(
        self,
        operation_id: str,
        *,
        path: Mapping[str, str] | None = None,
        query: Mapping[str, Any] | str | None = None,
        body: Any = ABSENT,
        content: bytes | None = None,
        form: Form | None = None,
        fields: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Send one request and judge what comes back. Raises BrokenContract.

        `body` is sent as JSON, `form` as multipart, `fields` url-encoded, `content` as it
        stands.
        """
        operation = self.contract.operations[operation_id]
        sent = {**({"authorization": f"Bearer {self.token}"} if self.token else {})}
        if body is not ABSENT:
            content = json.dumps(body).encode()
            sent["content-type"] = "application/json"
        if fields is not None:
            content = urlencode(fields).encode()
            sent["content-type"] = "application/x-www-form-urlencoded"
        request = requests.Request(
            operation.method,
            self.url(operation, path, query),
            headers={**sent, **(headers or {})},
            data=content,
            files=None if form is None else _parts(form),
        ).prepare()
        # requests would undo the encoding of unreserved characters, which the test may be about
        request.url = self.url(operation, path, query)
        response = self._session.send(request)
        self._session.cookies.clear()
        return self.judged(operation, response)

    def judged(self, operation: Operation, response: requests.Response) -> Reply:
        """A response that was had in another way, judged and recorded."""
        headers = {name.lower(): value for name, value in response.headers.items()}
        verdict: Verdict = self._judge.judge(
            operation, response.status_code, headers, response.content
        )
        self._reach.saw(operation, verdict.status, response.status_code, verdict.success)
        return Reply(verdict.status, response.status_code, verdict.success, headers, verdict.value)

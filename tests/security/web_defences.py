"""What comes in over HTTP: attacks by bodies, headers, sites and names (checklist 34, 44 to 52)."""

import json
import logging
import re
from typing import Any
from unittest import mock

import jsonschema_rs

from server import observing
from server.lane.origin import Proxies
from server.lane.refusals import Refusal
from server.lane.schemas import Schemas
from tests.security.defences import door, operations, without
from tests.security.place import PASSWORD, Place, fresh_address, path_of, unique

AS_JSON = {"content-type": "application/json"}
OTHER_MEDIA = (
    "application/json",
    "application/x-www-form-urlencoded",
    "application/octet-stream",
    "application/xml",
    "application/zip",
    "multipart/mixed; boundary=x",
    "multipart/related; boundary=x",
    "multipart/form-datax; boundary=x",
    "text/plain",
    "x",
)


def _as_invalid(self: Any) -> Refusal:
    return Refusal(422, "request.invalid", errors=[])


@without(34, media={"server.lane.operation:Operation._wrong_media": _as_invalid})
async def another_media_type_is_415(place: Place) -> None:
    """Nor is a file taken from anything but our own parser of forms (n8n CVE-2026-21858)."""
    form = b'--x\r\ncontent-disposition: form-data; name="file"; filename="/etc/passwd"\r\n\r\n{}'
    for operation in operations():
        if not operation.media or operation.public:
            continue
        for media in ("multipart/form-data; boundary=x", *OTHER_MEDIA):
            if media.partition(";")[0] in operation.media:
                continue
            reply = await place.admin.ask(
                operation.method, path_of(operation), form, headers={"content-type": media}
            )
            assert (reply.http, reply.read) == (415, 0), (operation.id, media)


async def _endless(receive: Any, limit: int, declared: Any) -> bytes:
    return bytes((await receive())["body"])


@without(34, size={"server.lane.bodies:read_body": _endless})
async def a_large_body_is_413(place: Place) -> None:
    body = json.dumps({"name": unique("large"), "pad": "y" * 1_100_000}).encode()
    reply = await place.owner.ask("POST", "/api/agent/create", body, headers=AS_JSON)
    assert reply.http == 413


@without(44, site={"server.lane.access:Door._same_site": lambda self, headers: None})
async def another_site_writes_nothing_with_our_cookie(place: Place) -> None:
    login = await place.identity.login(place.owner.username, PASSWORD, address=fresh_address())
    for elsewhere in (
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ):
        for operation in operations():
            if operation.public or operation.method == "GET":
                continue
            if operation.role in ("admin", "oauth2"):
                continue
            headers = {"cookie": f"sage_session={login.cookie}", **elsewhere}
            reply = await place.ask(
                operation.method, path_of(operation), body=b"{", headers=headers
            )
            known = operation.contract == "sage"
            assert reply.http == (403 if known else 401), (operation.id, elsewhere)


@without(44, proxied={"server.lane.access:Door._same_site": lambda self, headers: None})
async def another_site_writes_nothing_behind_a_proxy(place: Place) -> None:
    with (
        mock.patch.object(door(place), "_proxy_header", b"x-sage-internal-userid"),
        mock.patch.object(Proxies, "trusts", return_value=True),
    ):
        named = {"x-sage-internal-userid": unique("proxied")}
        reply = await place.ask("GET", "/api/user/config", headers=named)
        assert reply.http == 200, reply
        evil = {**named, "origin": "https://evil.example"}
        assert (await place.ask("POST", "/api/auth/logout", headers=evil)).http == 403


class Logged(logging.Handler):
    """What our formatter makes of every record."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


def logged(place: Place) -> Logged:
    """Catch what is logged as the server would print it."""
    from server.settings import Settings

    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    observing.configure_logs(Settings(_env_file=None, data=place.data, log_format="json"))
    handler = Logged()
    handler.setFormatter(root.handlers[0].formatter)
    root.handlers[:] = [*before, handler]
    root.setLevel(level)
    return handler


@without(
    45,
    scrubbing={
        "server.observing:scrubbed": lambda text: text,
        "server.observing:_SECRET_NAME": re.compile("(?!)"),
    },
)
async def logs_hold_no_credential(place: Place) -> None:
    handler = logged(place)
    try:
        log = logging.getLogger("quartet.test")
        log.setLevel("DEBUG")
        log.warning("GET /ws?token=canary-1&x=2 with Bearer canary-2")
        log.warning("calling", extra={"api_key": "canary-3", "headers": {"cookie": "canary-4"}})
        log.warning("postgresql://quartet:canary-5@db/quartet")
    finally:
        logging.getLogger().removeHandler(handler)
    assert len(handler.lines) == 3
    assert "canary" not in "".join(handler.lines)


@without(45, path={"server.observing:quote": lambda path: path})
async def a_path_forges_no_line(place: Place) -> None:
    from tests.security import asgi

    handler = Logged()
    access = logging.getLogger("quartet.access")
    access.addHandler(handler)
    level = access.level
    access.setLevel("INFO")
    try:
        application = observing.access_logged(place.application)
        await asgi.ask(application, "GET", "/nothing%0Aforged?token=canary")
    finally:
        access.removeHandler(handler)
        access.setLevel(level)
    assert len(handler.lines) == 1
    assert "\n" not in handler.lines[0]
    assert "canary" not in handler.lines[0]


@without(48, headers={"server.lane.replies:BASE_HEADERS": ()})
async def every_answer_carries_its_headers(place: Place) -> None:
    for reply in (
        await place.ask("GET", "/api/health"),
        await place.ask("GET", "/api/user/config"),
        await place.ask("GET", "/api/nothing"),
        await place.owner.ask("GET", "/api/agent/list"),
    ):
        assert reply.headers.get("x-content-type-options") == "nosniff"
        assert "default-src 'none'" in reply.headers.get("content-security-policy", "")
        assert reply.headers.get("cache-control") == "no-store"
        assert reply.headers.get("referrer-policy") == "no-referrer"


@without(48, origins={"server.dispatch:Dispatch._listed": lambda self, headers: True})
async def no_other_origin_reads_us(place: Place) -> None:
    dispatch = place.application.lane._dispatch
    with mock.patch.object(dispatch, "_cors", frozenset({"https://ours.example", "*"})):
        wild = await place.ask("GET", "/api/health", headers={"origin": "https://evil.example"})
    assert wild.headers.get("access-control-allow-credentials") is None
    with mock.patch.object(dispatch, "_cors", frozenset({"https://ours.example"})):
        for origin in ("https://evil.example", "null", "https://ours.example.evil.example"):
            reply = await place.ask("GET", "/api/health", headers={"origin": origin})
            assert "access-control-allow-origin" not in reply.headers, origin


@without(49, repeated={"server.lane.operation:_refuse_repeated": lambda pairs: None})
async def a_header_that_decides_comes_once(place: Place) -> None:
    good = (b"authorization", f"Bearer {place.owner.token}".encode())
    for name, value in (
        (b"authorization", b"Bearer other"),
        (b"cookie", b"sage_session=a"),
        (b"content-length", b"5"),
        (b"content-type", b"application/json"),
        (b"host", b"example.com"),
        (b"idempotency-key", b"a"),
    ):
        pairs = [(name, value), *([good] if name != good[0] else []), (name, value + b"x")]
        if name == good[0]:
            pairs = [(name, value), good]
        reply = await place.ask("GET", "/api/user/config", headers=pairs)
        assert reply.http == 400, name


BROKEN_JSON = (
    b'{"name":"a","name":"b"}',
    b'{"a":' + b"[" * 101 + b"]" * 101 + b"}",
    b'{"a":' + b"9" * 40 + b"}",
    b'{"a":1e999}',
    b'{"a":NaN}',
    b'{"a":Infinity}',
    b'{"a":"\\ud800"}',
    b'{"a":"\\u0000"}',
    b'{"a\\u0000":1}',
    b'{"a":"\xff"}',
    b"\xef\xbb\xbf{}",
    b"{",
    b"",
    b"[" * 100_000,
)


def _as_python_does(body: bytes) -> Any:
    return json.loads(body)


@without(
    50,
    parser={"server.lane.bodies:parse_json": _as_python_does},
    scan={"server.lane.bodies:_scan": lambda value: None},
)
async def json_that_no_store_holds_is_400(place: Place) -> None:
    for operation in operations():
        if "application/json" not in operation.media or operation.public:
            continue
        required = operation.raw["requestBody"].get("required", False)
        for body in BROKEN_JSON:
            if not body and not required:
                continue
            reply = await place.admin.ask(
                operation.method, path_of(operation), body, headers=AS_JSON
            )
            assert reply.http == 400, (operation.id, body[:30])


@without(51, engine={"server.lane.schemas:_LINEAR": jsonschema_rs.FancyRegexOptions()})
async def patterns_take_linear_time(place: Place) -> None:
    """A back-reference is what no linear engine can do, so one that refuses it is one."""
    del place
    try:
        Schemas("patterns", {}).validator({"type": "string", "pattern": r"^(a+)\1$"}).accepts("aa")
    except ValueError:
        return
    raise AssertionError("the engine backtracks")


def unchecked(self: Any, texts: list[str] | None) -> Any:
    return texts[-1] if texts else (None if self.default is ... else self.default)


@without(52, plan={"server.lane.parameters:Parameter.value": unchecked})
async def sorting_goes_by_listed_names(place: Place) -> None:
    for name in ("password_hash", "date; DROP TABLE users", "1", "", "DATE", "__class__"):
        from urllib.parse import quote

        reply = await place.owner.ask("GET", f"/api/conversations?sort_by={quote(name)}")
        assert reply.http == 422, name

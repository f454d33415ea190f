"""What the lane does with a request, in pairs: accepted and refused."""

import asyncio
import json
import re
from typing import Any

import httpx
import pytest

from domain.file_names import safe_name
from server.app import Application
from server.lane.errors import CHALLENGE, refusal_of
from server.lane.files import disposition
from storage.database import Orphan
from tests.lane import shop
from tests.lane.conftest import application, contract


async def test_parameters_are_converted_and_defaulted(client: httpx.AsyncClient) -> None:
    answer = await client.get("/sage/items?ratio=2.5&status=1,2&status=3", headers={"X-Trace": "t"})
    assert answer.status_code == 200
    assert answer.json()["data"] == {
        "who": "alice",
        "page": 1,
        "ratio": 2.5,
        "all": False,
        "status": [1, 2, 3],
        "trace": "t",
    }


@pytest.mark.parametrize(
    ("query", "loc", "kind"),
    [
        ("page=1_0", ["query", "page"], "type"),
        ("page=%201", ["query", "page"], "type"),
        ("page=0", ["query", "page"], "minimum"),
        ("page=" + "9" * 30, ["query", "page"], "type"),
        ("page=%D9%A1", ["query", "page"], "type"),
        ("all=yes", ["query", "all"], "type"),
        ("ratio=nan", ["query", "ratio"], "type"),
        ("ratio=1e999", ["query", "ratio"], "type"),
        ("status=1,x", ["query", "status"], "type"),
        ("status=10", ["query", "status", 0], "maximum"),
        ("page=%00", ["query", "page"], "type"),
    ],
)
async def test_parameters_that_break_their_schema(
    client: httpx.AsyncClient, query: str, loc: list[Any], kind: str
) -> None:
    answer = await client.get(f"/sage/items?{query}")
    assert answer.status_code == 422
    body = answer.json()
    assert body["code"] == 422
    assert [(e["loc"], e["type"]) for e in body["data"]["errors"]] == [(loc, kind)]


async def test_every_bad_parameter_is_named(client: httpx.AsyncClient) -> None:
    answer = await client.get("/sage/items?page=0&all=7", headers={"X-Trace": "toolong"})
    locations = {tuple(e["loc"]) for e in answer.json()["data"]["errors"]}
    assert locations == {("query", "page"), ("query", "all"), ("header", "X-Trace")}


async def test_query_that_does_not_decode_is_400(client: httpx.AsyncClient) -> None:
    assert (await client.get("/sage/items?page=%ff")).status_code == 400


async def test_body_becomes_a_struct_and_null_differs_from_absent(
    client: httpx.AsyncClient,
) -> None:
    answer = await client.post("/sage/items", json={"name": "pen", "price": 1, "note": None})
    assert answer.status_code == 200
    assert answer.json()["data"]["note"] is None
    assert shop.created[-1] == {"who": "alice", "name": "pen"}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nul",
        b'{"name":"a","price":1,"price":2}',
        b'{"name":"\xff","price":1}',
        b'{"name":"\\u0000","price":1}',
        b'{"name":"\\ud800","price":1}',
        b'{"name":"a","price":NaN}',
        b'{"name":"a","price":1e999}',
        b'{"name":"a","price":123456789012345678901234567890}',
        b"[" * 101 + b"]" * 101,
        b"[" * 500 + b"]" * 500,
        b'{"name\\u0000":"a","price":1}',
        b"\x00",
    ],
)
async def test_json_that_no_store_can_hold_is_400(client: httpx.AsyncClient, body: bytes) -> None:
    before = len(shop.created)
    answer = await client.post(
        "/sage/items", content=body, headers={"content-type": "application/json"}
    )
    assert answer.status_code == 400, answer.text
    assert answer.json()["code"] == 400
    assert answer.json()["data"] is None
    assert len(shop.created) == before


@pytest.mark.parametrize(
    ("body", "loc", "kind"),
    [
        ({"name": "a"}, ["body"], "required"),
        ({"name": "", "price": 1}, ["body", "name"], "minLength"),
        ({"name": "a", "price": "1"}, ["body", "price"], "type"),
        ({"name": "a", "price": 1, "id": "x"}, ["body"], "additionalProperties"),
        ({"name": "a", "price": 1, "tags": [1]}, ["body", "tags", 0], "type"),
        ([], ["body"], "type"),
    ],
)
async def test_json_that_breaks_its_schema_is_422(
    client: httpx.AsyncClient, body: Any, loc: list[Any], kind: str
) -> None:
    answer = await client.post("/sage/items", json=body)
    assert answer.status_code == 422
    assert [(e["loc"], e["type"]) for e in answer.json()["data"]["errors"]] == [(loc, kind)]


async def test_a_violation_never_shows_the_value(client: httpx.AsyncClient) -> None:
    answer = await client.post("/sage/items", json={"name": "s3cret" * 9, "price": "s3cret"})
    assert answer.status_code == 422
    assert "s3cret" not in answer.text


@pytest.mark.parametrize("media", ["text/plain", "application/x-www-form-urlencoded", "", "json"])
async def test_other_media_types_are_415(client: httpx.AsyncClient, media: str) -> None:
    answer = await client.post("/sage/items", content=b"{}", headers={"content-type": media})
    assert answer.status_code == 415


async def test_charset_utf8_is_json_and_latin1_is_not(client: httpx.AsyncClient) -> None:
    for charset, status in (("utf-8", 200), ("UTF-8", 200), ("latin-1", 415)):
        answer = await client.post(
            "/sage/items",
            content=json.dumps({"name": "a", "price": 1}),
            headers={"content-type": f"application/json; charset={charset}"},
        )
        assert answer.status_code == status


async def test_body_beyond_the_limit_is_413(client: httpx.AsyncClient) -> None:
    async def chunks() -> Any:
        for _ in range(30):
            yield b" " * 100

    headers = {"content-type": "application/json"}
    declared = await client.post("/sage/items", content=b" " * 2001, headers=headers)
    chunked = await client.post("/sage/items", content=chunks(), headers=headers)
    assert (declared.status_code, chunked.status_code) == (413, 413)


async def test_optional_body_may_be_absent_but_not_wrong(client: httpx.AsyncClient) -> None:
    assert (await client.put("/sage/items/1")).json()["data"]["body"] is False
    put = await client.put("/sage/items/1", json={"name": "a", "price": 2})
    assert put.json()["data"]["body"] is True
    assert (await client.put("/sage/items/1", json={"name": "a"})).status_code == 422


async def test_accept_that_cannot_be_served_is_406(client: httpx.AsyncClient) -> None:
    for accept, status in (
        ("*/*", 200),
        ("application/json", 200),
        ("application/*;q=0.5", 200),
        ("text/html, */*;q=0.1", 200),
        ("text/html", 406),
    ):
        answer = await client.get("/sage/items/stats", headers={"accept": accept})
        assert answer.status_code == status


async def test_static_beats_parameter_and_slashes_are_equal(client: httpx.AsyncClient) -> None:
    assert (await client.get("/sage/items/stats")).json()["data"] == {"stats": True}
    assert (await client.get("/sage/items/stats/")).json()["data"] == {"stats": True}
    assert (await client.get("/sage/items/a%2Fb")).json()["data"] == {"id": "a/b"}
    assert (await client.get("/items/7/")).json()["data"] == {"id": "7"}
    assert (await client.put("/items/stats")).json()["data"]["id"] == "stats"


async def test_tail_takes_the_rest(client: httpx.AsyncClient) -> None:
    answer = await client.get("/sage/files/a/b%20c/d.txt")
    assert answer.json()["data"] == {"path": "a/b c/d.txt"}


async def test_unknown_path_and_method(client: httpx.AsyncClient) -> None:
    missing = await client.get("/sage/nothing")
    assert (missing.status_code, missing.json()["code"]) == (404, 404)
    wrong = await client.patch("/sage/items/stats")
    assert wrong.status_code == 405
    assert wrong.headers["allow"] == "DELETE, GET, HEAD, OPTIONS, PUT"
    assert (await client.get("/sage/items/%ff")).status_code == 400
    assert (await client.get("/sage/items/%00")).status_code == 400


async def test_unknown_root_path_speaks_the_ports_contract(app: Any) -> None:
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app), base_url="http://shop.test:3005"
    ) as at_assistant:
        answer = await at_assistant.get("/nothing")
        assert answer.status_code == 404
        assert answer.json().keys() == {"error"}
        assert (await at_assistant.get("/sage/text")).text == "plain"


async def test_head_answers_like_get_without_a_body(client: httpx.AsyncClient) -> None:
    answer = await client.head("/sage/items/stats")
    assert (answer.status_code, answer.content) == (200, b"")
    assert int(answer.headers["content-length"]) > 0


async def test_etag_and_conditional_requests(client: httpx.AsyncClient) -> None:
    first = await client.get("/sage/items/1")
    assert first.headers["etag"] == '"7"'
    for given, status in (('"7"', 304), ('W/"7", "8"', 304), ("*", 304), ('"8"', 200)):
        answer = await client.get("/sage/items/1", headers={"if-none-match": given})
        assert answer.status_code == status
    put = await client.put("/sage/items/1", headers={"if-match": '"7"'})
    assert put.json()["data"]["match"] == 7
    assert (await client.put("/sage/items/1", headers={"if-match": "x"})).status_code == 412


@pytest.mark.parametrize(
    ("how", "status", "code"),
    [
        ("disabled", 200, 400),
        ("unusable", 400, 500),
        ("taken", 409, 505),
        ("missing", 404, 404),
        ("throttled", 429, 429),
        ("unknown", 401, 401),
        ("duplicate", 409, 409),
        ("full", 507, 507),
        ("away", 503, 503),
        ("fault", 500, 500),
    ],
)
async def test_errors_take_the_contracts_shape(
    client: httpx.AsyncClient, how: str, status: int, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from server.messages import catalogue

    monkeypatch.setitem(catalogue(), "thing.taken", ("有了", "taken"))
    answer = await client.get(f"/sage/fail/{how}", headers={"accept-language": "en-GB"})
    assert answer.status_code == status
    body = answer.json()
    assert body.keys() == {"code", "message", "data", "timestamp"}
    assert (body["code"], body["data"]) == (code, None)
    assert "passwd" not in answer.text
    assert answer.headers["content-language"] == "en"
    if how == "throttled":
        assert answer.headers["retry-after"] == "9"


async def test_language_changes_the_text_and_not_the_code(client: httpx.AsyncClient) -> None:
    zh = await client.get("/sage/fail/missing")
    en = await client.get("/sage/fail/missing", headers={"accept-language": "en"})
    assert zh.json()["message"] == "资源不存在"
    assert en.json()["message"] == "Not found."


async def test_request_id_is_echoed_or_made(client: httpx.AsyncClient) -> None:
    given = await client.get("/sage/text", headers={"x-request-id": "abc-1"})
    assert given.headers["x-request-id"] == "abc-1"
    made = await client.get("/sage/text", headers={"x-request-id": "bad id\t"})
    assert made.headers["x-request-id"] not in ("", "bad id\t")


async def test_repeated_deciding_header_is_400(client: httpx.AsyncClient) -> None:
    answer = await client.get(
        "/sage/items/stats",
        headers=[("authorization", "Bearer alice"), ("authorization", "Bearer root")],
    )
    assert answer.status_code == 400


async def test_stream_is_sent_whole_and_closed(client: httpx.AsyncClient) -> None:
    answer = await client.get("/sage/stream")
    assert answer.text == "0\n1\n2\n"
    assert answer.headers["x-run-id"] == "r1"
    assert answer.headers["cache-control"] == "no-cache, no-transform"
    assert shop.closed.pop() == "closed"


async def test_stream_that_breaks_has_no_end(app: Any) -> None:
    sent: list[Any] = []

    async def receive() -> Any:
        import asyncio

        await asyncio.sleep(60)

    async def send(message: Any) -> None:
        sent.append(message)

    await app(
        {
            "type": "http",
            "method": "GET",
            "path": "/sage/stream",
            "raw_path": b"/sage/stream",
            "query_string": b"n=13",
            "headers": [],
            "client": ("1.1.1.1", 1),
        },
        receive,
        send,
    )
    assert [m["body"] for m in sent[1:]] == [b"0\n", b"1\n", b"2\n", b"3\n", b"4\n", b"5\n"]
    assert all(m["more_body"] for m in sent[1:])


async def test_client_that_leaves_closes_the_source(app: Any) -> None:
    sent = 0

    async def receive() -> Any:
        import asyncio

        await asyncio.sleep(0.02)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        nonlocal sent
        sent += 1

    shop.closed.clear()
    await app(
        {
            "type": "http",
            "method": "GET",
            "path": "/sage/stream",
            "raw_path": b"/sage/stream",
            "query_string": b"n=100000",
            "headers": [],
            "client": ("1.1.1.1", 1),
        },
        receive,
        send,
    )
    assert shop.closed == ["closed"]
    assert 1 < sent < 1000


async def test_multipart_is_spooled_and_limited(client: httpx.AsyncClient) -> None:
    small = await client.post("/sage/uploads", files={"file": ("a.txt", b"x" * 10)})
    assert small.json()["data"] == {
        "name": "a.txt",
        "size": 10,
        "in_memory": True,
        "more": [],
        "public": False,
    }
    large = await client.post("/sage/uploads", files={"file": ("b.bin", b"x" * 2_000_000)})
    assert large.json()["data"].items() >= {"size": 2_000_000, "in_memory": False}.items()
    over = await client.post("/sage/uploads", files={"file": ("c.bin", b"x" * 3_000_001)})
    assert over.status_code == 413
    without = await client.post("/sage/uploads", files={"other": ("c.bin", b"x")})
    assert without.status_code == 422
    broken = await client.post(
        "/sage/uploads", content=b"--x\r\n", headers={"content-type": "multipart/form-data"}
    )
    assert broken.status_code == 400
    as_json = await client.post("/sage/uploads", json={"file": "/etc/passwd"})
    assert as_json.status_code == 415
    form = await client.post("/sage/uploads", data={"to": "x y"})
    assert form.json()["data"] == {"to": "x y"}


@pytest.mark.parametrize(
    "left_out", [b"--\r\n", b"--x--\r\n", b"\r\n--x--\r\n", b"le\r\n--x--\r\n"]
)
async def test_a_form_that_breaks_off_is_none(client: httpx.AsyncClient, left_out: bytes) -> None:
    """Also where whole parts came before: a client that was cut off did not send all it wanted."""
    part = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nwhole'
    whole = part + b"\r\n--x--\r\n"
    headers = {"content-type": "multipart/form-data; boundary=x"}
    assert (await client.post("/sage/uploads", content=whole, headers=headers)).status_code == 200
    assert whole.endswith(left_out)
    for form in (whole, part + b"\r\n" + whole):
        cut = form.removesuffix(left_out)
        refused = await client.post("/sage/uploads", content=cut, headers=headers)
        assert refused.status_code == 400, cut


async def test_form_fields_have_their_types(client: httpx.AsyncClient) -> None:
    file = ("file", ("a", b"a"))
    more = [("more", ("b", b"bb")), ("more", ("c", b"ccc"))]
    for sent, expected in ((more[:1], [["b", 2]]), (more, [["b", 2], ["c", 3]])):
        made = await client.post("/sage/uploads", files=[file, *sent], data={"public": "true"})
        assert made.json()["data"].items() >= {"more": expected, "public": True}.items()
    for files, data in (
        ([file], {"public": "yes"}),
        ([file, file], {}),
        ([file, ("to", ("t", b"t"))], {}),
        ([("more", ("b", b"b"))], {"file": "/etc/passwd"}),
    ):
        refused = await client.post("/sage/uploads", files=files, data=data)
        assert refused.status_code == 422, (files, data)
        assert refused.json()["data"]["errors"][0]["loc"][0] == "body"


async def test_a_file_is_sent_so_that_no_browser_runs_it(client: httpx.AsyncClient) -> None:
    shop.closed.clear()
    plain = await client.get("/sage/downloads/plain")
    assert plain.content == b"0123456789" * 4
    assert plain.headers["content-length"] == "40"
    assert plain.headers["content-type"] == "application/octet-stream"
    assert plain.headers["x-content-type-options"] == "nosniff"
    assert plain.headers["content-security-policy"].startswith("sandbox;")
    assert plain.headers["content-disposition"] == (
        "attachment; filename=\"a_b_.._u__x.html\"; filename*=utf-8''a_b_.._%C3%BC__x.html"
    )
    image = await client.get("/sage/downloads/image")
    assert image.headers["content-disposition"].startswith('inline; filename="a.png"')
    assert image.headers["content-type"] == "image/png"
    svg = await client.get("/sage/downloads/svg")
    assert svg.headers["content-disposition"].startswith("attachment;")
    unsized = await client.get("/sage/downloads/unsized")
    assert "content-length" not in unsized.headers
    assert len(unsized.content) == 40
    assert shop.closed == ["file"] * 4


async def test_the_head_of_a_file(client: httpx.AsyncClient) -> None:
    head = await client.head("/sage/downloads/plain")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == "40"
    assert head.headers["content-disposition"].startswith("attachment;")


async def test_a_file_that_breaks_off_never_looks_whole(app: Application) -> None:
    sent: list[Any] = []

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/sage/downloads/short",
        "raw_path": b"/sage/downloads/short",
        "query_string": b"",
        "headers": [(b"authorization", b"Bearer alice")],
        "server": ("shop.test", 8000),
        "client": ("1.2.3.4", 5),
    }
    await app.lane(scope, receive, send)
    assert [message.get("body") for message in sent[1:]] == [b"0123456789"]
    assert all(message["more_body"] for message in sent[1:])


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("report.pdf", "report.pdf"),
        ("../../etc/passwd", "_.._etc_passwd"),
        ("C:\\Windows\\x.exe", "C__Windows_x.exe"),
        ("a\r\nSet-Cookie: x", "a__Set-Cookie_ x"),
        ("\u202egnp.exe", "_gnp.exe"),
        (".", "file"),
        ("..", "file"),
        ("", "file"),
        (" . hidden . ", "hidden"),
        ("\ud800", "_"),
        ("n" * 300 + ".tar.gz", "n" * 138 + ".gz"),
        ("研究.md", "研究.md"),
    ],
)
def test_safe_names(given: str, kept: str) -> None:
    assert safe_name(given) == kept
    for inline in (True, False):
        assert re.fullmatch(
            rb"(inline|attachment); filename=\"[A-Za-z0-9._ -]+\"; filename\*=utf-8''[!-~]+",
            disposition(given, inline=inline),
        )


async def test_cors_answers_only_listed_origins(client: httpx.AsyncClient) -> None:
    app = application(contract(), cors=["https://web.test"])
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app), base_url="http://shop.test:8000"
    ) as made:
        preflight = {"access-control-request-method": "POST"}
        listed = await made.options(
            "/sage/items", headers={"origin": "https://web.test", **preflight}
        )
        assert listed.headers["access-control-allow-origin"] == "https://web.test"
        assert listed.headers["access-control-allow-credentials"] == "true"
        assert "POST" in listed.headers["access-control-allow-methods"]
        other = await made.options(
            "/sage/items", headers={"origin": "https://evil.test", **preflight}
        )
        assert "access-control-allow-origin" not in other.headers
        got = await made.get("/sage/text", headers={"origin": "https://web.test"})
        assert got.headers["access-control-allow-origin"] == "https://web.test"


async def test_root_path_is_taken_off(app: Any) -> None:
    mounted = application(contract(), root_path="/quartet")
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=mounted), base_url="http://shop.test:8000"
    ) as made:
        assert (await made.get("/quartet/sage/text")).text == "plain"


def test_an_account_that_goes_meanwhile_is_nobodys() -> None:
    refusal = refusal_of(Orphan("agents"), {}, {})
    assert refusal is not None
    assert (refusal.status, refusal.key) == (401, "auth.invalid")
    assert refusal.headers == (CHALLENGE,)

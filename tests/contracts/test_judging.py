"""The suite's own parts: what it lets pass and what it does not."""

import json
from pathlib import Path
from typing import Any

import pytest

from contracts import curl_lines, exceptions
from contracts.client import Client
from contracts.document import HERE, Contract, channels, documented, load, pages, rows
from contracts.judging import STREAMS, BrokenContract, Judge, effective_status, events
from contracts.reach import Reach

NAMES = ("sage", "sandbox")
ENVELOPE = {"code": 200, "message": "success", "data": {"content": "Hi."}, "timestamp": 1.5}
JSON = {"content-type": "application/json", "x-request-id": "r1"}


@pytest.fixture(scope="module")
def contract() -> Contract:
    return load("sage")


@pytest.fixture(scope="module")
def judge(contract: Contract) -> Judge:
    return Judge(contract)


def judged(judge: Judge, contract: Contract, operation_id: str, body: Any, **more: Any) -> Any:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return judge.judge(
        contract.operations[operation_id],
        more.get("status", 200),
        more.get("headers", JSON),
        content,
    )


def test_a_declared_success_passes(judge: Judge, contract: Contract) -> None:
    verdict = judged(judge, contract, "agent_get_default_prompt", ENVELOPE)
    assert (verdict.status, verdict.success) == (200, True)


@pytest.mark.parametrize(
    ("body", "more", "said"),
    [
        ({**ENVELOPE, "success": True}, {}, "Additional properties"),
        ({k: v for k, v in ENVELOPE.items() if k != "data"}, {}, "required"),
        ({**ENVELOPE, "data": None}, {}, "null"),
        ({**ENVELOPE, "code": 201}, {}, "code"),
        (b"{", {}, "no JSON"),
        (ENVELOPE, {"status": 418}, "not declared"),
        (ENVELOPE, {"status": 404}, "not declared"),
        (ENVELOPE, {"headers": {"x-request-id": "1"}}, "no media type"),
        (ENVELOPE, {"headers": {**JSON, "content-type": "text/html"}}, "text/html"),
        (ENVELOPE, {"headers": {"content-type": "application/json"}}, "no X-Request-ID"),
    ],
)
def test_anything_else_breaks_the_contract(
    body: Any, more: dict[str, Any], said: str, judge: Judge, contract: Contract
) -> None:
    with pytest.raises(BrokenContract, match=said) as broken:
        judged(judge, contract, "agent_get_default_prompt", body, **more)
    assert "agent_get_default_prompt" in str(broken.value)


def test_a_soft_error_counts_as_its_code(judge: Judge, contract: Contract) -> None:
    soft = {"code": 403, "message": "权限不足", "data": None, "timestamp": 1.5}
    verdict = judged(judge, contract, "user_list", soft)
    assert (verdict.status, verdict.success) == (403, False)


def test_a_soft_error_where_none_is_declared_breaks_it(judge: Judge, contract: Contract) -> None:
    soft = {"code": 403, "message": "权限不足", "data": None, "timestamp": 1.5}
    with pytest.raises(BrokenContract):
        judged(judge, contract, "agent_list", soft)


@pytest.mark.parametrize(
    ("status", "value", "effective"),
    [
        (200, {"code": 200, "data": None}, 200),
        (200, {"code": 500, "data": None}, 500),
        (404, {"code": 500, "data": None}, 404),
        (200, {"code": "500", "data": None}, 200),
        (200, {"code": 500}, 200),
        (200, [1], 200),
    ],
)
def test_the_effective_status(status: int, value: Any, effective: int) -> None:
    assert effective_status(status, value) == effective


STREAM = {"content-type": "text/plain; charset=utf-8", "x-request-id": "r", "x-run-id": "run1"}
END = {"type": "stream_end", "session_id": "s", "timestamp": 1.5, "total_stream_count": 1}


def test_each_line_of_a_stream_is_judged(judge: Judge, contract: Contract) -> None:
    good = f": heartbeat\n\n{json.dumps(END)}\n".encode()
    assert judged(judge, contract, "chat_stream", good, headers=STREAM).success
    for bad in (b'{"type": "stream_end"}\n', b"data: {}\n", b'{"type": "nothing"}\n'):
        with pytest.raises(BrokenContract, match="event 0"):
            judged(judge, contract, "chat_stream", bad, headers=STREAM)


EVENTS = {"content-type": "text/event-stream; charset=utf-8", "x-request-id": "r"}


def test_events_are_read_as_browsers_read_them() -> None:
    """Either line end, comments between, several data lines; what no blank line ends is none."""
    body = (
        b": ping\r\n\r\nevent: message\r\ndata: {\r\ndata: }\r\n\r\n"
        b"id: 7\ndata:1\n\nevent: empty\n\nevent: done\ndata: {}\n"
    )
    assert list(events(body)) == [("message", b"{\n}"), ("", b"1")]
    assert list(events(body + b"\n"))[-1] == ("done", b"{}")


def test_each_event_is_judged_by_its_name(
    judge: Judge, contract: Contract, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stream(*events: bytes) -> Any:
        body = b"".join(event + b"\r\n\r\n" for event in events)
        return judged(judge, contract, "chat_stream_sessions", body, headers=EVENTS)

    unnamed, named = b"data: []", b"event: sessions\r\ndata: []"
    assert stream(b": ping", unnamed).success
    with pytest.raises(BrokenContract, match="event 1 is called 'sessions'"):
        stream(unnamed, named)
    monkeypatch.setitem(
        STREAMS, "sage.chat_stream_sessions", {"sessions": "ActiveSessions", "line": "StreamLine"}
    )
    assert stream(named).success
    with pytest.raises(BrokenContract, match="event 0 is called ''"):
        stream(unnamed)
    with pytest.raises(BrokenContract, match="event 1: at"):
        stream(named, named.replace(b"sessions", b"line", 1))
    with pytest.raises(BrokenContract, match="event 0 is no JSON"):
        stream(named[:-1])


def test_every_event_stream_says_what_its_events_are() -> None:
    """STREAMS names an operation and schemas of its document for each."""
    known = {each.key: each for name in NAMES for each in load(name).operations.values()}
    assert STREAMS.keys() <= known.keys()
    for key, schemas in STREAMS.items():
        document = load(known[key].contract).document
        assert set(schemas.values()) <= document["components"]["schemas"].keys(), key
    for key, operation in known.items():
        if "text/event-stream" in operation.statuses[operation.success].get("content", {}):
            assert key in STREAMS


def test_what_was_not_reached_is_told(contract: Contract) -> None:
    reach = Reach()
    for operation in contract.operations.values():
        for status in operation.statuses:
            reach.saw(operation, status, status, status == operation.success)
    assert reach.unmet(contract) == []
    del reach.seen["sage.agent_get", 404]
    reach.reached["sage.agent_list"] = 0
    for key in [key for key in reach.seen if key[1] == 507]:
        del reach.seen[key]
    assert reach.unmet(contract) == [
        "sage.agent_list: its success was never reached",
        "sage.agent_get: 404 was never seen",
        "sage: 507 was seen at no operation",
    ]
    report = reach.report(contract, ["agent_get: 404 was never seen"])
    assert "| agent_list | **no** |" in report
    assert "- agent_get: 404 was never seen" in report


def test_contracts_are_told_apart(contract: Contract) -> None:
    """Two of them have an `auth_login`."""
    reach, other = Reach(), load("sandbox")
    reach.saw(contract.operations["auth_login"], 401, 401, False)
    unmet = set(reach.unmet(contract)), set(reach.unmet(other))
    assert "sage.auth_login: 401 was never seen" not in unmet[0]
    assert "sandbox.auth_login: 422 was never seen" in unmet[1]
    assert not unmet[0] & unmet[1]


def test_processes_add_up(tmp_path: Path, contract: Contract) -> None:
    one, other, sum_ = Reach(), Reach(), Reach()
    got, listed = contract.operations["agent_get"], contract.operations["agent_list"]
    one.saw(got, 404, 404, False)
    other.saw(got, 404, 404, False)
    other.saw(got, 200, 200, True)
    other.excuse(listed, "allow_header_conformance")
    for number, reach in enumerate((one, other)):
        reach.save(tmp_path / f"{number}.json")
        sum_.add(tmp_path / f"{number}.json")
    assert sum_.seen == {("sage.agent_get", 404): 2, ("sage.agent_get", 200): 1}
    assert sum_.reached == {"sage.agent_get": 1}
    assert sum_.excused == {("sage.agent_list", "allow_header_conformance"): 1}


def test_an_exception_that_nothing_needs_is_told() -> None:
    reach = Reach()
    told = {each.split()[1] for each in exceptions.unneeded(reach, 20)}
    assert told == {name for (name, _), enough in exceptions.listed().items() if enough <= 20}
    assert len(exceptions.unneeded(reach, 1000)) == len(exceptions.listed())
    known = {each.key: each for name in NAMES for each in load(name).operations.values()}
    for key, check in exceptions.listed():
        reach.excuse(known[key], check)
    assert exceptions.unneeded(reach, 1000) == []


def test_curl_lines_are_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curl_lines, "DOCUMENTS", tmp_path)
    (tmp_path / "d.txt").write_text(
        "1. First\n\ncurl http://x/api/a?b=1\n\n2. Second\n\n"
        "curl -X POST http://x/api/c \\\n  -d '{\n  \"e\": 1\n}'\n\nNot curl.\n"
    )
    found = curl_lines.lines("d.txt")
    assert found[1] == "curl http://x/api/a?b=1"
    assert found[2].endswith("}'")
    assert [curl_lines.path(command) for command in found.values()] == ["/api/a", "/api/c"]


@pytest.mark.parametrize("name", NAMES)
def test_the_table_is_what_is_built(name: str) -> None:
    built = documented(name)
    assert built
    assert all(load(name).at(row.method, row.path) for row in built)
    missing = {row[:3] for row in rows(HERE / "not_built.tsv")}
    assert not missing & {row[:3] for row in built}


def test_pages_and_websockets_are_no_operations() -> None:
    assert {row.path for row in pages()} == {"/docs", "/redoc", "/openapi.json"}
    assert not {row.path for row in pages()} & {row.path for row in documented("sandbox")}
    assert all(row.method == "WS" for row in channels())


def test_paths_are_encoded_whole(contract: Contract, judge: Judge) -> None:
    client = Client("http://h:1", contract, judge, Reach())
    operation = contract.operations["llm_provider_delete"]
    url = client.url(operation, {"provider_id": "embedded/smollm2"}, {"q": "ä b"})
    assert url == "http://h:1/sage/api/llm-provider/delete/embedded%2Fsmollm2?q=%C3%A4+b"


def test_the_suite_imports_nothing_of_the_server() -> None:
    """contracts/ is a product: it runs against a URL."""
    ours = ("server", "domain", "storage", "handlers", "gateways", "generated", "scripts", "tests")
    for file in HERE.glob("*.py"):
        for line in file.read_text().splitlines():
            words = line.split()
            if words[:1] in (["from"], ["import"]):
                assert words[1].partition(".")[0] not in ours, f"{file}: {line}"

"""The suite's own parts: what it lets pass and what it does not."""

import json
from pathlib import Path
from typing import Any

import pytest

from contracts import curl_lines, exceptions
from contracts.client import Client
from contracts.document import HERE, Contract, documented, load, rows
from contracts.judging import BrokenContract, Judge, effective_status
from contracts.reach import Reach

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
        with pytest.raises(BrokenContract, match="line 0"):
            judged(judge, contract, "chat_stream", bad, headers=STREAM)


def test_what_was_not_reached_is_told(contract: Contract) -> None:
    reach = Reach()
    for operation in contract.operations.values():
        for status in operation.statuses:
            reach.saw(operation.id, status, status, status == operation.success)
    assert reach.unmet(contract) == []
    del reach.seen["agent_get", 404]
    reach.reached["agent_list"] = 0
    for key in [key for key in reach.seen if key[1] == 507]:
        del reach.seen[key]
    assert reach.unmet(contract) == [
        "agent_list: its success was never reached",
        "agent_get: 404 was never seen",
        "sage: 507 was seen at no operation",
    ]
    report = reach.report(contract, ["agent_get: 404 was never seen"])
    assert "| agent_list | **no** |" in report
    assert "- agent_get: 404 was never seen" in report


def test_processes_add_up(tmp_path: Path) -> None:
    one, other, sum_ = Reach(), Reach(), Reach()
    one.saw("agent_get", 404, 404, False)
    other.saw("agent_get", 404, 404, False)
    other.saw("agent_get", 200, 200, True)
    other.excuse("agent_list", "allow_header_conformance")
    for number, reach in enumerate((one, other)):
        reach.save(tmp_path / f"{number}.json")
        sum_.add(tmp_path / f"{number}.json")
    assert sum_.seen == {("agent_get", 404): 2, ("agent_get", 200): 1}
    assert sum_.reached == {"agent_get": 1}
    assert sum_.excused == {("agent_list", "allow_header_conformance"): 1}


def test_an_exception_that_nothing_needs_is_told() -> None:
    reach = Reach()
    told = {each.split()[1] for each in exceptions.unneeded(reach, 20)}
    assert told == {name for (name, _), enough in exceptions.listed().items() if enough <= 20}
    assert len(exceptions.unneeded(reach, 1000)) == len(exceptions.listed())
    for operation_id, check in exceptions.listed():
        reach.excuse(operation_id, check)
    assert exceptions.unneeded(reach, 1000) == []


def test_exceptions_name_operations(contract: Contract) -> None:
    assert {operation_id for operation_id, _ in exceptions.listed()} <= set(contract.operations)


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


def test_the_table_is_what_is_built(contract: Contract) -> None:
    built = documented("sage")
    assert built
    assert all(contract.at(row.method, row.path) for row in built)
    missing = {row[:3] for row in rows(HERE / "not_built.tsv")}
    assert not missing & {row[:3] for row in built}


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

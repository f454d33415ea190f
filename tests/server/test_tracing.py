"""Spans as a collector receives them: a real HTTP server that reads OTLP protobuf."""

import gzip
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.server.http import ask, bearer
from tests.serving import environment, serving

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"


class Collector:
    """Listens on 127.0.0.1 and keeps every span."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.resources: list[dict[str, str]] = []
        self.paths: set[str] = set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                collector.take(self.path, ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def take(self, path: str, request: Any) -> None:
        self.paths.add(path)
        for resource in request.resource_spans:
            self.resources.append(
                {item.key: item.value.string_value for item in resource.resource.attributes}
            )
            for scope in resource.scope_spans:
                self.spans += scope.spans


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    thread = threading.Thread(target=made.server.serve_forever, daemon=True)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()


def attributes(span: Any) -> dict[str, Any]:
    return {item.key: item.value.int_value or item.value.string_value for item in span.attributes}


def test_each_operation_is_a_span_that_continues_its_trace(
    collector: Collector, tmp_path: Path
) -> None:
    with serving(tmp_path / "data", given={"OTLP_ENDPOINT": collector.url}) as server:
        headers = bearer(server.url, "admin", server.password or "")
        ask(
            f"{server.url}/api/agent/list?token=canary",
            headers={
                **headers,
                "traceparent": f"00-{TRACE}-{PARENT}-01",
                "X-Request-ID": "of-the-caller",
            },
        )
        ask(f"{server.url}/api/auth/session", headers={"traceparent": "nonsense"})
        assert ask(f"{server.url}/no/such/path").status == 404
        password = server.password or ""
        assert server.stop() == 0
    named = {span.name: span for span in collector.spans}
    assert collector.paths == {"/v1/traces"}
    assert named.keys() == {"system_check_active", "auth_login", "agent_list", "auth_get_session"}
    listed = named["agent_list"]
    assert (listed.trace_id.hex(), listed.parent_span_id.hex()) == (TRACE, PARENT)
    assert listed.end_time_unix_nano > listed.start_time_unix_nano
    assert attributes(listed) == {
        "http.request.method": "GET",
        "http.route": "/api/agent/list",
        "http.response.status_code": 200,
        "quartet.request_id": "of-the-caller",
    }
    refused = named["auth_get_session"]
    assert attributes(refused)["http.response.status_code"] == 401
    assert refused.parent_span_id == b""
    assert refused.trace_id.hex() != TRACE
    assert all(resource["service.name"] == "quartet" for resource in collector.resources)
    told = repr(collector.spans)
    for secret in ("canary", password, headers["Authorization"].removeprefix("Bearer ")):
        assert secret not in told


def test_a_dead_collector_disturbs_nobody(tmp_path: Path) -> None:
    with serving(tmp_path / "data", given={"OTLP_ENDPOINT": "http://127.0.0.1:9"}) as server:
        for _ in range(20):
            assert ask(f"{server.url}/api/health").status == 200
        begun = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - begun < 30
        assert "Traceback" not in server.logged()


def test_without_an_endpoint_nothing_of_it_is_imported() -> None:
    code = (
        "import asyncio, pathlib, sys, tempfile\n"
        "from server.composition import start\n"
        "from server.settings import Settings\n"
        "async def run():\n"
        "    data = pathlib.Path(tempfile.mkdtemp()) / 'data'\n"
        "    started = await start(Settings(_env_file=None, data=data))\n"
        "    await started.close()\n"
        "asyncio.run(run())\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "[]"

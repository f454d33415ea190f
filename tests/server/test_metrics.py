"""What /metrics says, to whom, and when the database is gone."""

import http.client
import json
import re
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from tests.conftest import POSTGRES, administrator, postgres_answers
from tests.server.http import ask, bearer
from tests.serving import ROOT, Server, serving


def samples(server: Server, **headers: str) -> list[Sample]:
    answer = ask(f"{server.url}/metrics", headers=headers)
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = text_string_to_metric_families(answer.body.decode())
    return [sample for family in families for sample in family.samples]


def value(found: list[Sample], name: str, **labels: str) -> float:
    return sum(
        sample.value
        for sample in found
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def test_every_answer_is_counted_once_under_its_operation(live_server: Server) -> None:
    labels = {"contract": "sage", "operation": "auth_get_session", "method": "GET"}
    before = samples(live_server)
    headers = bearer(live_server.url, "admin", live_server.password or "")
    for _ in range(3):
        assert ask(f"{live_server.url}/api/auth/session", headers=headers).status == 200
    assert ask(f"{live_server.url}/sage/api/auth/session/").status == 401
    after = samples(live_server)

    def grown(name: str, **more: str) -> float:
        return value(after, name, **labels, **more) - value(before, name, **labels, **more)

    assert grown("quartet_requests_total", status="200") == 3
    assert grown("quartet_requests_total", status="401") == 1
    assert grown("quartet_request_seconds_count") == 4
    assert grown("quartet_request_seconds_bucket", le="+Inf") == 4
    assert 0 < grown("quartet_request_seconds_sum") < 60
    bounds = [
        value(after, "quartet_request_seconds_bucket", **labels, le=str(bound))
        for bound in (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
    ]
    assert bounds == sorted(bounds)


def test_the_process_and_its_database_show(live_server: Server) -> None:
    found = samples(live_server)
    assert value(found, "quartet_database_up") == 1
    assert value(found, "process_cpu_seconds_total") > 0
    resident = value(found, "process_resident_memory_bytes")
    status = Path(f"/proc/{live_server.process.pid}/status").read_text()
    counted = int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024
    assert 0.5 * counted < resident < 2 * counted
    ticks = Path(f"/proc/{live_server.process.pid}/stat").read_text().rpartition(")")[2].split()
    booted = re.search(r"btime (\d+)", Path("/proc/stat").read_text())[1]
    assert abs(value(found, "process_start_time_seconds") - int(booted) - int(ticks[19]) / 100) < 5
    assert value(found, "process_open_fds") > 3


def test_streams_under_way_show_while_they_are(live_server: Server) -> None:
    before = samples(live_server)
    headers = bearer(live_server.url, "admin", live_server.password or "")
    host = live_server.url.removeprefix("http://")
    connection = http.client.HTTPConnection(host, timeout=30)
    script = '[{"tokens": 1000, "every_ms": 50}]'
    body = {
        "session_id": "watched",
        "messages": [{"role": "user", "content": f"script:{script}"}],
        "llm_model_config": {"model": "embedded/script"},
    }
    sent = {**headers, "Content-Type": "application/json"}
    connection.request("POST", "/api/stream", json.dumps(body), sent)
    answer = connection.getresponse()
    assert answer.readline()
    during = samples(live_server)
    assert value(during, "quartet_streams") == value(before, "quartet_streams") + 1
    assert value(during, "quartet_followed") > value(before, "quartet_followed")
    answer.close()
    connection.close()
    deadline = time.monotonic() + 20
    while value(samples(live_server), "quartet_streams") != value(before, "quartet_streams"):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_nothing_that_a_client_sent_becomes_a_label(live_server: Server) -> None:
    canary = f"canary{uuid.uuid4().hex}"
    ask(f"{live_server.url}/{canary}")
    ask(f"{live_server.url}/api/agent/{canary}?token={canary}", headers={"X-Request-ID": canary})
    ask(f"{live_server.url}/api/auth/session", headers={"Authorization": f"Bearer {canary}"})
    ask(f"{live_server.url}/api/auth/login", "POST", {"username_or_email": canary, "password": "x"})
    text = ask(f"{live_server.url}/metrics").body.decode()
    assert canary not in text
    assert 'operation="agent_get"' in text
    documented = {"contract", "operation", "method", "status", "le"}
    assert {name for sample in samples(live_server) for name in sample.labels} == documented


def test_with_a_token_only_its_bearer_sees_them(tmp_path: Path) -> None:
    with serving(tmp_path / "data", given={"METRICS_TOKEN": "for the scraper"}) as server:
        url = f"{server.url}/metrics"
        for headers in (
            {},
            {"Authorization": "Bearer"},
            {"Authorization": "Bearer for the scrape"},
            {"Authorization": "Basic for the scraper"},
            bearer(server.url, "admin", server.password or ""),
        ):
            answer = ask(url, headers=headers)
            assert answer.status == 401
            assert answer.headers["www-authenticate"] == 'Bearer realm="metrics"'
            assert b"quartet_" not in answer.body
        found = samples(server, Authorization="Bearer for the scraper")
        assert value(found, "quartet_database_up") == 1


def test_prometheus_client_is_not_imported_before_the_first_scrape() -> None:
    code = (
        "import sys, server.metrics, server.portal, server.composition, server.serving;"
        "heavy = {'prometheus_client', 'opentelemetry', 'typer'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == "[]"


if postgres_answers():

    @pytest.fixture
    def own_database() -> object:
        name = f"quartet_test_{uuid.uuid4().hex[:12]}"
        with administrator() as admin:
            admin.execute(f"CREATE DATABASE {name}".encode())
        yield name
        with administrator() as admin:
            admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())
            admin.execute(f"DROP DATABASE IF EXISTS {name}_dbos_sys WITH (FORCE)".encode())

    def test_a_lost_database_shows_and_comes_back(own_database: str, tmp_path: Path) -> None:
        given = {"DATABASE_URL": f"{POSTGRES}/{own_database}"}
        with serving(tmp_path / "data", given=given) as server:
            assert value(samples(server), "quartet_database_up") == 1
            with administrator() as admin:
                admin.execute(f"ALTER DATABASE {own_database} ALLOW_CONNECTIONS false".encode())
                admin.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
                    [own_database],
                )
            assert value(samples(server), "quartet_database_up") == 0
            health = ask(f"{server.url}/api/health")
            assert (health.status, health.json()["code"]) == (503, 503)
            assert "<strong>does not answer</strong>" in ask(server.url + "/").body.decode()
            assert ask(f"{server.url}/ready").status == 200
            with administrator() as admin:
                admin.execute(f"ALTER DATABASE {own_database} ALLOW_CONNECTIONS true".encode())
            deadline = time.monotonic() + 30  # the pool tries again at growing intervals
            while ask(f"{server.url}/api/health").status != 200:
                assert time.monotonic() < deadline
                time.sleep(0.2)
            assert value(samples(server), "quartet_database_up") == 1

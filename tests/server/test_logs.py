"""What the log says of real requests, and what it never says."""

import json
import secrets
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from server.observing import scrubbed, without_secrets
from tests.server.http import ask, bearer
from tests.serving import Server, environment, serving


def entries(server: Server) -> list[dict[str, Any]]:
    """Every line of a JSON log; each must be one JSON object."""
    return [json.loads(line) for line in server.logged().splitlines()]


def test_every_line_of_a_request_carries_its_id(tmp_path: Path) -> None:
    with serving(tmp_path / "data", given={"LOG_FORMAT": "json", "ACCESS_LOG": "true"}) as server:
        ask(f"{server.url}/api/health?access_token=canary", headers={"X-Request-ID": "first"})
        ask(f"{server.url}/no/such/path", headers={"X-Request-ID": "second"})
        ask(f"{server.url}/ready", headers={"X-Request-ID": "third"})
        ask(f"{server.url}/api/agent/list", headers={"X-Request-ID": "fourth"})
        server.stop()
        told = {e["request_id"]: e for e in entries(server) if e["logger"] == "quartet.access"}
        assert told.keys() == {"first", "second", "third", "fourth"} | (told.keys() - {"first"})
        assert told["first"]["event"] == "GET /api/health"
        assert told["first"]["client"] == "127.0.0.1"
        assert 0 < told["first"]["seconds"] < 30
        statuses = [told[name]["status"] for name in ("first", "second", "third", "fourth")]
        assert statuses == [200, 404, 200, 401]
        assert "canary" not in server.logged()
        assert {"timestamp", "level", "logger", "event"} <= told["first"].keys()


def test_without_the_setting_requests_leave_no_line(live_server: Server) -> None:
    before = live_server.logged()
    assert ask(f"{live_server.url}/api/health").status == 200
    assert ask(f"{live_server.url}/no/such/path").status == 404
    assert live_server.logged() == before


def test_what_libraries_log_has_the_same_form(tmp_path: Path) -> None:
    """uvicorn tells of requests that are no HTTP."""

    with serving(tmp_path / "data", given={"LOG_FORMAT": "json"}) as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(b"no http at all\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 400")
        deadline = time.monotonic() + 10
        while not any(e["logger"] == "uvicorn.error" for e in entries(server)):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_canaries_in_every_place_reach_no_log(tmp_path: Path) -> None:
    """A secret wherever a client can put one: none shows, though everything is logged."""
    canary = {
        place: f"canary-{place}-{secrets.token_hex(12)}"
        for place in (
            "password",
            "bearer",
            "cookie",
            "query",
            "key",
            "code",
            "basic",
            "old",
            "search",
        )
    }
    given = {
        "LOG_FORMAT": "json",
        "LOG_LEVEL": "debug",
        "ACCESS_LOG": "true",
        "ADMIN_PASSWORD": canary["password"],
        "METRICS_TOKEN": secrets.token_hex(16),
        "SMTP_PASSWORD": secrets.token_hex(16),
        "WEB_SEARCH_KEY": secrets.token_hex(16),
    }
    with serving(tmp_path / "data", given=given) as server:
        url = server.url
        admin = bearer(url, "admin", canary["password"])
        ask(f"{url}/api/auth/session", headers={"Authorization": f"Bearer {canary['bearer']}"})
        ask(f"{url}/api/auth/session", headers={"Authorization": f"Basic {canary['basic']}"})
        ask(f"{url}/api/auth/session", headers={"Cookie": f"sage_session={canary['cookie']}"})
        for name in ("access_token", "token", "api_key", "key", "code", "password"):
            ask(f"{url}/api/agent/list?{name}={canary['query']}", headers=admin)
            ask(f"{url}/api/conversations?page=x&{name}={canary['query']}", headers=admin)
        provider = {
            "base_url": "http://127.0.0.1:9/v1",
            "api_keys": [canary["key"]],
            "api_key": canary["key"],
            "model": "none",
        }
        for action in ("create", "verify", "verify-capabilities", "verify-multimodal"):
            ask(f"{url}/api/llm-provider/{action}", "POST", provider, admin)
        register = {
            "username": "ada",
            "password": canary["password"],
            "email": "ada@example.com",
            "verification_code": canary["code"],
        }
        ask(f"{url}/api/auth/register", "POST", register)
        ask(f"{url}/api/auth/register", "POST", json.dumps(register)[:-1].encode() + b',"a":')
        change = {"old_password": canary["old"], "new_password": canary["password"] + "2"}
        ask(f"{url}/api/user/change-password", "POST", change, admin)
        ask(f"{url}/metrics", headers={"Authorization": f"Bearer {canary['bearer']}"})
        ask(f"{url}/api/conversations?search={canary['search']}", headers=admin)
        server.stop()
        text = server.logged()
        told = [e for e in entries(server) if e["logger"] == "quartet.access"]
        assert len(told) > 20
        token = admin["Authorization"].removeprefix("Bearer ")
        hidden = [*canary.values(), token, *(given[n] for n in given if "TOKEN" in n or "KEY" in n)]
        assert [secret for secret in hidden if secret in text] == []
        assert given["SMTP_PASSWORD"] not in text


FAULTS = [
    ("a URL's credentials", "cannot connect to postgresql://quartet:S3CRET@db.example/quartet"),
    ("a query", "GET /api/x?access_token=S3CRET&page=2"),
    ("a bearer", "sent Authorization: Bearer S3CRET to the peer"),
    ("a dict", "{'password': 'S3CRET', 'username': 'ada'}"),
    ("JSON", '{"api_key":"S3CRET","model":"none"}'),
    ("keywords", "login(username='ada', password='S3CRET')"),
    ("a struct", "ProviderFields(api_key='S3CRET')"),
    ("a header", "cookie: sage_session=S3CRET; theme=dark"),
    ("bytes", "b'x-api-key': b'S3CRET'"),
    ("a code", "verification_code=S3CRET"),
    ("capitals", "SECRETS_KEY=S3CRET"),
]


@pytest.mark.parametrize("text", [text for _, text in FAULTS], ids=[name for name, _ in FAULTS])
def test_credentials_inside_texts_are_hidden(text: str) -> None:
    assert "S3CRET" not in scrubbed(text)
    assert "****" in scrubbed(text)


@pytest.mark.parametrize(
    "text",
    [
        "POST /api/chat answered 200 in 0.012 s",
        "agent.created by 0190c5e2-1111-7000-8000-000000000000",
        "http://127.0.0.1:8000/sage/docs",
        "input_tokens=12 output_tokens=34",
        "status_code 404, error code 17",
        "the tokeniser keyed on words: a, b",
        "ada@example.com wrote to bob@example.com",
    ],
)
def test_other_texts_stay_as_they_are(text: str) -> None:
    assert scrubbed(text) == text


def test_secrets_are_hidden_by_name_at_any_depth() -> None:
    jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"
    entry = without_secrets(
        None,
        "",
        {
            "event": f"refused {jwt}",
            "password": "S3CRET",
            "input_tokens": 5,
            "status_code": 404,
            "sent": {"headers": [{"authorization": "S3CRET"}], "n": 1},
            "raw": b"token=S3CRET",
            "error": ValueError("api_key='S3CRET'"),
            "token": "",
        },
    )
    assert "S3CRET" not in repr(entry)
    assert jwt not in repr(entry)
    assert entry["input_tokens"] == 5
    assert entry["status_code"] == 404
    assert entry["sent"]["n"] == 1


@pytest.mark.parametrize("form", ["json", "console"])
def test_exceptions_are_told_without_the_secrets_in_them(form: str) -> None:
    code = (
        "import logging\n"
        "from server.observing import configure_logs\n"
        "from server.settings import Settings\n"
        f"configure_logs(Settings(_env_file=None, log_format='{form}'))\n"
        "try:\n"
        "    try:\n"
        "        raise OSError('connect to redis://:' + 'S3' + 'CRET@db failed')\n"
        "    except OSError as cause:\n"
        "        raise ValueError({'api_key': 'S3' + 'CRET'}) from cause\n"
        "except ValueError as error:\n"
        "    logging.getLogger('any').error('%s broke', 'it', exc_info=error)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True
    )
    assert "S3CRET" not in run.stderr
    assert "it broke" in run.stderr
    assert "redis://:****@db failed" in run.stderr
    assert "ValueError" in run.stderr
    assert len(run.stderr.splitlines()) == 1 or form == "console"

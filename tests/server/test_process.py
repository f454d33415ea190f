"""Start and end of the process as an operator sees them."""

import json
import re
import signal
import urllib.request
from pathlib import Path

from tests.serving import Server, serving, spawn


def fetched(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read()


def test_it_starts_says_the_password_once_and_ends_in_order(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as server:
        assert json.loads(fetched(f"{server.url}/api/health"))["code"] == 200
        assert server.password
        assert server.printed().count(server.password) == 1
        assert server.password not in server.logged()
        assert server.stop() == 0
    with serving(tmp_path / "data") as again:
        assert again.password is None
        assert "password" not in again.printed()
        assert again.stop(signal.SIGINT) == 0


def test_a_second_process_says_who_holds_the_directory(live_server: Server) -> None:
    second = spawn(live_server.data)
    assert second.process.wait(30) == 1
    said = second.logged()
    assert re.search(rf"in use by process {live_server.process.pid} ", said), said
    assert "Traceback" not in said
    assert second.printed() == ""
    assert fetched(f"{live_server.url}/ready") == b"ready\n"


def test_a_killed_process_leaves_no_lock(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as server:
        assert server.stop(signal.SIGKILL) == -signal.SIGKILL
    with serving(tmp_path / "data") as again:
        assert fetched(f"{again.url}/active") == b"Service is available."


def test_a_given_password_is_not_printed(tmp_path: Path) -> None:
    with serving(tmp_path / "data", given={"ADMIN_PASSWORD": "given-by-the-operator"}) as server:
        assert server.password is None
        assert "given-by-the-operator" not in server.printed() + server.logged()
        login = urllib.request.Request(
            f"{server.url}/api/auth/login",
            json.dumps(
                {"username_or_email": "admin", "password": "given-by-the-operator"}
            ).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(login, timeout=20) as answer:
            assert json.load(answer)["data"]["access_token"]


def test_a_taken_port_is_said_in_a_line(live_server: Server, tmp_path: Path) -> None:
    port = live_server.url.rpartition(":")[2]
    second = spawn(tmp_path / "other", "--port", port)
    assert second.process.wait(30) == 1
    assert f"cannot listen on 127.0.0.1:{port}" in second.logged()
    assert "Traceback" not in second.logged()

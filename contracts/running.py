"""The servers that the suite starts by itself when no URL is given: one, and a model beside it."""

import contextlib
import os
import re
import select
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from email import message_from_bytes, policy
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
ADMIN = ("admin", "Administrator-password-1")
START_S = 60.0
SETTINGS: Mapping[str, str] = {
    "ADMIN_USERNAME": ADMIN[0],
    "ADMIN_PASSWORD": ADMIN[1],
    "DEFAULT_PROVIDER": "embedded/script",
    "VALIDATE_RESPONSES": "true",
    "TRUSTED_PROXIES": "127.0.0.1",
    "OUTBOUND_ALLOW": "127.0.0.1/32",
    "LOGIN_RATE": "100000/minute",
    "SEND_CODE_RATE": "100000/minute",
    "CHAT_RATE": "100000/minute",
    "LOG_LEVEL": "warning",
}


class Started(NamedTuple):
    """A running server. `data` is its data directory, None where only its URL is known; then
    `viewer` is an account of that role."""

    url: str
    admin: tuple[str, str]
    model_url: str
    data: Path | None
    pid: int
    viewer: tuple[str, str] = ("", "")

    def mailed(self, address: str) -> str:
        """The six digits of the newest mail to an address, from the outbox."""
        assert self.data is not None
        until = time.monotonic() + 10
        while time.monotonic() < until:
            files = sorted((self.data / "outbox").glob("*"), key=lambda file: file.stat().st_mtime)
            for file in reversed(files):
                mail = message_from_bytes(file.read_bytes(), policy=policy.default)
                if mail["to"] == address and (
                    found := re.search(r"\b[0-9]{6}\b", mail.get_content())
                ):
                    return found[0]
            time.sleep(0.02)
        raise AssertionError(f"no mail to {address}")

    def set_account(self, username: str, **columns: str) -> None:
        """What sage has no operation for: a viewer's role, an inactive account."""
        assert self.data is not None
        assignments = ", ".join(f"{name} = ?" for name in columns)
        with contextlib.closing(sqlite3.connect(self.data / "quartet.sqlite", timeout=30)) as file:
            changed = file.execute(
                f"UPDATE users SET {assignments} WHERE username = ?", [*columns.values(), username]
            ).rowcount
            file.commit()
        assert changed == 1


@contextlib.contextmanager
def server(data: Path, model_url: str = "", **settings: str) -> Iterator[Started]:
    """A server of its own on free ports over the data directory `data`."""
    data.mkdir(parents=True, exist_ok=True)
    log = data.with_suffix(".log")
    command = [sys.executable, "-m", "server", "serve", "--port", "0", "--assistant-port", "0"]
    with _process([*command, "--data", str(data)], {**SETTINGS, **settings}, log) as process:
        url = _announced(process, rb"Quartet is at\s+(http://\S+)", log)
        yield Started(url, ADMIN, model_url, data, process.pid)


@contextlib.contextmanager
def model(log: Path) -> Iterator[str]:
    """The script model as an OpenAI-compatible server; its base URL."""
    command = [sys.executable, str(ROOT / "scripts" / "script-model"), "--key", "sk-contracts"]
    with _process(command, {}, log) as process:
        yield _announced(process, rb"(http://\S+)", log)


@contextlib.contextmanager
def _process(
    command: list[str], settings: Mapping[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    with log.open("wb") as errors:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**kept, **settings, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
        with process:
            try:
                yield process
            finally:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()


def _announced(process: subprocess.Popen[bytes], pattern: bytes, log: Path) -> str:
    assert process.stdout is not None
    said, until = b"", time.monotonic() + START_S
    while time.monotonic() < until:
        if select.select([process.stdout], [], [], 0.2)[0]:
            chunk = os.read(process.stdout.fileno(), 4096)
            said += chunk
            if found := re.search(pattern + rb"\s", said):
                return found[1].decode()
            if not chunk:
                break
    raise AssertionError(f"it did not start: {said!r}\n{log.read_text()[-3000:]}")

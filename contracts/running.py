"""The servers that the suite starts by itself when no URL is given: one, and a model beside it."""

import contextlib
import io
import json
import os
import re
import select
import signal
import sqlite3
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator, Mapping
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent
ADMIN = ("admin", "Administrator-password-1")
START_S = 60.0
FILE_MAX = 2 * 1024 * 1024
"""Bytes of an uploaded file: a test that goes beyond sends no 100 MiB."""
CLIENT_ID = "contracts"
REDIRECT_URI = "https://client.example.com/callback"
CLIENT = {"client_id": CLIENT_ID, "redirect_uris": [REDIRECT_URI], "skip_consent": True}
"""A public OAuth2 client, as OAUTH_CLIENTS lists it."""
VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
"""The pair of RFC 7636, Appendix B."""
SETTINGS: Mapping[str, str] = {
    "ADMIN_USERNAME": ADMIN[0],
    "ADMIN_PASSWORD": ADMIN[1],
    "DEFAULT_PROVIDER": "embedded/script",
    "VALIDATE_RESPONSES": "true",
    "TRUSTED_PROXIES": "127.0.0.1",
    "OUTBOUND_ALLOW": "127.0.0.1/32",
    "JAEGER_URL": "https://jaeger.example.com/ui",
    "LOGIN_RATE": "100000/minute",
    "SEND_CODE_RATE": "100000/minute",
    "CHAT_RATE": "100000/minute",
    "READ_RATE": "100000/minute",
    "WRITE_RATE": "100000/minute",
    "SSE_PER_USER": "1000",
    "WS_PER_USER": "1000",
    "FILE_MAX": str(FILE_MAX),
    "LOG_LEVEL": "warning",
    "OAUTH_CLIENTS": json.dumps([CLIENT]),
    "WECHAT_APP_ID": "wx-contracts",
    "WECHAT_APP_SECRET": "of nobody",
    "WECHAT_FRONTEND_URL": "https://client.example.com/login",
}


PROVIDER = "contracts"
"""The id of the login provider (login_provider), as UPSTREAM_PROVIDERS lists it."""


class Started(NamedTuple):
    """A running server. `data` is its data directory, None where only its URL is known; then
    `viewer` is an account of that role."""

    url: str
    admin: tuple[str, str]
    model_url: str
    data: Path | None
    pid: int
    mcp_url: str = ""
    skills_url: str = ""
    viewer: tuple[str, str] = ("", "")
    skill_folder: str = ""

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

    def worked(self, agent_id: str, user_id: str, path: str, content: bytes = b"work") -> str:
        """The path of a file that an agent left in a workspace."""
        assert self.data is not None
        file = self.data / "workspaces" / agent_id / user_id / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        return path

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
    """A server of its own on free ports over the data directory `data`; skills can be installed
    from a directory beside it."""
    data.mkdir(parents=True, exist_ok=True)
    folder = data.with_suffix(".skills") / "path" / "to" / "skill"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "SKILL.md").write_text(skill_md("my-local-skill"))
    settings = {"SKILL_SOURCE_ROOTS": str(data.with_suffix(".skills")), **settings}
    log = data.with_suffix(".log")
    command = [sys.executable, "-m", "server", "serve", "--port", "0", "--assistant-port", "0"]
    with _process([*command, "--data", str(data)], {**SETTINGS, **settings}, log) as process:
        url = _announced(process, rb"Quartet is at\s+(http://\S+)", log)
        yield Started(url, ADMIN, model_url, data, process.pid, skill_folder=str(folder))


@contextlib.contextmanager
def model(log: Path) -> Iterator[str]:
    """The script model as an OpenAI-compatible server; its base URL."""
    command = [sys.executable, str(ROOT / "scripts" / "script-model"), "--key", "sk-contracts"]
    with _process(command, {}, log) as process:
        yield _announced(process, rb"(http://\S+)", log)


@contextlib.contextmanager
def mcp(log: Path) -> Iterator[str]:
    """An MCP server over streamable HTTP; its endpoint."""
    with _process([sys.executable, "-m", "contracts.mcp_server"], {}, log) as process:
        yield _announced(process, rb"(http://\S+)", log)


@contextlib.contextmanager
def login_provider(log: Path) -> Iterator[dict[str, str]]:
    """An OpenID provider where anybody logs in as whom they say; the settings that point to it."""
    command = [sys.executable, "-u", "-m", "oidc_provider_mock", "--port", "0"]
    log.touch()
    with _process(command, {}, log):
        issuer, until = None, time.monotonic() + START_S
        while issuer is None:
            issuer = re.search(r"http://127\.0\.0\.1:[1-9]\d*", log.read_text())
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.02)
        client = {"client_id": CLIENT_ID, "client_secret": "any"}
        listed = {"id": PROVIDER, "issuer": issuer[0], **client}
        yield {"UPSTREAM_PROVIDERS": json.dumps([listed])}


@contextlib.contextmanager
def search() -> Iterator[dict[str, str]]:
    """A search engine that finds one page for every query; the settings that point to it."""

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = {"title": "Sage", "url": "https://example.com/sage", "content": self.path}
            body = json.dumps({"results": [found]}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        port = made.server_address[1]
        yield {"WEB_SEARCH_URL": f"http://127.0.0.1:{port}/?q={{query}}"}
        made.shutdown()


def skill_md(name: str, description: str = "Researches markets.") -> str:
    """The SKILL.md of a skill."""
    return f"---\nname: {name}\ndescription: {description}\n---\n# How to\n\nAsk three people.\n"


def skill(name: str, description: str = "Researches markets.") -> bytes:
    """A skill as a ZIP archive."""
    made = io.BytesIO()
    text = skill_md(name, description)
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{name}/SKILL.md", text)
        archive.writestr(f"{name}/questions.txt", "Why?\n")
    return made.getvalue()


@contextlib.contextmanager
def skills() -> Iterator[str]:
    """A server where `/<name>.zip` is a skill of that name; its address."""

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = skill(self.path.strip("/").removesuffix(".zip"))
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{made.server_address[1]}"
        made.shutdown()


RELEASE: Mapping[str, Any] = {
    "tag_name": "v7.0.1",
    "published_at": "2024-03-09T16:00:00Z",
    "body": "Streams survive a restart.",
    "assets": ["sage_7.0.1_aarch64.dmg", "sage_aarch64.app.tar.gz", "sage_aarch64.app.tar.gz.sig"],
}
"""What the suite's own GitHub has released."""
SKILL_TREE = "https://github.com/owner/repo/tree/main/skills/my-skill"
"""A skill that lies there."""
_SHA = "1d0c5a7e9b3f4a6c8e2d1f0b9a8c7d6e5f4a3b2c"


def repository() -> bytes:
    """The repository of SKILL_TREE as GitHub sends it."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        for path, text in (("SKILL.md", skill_md("my-skill")), ("questions.txt", "Why?\n")):
            member = tarfile.TarInfo(f"owner-repo-1d0c5a7/skills/my-skill/{path}")
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return made.getvalue()


@contextlib.contextmanager
def releases() -> Iterator[dict[str, str]]:
    """A server that speaks GitHub's API of releases, refs and archives; the settings that point to
    it."""

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = f"http://127.0.0.1:{self.server.server_address[1]}/files"
            assets = [{"name": n, "browser_download_url": f"{url}/{n}"} for n in RELEASE["assets"]]
            body = json.dumps({**RELEASE, "assets": assets}).encode()
            if self.path.startswith("/files/"):
                body = b"dW50cnVzdGVk\n"
            elif self.path == "/repos/owner/repo/git/matching-refs/heads/main":
                body = json.dumps([{"ref": "refs/heads/main", "object": {"sha": _SHA}}]).encode()
            elif "/git/matching-refs/" in self.path:
                body = b"[]"
            elif self.path == f"/repos/owner/repo/tarball/{_SHA}":
                body = repository()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield {
            "GITHUB_API_URL": f"http://127.0.0.1:{made.server_address[1]}",
            "GITHUB_REPOSITORY": "quartet/desktop",
        }
        made.shutdown()


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

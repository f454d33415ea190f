"""scripts/admin over real data directories and a real PostgreSQL database."""

import asyncio
import errno
import hashlib
import io
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from domain import mcp
from domain.platform import config
from domain.platform import mcp as platform_mcp
from gateways.secretbox import SecretBox, load_keys
from server.administration import backup as backups
from server.administration import copying, integrity
from server.administration.backup import Manifest, back_up, read_manifest, restore
from server.administration.integrity import findings
from server.administration.keys import PLACES, write_keys
from server.administration.opening import Refused, reading
from server.settings import Settings
from storage.objects import sweep
from storage.schema import metadata
from tests.conftest import POSTGRES, administrator, postgres_answers
from tests.server.http import ask, bearer
from tests.serving import Server, environment, serving

KEY = "sk-canary-of-a-provider-1234567890"


def admin(
    data: Path, *arguments: str, given: dict[str, str] | None = None, typed: str = ""
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "server", "admin", *arguments, "--data", str(data)],
        cwd=data.parent,
        env=environment(given),
        input=typed,
        capture_output=True,
        text=True,
        timeout=60,
    )


def succeeded(run: subprocess.CompletedProcess[str]) -> str:
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def refused(run: subprocess.CompletedProcess[str]) -> str:
    assert run.returncode == 1, run.stdout + run.stderr
    assert "Traceback" not in run.stderr
    return run.stdout + run.stderr


def form(**parts: tuple[str | None, bytes]) -> tuple[bytes, dict[str, str]]:
    """A multipart body and its header, of parts: file name (None for a text) and content."""
    body = b""
    for name, (filename, content) in parts.items():
        file = "" if filename is None else f'; filename="{filename}"'
        head = f'--PART\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
        body += head.encode() + content + b"\r\n"
    return body + b"--PART--\r\n", {"Content-Type": "multipart/form-data; boundary=PART"}


def fill(server: Server) -> None:
    """An account with a provider, an agent, a conversation with `embedded/script`, an uploaded
    file, a document and a skill with a file."""
    who = bearer(server.url, "admin", server.password or "")

    def post(path: str, body: object, headers: Mapping[str, str] | None = None) -> Any:
        answer = ask(f"{server.url}{path}", "POST", body, {**who, **(headers or {})})
        assert answer.status == 200, answer
        return answer

    provider = {"base_url": "https://models.example/v1", "api_keys": [KEY], "model": "one"}
    post("/api/llm-provider/create", provider)
    post("/api/agent/create", {"name": "Guide", "llm_provider_id": "embedded/script"})
    for session in ("kept", "deleted"):
        said = {"session_id": session, "messages": [{"role": "user", "content": "one two"}]}
        post("/api/web-stream", {**said, "llm_model_config": {"model": "embedded/script"}})
    gone = ask(f"{server.url}/api/conversations/deleted", "DELETE", headers=who)
    assert gone.status == 200, gone
    post("/api/oss/upload", *form(file=("picture.txt", b"an upload")))
    base = post("/api/knowledge-base/add", {"name": "Library", "type": "rag"}).json()
    base = base["data"]["kdb_id"]
    document = {"kdb_id": (None, base.encode()), "files": ("book.md", b"# A document")}
    post("/api/knowledge-base/doc/add_by_files", *form(**document))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("SKILL.md", "---\nname: asking\ndescription: Asks.\n---\nAsk.\n")
        archive.writestr("ask.py", "print('Why?')\n")
    post("/api/skills/upload", *form(file=("asking.zip", packed.getvalue())))


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory that was used, and whose server has ended."""
    data = tmp_path_factory.mktemp("filled") / "data"
    with serving(data, given={"ADMIN_PASSWORD": "of the administrator"}) as server:
        server.password = "of the administrator"
        fill(server)
        assert server.stop() == 0
    return data


@pytest.fixture
def used(filled: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(filled, tmp_path / "data"))


def still_works(data: Path, **given: str) -> None:
    """The server starts on the data, knows the account, the conversation and the provider."""
    with serving(data, given=given) as server:
        who = bearer(server.url, "admin", "of the administrator")
        listed = ask(f"{server.url}/api/conversations", headers=who).json()["data"]
        assert [one["session_id"] for one in listed["list"]] == ["kept"]
        providers = ask(f"{server.url}/api/llm-provider/list", headers=who).json()["data"]
        shown = json.dumps(providers)
        assert f"****{KEY[-4:]}" in shown
        assert KEY not in shown
        (own,) = [one for one in providers if one["model"] == "one"]
        kept = {"name": "renamed", "api_keys": [f"****{KEY[-4:]}"]}
        changed = ask(
            f"{server.url}/api/llm-provider/update/{own['id']}", "PUT", kept, who
        )  # opens the sealed key
        assert changed.status == 200, changed


# --- accounts -------------------------------------------------------------------------------------


def test_accounts_are_made_listed_and_given_passwords(used: Path) -> None:
    made = succeeded(admin(used, "create-admin", "second", "--email", "second@example.com"))
    password = re.search(r"Password: (\S+)", made)[1]
    typed = succeeded(
        admin(used, "reset-password", "Second", "--password-stdin", typed="typed 12\n")
    )
    assert "typed 12" not in typed
    listed = [line.split("\t") for line in succeeded(admin(used, "list-users")).splitlines()]
    assert [(line[1], line[2], line[3], line[4]) for line in listed] == [
        ("second", "second@example.com", "admin", "active"),
        ("admin", "admin@localhost.localdomain", "admin", "active"),
    ]
    with serving(used) as server:
        assert bearer(server.url, "second", "typed 12")
        wrong = {"username_or_email": "second", "password": password}
        assert ask(f"{server.url}/api/auth/login", "POST", wrong).status == 401


def test_bad_accounts_are_refused(used: Path) -> None:
    assert "exists" in refused(admin(used, "create-admin", "ADMIN"))
    assert "no account" in refused(admin(used, "reset-password", "nobody"))
    assert "8" in refused(admin(used, "create-admin", "new", "--password-stdin", typed="short\n"))
    assert len(succeeded(admin(used, "list-users")).splitlines()) == 1


def test_a_reset_password_ends_login_sessions(used: Path) -> None:
    with serving(used) as server:
        who = bearer(server.url, "admin", "of the administrator")
    succeeded(admin(used, "reset-password", "admin"))
    with serving(used) as server:
        assert ask(f"{server.url}/api/auth/session", headers=who).status == 401


def test_what_writes_needs_the_server_stopped_and_what_reads_does_not(
    live_server: Server, tmp_path: Path
) -> None:
    data = live_server.data
    for command in (["create-admin", "x"], ["reset-password", "admin"], ["rotate-key"]):
        said = refused(admin(data, *command))
        assert f"in use by process {live_server.process.pid}" in said
        assert "stop the server first" in said
    assert "admin" in succeeded(admin(data, "list-users"))
    assert succeeded(admin(data, "check")) == "All is well.\n"
    succeeded(admin(data, "backup", str(tmp_path / "beside")))


def test_a_mistyped_directory_is_not_made(tmp_path: Path) -> None:
    for command in (["list-users"], ["check"], ["rotate-key"], ["backup", str(tmp_path / "b")]):
        assert "no database" in refused(admin(tmp_path / "dtaa", *command))
    assert list(tmp_path.iterdir()) == []


# --- keys -----------------------------------------------------------------------------------------


def sealed(data: Path) -> set[str]:
    """Ids of the keys that seal what is in the database."""
    with sqlite3.connect(data / "quartet.sqlite") as connection:
        values = [row[0] for row in connection.execute("SELECT api_key_sealed FROM providers")]
        values += [
            json.loads(r[0])
            for r in connection.execute(
                "SELECT value FROM settings WHERE key IN ('signing_key', 'secrets_canary')"
            )
        ]
    assert len(values) == 3
    return {value.split(".")[1] for value in values}


def test_a_new_key_seals_everything(used: Path) -> None:
    (before,) = sealed(used)
    told = succeeded(admin(used, "rotate-key"))
    (after,) = sealed(used)
    assert before != after
    assert f"The secrets key is now {after}" in told
    assert (used / "secrets.key").stat().st_mode & 0o777 == 0o600
    former = used / f"secrets.key.{before}"
    assert former.stat().st_mode & 0o777 == 0o600
    assert (used / "secrets.key").read_text() != former.read_text()
    assert succeeded(admin(used, "check")) == "All is well.\n"
    former.unlink()
    still_works(used)


def test_a_new_key_seals_what_runs_hold(used: Path) -> None:
    """The keys that a request brought along: its model's, its sub-agents' and its MCP servers'. A
    context that looks like one is left alone. The run was under way when its server died."""
    silent = socket.create_server(("127.0.0.1", 0))
    port = silent.getsockname()[1]
    look_alike = {"api_key_sealed": "q1.not.one.ofours"}
    body = {
        "messages": [{"role": "user", "content": "hi"}],
        "system_context": look_alike,
        "llm_model_config": {
            "base_url": f"http://127.0.0.1:{port}/v1",
            "api_key": KEY,
            "model": "m",
        },
        "custom_sub_agents": [{"name": "Helper"}],
        "extra_mcp_config": {"docs": {"url": "https://mcp.example/mcp", "api_key": KEY}},
    }
    with silent, serving(used, given={"OUTBOUND_ALLOW": f"127.0.0.1:{port}"}) as server:
        who = bearer(server.url, "admin", "of the administrator")
        request = urllib.request.Request(
            f"{server.url}/api/web-stream",
            json.dumps(body).encode(),
            {**who, "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30):
            server.stop(signal.SIGKILL)

    def held() -> list[str]:
        with sqlite3.connect(used / "quartet.sqlite") as connection:
            rows = connection.execute("SELECT request FROM runs ORDER BY created_at DESC LIMIT 1")
            plan = json.loads(next(rows)[0])
        assert plan["system_context"] == look_alike
        [helper] = plan["sub_agents"].values()
        return [
            plan["model"]["api_key_sealed"],
            helper["model"]["api_key_sealed"],
            plan["brought_mcp"]["servers_sealed"],
        ]

    before = held()
    succeeded(admin(used, "rotate-key"))
    (key,) = load_keys(used)
    owner = used_admin(used)
    for former, sealed in zip(before, held(), strict=True):
        assert sealed != former
        assert KEY in SecretBox([key]).open(sealed, f"request:{owner}")


def used_admin(data: Path) -> str:
    """The administrator's id."""
    with sqlite3.connect(data / "quartet.sqlite") as connection:
        found: str = next(connection.execute("SELECT id FROM users WHERE username = 'admin'"))[0]
        return found


SEALED_IN_JSON = {("settings", "value"), ("runs", "request"), ("idempotency", "body")}


def test_every_sealed_column_is_wrapped_anew() -> None:
    """A column that rotation forgets is lost with the key it was sealed by."""
    sealed = {
        (table.name, column.name)
        for table in metadata.tables.values()
        for column in table.columns
        if column.name.endswith("_sealed")
    }
    assert len(sealed) == 3
    changes = [str(place.put.construct("sqlite")).split() for place in PLACES]
    put = {(words[1], words[3].partition("=")[0]) for words in changes}
    assert put == sealed | SEALED_IN_JSON


def test_a_new_key_seals_what_administrators_set(used: Path) -> None:
    """The platform's model and an MCP server, whose configuration is sealed as a whole; and the
    key of an account's MCP server, in the column beside it."""
    with serving(used) as server:
        who = bearer(server.url, "admin", "of the administrator")
        base = f"{server.url}/sandbox/api/app-config"
        model = {"base_url": "https://8.8.8.8/v1", "model_name": "m", "api_key": KEY}
        assert ask(f"{base}/llm", "POST", model, who).status == 200
        servers = {"docs": {"url": "https://8.8.8.8/mcp", "headers": {"X-Key": KEY}}}
        body = {"mcpServers": servers}
        assert ask(f"{base}/mcp-servers", "POST", body, who).status == 200
    keys = load_keys(used)
    with closing(sqlite3.connect(used / "quartet.sqlite")) as connection:
        ((server_id,),) = connection.execute("SELECT id FROM mcp_servers")
        own = SecretBox(keys).seal(KEY, mcp._context(server_id))
        connection.execute("UPDATE mcp_servers SET api_key_sealed = ?", [own])
        connection.commit()

    def held() -> dict[str, str]:
        """Sealed values by what they are sealed for."""
        with closing(sqlite3.connect(used / "quartet.sqlite")) as connection:
            columns = "api_key_sealed, config_sealed"
            ((key, whole),) = connection.execute(f"SELECT {columns} FROM mcp_servers")
            select = "SELECT value FROM settings WHERE key = ?"
            ((llm,),) = connection.execute(select, [config.LLM])
        return {
            "key": key,
            "config": whole,
            "llm": json.loads(llm)["api_key_sealed"],
        }

    before = held()
    succeeded(admin(used, "rotate-key"))
    box = SecretBox(load_keys(used))
    contexts = {
        "key": mcp._context(server_id),
        "config": platform_mcp._context(server_id),
        "llm": config.CONTEXT,
    }
    for name, sealed in held().items():
        assert sealed != before[name]
        assert KEY in box.open(sealed, contexts[name])


def test_a_rotation_that_was_cut_goes_on(used: Path) -> None:
    """Cut after the new key was written: both open, and another run ends it."""
    write_keys(used / "secrets.key", [bytes(range(32)), *load_keys(used)])
    still_works(used)
    succeeded(admin(used, "rotate-key"))
    assert len((used / "secrets.key").read_text().splitlines()) == 1
    still_works(used)


def test_an_operators_keys_are_taken_in_their_order(used: Path, tmp_path: Path) -> None:
    own = (used / "secrets.key").read_text()
    keys = tmp_path / "keys"
    keys.write_text("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n" + own)
    given = {"SECRETS_KEY_FILE": str(keys)}
    assert "the other keys may go" in succeeded(admin(used, "rotate-key", given=given))
    keys.write_text(keys.read_text().splitlines()[0] + "\n")
    still_works(used, SECRETS_KEY_FILE=str(keys))
    assert "the secrets key is not the one" in refused(admin(used, "rotate-key"))


# --- check ----------------------------------------------------------------------------------------

DAMAGE = {
    "a gap": ("DELETE FROM events WHERE seq = 2 AND stream LIKE 'run:%'", "a gap in the event log"),
    "a lost end": (
        "DELETE FROM events WHERE stream LIKE 'run:%' AND seq ="
        " (SELECT head FROM streams WHERE id = stream)",
        "the newest events of run:",
    ),
    "a lost head": ("DELETE FROM streams WHERE id LIKE 'run:%'", "beyond the head of run:"),
    "a lost run": ("DELETE FROM runs", "which does not exist"),
    "a lost message": ("DELETE FROM messages WHERE position = 1", "counts its messages wrongly"),
    "an orphan": ("DELETE FROM users", "refer to no users"),
    "a changed secret": (
        "UPDATE providers SET api_key_sealed = replace(api_key_sealed, '.', '.A')",
        "keys of providers",
    ),
    "a moved secret": ("UPDATE providers SET id = 'another'", "keys of providers, another"),
    "no administrator": ("UPDATE users SET role = 'operator'", "no administrator"),
}


def found(data: Path) -> list[str]:
    """What `check` says, without a process of its own."""

    async def collect() -> list[str]:
        settings = Settings(_env_file=None, data=data)
        async with reading(settings) as database:
            return [line async for line in findings(settings, database)]

    return asyncio.run(collect())


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_found(used: Path, name: str) -> None:
    statement, said = DAMAGE[name]
    with sqlite3.connect(used / "quartet.sqlite") as connection:
        assert connection.execute(statement).rowcount > 0
    connection.close()
    assert said in "\n".join(found(used))


def test_a_sound_directory_passes_and_stays_as_it_is(used: Path) -> None:
    before = sorted(path.name for path in used.iterdir())
    assert succeeded(admin(used, "check")) == "All is well.\n"
    assert sorted(path.name for path in used.iterdir()) == before


STORED = {
    "an upload": ("objects/files/*", "(picture.txt) is missing"),
    "a document": ("objects/knowledge/*/*", "(book.md) is missing"),
    "a skill's file": ("skills/*/0", "(asking/ask.py) is missing"),
}


@pytest.mark.parametrize("name", STORED)
def test_a_lost_file_is_found(used: Path, name: str) -> None:
    pattern, said = STORED[name]
    (lost,) = used.glob(pattern)
    lost.unlink()
    assert found(used) == [f"{lost.relative_to(used)} {said}"]


def test_lost_folders_are_found(used: Path) -> None:
    shutil.rmtree(used / "objects")
    shutil.rmtree(used / "skills")
    told = refused(admin(used, "check"))
    assert all(said in told for _, said in STORED.values())
    assert not (used / "objects").exists(), "check changes nothing"


def test_what_is_deleted_during_a_check_is_not_missing(
    used: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows go before files: a file may be gone that a row named a moment ago."""
    looked = integrity._objects

    async def deleting(settings: Settings) -> set[str]:
        with closing(sqlite3.connect(used / "quartet.sqlite")) as connection:
            connection.execute("DELETE FROM files")
            connection.commit()
        (file,) = used.glob("objects/files/*")
        file.unlink()
        return await looked(settings)

    monkeypatch.setattr(integrity, "_objects", deleting)
    assert found(used) == []


def test_a_damaged_file_is_found(used: Path) -> None:
    with (used / "quartet.sqlite").open("r+b") as file:
        file.seek(8192)
        file.write(b"\xff" * 20000)
    refused(admin(used, "check"))
    refused(admin(used, "backup", str(used.parent / "backup")))
    assert not (used.parent / "backup").exists()


def test_the_wrong_key_is_found(used: Path) -> None:
    (used / "secrets.key").write_text("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n")
    assert "the secrets key is not the one" in refused(admin(used, "check"))


# --- backup and restore ---------------------------------------------------------------------------


def test_a_backup_restores_on_another_machine(used: Path, tmp_path: Path) -> None:
    (used / "objects" / "ab").mkdir(parents=True)
    (used / "objects" / "ab" / "file").write_bytes(b"content of a file")
    for folder in ("skills", "workspaces"):
        (used / folder / "one").mkdir(parents=True)
        (used / folder / "one" / "file").write_text(folder)
        (used / folder / "one" / "link").symlink_to("/etc/passwd")
    target = tmp_path / "backup"
    succeeded(admin(used, "backup", str(target), "--with-key"))
    assert target.stat().st_mode & 0o777 == 0o700
    private = [p for p in target.rglob("*") if not p.is_symlink()]
    assert all(p.stat().st_mode & 0o077 == 0 for p in private)
    shutil.rmtree(used)
    elsewhere = tmp_path / "elsewhere"
    succeeded(admin(elsewhere, "restore", str(target)))
    assert succeeded(admin(elsewhere, "check")) == "All is well.\n"
    assert (elsewhere / "objects" / "ab" / "file").read_bytes() == b"content of a file"
    for folder in ("skills", "workspaces"):
        assert (elsewhere / folder / "one" / "file").read_text() == folder
        assert not (elsewhere / folder / "one" / "link").is_symlink()
    still_works(elsewhere)


def test_a_backup_without_the_key_holds_no_secret(used: Path, tmp_path: Path) -> None:
    target = tmp_path / "backup"
    told = succeeded(admin(used, "backup", str(target)))
    key = (used / "secrets.key").read_text().strip()
    (key_id,) = sealed(used)
    assert key_id in told
    for path in (path for path in target.rglob("*") if path.is_file()):
        content = path.read_bytes()
        assert key.encode() not in content, path
        assert KEY.encode() not in content, path
    manifest = json.loads((target / "manifest.json").read_text())
    assert manifest["keys"] == [key_id]
    elsewhere = tmp_path / "elsewhere"
    assert f"give it the secrets key {key_id}" in succeeded(
        admin(elsewhere, "restore", str(target))
    )
    assert not (elsewhere / "secrets.key").exists()
    shutil.copy(used / "secrets.key", elsewhere / "secrets.key")
    still_works(elsewhere)


def test_nothing_is_overwritten(used: Path, tmp_path: Path) -> None:
    target = tmp_path / "backup"
    succeeded(admin(used, "backup", str(target)))
    assert "exists" in refused(admin(used, "backup", str(target)))
    assert "is not empty" in refused(admin(used, "restore", str(target)))
    still_works(used)


DAMAGED = ("flip", "cut", "add", "folder", "remove", "no manifest")
LINKED = ("link", "link to a folder", "link instead", "pipe")


@pytest.mark.parametrize("change", [*DAMAGED, *LINKED])
def test_a_damaged_backup_is_refused_whole(used: Path, tmp_path: Path, change: str) -> None:
    target, elsewhere = tmp_path / "backup", tmp_path / "elsewhere"
    back_up(Settings(_env_file=None, data=used), target, print)
    rows = target / "quartet.sqlite"
    content = rows.read_bytes()
    match change:
        case "flip":
            rows.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        case "cut":
            rows.write_bytes(content[:-1])
        case "add":
            (target / "objects" / "more").write_bytes(b"x")
        case "folder":
            (target / "more").mkdir()
        case "remove":
            rows.unlink()
        case "no manifest":
            (target / "manifest.json").unlink()
        case "link":
            (target / "objects" / "more").symlink_to("/etc/passwd")
        case "link to a folder":
            (target / "workspaces").symlink_to("/etc")
        case "link instead":
            (tmp_path / "aside").write_bytes(content)
            rows.unlink()
            rows.symlink_to(tmp_path / "aside")
        case "pipe":
            os.mkfifo(target / "skills" / "pipe")
    said = {"link": "is a link", "pipe": "is no regular file"}.get(change.split()[0], "")
    with pytest.raises(Refused, match=f"(is damaged|is no backup).*{said}"):
        restore(Settings(_env_file=None, data=elsewhere), target, print)
    assert not elsewhere.exists()


def backed_up(data: Path, target: Path) -> tuple[Manifest, str]:
    """A backup, and what was said of it."""
    said: list[str] = []
    manifest = back_up(Settings(_env_file=None, data=data), target, said.append)
    return manifest, "\n".join(said)


def restored(target: Path, data: Path) -> str:
    """What was said of a backup that is restored into a directory."""
    said: list[str] = []
    restore(Settings(_env_file=None, data=data), target, said.append)
    return "\n".join(said)


@pytest.fixture
def work(used: Path) -> Path:
    """A workspace with a file in it."""
    folder = used / "workspaces" / "sessions" / "account" / "session"
    folder.mkdir(parents=True)
    (folder / "kept.txt").write_bytes(b"kept")
    return folder


def test_nothing_in_a_workspace_keeps_a_backup_from_being_made(
    work: Path, used: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(work / "pipe")
    os.mknod(work / "socket", stat.S_IFSOCK | 0o600)
    (work / "link").symlink_to("kept.txt")
    (work / "nowhere").symlink_to("nothing")
    (tmp_path / "first").write_bytes(b"two names")
    os.link(tmp_path / "first", work / "second")
    (work / os.fsdecode(b"\xff")).write_bytes(b"no UTF-8")
    (work / "a\x1b[2Jb").symlink_to("nothing")
    for name in ("gone", "locked"):
        (work / name).write_bytes(b"")
    (work / "shut").mkdir()
    for name in ("d", "l" * 200):
        here = os.open(work, os.O_RDONLY)
        for _ in range(150):
            os.mkdir(name, dir_fd=here)
            below = os.open(name, os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
        os.close(here)
    opened, looked = os.open, copying._stat

    def opening(path: Any, flags: int, *mode: Any, **options: Any) -> int:
        if path in ("locked", "shut") and not flags & os.O_CREAT:  # as for who is not root
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return opened(path, flags, *mode, **options)

    def looking(name: str, parent: int) -> os.stat_result:
        told = looked(name, parent)
        if name == "gone":
            (work / "gone").unlink()
        return told

    monkeypatch.setattr(os, "open", opening)
    monkeypatch.setattr(copying, "_stat", looking)
    manifest, said = backed_up(used, tmp_path / "backup")
    monkeypatch.undo()
    folder = work.relative_to(used)
    left_out = {one.path.removeprefix(f"{folder}/"): one.reason for one in manifest.left_out}
    assert {name: left_out.pop(name) for name in list(left_out) if "/" in name} == {
        "/".join("d" * (101 - len(folder.parts))): "nested too deep",
        f"{'l' * 200}/{'l' * 200}"[: 299 - len(str(folder))]: "its path is too long",
    }
    assert left_out == {
        "pipe": "no regular file",
        "socket": "no regular file",
        "link": "a link",
        "nowhere": "a link",
        "a\\x1b[2Jb": "a link",
        "second": "a file with a second name",
        "\\udcff": "its name is not UTF-8",
        "gone": "gone before it was copied",
        "locked": "permission denied",
        "shut": "permission denied",
    }
    assert f"left out: {folder}/pipe: no regular file" in said
    assert "\x1b" not in said
    restored(tmp_path / "backup", tmp_path / "elsewhere")
    assert (tmp_path / "elsewhere" / folder / "kept.txt").read_bytes() == b"kept"


def test_of_much_that_is_left_out_some_is_said(work: Path, used: Path, tmp_path: Path) -> None:
    for number in range(30):
        (work / f"link{number}").symlink_to("kept.txt")
    manifest, said = backed_up(used, tmp_path / "backup")
    assert len(manifest.left_out) == 30
    assert said.count("left out: ") == 21
    assert "left out: 10 more, named in manifest.json" in said


def test_an_upload_under_way_is_no_part_of_a_backup(work: Path, used: Path, tmp_path: Path) -> None:
    (used / "objects" / "files" / f"{uuid.uuid4()}#1").write_bytes(b"the first half")
    (work / "name#1").write_bytes(b"whole")
    manifest, _ = backed_up(used, tmp_path / "backup")
    assert manifest.left_out == []
    assert [file.path for file in manifest.files if "#" in file.path] == [
        f"{work.relative_to(used)}/name#1"
    ]


def test_a_hole_stays_a_hole(work: Path, used: Path, tmp_path: Path) -> None:
    mib = 1 << 20
    with (work / "holes").open("wb") as file:
        for at in (16 * mib, 40 * mib + 5):
            file.seek(at)
            file.write(b"data")
        file.truncate(64 * mib + 1)
    manifest, _ = backed_up(used, tmp_path / "backup")
    restored(tmp_path / "backup", tmp_path / "elsewhere")
    below = (work / "holes").relative_to(used)
    content = (work / "holes").read_bytes()
    for root in (tmp_path / "backup", tmp_path / "elsewhere"):
        assert (root / below).read_bytes() == content
        assert (root / below).stat().st_blocks * 512 <= mib
    (tmp_path / "backup" / below).write_bytes(content)  # as a copy that knows no holes
    assert read_manifest(tmp_path / "backup") == manifest
    changed = content[: 16 * mib] + b"\0" * 4096 + content[16 * mib : -4096]  # moved by a block
    (tmp_path / "backup" / below).write_bytes(changed)
    with pytest.raises(Refused, match="is damaged"):
        read_manifest(tmp_path / "backup")


def test_digests_of_files_without_holes_are_those_of_sha256sum(
    work: Path, used: Path, tmp_path: Path
) -> None:
    content = os.urandom(3 * (1 << 20) + 7)
    (work / "full").write_bytes(content)
    manifest, _ = backed_up(used, tmp_path / "backup")
    (full,) = [file for file in manifest.files if file.path.endswith("/full")]
    assert full.sha256 == hashlib.sha256(content).hexdigest()
    assert full.size == len(content)


def test_a_file_that_is_cut_while_it_is_copied_is_restored(
    work: Path, used: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (work / "cut").write_bytes(b"x" * 10_000)
    read = os.pread

    def cutting(file: int, size: int, at: int) -> bytes:
        if os.readlink(f"/proc/self/fd/{file}") == str(work / "cut"):
            os.truncate(work / "cut", 5000)
        return read(file, size, at)

    monkeypatch.setattr(os, "pread", cutting)
    backed_up(used, tmp_path / "backup")
    monkeypatch.undo()
    restored(tmp_path / "backup", tmp_path / "elsewhere")
    cut = (tmp_path / "elsewhere" / (work / "cut").relative_to(used)).read_bytes()
    assert cut == b"x" * 5000 + bytes(5000)


def test_what_may_be_run_stays_so(work: Path, used: Path, tmp_path: Path) -> None:
    """By the manifest: where a backup lies meanwhile, modes may be lost."""
    (work / "run.sh").write_text("#!/bin/sh\n")
    (work / "run.sh").chmod(0o755)
    backed_up(used, tmp_path / "backup")
    below = work.relative_to(used)
    assert (tmp_path / "backup" / below / "run.sh").stat().st_mode & 0o777 == 0o700
    (tmp_path / "backup" / below / "run.sh").chmod(0o600)
    (tmp_path / "backup" / below / "kept.txt").chmod(0o700)
    restored(tmp_path / "backup", tmp_path / "elsewhere")
    modes = {
        path.name: path.stat().st_mode & 0o777
        for path in (tmp_path / "elsewhere" / below).iterdir()
    }
    assert modes == {"run.sh": 0o700, "kept.txt": 0o600}


def test_files_keep_their_times(work: Path, used: Path, tmp_path: Path) -> None:
    os.utime(work / "kept.txt", (1, 1_000_000_000))
    backed_up(used, tmp_path / "backup")
    restored(tmp_path / "backup", tmp_path / "elsewhere")
    kept = tmp_path / "elsewhere" / (work / "kept.txt").relative_to(used)
    assert kept.stat().st_mtime == 1_000_000_000


def deleted_meanwhile(monkeypatch: pytest.MonkeyPatch, data: Path) -> str:
    """From now on an upload is deleted while a backup has its rows, and not its files; its path."""
    (file,) = data.glob("objects/files/*")
    copied = copying.Copying.folder

    def deleting(self: Any, source: Path, target: Path | None, path: str = "") -> None:
        file.unlink(missing_ok=True)
        copied(self, source, target, path)

    monkeypatch.setattr(copying.Copying, "folder", deleting)
    return str(file.relative_to(data))


def test_a_backup_says_which_files_were_deleted_meanwhile(
    used: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert backed_up(used, tmp_path / "whole")[0].missing == []
    path = deleted_meanwhile(monkeypatch, used)
    manifest, said = backed_up(used, tmp_path / "backup")
    monkeypatch.undo()
    assert manifest.missing == [path]
    assert f"not there any more: {path} (picture.txt)" in said
    assert f"missing from the backup: {path}" in restored(
        tmp_path / "backup", tmp_path / "elsewhere"
    )
    shutil.copy(used / "secrets.key", tmp_path / "elsewhere" / "secrets.key")
    assert found(tmp_path / "elsewhere") == [f"{path} (picture.txt) is missing"]


def test_skills_are_backed_up_from_where_they_are(used: Path, tmp_path: Path) -> None:
    (used / "skills").rename(tmp_path / "skills")
    settings = Settings(_env_file=None, data=used, skills_root_dir=str(tmp_path / "skills"))
    assert back_up(settings, tmp_path / "backup", print).missing == []
    with pytest.raises(Refused, match="skills is not empty"):
        restore(
            settings.model_copy(update={"data": tmp_path / "data2"}), tmp_path / "backup", print
        )
    restored(tmp_path / "backup", tmp_path / "elsewhere")
    assert list((tmp_path / "elsewhere").glob("skills/*/0"))


def test_no_backup_is_made_of_itself(used: Path, tmp_path: Path) -> None:
    for target in (used / "workspaces", used / "objects" / "backup", used / "skills" / "a" / "b"):
        if not target.exists():
            with pytest.raises(Refused, match="which is backed up itself"):
                backed_up(used, target)
            assert not target.exists()
    backed_up(used, used / "backup")


def test_another_key_is_not_overwritten(used: Path, tmp_path: Path) -> None:
    back_up(Settings(_env_file=None, data=used), tmp_path / "backup", print, with_key=True)
    own = tmp_path / "elsewhere" / "secrets.key"
    own.parent.mkdir()
    other = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"
    own.write_text(other)
    own.chmod(0o600)
    with pytest.raises(Refused, match="is another key than the backup's"):
        restored(tmp_path / "backup", own.parent)
    assert own.read_text() == other
    assert not (own.parent / "quartet.sqlite").exists()
    own.write_text("# the same key\n" + (used / "secrets.key").read_text())
    restored(tmp_path / "backup", own.parent)
    assert own.read_text().startswith("# the same key\n")


def test_files_in_a_directory_made_beforehand_are_private(used: Path, tmp_path: Path) -> None:
    """Whatever the umask of whoever starts a server or a command."""
    data, before = tmp_path / "made", os.umask(0o022)
    try:
        data.mkdir(mode=0o755)
        with serving(data):
            assert open_to_others(data) == []
        succeeded(admin(used, "backup", str(tmp_path / "backup")))
        (tmp_path / "elsewhere").mkdir(mode=0o755)
        succeeded(admin(tmp_path / "elsewhere", "restore", str(tmp_path / "backup")))
        succeeded(admin(tmp_path / "elsewhere", "list-users"))
    finally:
        os.umask(before)
    assert open_to_others(tmp_path / "elsewhere") == []


def open_to_others(data: Path) -> list[Path]:
    found = [path for path in data.rglob("*") if path.stat().st_mode & 0o077]
    assert (data / "quartet.sqlite").exists()
    return found


def test_uploads_of_a_server_that_was_killed_are_swept(used: Path) -> None:
    before = used / "objects" / "files" / f"{uuid.uuid4()}#1"
    before.write_bytes(b"the first half")
    os.utime(before, (1_000_000_000, 1_000_000_000))
    with serving(used):
        deadline = time.monotonic() + 20
        while before.exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
    assert found(used) == []


def test_a_sweep_leaves_what_is_whole_or_being_written(tmp_path: Path) -> None:
    folder = tmp_path / "objects" / "files"
    folder.mkdir(parents=True)
    for name, at in (("whole", 1), ("old#1", 1), ("old#22", 999), ("new#1", 1000)):
        (folder / name).write_bytes(b"")
        os.utime(folder / name, (at, at))
    (folder / "link#1").symlink_to("whole")
    sweep(tmp_path, 1000)
    assert sorted(path.name for path in folder.iterdir()) == ["link#1", "new#1", "whole"]


def test_a_backup_that_changes_while_it_is_restored_is_refused(
    work: Path, used: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backed_up(used, tmp_path / "backup")
    read = backups.read_manifest

    def reading_then_changed(source: Path) -> Manifest:
        manifest = read(source)
        (source / work.relative_to(used) / "kept.txt").write_bytes(b"other")
        return manifest

    monkeypatch.setattr(backups, "read_manifest", reading_then_changed)
    with pytest.raises(Refused, match="changed while it was restored"):
        restored(tmp_path / "backup", tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere" / "quartet.sqlite").exists()


def test_a_backup_beside_a_busy_server_is_of_one_moment(tmp_path: Path) -> None:
    data = tmp_path / "data"
    settings = Settings(_env_file=None, data=data)
    made = 0
    stop = threading.Event()
    with serving(data) as server:
        who = bearer(server.url, "admin", server.password or "")

        def write() -> None:
            nonlocal made
            while not stop.is_set():
                agent = {"name": f"agent {made}"}
                answer = ask(f"{server.url}/api/agent/create", "POST", agent, who)
                assert answer.status == 200
                made += 1

        writer = threading.Thread(target=write)
        writer.start()
        counts = []
        for number in range(5):
            before = made
            back_up(settings, tmp_path / f"backup{number}", print, with_key=True)
            counts.append((before, made))
        stop.set()
        writer.join()
    for number, (least, most) in enumerate(counts):
        restored = tmp_path / f"restored{number}"
        restore(Settings(_env_file=None, data=restored), tmp_path / f"backup{number}", print)
        assert found(restored) == []
        with closing(sqlite3.connect(restored / "quartet.sqlite")) as connection:
            ((agents,),) = connection.execute("SELECT count(*) FROM agents")
        assert least <= agents <= most + 1
    assert made > 5


if postgres_answers():

    @pytest.fixture
    def databases() -> Iterator[list[str]]:
        names = [f"quartet_test_{uuid.uuid4().hex[:12]}" for _ in range(2)]
        with administrator() as connection:
            for name in names:
                connection.execute(f"CREATE DATABASE {name}".encode())
        yield names
        with administrator() as connection:
            for name in names:
                for one in (name, f"{name}_dbos_sys"):
                    connection.execute(f"DROP DATABASE IF EXISTS {one} WITH (FORCE)".encode())

    def test_postgresql_is_backed_up_and_restored(databases: list[str], tmp_path: Path) -> None:
        data, target = tmp_path / "data", tmp_path / "backup"
        given = [{"DATABASE_URL": f"{POSTGRES}/{name}"} for name in databases]
        password = {"ADMIN_PASSWORD": "of the administrator"}
        with serving(data, given={**given[0], **password}) as server:
            server.password = "of the administrator"
            fill(server)
            succeeded(admin(data, "backup", str(target), "--with-key", given=given[0]))
            assert succeeded(admin(data, "check", given=given[0])) == "All is well.\n"
            (file,) = data.glob("objects/files/*")
            file.rename(tmp_path / "aside")
            path = file.relative_to(data)
            less = admin(data, "backup", str(tmp_path / "less"), given=given[0])
            assert f"not there any more: {path} (picture.txt)" in succeeded(less)
            lost = admin(data, "check", given=given[0])
            assert refused(lost) == f"{path} (picture.txt) is missing\n"
        with administrator() as connection:
            name = databases[0].encode()
            connection.execute(b"ALTER DATABASE " + name + b" RENAME TO " + name + b"_aside")
            connection.execute(b"CREATE DATABASE " + name)
            databases.append(f"{databases[0]}_aside")
        said = refused(admin(data, "restore", str(target), given=given[0]))
        assert f"{data}/objects is not empty" in said
        assert not file.exists(), "nothing was written"
        elsewhere = tmp_path / "elsewhere"
        assert "names another database" in refused(admin(elsewhere, "restore", str(target)))
        succeeded(admin(elsewhere, "restore", str(target), given=given[1]))
        said = refused(admin(tmp_path / "more", "restore", str(target), given=given[1]))
        assert "the database is not empty" in said
        assert succeeded(admin(elsewhere, "check", given=given[1])) == "All is well.\n"
        still_works(elsewhere, **given[1])

    def test_without_its_clients_a_backup_is_refused_with_how(
        databases: list[str], tmp_path: Path
    ) -> None:
        given = {"DATABASE_URL": f"{POSTGRES}/{databases[0]}", "PATH": str(tmp_path)}
        said = refused(admin(tmp_path / "data", "backup", str(tmp_path / "b"), given=given))
        assert "apt install postgresql-client" in said
        assert not (tmp_path / "b").exists()

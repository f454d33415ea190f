"""scripts/admin over real data directories and a real PostgreSQL database."""

import asyncio
import json
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from gateways.secretbox import SecretBox, load_keys
from server.administration.backup import back_up, restore
from server.administration.integrity import findings
from server.administration.keys import PLACES, write_keys
from server.administration.opening import Refused, reading
from server.settings import Settings
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


def fill(server: Server) -> None:
    """An account with a provider, an agent, and a conversation with `embedded/script`."""
    who = bearer(server.url, "admin", server.password or "")

    def post(path: str, body: object) -> object:
        answer = ask(f"{server.url}{path}", "POST", body, who)
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
        assert (elsewhere / folder / "one" / "link").is_symlink()
    still_works(elsewhere)


def test_every_sealed_column_is_wrapped_anew() -> None:
    """A column that rotation forgets is lost with the key it was sealed by."""
    sealed = {
        table.name
        for table in metadata.tables.values()
        if any(column.name.endswith("_sealed") for column in table.columns)
    }
    columns = {f"{place.find.construct('sqlite')}" for place in PLACES}
    assert sealed == {"providers", "mcp_servers"}
    for table in sealed:
        assert any(f"FROM {table}" in statement for statement in columns), table


def test_a_backup_without_the_key_holds_no_secret(used: Path, tmp_path: Path) -> None:
    target = tmp_path / "backup"
    told = succeeded(admin(used, "backup", str(target)))
    key = (used / "secrets.key").read_text().strip()
    (key_id,) = sealed(used)
    assert key_id in told
    for path in target.rglob("*"):
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


@pytest.mark.parametrize("change", ["flip", "cut", "add", "remove", "no manifest"])
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
            (target / "objects").mkdir()
            (target / "objects" / "more").write_bytes(b"x")
        case "remove":
            rows.unlink()
        case "no manifest":
            (target / "manifest.json").unlink()
    with pytest.raises(Refused, match=r"is damaged|is no backup"):
        restore(Settings(_env_file=None, data=elsewhere), target, print)
    assert not elsewhere.exists()


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
        assert "is not empty" in refused(admin(data, "restore", str(target), given=given[0]))
        elsewhere = tmp_path / "elsewhere"
        assert "names another database" in refused(admin(elsewhere, "restore", str(target)))
        succeeded(admin(elsewhere, "restore", str(target), given=given[1]))
        assert succeeded(admin(elsewhere, "check", given=given[1])) == "All is well.\n"
        still_works(elsewhere, **given[1])

    def test_without_its_clients_a_backup_is_refused_with_how(
        databases: list[str], tmp_path: Path
    ) -> None:
        given = {"DATABASE_URL": f"{POSTGRES}/{databases[0]}", "PATH": str(tmp_path)}
        said = refused(admin(tmp_path / "data", "backup", str(tmp_path / "b"), given=given))
        assert "apt install postgresql-client" in said
        assert not (tmp_path / "b").exists()

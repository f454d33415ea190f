"""How sandboxes end, and what is left: nothing."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest

from gateways.sandbox import sandboxes as sandboxes_module
from gateways.sandbox import watching
from gateways.sandbox.errors import SandboxEnded, SandboxStalled, SandboxUnavailable
from gateways.sandbox.sandboxes import Sandbox, Sandboxes
from tests.sandbox.conftest import SMALL

ROOT = Path(__file__).parent.parent.parent


def _inside(sandbox: Sandbox) -> Sequence[int]:
    return watching.processes().get(sandbox.namespace, ())


async def test_closing_ends_everything(sandboxes: Sandboxes) -> None:
    sandbox = await sandboxes.open("session")
    await sandbox.shell("a", "setsid sh -c 'setsid sleep 99 & sleep 99' & (sleep 99 &)")
    running = asyncio.ensure_future(sandbox.shell("b", "sleep 99"))
    program = await sandbox.run(["sleep", "99"])
    assert len(_inside(sandbox)) >= 7
    await sandboxes.close("session")
    assert _inside(sandbox) == ()
    with pytest.raises(SandboxEnded, match="closed"):
        await running
    assert await program.wait() == -9
    assert await sandbox.finished() == "closed"
    with pytest.raises(SandboxEnded):
        await sandbox.shell("a", "true")
    with pytest.raises(SandboxEnded):
        await sandbox.display()
    await sandboxes.close("session")


async def test_no_zombies_stay(sandbox: Sandbox) -> None:
    await sandbox.shell("a", "for n in $(seq 30); do (true &) ; done; sleep 0.2")
    for _ in range(5):
        await (await sandbox.run(["true"])).wait()
    counted = await sandbox.shell("a", "sleep 0.2; ps ax -o stat= | grep -c Z")
    assert counted.output == "0\n"


async def test_descriptors_and_processes_are_given_back(sandboxes: Sandboxes) -> None:
    async def round_(name: str) -> None:
        sandbox = await sandboxes.open(name)
        await sandbox.shell("a", "echo on")
        await (await sandbox.run(["true"])).kill()
        await sandboxes.close(name)

    await round_("first")
    before = len(os.listdir("/proc/self/fd"))
    for n in range(3):
        await round_(f"session-{n}")
    await asyncio.sleep(0)
    assert len(os.listdir("/proc/self/fd")) <= before


async def test_one_sandbox_for_a_session(sandboxes: Sandboxes) -> None:
    opened = await asyncio.gather(*(sandboxes.open("session") for _ in range(3)))
    assert opened[0] is opened[1] is opened[2] is sandboxes.get("session")


async def test_an_idle_sandbox_ends_and_a_busy_one_does_not(tmp_path: Path) -> None:
    made = Sandboxes(tmp_path, msgspec.structs.replace(SMALL, idle_s=0.5))
    try:
        busy = await made.open("busy")
        await busy.shell("a", "echo on; sleep 60", timeout_s=0)
        idle = await made.open("idle")
        async with asyncio.timeout(20):
            assert await idle.finished() == "idle"
        assert busy.ended == ""
        again = await made.open("idle")
        assert again is not idle
    finally:
        await made.close_all()


async def test_a_new_sandbox_comes_after_the_end(sandboxes: Sandboxes) -> None:
    sandbox = await sandboxes.open("session")
    await sandbox.shell("a", "echo kept > file")
    # What runs inside is one user's: it may end the first process, and with it all.
    with suppress(SandboxEnded):
        await sandbox.shell("a", "kill -9 2")
    async with asyncio.timeout(20):
        assert await sandbox.finished() == "died"
    again = await sandboxes.open("session")
    assert (await again.shell("a", "cat file")).output == "kept\n"


async def test_a_stopped_first_process_holds_nobody_up(sandboxes: Sandboxes) -> None:
    sandbox = await sandboxes.open("session")
    await sandbox.shell("a", "kill -STOP 2")
    await sandboxes.close("session")
    assert _inside(sandbox) == ()


async def test_a_shell_that_cannot_be_killed_ends_the_sandbox(
    sandboxes: Sandboxes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateways.sandbox.sandboxes.END_S", 1.0)
    sandbox = await sandboxes.open("session")
    await sandbox.shell("a", "kill -STOP 2; sleep 60", timeout_s=0.5)
    await sandbox.kill_shell("a")
    assert sandbox.ended == "died"
    assert _inside(sandbox) == ()


_SERVER = """
import asyncio, sys
from pathlib import Path
from tempfile import TemporaryDirectory
from gateways.sandbox.sandboxes import Sandboxes

async def main():
    sandbox = await Sandboxes(Path(sys.argv[1])).open("session")
    await sandbox.shell("a", "(setsid sleep 99 &); kill -STOP 2; sleep 99", timeout_s=0.5)
    print(sandbox.namespace, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_it_dies_with_the_server(tmp_path: Path) -> None:
    """Also where nothing inside listens any more."""
    server = subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", _SERVER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        namespace = server.stdout.readline().strip()
        assert watching.processes().get(namespace), "it runs"
    finally:
        server.send_signal(signal.SIGKILL)
        server.wait()
        server.stdout.close()
    async with asyncio.timeout(20):
        while namespace in watching.processes():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_the_machine_can_run_commands(sandboxes: Sandboxes) -> None:
    assert await sandboxes.check() == ""


async def test_without_bubblewrap_nothing_runs(tmp_path: Path) -> None:
    made = Sandboxes(tmp_path / "workspaces", bwrap="no-such-bwrap")
    assert "apt install bubblewrap" in await made.check()
    with pytest.raises(SandboxUnavailable, match="bubblewrap"):
        await made.open("session")


async def test_where_bubblewrap_fails_nothing_runs(tmp_path: Path) -> None:
    """As in a container that may make no namespaces; the reason is bwrap's own."""
    with TemporaryDirectory(dir="/tmp") as directory:
        os.chmod(directory, 0o755)
        broken = Path(directory) / "bwrap"
        broken.write_text(
            "#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n"
        )
        broken.chmod(0o755)
        made = Sandboxes(tmp_path / "workspaces", bwrap=str(broken))
        with pytest.raises(SandboxUnavailable, match="No permissions to create new namespace"):
            await made.open("session")
        assert made.get("session") is None
        await made.close_all()


def _slow_bwrap(directory: str, nights: int) -> Path:
    """A bwrap that sleeps so many times before it does its work."""
    os.chmod(directory, 0o777)
    script = Path(directory) / "bwrap"
    script.write_text(
        f"#!/bin/sh\nPATH=/usr/bin:/bin\n"
        f'[ $(ls {directory} | wc -l) -gt {nights} ] && exec bwrap "$@"\n'
        f"mktemp {directory}/XXXXXX >&2; exec sleep 99\n"
    )
    script.chmod(0o755)
    return script


@pytest.mark.parametrize("nights", [1, 2])
async def test_a_start_that_stalls_is_tried_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, nights: int
) -> None:
    monkeypatch.setattr(sandboxes_module, "START_S", 2.0)
    with TemporaryDirectory(dir="/tmp") as directory:
        made = Sandboxes(tmp_path / "workspaces", bwrap=str(_slow_bwrap(directory, nights)))
        try:
            if nights == 1:
                sandbox = await made.open("session")
                assert (await sandbox.shell("a", "echo up")).output == "up\n"
            else:
                with pytest.raises(SandboxStalled):
                    await made.open("session")
                assert made.get("session") is None
        finally:
            await made.close_all()
    assert [record.message for record in caplog.records if "sleep (S)" in record.message]


async def test_a_watch_that_fails_lets_nothing_run(
    sandboxes: Sandboxes, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox = await sandboxes.open("session")

    def broken() -> None:
        raise RuntimeError("no /proc")

    monkeypatch.setattr(watching, "processes", broken)
    async with asyncio.timeout(20):
        assert await sandbox.finished() == "died"


async def test_so_many_run_and_no_more(tmp_path: Path) -> None:
    """Of all holders, and of one; what has ended leaves its place."""
    sandboxes = Sandboxes(tmp_path, most=3, most_held=2)
    try:
        for busy in await asyncio.gather(*(sandboxes.open(name, holder="ann") for name in "ab")):
            await busy.shell("a", "sleep 60", timeout_s=0)
        with pytest.raises(SandboxUnavailable, match="2 of your sandboxes"):
            await sandboxes.open("c", holder="ann")
        await sandboxes.open("a", holder="ann")
        await sandboxes.open("d", holder="bob")
        with pytest.raises(SandboxUnavailable, match="too many sandboxes"):
            await sandboxes.open("e", holder="cid")
        await sandboxes.close("a")
        results = await asyncio.gather(
            *(sandboxes.open(name, holder="cid") for name in "ef"), return_exceptions=True
        )
        assert [type(each).__name__ for each in results] == ["Sandbox", "SandboxUnavailable"]
    finally:
        await sandboxes.close_all()


async def test_one_more_ends_the_holders_idlest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else's, and none that works, is looked at or was used a moment ago."""
    monkeypatch.setattr(sandboxes_module, "SPARED_S", 0.0)
    sandboxes = Sandboxes(tmp_path, most=9, most_held=3)
    try:
        others = await sandboxes.open("others", holder="bob")
        busy, old, new = [await sandboxes.open(name, holder="ann") for name in ("a", "b", "c")]
        await busy.shell("a", "sleep 60", timeout_s=0)
        await old.shell("a", "echo kept > file")
        await new.shell("a", "true")
        more = await sandboxes.open("d", holder="ann")
        assert [each.ended for each in (others, busy, old, new)] == ["", "", "idle", ""]
        assert old._process.returncode is not None
        for each in (new, more):
            await each.shell("a", "sleep 60", timeout_s=0)
        with pytest.raises(SandboxUnavailable, match="3 of your sandboxes"):
            await sandboxes.open("b", holder="ann")
        await more.kill_shell("a")
        again = await sandboxes.open("b", holder="ann")
        assert (await again.shell("a", "cat file")).output == "kept\n"
        assert (busy.ended, new.ended, more.ended) == ("", "", "idle")
        await busy.kill_shell("a")
        monkeypatch.setattr(sandboxes_module, "SPARED_S", 3600.0)
        with pytest.raises(SandboxUnavailable):
            await sandboxes.open("d", holder="ann")
    finally:
        await sandboxes.close_all()


async def test_a_workspace_needs_no_sandbox(sandboxes: Sandboxes) -> None:
    await sandboxes.prepare("session", ("sessions", "ann", "session"))
    assert sandboxes.get("session") is None
    sandbox = await sandboxes.open("session", ("sessions", "ann", "session"))
    assert (await sandbox.shell("a", "echo mine > file; cat file")).output == "mine\n"


async def test_consoles_of_the_ended_are_kept_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandboxes_module, "ENDED_KEPT", 1)
    sandboxes = Sandboxes(tmp_path)
    try:
        for name in "abc":
            sandbox = await sandboxes.open(name)
            await sandbox.shell("main", f"echo {name}")
            await sandbox.end("idle")
        assert sandboxes.get("a") is None
        kept = sandboxes.get("b")
        assert kept is not None
        assert [record.output for record in kept.records("main")] == ["b\n"]
    finally:
        await sandboxes.close_all()

"""The same as a server that is not root, in a process that has given root up."""

import asyncio
import ctypes
import os
import stat
import tempfile
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from gateways.sandbox import sandboxes, watching
from gateways.sandbox.launcher import MS_BIND, MS_PRIVATE, MS_REC
from gateways.sandbox.sandboxes import Sandboxes
from tests.sandbox.conftest import SMALL

NOBODY = 65534
_BOMB = f"""
import os, time
for born in range({SMALL.processes + 20}):
    try:
        child = os.fork()
    except OSError:
        print(born, "refused", flush=True)
        break
    if child == 0:
        break
time.sleep(60)
"""
CLONE_NEWNS = 0x00020000


def as_ordinary_user(main: Callable[[Path], Awaitable[None]]) -> None:
    """Run a test in a process without root, with a directory of its own."""
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        if os.geteuid() == 0:
            os.chown(directory, NOBODY, NOBODY)
        reading, writing = os.pipe()
        if (pid := os.fork()) == 0:
            os.close(reading)
            try:
                if os.geteuid() == 0:
                    _give_up_root()
                asyncio.run(main(Path(directory)))  # type: ignore[arg-type]
            except BaseException:
                os.write(writing, traceback.format_exc()[-8000:].encode())
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as told:
            said = told.read()
        os.waitpid(pid, 0)
        if said:
            pytest.fail(said)


def _give_up_root() -> None:
    _show(Path(sandboxes._PYTHON).parent.parent)
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    # Else /proc/self stays root's, as after any change of user (prctl(2), PR_SET_DUMPABLE).
    assert ctypes.CDLL(None).prctl(4, 1) == 0


def _show(python: Path) -> None:
    """Let everybody reach this Python, which root may have for itself, in this process alone."""
    above = [each for each in python.parents if not each.stat().st_mode & stat.S_IXOTH]
    if not above:
        return
    libc = ctypes.CDLL(None)
    assert libc.unshare(CLONE_NEWNS) == 0
    kept = os.open(python, os.O_PATH)
    source = f"/proc/self/fd/{kept}".encode()
    assert libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None) == 0
    assert libc.mount(b"none", bytes(above[-1]), b"tmpfs", 0, b"mode=755") == 0
    python.mkdir(parents=True)
    assert libc.mount(source, bytes(python), None, MS_BIND, None) == 0


def test_commands_run_and_are_confined() -> None:
    async def main(directory: Path) -> None:
        made = Sandboxes(directory / "workspaces", SMALL)
        assert await made.check() == ""
        assert made.owner("session") is None
        try:
            sandbox = await made.open("session")
            await sandbox.shell("a", "sleep 60", timeout_s=0)
            inside = watching.processes()[sandbox.namespace]
            assert {os.stat(f"/proc/{pid}").st_uid for pid in inside} == {os.geteuid()}
            assert (await sandbox.shell("b", "id -u")).output == "1000\n"
            assert (await sandbox.shell("b", "echo made > file")).exit_code == 0
            assert (sandbox.workspace / "file").read_text() == "made\n"
        finally:
            await made.close_all()
        assert sandbox.namespace not in watching.processes()

    as_ordinary_user(main)


def test_processes_are_counted_in_the_sandbox_alone() -> None:
    """RLIMIT_NPROC counts per user and user namespace (setrlimit(2), since Linux 5.14)."""

    async def main(directory: Path) -> None:
        made = Sandboxes(directory / "workspaces", SMALL)
        try:
            one, other = await made.open("one"), await made.open("other")
            await one.shell("a", f"python3 -c '{_BOMB}'", timeout_s=0)
            async with asyncio.timeout(30):
                while "refused" not in one.view_shell("a").output:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            born = int(one.view_shell("a").output.split()[0])
            assert 20 < born < SMALL.processes
            assert (await other.shell("a", "sleep 1 & wait; echo on")).output.endswith("on\n")
            await one.kill_shell("a")
            assert (await one.shell("a", "echo on")).output == "on\n"
        finally:
            await made.close_all()

    as_ordinary_user(main)


def test_memory_and_disk_are_watched() -> None:
    hold = """
import os
for _ in range(4):
    if os.fork() == 0:
        break
held = b"x" * 90_000_000
os.read(0, 1)
"""

    async def main(directory: Path) -> None:
        made = Sandboxes(directory / "workspaces", SMALL)
        try:
            hog, filler = await made.open("hog"), await made.open("filler")
            await hog.run(["python3", "-c", hold])
            async with asyncio.timeout(30):
                assert await hog.finished() == "memory"
            await filler.shell(
                "a",
                "mkdir d; cd d; chmod 300 .; for n in 1 2 3; do head -c 7M /dev/zero > $n; done;"
                " chmod 000 .; sleep 60",
                timeout_s=0,
            )
            async with asyncio.timeout(30):
                assert await filler.finished() == "disk"
        finally:
            await made.close_all()

    as_ordinary_user(main)


def test_a_hostile_workspace_is_erased() -> None:
    async def main(directory: Path) -> None:
        made = Sandboxes(directory / "workspaces", SMALL)
        sandbox = await made.open("session")
        await sandbox.shell(
            "a",
            "for n in $(seq 60); do mkdir d && cd d; done; cd ~/workspace; mkdir -p closed/in;"
            " touch closed/in/x; chmod 000 closed/in closed; chmod 111 d d/d; chmod 0 .",
        )
        await made.erase("session")
        assert list((directory / "workspaces").iterdir()) == []
        await made.close_all()

    as_ordinary_user(main)

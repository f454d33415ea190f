"""What is inside, and what two sandboxes know of each other.

What each limit is worth by itself: tests/security/sandbox_defences.py.
"""

import os
from pathlib import Path

import pytest

from gateways.sandbox.confining import SandboxLimits
from gateways.sandbox.errors import SandboxError
from gateways.sandbox.sandboxes import Sandbox, Sandboxes
from storage.workspace_files import NoSuchFile, Place, WorkspaceFiles
from tests.sandbox.conftest import SMALL


async def _said(sandbox: Sandbox, command: str) -> str:
    return (await sandbox.shell("a", command, timeout_s=30)).output


async def test_who_and_where(sandbox: Sandbox) -> None:
    assert await _said(sandbox, "id -un; id -G; hostname; pwd; echo ~") == (
        "ubuntu\n1000\nsandbox\n/home/ubuntu/workspace\n/home/ubuntu\n"
    )


async def test_nothing_can_be_gained(sandbox: Sandbox) -> None:
    status = dict(
        line.split(":\t") for line in (await _said(sandbox, "cat /proc/self/status")).splitlines()
    )
    assert {status[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    inside, _, number = (await _said(sandbox, "cat /proc/self/uid_map")).split()
    assert (inside, number) == ("1000", "1"), "there is no root inside"


async def test_set_user_id_means_nothing(sandbox: Sandbox) -> None:
    found = await _said(sandbox, "find /usr/bin -perm -4000 -name 'su' -o -perm -4000 -name passwd")
    assert found, "Debian has them"
    assert "euid=0" not in await _said(sandbox, "cp /usr/bin/id i; chmod u+s i; ./i")
    assert "nosuid" in await _said(sandbox, "grep ' /usr ' /proc/mounts")
    assert "nosuid" in await _said(sandbox, "grep ' /home/ubuntu/workspace ' /proc/mounts")


async def test_devices(sandbox: Sandbox) -> None:
    assert "Operation not permitted" in await _said(sandbox, "mknod disk b 254 0")
    assert await _said(sandbox, "ls /dev/vda /dev/sda /dev/mem /dev/kmsg 2>/dev/null") == ""
    assert await _said(sandbox, "echo x > /dev/null; head -c 4 /dev/urandom | wc -c") == "4\n"


async def test_the_kernel_is_not_set(sandbox: Sandbox) -> None:
    for path in ("sys/kernel/core_pattern", "sys/kernel/hostname", "sysrq-trigger", "1/mem"):
        shown = await _said(sandbox, f"echo x > /proc/{path}; echo $?")
        assert shown.endswith("\n1\n"), path


async def test_what_is_seen_of_the_machine(sandbox: Sandbox) -> None:
    """As SECURITY.md says: not how it was started; where the workspace lies, from the kernel, and
    from bubblewrap only where the server is not root."""
    assert Path("/proc/cmdline").read_text().strip()
    assert await _said(sandbox, "cat /proc/cmdline; echo there") == "there\n"
    assert "Read-only file system" in await _said(sandbox, "echo x > /proc/cmdline")
    shown = await _said(sandbox, "cat /proc/[0-9]*/cmdline")
    assert "--chdir" in shown
    assert (str(sandbox.workspace) in shown) == (os.geteuid() != 0)
    assert str(sandbox.workspace.name) in await _said(sandbox, "cat /proc/self/mountinfo")


async def test_two_sessions_do_not_meet(sandboxes: Sandboxes) -> None:
    one, other = await sandboxes.open("one"), await sandboxes.open("other")
    await one.shell("a", "echo secret > file; echo secret > /tmp/file; sleep 4321 &")
    listen = "import socket; s = socket.create_server(('127.0.0.1', 8123)); s.accept()"
    server = await one.run(["python3", "-c", listen])
    connect = "import socket; print(socket.create_connection(('127.0.0.1', 8123)))"
    assert server.running
    shown = await _said(
        other,
        f'cat file /tmp/file; ps ax; pkill sleep && echo killed; python3 -c "{connect}";'
        " ls -R ~ /tmp /dev/shm /run",
    )
    assert "secret" not in shown
    assert "4321" not in shown
    assert "killed" not in shown
    assert "ConnectionRefusedError" in shown
    assert "sleep 4321" in await _said(one, "ps ax")
    if os.geteuid() == 0:
        assert one.workspace.stat().st_uid != other.workspace.stat().st_uid


async def test_shells_of_one_session_meet(sandbox: Sandbox) -> None:
    """As an agent expects that starts a server in one and asks it from another."""
    await sandbox.shell("server", "echo here > /tmp/page; cd /tmp")
    await sandbox.shell("server", "python3 -m http.server 8123 >/dev/null 2>&1 &")
    ask = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8123/page').read())"
    command = f'until python3 -c "{ask}" 2>/dev/null; do sleep 0.1; done'
    assert await _said(sandbox, command) == "b'here\\n'\n"


async def test_the_server_reads_what_was_made_and_follows_no_link(
    sandboxes: Sandboxes, tmp_path: Path
) -> None:
    root, place = tmp_path / "workspaces", Place("agent", "user", "session")
    (tmp_path / "secret").write_text("secret")
    sandbox = await sandboxes.open("session", place.names)
    await sandbox.shell(
        "a",
        f"umask 077; echo made > file; ln -s {tmp_path}/secret link; ln -s {tmp_path} up;"
        " ln file second; mkfifo pipe",
    )
    files = WorkspaceFiles(root)
    for name in (("link",), ("up", "secret"), ("second",), ("file",), ("pipe",)):
        with pytest.raises(NoSuchFile):
            await files.open(place, name)
    await sandbox.shell("a", "rm second")
    reading = await files.open(place, ("file",))
    assert [piece async for piece in reading] == [b"made\n"]
    await reading.aclose()
    await files.delete(place, ("file",))
    assert (await sandbox.shell("a", "ls -1")).output == "link\npipe\nup\n"
    assert (tmp_path / "secret").exists()


async def test_what_the_server_wrote_is_the_sessions(sandboxes: Sandboxes, tmp_path: Path) -> None:
    workspace = tmp_path / "workspaces" / "session"
    (workspace / "below").mkdir(parents=True)
    (workspace / "below" / "given").write_text("given\n")
    (workspace / "below" / "given").chmod(0o600)
    (tmp_path / "host").write_text("the host's")
    (workspace / "link").symlink_to(tmp_path / "host")
    owner = (tmp_path / "host").stat().st_uid
    sandbox = await sandboxes.open("session")
    assert (
        await _said(sandbox, "cat below/given; echo more >> below/given; echo $?") == "given\n0\n"
    )
    assert (tmp_path / "host").stat().st_uid == owner
    if (uid := sandboxes.owner("session")) is not None:
        assert (workspace / "below" / "given").stat().st_uid == uid
        assert uid > 1000


async def test_a_workspace_is_kept_and_erased(sandboxes: Sandboxes, tmp_path: Path) -> None:
    sandbox = await sandboxes.open("session")
    await sandbox.shell("a", "echo kept > file")
    await sandboxes.close("session")
    sandbox = await sandboxes.open("session")
    assert await _said(sandbox, "cat file") == "kept\n"
    await sandboxes.erase("session")
    assert list((tmp_path / "workspaces").iterdir()) == []
    assert sandboxes.get("session") is None
    await sandboxes.erase("session")


async def test_a_hostile_workspace_is_erased(sandboxes: Sandboxes, tmp_path: Path) -> None:
    sandbox = await sandboxes.open("session")
    await sandbox.shell(
        "a",
        "for n in $(seq 90); do mkdir d && cd d; done; cd ~/workspace;"
        " mkdir -p closed/in; touch closed/in/x $'odd\\nname' ' ' -- -rf;"
        " mkfifo p; python3 -c \"import socket; socket.socket(socket.AF_UNIX).bind('s')\";"
        " chmod 000 closed/in closed; chmod 555 d",
    )
    await sandboxes.erase("session")
    assert list((tmp_path / "workspaces").iterdir()) == []


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc", ".hidden", "a\0", "x" * 200])
async def test_a_workspace_has_a_plain_name(sandboxes: Sandboxes, name: str) -> None:
    with pytest.raises(ValueError):
        await sandboxes.open("session", ("agent", name))
    with pytest.raises(ValueError):
        await sandboxes.erase("session", ("agent", name))


async def test_a_workspace_that_is_a_link_is_none(sandboxes: Sandboxes, tmp_path: Path) -> None:
    (tmp_path / "workspaces").mkdir()
    (tmp_path / "workspaces" / "session").symlink_to(tmp_path)
    with pytest.raises((SandboxError, OSError)):
        await sandboxes.open("session")


async def test_limits_show_inside(sandbox: Sandbox) -> None:
    assert await _said(sandbox, "ulimit -Hu; ulimit -Hf; ulimit -Hn; ulimit -Hc") == (
        f"{SMALL.processes}\n{SMALL.file_bytes // 1024}\n{SMALL.open_files}\n0\n"
    )
    assert await _said(sandbox, "ulimit -Hu 1000 2>&1 | grep -c 'not permitted'") == "1\n"
    assert SandboxLimits().of_processes()["NPROC"] == 256

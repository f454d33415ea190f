"""The defences around the commands of a sandbox: escapes, and what takes each defence away.

Imported, it adds its checks to those of defences.py.
"""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

from gateways.errors import OutboundFailed
from gateways.outbound import Outbound
from gateways.sandbox import confining, sandboxes, watching
from gateways.sandbox.confining import SandboxLimits
from gateways.sandbox.sandboxes import Sandbox, Sandboxes
from tests.security.defences import DEFENCES as DEFENCES
from tests.security.defences import ROOT, without
from tests.security.place import Place

SMALL = SandboxLimits(
    memory_bytes=128 << 20,
    processes=32,
    file_bytes=2 << 20,
    disk_bytes=8 << 20,
    files=200,
    scratch_bytes=4 << 20,
)
END_S = 6.0
"""How long the watch may take to notice; nothing that holds waits for it."""
_ARGUMENTS = confining.arguments
_OF_PROCESSES = SandboxLimits.of_processes
_EXEC = asyncio.create_subprocess_exec
_ARGV = "gateways.sandbox.sandboxes:arguments"
_PER_PROCESS = "gateways.sandbox.confining:SandboxLimits.of_processes"
_CALLS = {"gateways.sandbox.filtering:system_calls": lambda: b""}


@asynccontextmanager
async def a_sandbox() -> AsyncIterator[Sandbox]:
    with TemporaryDirectory() as directory:
        made = Sandboxes(Path(directory) / "workspaces", SMALL)
        try:
            yield await made.open("session")
        finally:
            await made.close_all()


async def said(command: str, sandbox: Sandbox | None = None) -> str:
    """What a command says, in a sandbox of its own unless one is given."""
    if sandbox is not None:
        return (await sandbox.shell("attack", command, timeout_s=30)).output
    async with a_sandbox() as own:
        return await said(command, own)


async def ended(sandbox: Sandbox) -> str:
    """Why it ended; "" when it did not within a while."""
    try:
        async with asyncio.timeout(END_S):
            return await sandbox.finished()
    except TimeoutError:
        return ""


def python(code: str) -> str:
    return f"python3 - <<'end'\n{code}\nend"


def changed(*change: Callable[[list[str]], list[str]]) -> dict[str, Any]:
    """bwrap with another command line."""

    def instead(*args: Any, **options: Any) -> list[str]:
        argv = _ARGUMENTS(*args, **options)
        for each in change:
            argv = each(argv)
        return argv

    return {_ARGV: instead}


def added(*arguments: str) -> Callable[[list[str]], list[str]]:
    return lambda argv: [*argv, *arguments]


def left_out(*names: str) -> Callable[[list[str]], list[str]]:
    """Without options that take no value, or `--remount-ro` with its one."""

    def change(argv: list[str]) -> list[str]:
        kept, skip = [], False
        for argument in argv:
            if skip:
                skip = False
            elif argument in names:
                skip = argument == "--remount-ro"
            else:
                kept.append(argument)
        return kept

    return change


def unlimited(*names: str) -> dict[str, Any]:
    """Processes without some of their resource limits."""

    def instead(self: SandboxLimits) -> dict[str, int]:
        return {name: v for name, v in _OF_PROCESSES(self).items() if name not in names}

    return {_PER_PROCESS: instead}


def _hosts_proc(argv: list[str]) -> list[str]:
    at = argv.index("--proc")
    return [*argv[:at], "--ro-bind", "/proc", *argv[at + 1 :]]


@without(42, proc=changed(_hosts_proc))
async def processes_of_the_host_are_not_seen(place: Place) -> None:
    shown = await said(f"cat /proc/1/comm /proc/{os.getpid()}/comm")
    assert shown.startswith("bwrap\n"), shown
    assert "No such file" in shown


def _boot_line(argv: list[str]) -> list[str]:
    at = argv.index("/proc/cmdline")
    return [*argv[: at - 4], *argv[at + 1 :]]


@without(42, mask=changed(_boot_line))
async def the_boot_line_of_the_host_is_not_seen(place: Place) -> None:
    """It may hold whatever the machine was started with."""
    assert Path("/proc/cmdline").read_text().strip()
    assert await said("cat /proc/cmdline; echo there") == "there\n"


def _hosts_processes(argv: list[str]) -> list[str]:
    """Every namespace but the one of processes."""
    at = argv.index("--unshare-all")
    others = ["--unshare-ipc", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
    return [*argv[:at], *others, *argv[at + 1 :]]


def _told(text: str) -> Any:
    """What bwrap tells of a sandbox without processes of its own."""
    return {"pid-namespace": 0, **json.loads(text)}


_ONE_PROCESS_TABLE = {
    "gateways.sandbox.sandboxes:json": SimpleNamespace(dumps=json.dumps, loads=_told),
    **changed(_hosts_proc, _hosts_processes),
}


@without(42, processes=_ONE_PROCESS_TABLE)
async def processes_of_the_host_are_not_signalled(place: Place) -> None:
    """Not even those of the very user who the session's commands run as."""
    user = Sandboxes(place.data).owner("session")
    victim = await _EXEC("sleep", "60", user=user, cwd="/")
    try:
        await said(f"kill -9 {victim.pid}")
        with suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                await victim.wait()
        assert victim.returncode is None
    finally:
        with suppress(ProcessLookupError):
            victim.kill()
        await victim.wait()


_SERVER = """
import asyncio, sys
from pathlib import Path
from gateways.sandbox import sandboxes

sandboxes._LAUNCHER = sys.argv[2]
arguments = sandboxes.arguments
sandboxes.arguments = lambda *args, **options: [
    each for each in arguments(*args, **options) if each not in sys.argv[3:]
]

async def main():
    sandbox = await sandboxes.Sandboxes(Path(sys.argv[1])).open("session")
    await sandbox.shell("a", "kill -STOP 2; sleep 99", timeout_s=0.5)
    print(sandbox.namespace, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""
_LASTING = {
    "gateways.sandbox.sandboxes:_LAUNCHER": sandboxes._LAUNCHER.replace("signal.SIGKILL", "0"),
    **changed(left_out("--die-with-parent")),
}


def _killed(namespace: str) -> None:
    for pid in watching.processes().get(namespace, ()):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@without(42, death=_LASTING)
async def nothing_outlives_the_server(place: Place) -> None:
    """Killed, while the first process inside is stopped and learns of nothing."""
    descriptors: list[int] = []
    argv = sandboxes.arguments(
        "bwrap", workspace="/", python=None, limits=SMALL, network=False, descriptors=descriptors
    )
    for descriptor in descriptors:
        os.close(descriptor)
    kept = {"--die-with-parent"} - set(argv)
    with TemporaryDirectory() as directory:
        command = (sys.executable, "-c", _SERVER, directory, sandboxes._LAUNCHER, *kept)
        server = await _EXEC(*command, cwd=ROOT, stdout=subprocess.PIPE)
        assert server.stdout is not None
        namespace = (await server.stdout.readline()).decode().strip()
        server.kill()
        await server.wait()
        try:
            async with asyncio.timeout(END_S):
                while namespace in watching.processes():  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError("it goes on") from None
        finally:
            _killed(namespace)


def _no_owner(self: Sandboxes, session_id: str) -> None:
    """Commands run as whoever the server is."""
    assert os.geteuid() == 0, "a server that is not root has nothing to give up"


@without(42, uid={"gateways.sandbox.sandboxes:Sandboxes.owner": _no_owner})
async def nothing_runs_as_root(place: Place) -> None:
    async with a_sandbox() as sandbox:
        await sandbox.shell("attack", "sleep 60", timeout_s=0)
        found = [os.stat(f"/proc/{pid}").st_uid for pid in watching.processes()[sandbox.namespace]]
    assert len(found) >= 4
    assert 0 not in found


_BARE = sandboxes._LAUNCHER.replace('given["argv"], {})', 'given["argv"], os.environ)')


async def _inheriting(*args: Any, **options: Any) -> Any:
    """A child as a plain fork makes it: the environment and every descriptor."""
    for descriptor in options.pop("pass_fds"):
        os.set_inheritable(descriptor, True)
    return await _EXEC(*args, **{**options, "env": None, "close_fds": False})


_INHERITING = {
    "asyncio:create_subprocess_exec": _inheriting,
    "gateways.sandbox.sandboxes:_LAUNCHER": _BARE,
    **changed(left_out("--clearenv")),
}


@without(42, environment=_INHERITING)
async def commands_inherit_no_secret(place: Place) -> None:
    os.environ["QUARTET_CANARY"] = "canary-of-the-server"
    try:
        shown = await said("cat /proc/[0-9]*/environ; env")
    finally:
        del os.environ["QUARTET_CANARY"]
    assert "HOME=/home/ubuntu" in shown
    assert "canary-of-the-server" not in shown


@without(42, descriptors=_INHERITING)
async def commands_inherit_no_descriptor(place: Place) -> None:
    with TemporaryDirectory() as directory:
        file = os.open(f"{directory}/quartet-canary", os.O_CREAT | os.O_RDWR)
        os.set_inheritable(file, True)
        try:
            shown = await said("ls -l /proc/[0-9]*/fd")
        finally:
            os.close(file)
    assert "socket:" in shown
    assert "quartet-canary" not in shown


@without(42, files=changed(added("--ro-bind", "/etc", "/etc")))
async def files_of_the_host_are_not_seen(place: Place) -> None:
    shown = await said(f"cat /etc/login.defs; ls -a {place.data} /root /srv /var/lib")
    assert shown.count("No such file or directory") == 5, shown


@without(42, readonly=changed(left_out("--remount-ro")))
async def only_scratch_and_workspace_are_writable(place: Place) -> None:
    shown = await said("for d in / /dev /etc /usr /usr/bin /home; do : > $d/x; done; ls -d /*/x /x")
    assert shown.count("Read-only file system") + shown.count("Permission denied") >= 5, shown
    assert "\n/x\n" not in shown
    assert (await said(": > x; : > ~/x; : > /tmp/x; echo $?")) == "0\n"


@without(42, namespaces={**_CALLS, **changed(left_out("--disable-userns"))})
async def nobody_becomes_root_or_mounts(place: Place) -> None:
    shown = await said("unshare -Ur id -u; unshare -Urm mount -t tmpfs none /tmp && echo mounted")
    assert "mounted" not in shown
    assert "0\n" not in shown


@without(42, calls=_CALLS)
async def no_process_is_looked_into(place: Place) -> None:
    code = "import ctypes; print(ctypes.CDLL(None).ptrace(0, 0, None, None))"
    assert await said(python(code)) == "-1\n"


@without(42, calls=_CALLS)
async def no_memory_is_beside_the_limits(place: Place) -> None:
    code = "import ctypes; libc = ctypes.CDLL(None)\n"
    code += "print(libc.shmget(0, 4096, 0o1600), libc.memfd_create(b'x', 0))"
    assert await said(python(code)) == "-1 -1\n"


@without(42, network=changed(added("--share-net")))
async def the_host_is_not_reached(place: Place) -> None:
    """Neither its loopback, where the server itself listens, nor its abstract sockets."""
    name = f"\0quartet-{os.getpid()}"
    with socket.create_server(("127.0.0.1", 0)) as port, socket.socket(socket.AF_UNIX) as abstract:
        abstract.bind(name)
        abstract.listen()
        reached = await said(
            python(f"""
import socket
for family, place in ((socket.AF_INET, {port.getsockname()!r}), (socket.AF_UNIX, {name!r})):
    try:
        socket.socket(family).connect(place)
        print("reached", place)
    except OSError as error:
        print("refused")
""")
        )
    assert reached == "refused\nrefused\n"


@without(42, network=changed(added("--share-net")))
async def there_is_no_network(place: Place) -> None:
    shown = await said("tail -n +2 /proc/net/route; tail -n +3 /proc/net/dev")
    assert "lo:" in shown
    assert len(shown.splitlines()) == 1


@without(
    42,
    door={"gateways.addresses:AllowList.refusal": lambda *_: None},
    ports={"gateways.sandbox.egress:_check_port": lambda port: None},
)
async def a_network_is_reached_through_the_door_alone(place: Place) -> None:
    """Where the operator lets sandboxes have one: no private address, no port of the system."""
    outbound = Outbound()
    asked: list[str] = []

    async def connect(host: str, port: int) -> Any:
        await outbound.addresses("sandbox", host, port)
        asked.append(f"{host}:{port}")
        raise OutboundFailed("not in a test")

    with TemporaryDirectory() as directory:
        made = Sandboxes(Path(directory) / "workspaces", SMALL, connect=connect)
        try:
            sandbox = await made.open("session")
            for aim in ("127.0.0.1:8000", "10.0.0.1:80", "169.254.169.254:80", "8.8.8.8:25"):
                await sandbox.shell("attack", f"curl -s --noproxy '' http://{aim}/")
        finally:
            await made.close_all()
    assert asked == []


_BOMB = python("""
import os, signal, time
born = []
try:
    for _ in range(60):
        if (pid := os.fork()) == 0:
            time.sleep(60)
            os._exit(0)
        born.append(pid)
except OSError:
    pass
for pid in born:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
print(len(born))
""")


@without(42, processes=unlimited("NPROC"))
async def processes_are_counted(place: Place) -> None:
    assert 10 < int(await said(_BOMB)) < SMALL.processes


@without(42, threads=unlimited("NPROC"))
async def threads_are_counted(place: Place) -> None:
    code = """
import threading
held = threading.Event()
born = 0
try:
    threading.stack_size(65536)
    for _ in range(60):
        threading.Thread(target=held.wait, daemon=True).start()
        born += 1
except RuntimeError:
    pass
held.set()
print(born)
"""
    assert 10 < int(await said(python(code))) < SMALL.processes


@without(42, data=unlimited("DATA"))
async def one_process_gets_so_much_memory(place: Place) -> None:
    code = f"""
import mmap
try:
    mmap.mmap(-1, {SMALL.memory_bytes * 2}, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    print("had")
except OSError:
    print("refused")
"""
    assert await said(python(code)) == "refused\n"


def _no_memory(pids: Any, enough: int) -> int:
    return 0


_WATCHED = {"gateways.sandbox.watching:memory": _no_memory}
_MANY = """
import os, sys
read, write = os.pipe()
for _ in range(4):
    if os.fork() == 0:
        held = %s
        os.write(write, b"x")
        os.read(0, 1)
        os._exit(0)
for _ in range(4):
    os.read(read, 1)
print("held", flush=True)
os.read(0, 1)
"""


@without(42, watched=_WATCHED)
async def many_processes_get_no_more_than_one(place: Place) -> None:
    async with a_sandbox() as sandbox:
        await sandbox.run(["python3", "-c", _MANY % "b'x' * 50_000_000"])
        assert await ended(sandbox) == "memory"


@without(42, watched=_WATCHED)
async def shared_memory_counts(place: Place) -> None:
    hold = "__import__('mmap').mmap(-1, 50_000_000); held.write(b'x' * 50_000_000)"
    async with a_sandbox() as sandbox:
        await sandbox.run(["python3", "-c", _MANY % hold])
        assert await ended(sandbox) == "memory"


def _unsized(argv: list[str]) -> list[str]:
    return ["1073741824" if each == str(SMALL.scratch_bytes) else each for each in argv]


@without(42, size=changed(_unsized))
async def scratch_space_is_bounded(place: Place) -> None:
    for path in ("/tmp/x", "~/x", "/dev/shm/x"):
        shown = await said(
            f"head -c 1500000 /dev/zero > /tmp/part; for n in 1 2 3 4; do "
            f"cat /tmp/part >> {path}$n; done; echo $?"
        )
        assert "No space left on device" in shown, path


@without(42, size=unlimited("FSIZE"))
async def one_file_gets_so_large(place: Place) -> None:
    shown = await said(f"head -c {SMALL.file_bytes + 1_000_000} /dev/zero > file; stat -c %s file")
    assert shown.splitlines()[-1] == str(SMALL.file_bytes)


def _no_disk(workspace: Path, pids: Any) -> tuple[int, int]:
    return 0, 0


_UNMEASURED = {"gateways.sandbox.watching:disk": _no_disk}
_FILL = "for n in $(seq 10); do head -c 1500000 /dev/zero > f$n; done; sleep 60"


@without(42, watched=_UNMEASURED)
async def a_workspace_gets_so_large(place: Place) -> None:
    async with a_sandbox() as sandbox:
        await sandbox.shell("attack", _FILL, timeout_s=0)
        assert await ended(sandbox) == "disk"


@without(42, nameless={"gateways.sandbox.watching:_nameless": lambda pids: {}})
async def files_without_a_name_count(place: Place) -> None:
    code = """
import os, time
held = []
for n in range(10):
    held.append(open("gone", "wb", 0))
    os.unlink("gone")
    held[-1].write(b"x" * 1_500_000)
time.sleep(60)
"""
    async with a_sandbox() as sandbox:
        await sandbox.shell("attack", python(code), timeout_s=0)
        assert await ended(sandbox) == "disk"


@without(42, watched=_UNMEASURED)
async def a_workspace_gets_so_many_names(place: Place) -> None:
    async with a_sandbox() as sandbox:
        await sandbox.shell("attack", "touch $(seq 300); sleep 60", timeout_s=0)
        assert await ended(sandbox) == "files"


@without(42, watched=_UNMEASURED)
async def a_workspace_gets_so_deep(place: Place) -> None:
    deep = "for n in $(seq 150); do mkdir d && cd d; done; sleep 60"
    async with a_sandbox() as sandbox:
        await sandbox.shell("attack", deep, timeout_s=0)
        assert await ended(sandbox) == "files"


@without(42, time=unlimited("CPU"))
async def a_process_gets_so_much_time(place: Place) -> None:
    with TemporaryDirectory() as directory:
        made = Sandboxes(Path(directory), SandboxLimits(cpu_s=1))
        try:
            spin = await (await made.open("session")).run(["sh", "-c", "while :; do :; done"])
            async with asyncio.timeout(END_S * 2):
                assert await spin.wait() in (-signal.SIGXCPU, -signal.SIGKILL)
        except TimeoutError:
            raise AssertionError("it goes on") from None
        finally:
            await made.close_all()


_UNKEPT = sandboxes._INSIDE.replace("PR_SET_CHILD_SUBREAPER, 1", "PR_SET_CHILD_SUBREAPER, 0")


@without(42, tree={"gateways.sandbox.sandboxes:_INSIDE": _UNKEPT})
async def a_daemon_ends_with_its_shell(place: Place) -> None:
    async with a_sandbox() as sandbox:
        await sandbox.shell("attack", "(setsid sh -c 'sleep 77 & sleep 77 &' &) ; sleep 0.3")
        assert (await said("ps ax -o comm= | grep -c '^sleep$'", sandbox)) == "2\n"
        await sandbox.kill_shell("attack")
        assert (await said("ps ax -o comm= | grep -c '^sleep$'", sandbox)) == "0\n"


def _followed(name: str, parent: int) -> None:
    """Removing as a path would have it: links are directories, too."""
    here = os.open(name, os.O_RDONLY, dir_fd=parent)
    for each in os.listdir(here):
        if os.path.isdir(f"/proc/self/fd/{here}/{each}"):
            _followed(each, here)
        else:
            os.unlink(each, dir_fd=here)
    os.close(here)


@without(31, links={"gateways.sandbox.watching:_remove": _followed})
async def erasing_a_workspace_follows_no_link(place: Place) -> None:
    with TemporaryDirectory() as directory:
        kept = Path(directory) / "kept"
        kept.mkdir()
        (kept / "file").touch()
        made = Sandboxes(Path(directory) / "workspaces", SMALL)
        try:
            sandbox = await made.open("session")
            await sandbox.shell("attack", f"mkdir -p a/b; ln -s {kept} a/b/out; ln -s {kept} out")
            await made.erase("session")
        finally:
            await made.close_all()
        assert (kept / "file").exists()


def _measured(directory: int, depth: int) -> tuple[int, int]:
    size = names = 0
    for each in os.listdir(directory):
        told = os.stat(each, dir_fd=directory)
        size, names = size + told.st_blocks * 512, names + 1
        if os.path.isdir(f"/proc/self/fd/{directory}/{each}"):
            below = os.open(each, os.O_RDONLY, dir_fd=directory)
            more, further = _measured(below, depth - 1)
            os.close(below)
            size, names = size + more, names + further
    return size, names


@without(31, links={"gateways.sandbox.watching:_below": _measured})
async def measuring_a_workspace_follows_no_link(place: Place) -> None:
    with TemporaryDirectory() as directory:
        outside = Path(directory) / "outside"
        outside.mkdir()
        (outside / "large").write_bytes(b"x" * 1_000_000)
        workspace = Path(directory) / "workspace"
        workspace.mkdir()
        (workspace / "out").symlink_to(outside)
        (workspace / "large").symlink_to(outside / "large")
        assert watching.disk(workspace, ()) == (0, 2)

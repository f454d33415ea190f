"""Sandboxes: one for each session that runs commands, made when it is needed."""

import asyncio
import json
import logging
import os
import re
import shutil
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from weakref import WeakValueDictionary

from gateways.sandbox import watching
from gateways.sandbox.channel import Channel
from gateways.sandbox.confining import (
    PROXY_PORT,
    WORKSPACE,
    SandboxLimits,
    arguments,
    interpreter,
    uid_of,
)
from gateways.sandbox.egress import Connect, Egress
from gateways.sandbox.errors import (
    NoSuchShell,
    SandboxEnded,
    SandboxError,
    SandboxStalled,
    SandboxUnavailable,
)
from gateways.sandbox.programs import Program
from gateways.sandbox.shells import ConsoleRecord, Shell, ShellResult

WATCH_S = 0.1
"""Between two looks at the memory of all sandboxes."""
DISK_S = 1.0
"""Between two looks at a workspace; longer where a look itself takes more than a tenth of it."""
START_S = 10.0
END_S = 10.0
READ_S = 10.0
SPARED_S = 2.0
"""A sandbox that was used so lately is about to be used again."""
ENDED_KEPT = 200
DISPLAY = "1280x800"
_LOG = logging.getLogger(__name__)
_X_SERVER = "Xtigervnc"
_X = "/tmp/.X11-unix/X0"  # noqa: S108 - inside, where /tmp is the sandbox's own
_VNC = "/tmp/.vnc"  # noqa: S108
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,127}")
_INSIDE = Path(__file__).with_name("inside.py").read_text()
_LAUNCHER = Path(__file__).with_name("launcher.py").read_text()
_PYTHON = os.path.realpath(sys.executable)


class Sandbox:
    """A running sandbox. Its methods raise SandboxEnded once it has ended, and SandboxError."""

    def __init__(
        self,
        session_id: str,
        workspace: Path,
        limits: SandboxLimits,
        process: asyncio.subprocess.Process,
        channel: Channel,
    ) -> None:
        self.session_id = session_id
        self.workspace = workspace
        self.holder = ""
        self.ended = ""
        self.namespace = ""
        self._limits = limits
        self._process = process
        self._channel = channel
        channel.wanted = self._wanted
        self._first = -1
        self._shells: dict[str, Shell] = {}
        self._starting: dict[str, asyncio.Lock] = {}
        self._programs: list[Program] = []
        self._viewers: list[asyncio.StreamWriter] = []
        self._display: Program | None = None
        self._display_starting = asyncio.Lock()
        self._attending: asyncio.Task[None] | None = None
        self._egress: Egress | None = None
        self._finished = asyncio.Event()
        self.used = self.looked = time.monotonic()

    @property
    def idle_s(self) -> float:
        """Seconds since anything ran in it or looked at it."""
        if self.busy:
            self.used = time.monotonic()
        return time.monotonic() - self.used

    @property
    def busy(self) -> bool:
        """Whether a command or a program runs in it, or somebody looks at it."""
        self._programs = [each for each in self._programs if each.running]
        self._viewers = [each for each in self._viewers if not each.is_closing()]
        shells = any(shell.busy for shell in self._shells.values())
        return shells or bool(self._programs or self._viewers)

    async def finished(self) -> str:
        """Wait for its end; the reason."""
        await self._finished.wait()
        return self.ended

    async def shell(self, shell_id: str, command: str, *, timeout_s: float = 60.0) -> ShellResult:
        """Run a command in a shell, which is started at need and keeps its directory and variables.
        A command that takes longer than `timeout_s` goes on: wait, write, interrupt or kill.
        Raises ShellBusy."""
        self._use()
        async with self._starting.setdefault(shell_id, asyncio.Lock()):
            shell = self._shells.get(shell_id)
            if shell is None:
                if len(self._shells) >= self._limits.shells:
                    raise SandboxError("too many shells")
                shell = Shell(self._channel, self._limits.output_bytes, self._limits.records)
                self._shells[shell_id] = shell
            if not shell.alive:
                try:
                    await shell.begin()
                except SandboxError:
                    if not shell.records():
                        del self._shells[shell_id]
                    self._use()
                    raise
        return await self._result(await shell.run(command, timeout_s))

    async def wait_shell(self, shell_id: str, *, timeout_s: float = 60.0) -> ShellResult:
        """The last command of a shell, once it has ended or after `timeout_s`. Raises
        NoSuchShell."""
        return await self._result(await self._shell(shell_id).wait(timeout_s))

    async def write_shell(self, shell_id: str, text: str, *, timeout_s: float = 10.0) -> None:
        """Type into the program that runs; a line needs its "\\n". Raises NoSuchShell,
        ShellIdle."""
        await self._shell(shell_id).write(text, timeout_s)

    async def interrupt_shell(self, shell_id: str) -> None:
        """What Ctrl-C does. Raises NoSuchShell."""
        await self._shell(shell_id).interrupt()

    async def kill_shell(self, shell_id: str) -> None:
        """End a shell with everything that was started in it; its records stay, and the next
        command starts it anew. Where that fails the whole sandbox ends. Raises NoSuchShell."""
        shell = self._shell(shell_id)
        shell.kill()
        if not await shell.gone(END_S):
            await self.end("died")

    async def stop_shells(self, grace_s: float) -> None:
        """Do what Ctrl-C does in every shell, and kill them all, as kill_shell does: at once those
        whose command has ended, the others once `grace_s` is over."""
        self._use()
        await asyncio.gather(*(self._stop_shell(shell_id, grace_s) for shell_id in self._shells))

    async def _stop_shell(self, shell_id: str, grace_s: float) -> None:
        shell = self._known(shell_id)
        await shell.interrupt()
        await shell.wait(grace_s)
        if not self.ended:
            await self.kill_shell(shell_id)

    def view_shell(self, shell_id: str) -> ShellResult:
        """The last command of a shell as it is now. Raises NoSuchShell; works after the end."""
        return self._known(shell_id).result()

    def records(self, shell_id: str) -> list[ConsoleRecord]:
        """What a shell's console shows, oldest command first. Raises NoSuchShell; works after the
        end."""
        return self._known(shell_id).records()

    def shells(self) -> list[str]:
        """The ids of its shells, oldest first."""
        return list(self._shells)

    async def run(
        self, argv: Sequence[str], *, cwd: str = WORKSPACE, env: Mapping[str, str] | None = None
    ) -> Program:
        """Start a program without a shell, with pipes; `env` is added to the sandbox's own. One
        that does not exist exits with 127."""
        self._use()
        program = Program(self._channel)
        await program.begin(argv, cwd, dict(env or {}))
        self._programs.append(program)
        return program

    async def read_file(self, path: str, most: int) -> bytes | None:
        """The first `most` bytes of a file, as a program of the sandbox reads them; None where it
        finds no regular file that it may read. Nothing is opened outside."""
        read = '[ -f "$1" ] && exec head -c "$2" -- "$1"'
        program = await self.run(["sh", "-c", read, "sh", path, str(most)], cwd="/")
        try:
            async with asyncio.timeout(READ_S):
                try:
                    return await program.stdout.readexactly(most)
                except asyncio.IncompleteReadError as error:
                    return error.partial if await program.wait() == 0 else None
        except TimeoutError:
            raise SandboxError("the file cannot be read") from None
        finally:
            try:
                await program.kill()
            except SandboxError:
                await self.end("died")

    async def display(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to the sandbox's display that speaks RFB (RFC 6143), without a password; the
        X server is started by the first, or by the first program of the sandbox that looks for it.
        Programs show there. The caller closes the writer. Raises SandboxUnavailable where no X
        server is installed."""
        self._use()
        await self._show()
        connection = await self._channel.connect(_VNC)
        reader, writer = await asyncio.open_unix_connection(sock=connection)
        self._viewers.append(writer)
        return reader, writer

    def _wanted(self) -> None:
        if self._attending is None or self._attending.done():
            self._attending = asyncio.create_task(self._attend())

    async def _attend(self) -> None:
        """Keep the display as long as it runs; when it has ended, wait for who looks for it."""
        refuse = False
        try:
            await (await self._show()).wait()
        except SandboxError:
            refuse = True
        self._channel.watch(refuse=refuse)

    async def _show(self) -> Program:
        async with self._display_starting:
            if self._display is None or not self._display.running:
                self._display = await self._start_display()
                self._wanted()
            return self._display

    async def _start_display(self) -> Program:
        if not has_display():
            raise SandboxUnavailable(
                f"{_X_SERVER} is not installed (Debian: apt install tigervnc-standalone-server)"
            )
        # The socket that programs look for is handed over as systemd does (sd_listen_fds(3)).
        # Nobody reads what the X server says later.
        start = 'LISTEN_PID=$$ LISTEN_FDS=1 exec "$@" >/dev/null 2>&1'
        argv = ["sh", "-c", start, "sh", _X_SERVER, ":0", "-depth", "24"]
        argv += ["-geometry", DISPLAY, "-SecurityTypes", "None", "-AlwaysShared"]
        argv += ["-rfbunixpath", _VNC, "-rfbport", "-1", "-nolisten", "tcp", "-nolisten", "local"]
        argv += ["-displayfd", "4"]
        # All connections come from one place: it would shut everybody out for what some broke off.
        argv += ["-UseBlacklist", "0"]
        reading, writing = os.pipe2(os.O_CLOEXEC)
        program = Program(self._channel)
        try:
            await program.begin(argv, "/tmp", {}, (writing,), display=True)  # noqa: S108
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        ready = await program.reader(reading)
        with suppress(TimeoutError):
            async with asyncio.timeout(START_S):
                if await ready.readline():
                    return program
        await program.kill()
        raise SandboxError("the X server did not start")

    async def begin(self, told: asyncio.StreamReader, connect: Connect | None) -> None:
        """Wait for the first process inside; with `connect`, programs reach the network by it.
        Raises SandboxUnavailable with what bwrap says, and SandboxStalled."""
        try:
            async with asyncio.timeout(START_S):
                ready = asyncio.ensure_future(self._channel.ready())
                ends = asyncio.ensure_future(self._process.wait())
                await asyncio.wait((ready, ends), return_when=asyncio.FIRST_COMPLETED)
                if not ready.done() or ready.exception() is not None:
                    ready.cancel()
                    raise SandboxUnavailable(await self._why())
                facts = json.loads(await told.read())
        except (TimeoutError, ValueError):
            standing = await asyncio.to_thread(watching.standing, self._process.pid)
            _LOG.warning("a sandbox did not start in time; it stands at %s", standing)
            raise SandboxStalled("the sandbox did not start in time") from None
        self.namespace = f"pid:[{facts['pid-namespace']}]"
        self._first = os.pidfd_open(facts["child-pid"])
        ends.add_done_callback(lambda _: self._close("died"))
        if connect is not None:
            self._egress = Egress(connect)
            await self._egress.begin(socket.socket(fileno=ready.result()))

    async def end(self, reason: str) -> None:
        """Kill everything in it; returns when nothing is left."""
        self._close(reason)
        if self._first >= 0:
            # The end of the namespace's first process is the end of all; bwrap waits for it.
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._first, signal.SIGKILL)
            with suppress(TimeoutError):
                async with asyncio.timeout(END_S):
                    await self._process.wait()
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        if self._first >= 0:
            os.close(self._first)
            self._first = -1

    def _close(self, reason: str) -> None:
        self.ended = self.ended or reason
        self._finished.set()
        self._channel.close(self.ended)
        for writer in self._viewers:
            writer.close()
        if self._attending is not None:
            self._attending.cancel()
        if self._egress is not None:
            self._egress.close()

    async def _why(self) -> str:
        assert self._process.stderr is not None
        said = (await self._process.stderr.read(2000)).decode(errors="replace").strip()
        return f"no sandbox on this machine: {said.splitlines()[-1] if said else 'bwrap ended'}"

    def _use(self) -> None:
        if self.ended:
            raise SandboxEnded(self.ended)
        self.used = time.monotonic()

    def _known(self, shell_id: str) -> Shell:
        try:
            return self._shells[shell_id]
        except KeyError:
            raise NoSuchShell(f"there is no shell {shell_id}") from None

    def _shell(self, shell_id: str) -> Shell:
        self._use()
        return self._known(shell_id)

    async def _result(self, result: ShellResult) -> ShellResult:
        if self.ended:
            raise SandboxEnded(self.ended)
        return result


class Sandboxes:
    """The sandboxes of a process. Workspaces are directories below `root`, which is the server's
    alone. With `connect`, programs that know an HTTP proxy reach by it what it connects them to;
    nothing else is on a sandbox's network. `most` run at the same time, of one holder `most_held`:
    one more ends the one that was idle longest."""

    def __init__(
        self,
        root: Path,
        limits: SandboxLimits | None = None,
        *,
        connect: Connect | None = None,
        bwrap: str = "bwrap",
        most: int = 50,
        most_held: int = 10,
    ) -> None:
        self._root = root
        self._limits = limits or SandboxLimits()
        self._connect = connect
        self._bwrap = bwrap
        self._most = most
        self._most_held = most_held
        self._open: dict[str, Sandbox] = {}
        self._starting: Counter[str] = Counter()
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._watcher: asyncio.Task[None] | None = None

    async def check(self) -> str:
        """Why no command can run on this machine; "" when one can. Starts a sandbox to find out."""
        with TemporaryDirectory(prefix="quartet-") as directory:
            try:
                sandbox = await self._start("check", Path(directory))
            except SandboxUnavailable as error:
                return str(error)
            await sandbox.end("closed")
        return ""

    async def open(
        self, session_id: str, place: Sequence[str] = (), *, holder: str = ""
    ) -> Sandbox:
        """The sandbox of a session, started when there is none. Its workspace is the directory that
        the names of `place` lead to below the root, <session id> without them; what is in it is the
        session's user's from then on. `holder` is who answers for it. Raises SandboxUnavailable."""
        async with self._locks.setdefault(session_id, asyncio.Lock()):
            sandbox = self._open.get(session_id)
            if sandbox is not None and not sandbox.ended:
                sandbox.used = time.monotonic()
                return sandbox
            if sandbox is not None:
                await sandbox.end("died")
            await self._make_room(holder)
            self._refuse_too_many(holder)
            self._starting[holder] += 1
            try:
                workspace = await asyncio.to_thread(self._make, session_id, place)
                try:
                    sandbox = await self._start(session_id, workspace)
                except SandboxStalled:
                    sandbox = await self._start(session_id, workspace)
            finally:
                self._starting[holder] -= 1
            sandbox.holder = holder
            self._open[session_id] = sandbox
            self._forget_old()
            if self._watcher is None or self._watcher.done():
                self._watcher = asyncio.create_task(self._watch())
            return sandbox

    def _forget_old(self) -> None:
        """Of sandboxes that have ended, keep the consoles of the last ENDED_KEPT alone."""
        ended = [session_id for session_id, each in self._open.items() if each.ended]
        for session_id in ended[:-ENDED_KEPT]:
            del self._open[session_id]

    async def prepare(self, session_id: str, place: Sequence[str] = ()) -> None:
        """Make the workspace of a session, as `open` does, without a sandbox."""
        await asyncio.to_thread(self._make, session_id, place)

    async def _make_room(self, holder: str) -> None:
        """End what the holder does not use, the least recently used first, for one more."""
        while holder and self._held(holder) >= self._most_held:
            idle = [
                each
                for each in self._open.values()
                if each.holder == holder and not (each.ended or each.busy)
                if each.idle_s > SPARED_S
            ]
            if not idle:
                return
            await min(idle, key=lambda each: each.used).end("idle")

    def _held(self, holder: str) -> int:
        running = sum(each.holder == holder and not each.ended for each in self._open.values())
        return running + self._starting[holder]

    def _refuse_too_many(self, holder: str) -> None:
        running = sum(not each.ended for each in self._open.values())
        if running + self._starting.total() >= self._most:
            raise SandboxUnavailable("too many sandboxes run on this server; try again later")
        if holder and self._held(holder) >= self._most_held:
            raise SandboxUnavailable(
                f"{self._most_held} of your sandboxes are at work already; stop a session, or wait"
                " until one has done its work"
            )

    def get(self, session_id: str) -> Sandbox | None:
        """The sandbox of a session, running or ended (with its records); None without one."""
        return self._open.get(session_id)

    async def close(self, session_id: str) -> None:
        """Kill a session's sandbox; its workspace stays. Nothing where there is none."""
        async with self._locks.setdefault(session_id, asyncio.Lock()):
            if (sandbox := self._open.pop(session_id, None)) is not None:
                await sandbox.end("closed")

    async def close_all(self) -> None:
        """Kill them all."""
        await asyncio.gather(*(self.close(session_id) for session_id in list(self._open)))
        if self._watcher is not None:
            self._watcher.cancel()
            with suppress(asyncio.CancelledError):
                await self._watcher
            self._watcher = None

    async def erase(self, session_id: str, place: Sequence[str] = ()) -> None:
        """Kill a session's sandbox and remove its workspace, whatever modes and links are in it."""
        await self.close(session_id)
        names = _checked(place or (session_id,))
        with suppress(FileNotFoundError, NotADirectoryError):
            await asyncio.to_thread(watching.remove, self._root, names)

    def owner(self, session_id: str) -> int | None:
        """Whose the files of a session's workspace have to be; None where they are the server's."""
        return uid_of(session_id) if os.geteuid() == 0 else None

    def _make(self, session_id: str, place: Sequence[str]) -> Path:
        names = _checked(place or (session_id,))
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        workspace = self._root
        for name in names:
            workspace /= name
            with suppress(FileExistsError):
                workspace.mkdir(mode=0o700)
            if workspace.is_symlink():
                raise SandboxError("the workspace is a link")
        if (owner := self.owner(session_id)) is not None:
            watching.give(workspace, owner)
        return workspace

    async def _start(self, session_id: str, workspace: Path) -> Sandbox:
        if (bwrap := shutil.which(self._bwrap)) is None:
            raise SandboxUnavailable("bubblewrap is not installed (Debian: apt install bubblewrap)")
        channel = Channel()
        told, telling = os.pipe2(os.O_CLOEXEC)
        descriptors = [telling]
        program, python = interpreter()
        given: dict[str, object] = {"parent": os.getpid()}
        place = str(workspace)
        if (owner := self.owner(session_id)) is not None:
            os.chown(workspace, owner, owner)
            shown = [[place, "workspace"]]
            place = "/mnt/workspace"
            if python is not None:
                shown.append([python, "python"])
                python = "/mnt/python"
            given |= {"uid": owner, "shown": shown}
        try:
            argv = arguments(
                bwrap,
                workspace=place,
                python=python,
                limits=self._limits,
                network=self._connect is not None,
                descriptors=descriptors,
            )
            argv += ["--info-fd", str(telling), "--", program, "-I", "-S", "-c", _INSIDE]
            argv += [str(channel.theirs.fileno()), json.dumps(self._limits.of_processes())]
            argv += [_X if has_display() else "", str(PROXY_PORT) if self._connect else ""]
            process = await asyncio.create_subprocess_exec(
                *(_PYTHON, "-I", "-S", "-c", _LAUNCHER, json.dumps({**given, "argv": argv})),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                env={},
                pass_fds=(*descriptors, channel.theirs.fileno()),
                start_new_session=True,
            )
        except BaseException:
            channel.close("died")
            os.close(told)
            raise
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        sandbox = Sandbox(session_id, workspace, self._limits, process, channel)
        try:
            loop = asyncio.get_running_loop()
            facts = asyncio.StreamReader(loop=loop)
            transport, _ = await loop.connect_read_pipe(
                lambda: asyncio.StreamReaderProtocol(facts, loop=loop), os.fdopen(told, "rb", 0)
            )
            try:
                await sandbox.begin(facts, self._connect)
            finally:
                transport.close()
        except BaseException:
            await sandbox.end("died")
            raise
        return sandbox

    async def _watch(self) -> None:
        """Runs while a sandbox does. Whatever goes wrong here ends them: unwatched, none runs."""
        looking: dict[str, asyncio.Task[None]] = {}
        try:
            while running := [each for each in self._open.values() if not each.ended]:
                spaces, used = await asyncio.to_thread(self._measure, running)
                for sandbox in running:
                    if used[sandbox.namespace] > self._limits.memory_bytes:
                        await sandbox.end("memory")
                    elif sandbox.idle_s > self._limits.idle_s:
                        await sandbox.end("idle")
                    elif time.monotonic() > sandbox.looked and sandbox.session_id not in looking:
                        looking[sandbox.session_id] = task = asyncio.create_task(
                            self._look(sandbox, spaces.get(sandbox.namespace, []))
                        )
                        task.add_done_callback(partial(_forget, looking, sandbox.session_id))
                await asyncio.sleep(WATCH_S)
        except Exception:
            _LOG.exception("sandboxes cannot be watched, so they end")
            await asyncio.gather(*(each.end("died") for each in self._open.values()))

    def _measure(self, running: Sequence[Sandbox]) -> tuple[dict[str, list[int]], dict[str, int]]:
        spaces = watching.processes()
        limit = self._limits.memory_bytes
        return spaces, {
            each.namespace: watching.memory(spaces.get(each.namespace, ()), limit)
            for each in running
        }

    async def _look(self, sandbox: Sandbox, pids: Sequence[int]) -> None:
        begun = time.monotonic()
        try:
            size, names = await asyncio.to_thread(watching.disk, sandbox.workspace, pids)
        except OSError:
            await sandbox.end("died")
            return
        if size > self._limits.disk_bytes:
            await sandbox.end("disk")
        elif names > self._limits.files:
            await sandbox.end("files")
        took = time.monotonic() - begun
        sandbox.looked = time.monotonic() + max(DISK_S, 10 * took)


def has_display() -> bool:
    """Whether an X server is installed."""
    return shutil.which(_X_SERVER, path="/usr/bin:/usr/local/bin") is not None


def _forget(looking: dict[str, asyncio.Task[None]], session_id: str, _: object) -> None:
    del looking[session_id]


def _checked(names: Sequence[str]) -> Sequence[str]:
    """Names of directories, each of which is one. Raises ValueError."""
    if not all(_NAME.fullmatch(name) for name in names):
        raise ValueError("a workspace's place is made of plain names")
    return names

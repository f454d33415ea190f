"""Shells that stay: a bash on a terminal each, given one command after the other.

The commands come by a pipe of their own, so that neither the terminal's modes nor a program that
reads ahead spoils them; before each, bash says by another pipe how the last one ended and what its
prompt is. The loop that does so is PROMPT_COMMAND: SIGINT leaves any command and comes back to it.
"""

import asyncio
import os
from collections import deque
from collections.abc import Callable

import msgspec

from gateways.sandbox.channel import Channel
from gateways.sandbox.confining import WORKSPACE
from gateways.sandbox.errors import SandboxError, ShellBusy, ShellIdle

COMMAND_MAX = 256 * 1024
INPUT_MAX = 64 * 1024
START_S = 20.0
_INTERRUPT = b"\x03"
_PIECE = 64 * 1024
_PIECES = 64
_RC = r"""
PS1='\u@\h:\w\$ '
set +o history
__told=0 __said=0
__said() { return "$__said"; }
PROMPT_COMMAND='__said=$?
while :; do
    printf "%s\0%s\0%s\0" "$__told" "$__said" "${PS1@P}" >&4
    IFS= read -r -d "" -u 3 __told && IFS= read -r -d "" -u 3 __command || exit 0
    __said
    eval "$__command" 3<&- 4>&-
    __said=$?
done
# A command like `break`, or one that was stopped, ends the loop.
eval "$PROMPT_COMMAND"'
"""


class ConsoleRecord(msgspec.Struct):
    """One command as a console shows it: the prompt before it, and what came out of it."""

    ps1: str
    command: str
    output: str


class ShellResult(msgspec.Struct, frozen=True):
    """A command, ended or not. `exit_code` is None as long as it runs; a signal's number is added
    to 128. `alive` is False once the shell itself has ended: the next command starts another."""

    output: str
    exit_code: int | None
    alive: bool

    @property
    def running(self) -> bool:
        return self.exit_code is None


class Output:
    """The first and the last bytes of what a program wrote, `kept` in all."""

    def __init__(self, kept: int) -> None:
        self._half = kept // 2
        self._first = bytearray()
        self._last = bytearray()
        self._left_out = 0

    def add(self, data: bytes) -> None:
        room = self._half - len(self._first)
        self._first += data[:room]
        self._last += data[room:]
        if (over := len(self._last) - self._half) > 0:
            del self._last[:over]
            self._left_out += over

    def text(self) -> str:
        parts = [bytes(self._first), bytes(self._last)]
        if self._left_out:
            parts.insert(1, f"\n[{self._left_out} bytes left out]\n".encode())
        return b"".join(parts).decode("utf-8", "replace")


class Shell:
    """One bash of a sandbox, from its start to its end."""

    def __init__(self, channel: Channel, kept: int, records: int) -> None:
        self._channel = channel
        self._kept = kept
        self._records: deque[tuple[str, str, Output]] = deque(maxlen=records)
        self._loop = asyncio.get_running_loop()
        self._said = bytearray()
        self._changed = asyncio.Event()
        self._told = -1
        self._asked = 0
        self._ps1 = ""
        self._exit_code: int | None = 0
        self._numbers: list[int] = []
        self._master = self._reports = self._commands = -1
        self.alive = False

    @property
    def busy(self) -> bool:
        return self.alive and self._exit_code is None

    async def begin(self) -> None:
        """Start it. Raises SandboxError."""
        theirs_in, self._commands = os.pipe2(os.O_CLOEXEC)
        self._reports, theirs_out = os.pipe2(os.O_CLOEXEC)
        rc, write_rc = os.pipe2(os.O_CLOEXEC)
        os.write(write_rc, _RC.encode())
        os.close(write_rc)
        argv = ("bash", "--noprofile", "--noediting", "--rcfile", "/dev/fd/5", "-i")
        given = (theirs_in, theirs_out, rc)
        self._told, self._asked, self._exit_code, self.alive = -1, 0, None, True
        try:
            number, master = await self._channel.start(
                argv, WORKSPACE, {}, given, terminal=True, ended=self._ended
            )
            self._numbers.append(number)
        except BaseException:
            self._ended(-9)
            raise
        finally:
            for descriptor in given:
                os.close(descriptor)
        if not self.alive:
            os.close(master)
            raise SandboxError("the shell did not start")
        self._master = master
        for descriptor, reader in ((self._master, self._hear), (self._reports, self._report)):
            os.set_blocking(descriptor, False)
            self._loop.add_reader(descriptor, reader)
        os.set_blocking(self._commands, False)
        if not await self._until(lambda: self._told == 0, START_S) or not self.alive:
            self.kill()
            raise SandboxError("the shell did not start")

    async def run(self, command: str, timeout_s: float) -> ShellResult:
        """Run a command and wait for it, `timeout_s` at most. Raises ShellBusy, SandboxError."""
        if self.busy:
            raise ShellBusy("a command runs in this shell")
        data = command.encode("utf-8", "replace")
        if b"\0" in data or len(data) > COMMAND_MAX:
            raise SandboxError("the command is too long, or holds a NUL")
        self._records.append((self._ps1, command, Output(self._kept)))
        self._asked += 1
        self._exit_code = None
        if not await self._write(self._commands, b"%d\0%b\0" % (self._asked, data), START_S):
            self.kill()
        return await self.wait(timeout_s)

    async def wait(self, timeout_s: float) -> ShellResult:
        """The last command, once it has ended or after `timeout_s`."""
        await self._until(lambda: not self.busy, timeout_s)
        return self.result()

    def result(self) -> ShellResult:
        """The last command as it is now."""
        output = self._records[-1][2].text() if self._records else ""
        return ShellResult(output, self._exit_code, self.alive)

    def records(self) -> list[ConsoleRecord]:
        """The latest commands, oldest first."""
        return [ConsoleRecord(ps1, command, out.text()) for ps1, command, out in self._records]

    async def write(self, text: str, timeout_s: float) -> None:
        """Type into the terminal of the program that runs; a line needs its "\\n". Raises
        ShellIdle, SandboxError where the program does not read."""
        data = text.encode("utf-8", "replace")
        if not self.busy:
            raise ShellIdle("no command runs in this shell")
        if len(data) > INPUT_MAX:
            raise SandboxError("the input is too long")
        if not await self._write(self._master, data, timeout_s):
            raise SandboxError("the program does not read its input")

    async def interrupt(self) -> None:
        """What Ctrl-C does."""
        if self.busy:
            await self._write(self._master, _INTERRUPT, 1.0)

    def kill(self) -> None:
        """End bash and everything that was started in it, what left its session included, and what
        an earlier bash of this shell left behind. Its records stay."""
        for number in self._numbers:
            self._channel.kill(number)
        self._numbers.clear()

    async def gone(self, timeout_s: float) -> bool:
        """Whether bash itself has ended within the time."""
        return await self._until(lambda: not self.alive, timeout_s)

    async def _until(self, fact: Callable[[], bool], timeout_s: float) -> bool:
        try:
            async with asyncio.timeout(timeout_s):
                while not fact() and self.alive:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            pass
        return fact()

    def _hear(self) -> None:
        """Take what was written up to now; the kernel has no more than it says (n_tty_read)."""
        for _ in range(_PIECES):
            try:
                data = os.read(self._master, _PIECE)
            except BlockingIOError:
                return
            except OSError:  # EIO: nobody has the terminal open any more
                data = b""
            if not data:
                self._loop.remove_reader(self._master)
                return
            if self._records:
                self._records[-1][2].add(data)

    def _report(self) -> None:
        try:
            data = os.read(self._reports, _PIECE)
        except BlockingIOError:
            return
        if not data:
            self._loop.remove_reader(self._reports)
            return
        self._said += data
        while self._said.count(0) >= 3:
            number, status, ps1, self._said = self._said.split(b"\0", 3)
            if number.isdigit() and status.isdigit() and int(number[:9]) == self._asked:
                if self._exit_code is None and self._master >= 0:
                    self._hear()
                self._told, self._exit_code = self._asked, int(status[:3])
                self._ps1 = ps1[:1000].decode("utf-8", "replace")
                self._changed.set()
        if len(self._said) > _PIECE:
            self._said.clear()

    async def _write(self, descriptor: int, data: bytes, timeout_s: float) -> bool:
        """Whether all of it was taken in time."""
        try:
            async with asyncio.timeout(timeout_s):
                while data and self.alive:
                    try:
                        data = data[os.write(descriptor, data) :]
                    except BlockingIOError:
                        self._loop.add_writer(descriptor, self._changed.set)
                        self._changed.clear()
                        await self._changed.wait()
        except (TimeoutError, OSError):
            return False
        finally:
            if self.alive:
                self._loop.remove_writer(descriptor)
        return not data

    def _ended(self, status: int) -> None:
        if not self.alive:
            return
        if self._master >= 0:
            self._hear()
        self.alive = False
        if self._exit_code is None:
            self._exit_code = status if status >= 0 else 128 - status
        for descriptor in (self._master, self._reports, self._commands):
            if descriptor >= 0:
                self._loop.remove_reader(descriptor)
                self._loop.remove_writer(descriptor)
                os.close(descriptor)
        self._master = self._reports = self._commands = -1
        self._changed.set()

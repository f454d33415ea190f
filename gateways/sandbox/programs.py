"""A program in a sandbox, with pipes to its standard streams."""

import asyncio
import os
from collections.abc import Sequence

from gateways.sandbox.channel import Channel
from gateways.sandbox.errors import SandboxError

LINE_MAX = 1 << 20
END_S = 10.0


class Program:
    """A running program. `stdout` and `stderr` are read by the caller: who reads neither holds the
    program up, as with any pipe."""

    stdin: asyncio.StreamWriter
    stdout: asyncio.StreamReader
    stderr: asyncio.StreamReader

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._number = -1
        self._transports: list[asyncio.BaseTransport] = []
        self._input: asyncio.BaseTransport | None = None
        self._exit_code: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    @property
    def running(self) -> bool:
        return not self._exit_code.done()

    async def begin(
        self,
        argv: Sequence[str],
        cwd: str,
        env: dict[str, str],
        further: Sequence[int] = (),
        *,
        display: bool = False,
    ) -> None:
        """Start it, with `further` descriptors from 3 on, as the X server (`display`) from 4 on.
        Raises SandboxError."""
        pipes = [os.pipe2(os.O_CLOEXEC) for _ in range(3)]
        (theirs_in, ours_in), (ours_out, theirs_out), (ours_err, theirs_err) = pipes
        try:
            self._number, _ = await self._channel.start(
                argv,
                cwd,
                env,
                (theirs_in, theirs_out, theirs_err, *further),
                terminal=False,
                display=display,
                ended=self._ended,
            )
        except BaseException:
            for descriptor in (ours_in, ours_out, ours_err):
                os.close(descriptor)
            raise
        finally:
            for descriptor in (theirs_in, theirs_out, theirs_err):
                os.close(descriptor)
        self.stdin = await self._writer(ours_in)
        self.stdout = await self.reader(ours_out)
        self.stderr = await self.reader(ours_err)

    async def wait(self) -> int:
        """Its exit code; negative for a signal. What it started may go on."""
        return await asyncio.shield(self._exit_code)

    async def kill(self) -> None:
        """End it with everything that it started, and let go of its streams. Raises SandboxError
        where it does not end: close the sandbox."""
        self._channel.kill(self._number)
        for transport in self._transports:
            transport.close()
        try:
            async with asyncio.timeout(END_S):
                await self.wait()
        except TimeoutError:
            raise SandboxError("the program does not end") from None

    def _ended(self, status: int) -> None:
        if not self._exit_code.done():
            self._exit_code.set_result(status)
        if self._input is not None:
            self._input.close()

    async def _writer(self, descriptor: int) -> asyncio.StreamWriter:
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.connect_write_pipe(
            lambda: asyncio.streams.FlowControlMixin(loop=loop), os.fdopen(descriptor, "wb", 0)
        )
        self._transports.append(transport)
        self._input = transport
        if not self.running:
            transport.close()
        return asyncio.StreamWriter(transport, protocol, None, loop)

    async def reader(self, descriptor: int) -> asyncio.StreamReader:
        """Read a pipe until the program is killed."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(LINE_MAX, loop=loop)
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader, loop=loop), os.fdopen(descriptor, "rb", 0)
        )
        self._transports.append(transport)
        return reader

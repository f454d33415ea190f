"""A client that loses its connection on purpose, and resumes.

It speaks HTTP/1.1 on a raw socket, so that it decides after which byte of the answer, and how (FIN
or RST), the connection ends: before the headers, within them, inside a line, inside a UTF-8
sequence. What it keeps is what a careful client keeps: complete lines. It resumes with the number
of complete JSON lines as `last_index`; heartbeats (`: heartbeat`) and blank lines do not count.

    plan = plans(seed=1, count=1000, spread=4000)
    jobs = [Job(post(…, idempotency_key=…), lambda seen: get(f"…?last_index={seen}"), cuts)
            for cuts in plan]
    outcomes = await read_all("http://127.0.0.1:8000", jobs, at_once=50)
    assert outcomes[0].text == expected
"""

import asyncio
import json
import random
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

How = Literal["fin", "rst"]
Where = Literal["request", "headers", "line", "utf8", "anywhere"]
"""request: as soon as the request is sent. headers: within the answer's headers. line: behind `at`
bytes of the answer, at the first byte that leaves a line open. utf8: likewise, inside a multi-byte
character. anywhere: exactly behind `at` bytes."""


class ProtocolError(Exception):
    """The server's answer is not HTTP/1.1."""


class Unfinished(Exception):
    """The stream did not come to its end in the tries that were allowed."""


@dataclass(frozen=True)
class Cut:
    """Where and how a connection ends. `at` counts bytes of the answer, headers included."""

    where: Where
    at: int = 0
    how: How = "fin"


@dataclass(frozen=True)
class Request:
    method: str
    target: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def encoded(self, host: str) -> bytes:
        fields = {"Host": host, "Accept-Encoding": "identity", **self.headers}
        if self.body or self.method != "GET":
            fields["Content-Length"] = str(len(self.body))
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        return f"{self.method} {self.target} HTTP/1.1\r\n{head}\r\n".encode() + self.body


class Answer:
    """An HTTP/1.1 response, parsed as its bytes arrive.

    `body` is what came through so far with the chunked framing taken off; `ended` tells whether
    it is complete by its framing.
    """

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = bytearray()
        self.ended = False
        self._head = bytearray()
        self._rest = bytearray()
        self._mode: Literal["head", "size", "data", "gap", "trailer", "length", "close"] = "head"
        self._left = 0

    @property
    def in_body(self) -> bool:
        return self._mode != "head"

    def feed(self, data: bytes) -> None:
        """Take more bytes. Raises ProtocolError."""
        self._rest += data
        while self._rest and not self.ended and self._step():
            pass
        if self.ended and self._rest:
            raise ProtocolError(f"bytes behind the end: {bytes(self._rest[:20])!r}")

    def close(self) -> None:
        """The server has closed its side."""
        if self._mode == "close":
            self.ended = True

    def _step(self) -> bool:
        """Make progress; False when more bytes are needed."""
        if self._mode in ("data", "length", "close"):
            taken = self._rest if self._mode == "close" else self._rest[: self._left]
            self.body += taken
            self._left -= len(taken)
            self._rest = self._rest[len(taken) :]
            if self._mode == "data" and not self._left:
                self._mode = "gap"
            elif self._mode == "length" and not self._left:
                self.ended = True
            return True
        end = self._rest.find(b"\r\n")
        if end < 0:
            if len(self._rest) > 65536:
                raise ProtocolError("a line without an end")
            return False
        line, self._rest = bytes(self._rest[:end]), self._rest[end + 2 :]
        if self._mode == "head":
            self._take_head(line)
        elif self._mode == "size":
            self._take_size(line)
        elif self._mode == "gap":
            if line:
                raise ProtocolError(f"no line end behind a chunk: {line[:20]!r}")
            self._mode = "size"
        elif not line:
            self.ended = True
        return True

    def _take_head(self, line: bytes) -> None:
        if not self.status:
            version, _, rest = line.partition(b" ")
            if version != b"HTTP/1.1" or not rest[:3].isdigit():
                raise ProtocolError(f"status line {line[:40]!r}")
            self.status = int(rest[:3])
        elif line:
            name, colon, value = line.decode("latin-1").partition(":")
            if not colon or name != name.strip():
                raise ProtocolError(f"header {line[:40]!r}")
            self.headers[name.lower()] = value.strip()
        elif self.status == 100:
            self.status, self.headers = 0, {}
        else:
            self._frame()

    def _frame(self) -> None:
        length = self.headers.get("content-length")
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            if length is not None:
                raise ProtocolError("two framings")
            self._mode = "size"
        elif length is not None:
            self._mode, self._left = "length", int(length)
            self.ended = self._left == 0
        elif self.status in (204, 304):
            self._mode, self.ended = "length", True
        else:
            self._mode = "close"

    def _take_size(self, line: bytes) -> None:
        digits = line.partition(b";")[0].strip()
        if not digits or digits.strip(b"0123456789abcdefABCDEF"):
            raise ProtocolError(f"chunk size {line[:20]!r}")
        self._left = int(digits, 16)
        self._mode = "data" if self._left else "trailer"


def complete_lines(body: bytes) -> list[bytes]:
    """The JSON lines of a body that are complete, each with its line end; heartbeats and blank
    lines are left out."""
    return [
        line
        for line in bytes(body[: body.rfind(b"\n") + 1]).splitlines(keepends=True)
        if line.strip() and not line.startswith(b":")
    ]


def inside_utf8(body: bytes) -> bool:
    """Whether a body ends inside a multi-byte character."""
    for back in range(1, min(4, len(body)) + 1):
        byte = body[-back]
        if byte >= 0xC0:
            return back < (2 if byte < 0xE0 else 3 if byte < 0xF0 else 4)
        if byte < 0x80:
            return False
    return False


def is_stream_end(line: bytes) -> bool:
    """Whether a line is sage's last one."""
    return bool(json.loads(line).get("type") == "stream_end")


@dataclass
class Job:
    """A streaming request, what resumes it given the number of lines received, and the
    connections that are cut. A request that may be cut before its answer should carry an
    idempotency key: it is sent again when the resume finds that it never arrived."""

    request: Request
    resume: Callable[[int], Request]
    cuts: Sequence[Cut] = ()
    ends: Callable[[bytes], bool] = is_stream_end


@dataclass
class Outcome:
    """`lines`: what was received, in order. `answers`: every response, as far as it came.
    `cuts`: the cuts that were made; a plan's cut behind the end of the answer is none."""

    lines: list[bytes] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    cuts: list[Cut] = field(default_factory=list)

    @property
    def text(self) -> bytes:
        return b"".join(self.lines)


async def read_through(
    base: str, job: Job, *, resumes: int = 3, timeout_s: float = 60.0
) -> Outcome:
    """Read a stream to its end through the planned cuts.

    The first connections are cut as planned, at most `resumes` of them; the last is not. Raises
    Unfinished, ProtocolError, TimeoutError.
    """
    outcome = Outcome()
    plan = list(job.cuts[:resumes])
    request = job.request
    for _ in range(2 * (resumes + 1)):
        cut = plan.pop(0) if plan else None
        async with asyncio.timeout(timeout_s):
            answer, was_cut = await exchange(base, request, cut)
        outcome.answers.append(answer)
        if was_cut and cut is not None:
            outcome.cuts.append(cut)
        if answer.status not in (0, 200):
            raise Unfinished(f"HTTP {answer.status}: {bytes(answer.body[:200])!r}")
        outcome.lines += complete_lines(answer.body)
        if outcome.lines and job.ends(outcome.lines[-1]):
            return outcome
        lost = not was_cut and answer.ended and not answer.body
        request = job.request if lost and not outcome.lines else job.resume(len(outcome.lines))
    raise Unfinished(f"{len(outcome.lines)} lines, {len(outcome.answers)} connections")


async def read_all(
    base: str, jobs: Sequence[Job], *, at_once: int = 50, timeout_s: float = 60.0
) -> list[Outcome]:
    """Read many streams, `at_once` at a time."""
    room = asyncio.Semaphore(at_once)

    async def read(job: Job) -> Outcome:
        async with room:
            return await read_through(base, job, timeout_s=timeout_s)

    return await asyncio.gather(*map(read, jobs))


async def exchange(base: str, request: Request, cut: Cut | None) -> tuple[Answer, bool]:
    """Send a request and read its answer to the end, or to the cut; says whether it was cut."""
    address = urlsplit(base)
    host, port = address.hostname or "127.0.0.1", address.port or 80
    loop = asyncio.get_running_loop()
    connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    connection.setblocking(False)
    answer = Answer()
    received = 0
    try:
        await loop.sock_connect(connection, (host, port))
        await loop.sock_sendall(connection, request.encoded(f"{host}:{port}"))
        while not answer.ended:
            if cut is not None and _reached(cut, answer, received):
                await _end(connection, cut.how)
                return answer, True
            # Never take more from the socket than up to the cut, then a byte at a time.
            room = 65536 if cut is None else max(1, cut.at - received)
            try:
                data = await loop.sock_recv(connection, min(room, 65536))
            except ConnectionError:
                break
            if not data:
                answer.close()
                break
            received += len(data)
            answer.feed(data)
    finally:
        connection.close()
    return answer, False


def _reached(cut: Cut, answer: Answer, received: int) -> bool:
    if cut.where == "request":
        return True
    if received < cut.at:
        return False
    if cut.where == "headers":
        return not answer.in_body
    if cut.where == "anywhere":
        return True
    if cut.where == "utf8":
        return inside_utf8(answer.body)
    return bool(answer.body) and not answer.body.endswith(b"\n")


async def _end(connection: socket.socket, how: How) -> None:
    if how == "rst":
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return
    # Closing with unread bytes would send RST: FIN first, then take what still comes.
    connection.shutdown(socket.SHUT_WR)
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(0.2):
            while await loop.sock_recv(connection, 65536):
                pass
    except (TimeoutError, ConnectionError):
        return


def plans(seed: int, count: int, spread: int) -> list[list[Cut]]:
    """`count` lists of one to three cuts over answers of about `spread` bytes; every kind of place
    and both ways to end come up, the same for the same seed."""
    chance = random.Random(seed)

    def cut() -> Cut:
        where = chance.choice(("request", "headers", "line", "utf8", "anywhere", "anywhere"))
        at = 0
        if where == "headers":
            at = chance.randrange(1, 100)
        elif where != "request":
            at = chance.randrange(1, max(2, spread))
        return Cut(where, at, chance.choice(("fin", "rst")))

    return [[cut() for _ in range(chance.randint(1, 3))] for _ in range(count)]

"""The disconnecting client itself: its parser, its cuts, and that it finds a server's faults."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.chaos.disconnects import (
    Answer,
    Cut,
    Job,
    ProtocolError,
    Request,
    Unfinished,
    complete_lines,
    exchange,
    inside_utf8,
    plans,
    read_all,
    read_through,
)

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nX-Run-Id: 7\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


def parsed(*parts: bytes) -> Answer:
    answer = Answer()
    for part in parts:
        answer.feed(part)
    return answer


def chunked(*chunks: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)


# --- the parser ---------------------------------------------------------------------------------


def test_an_answer_is_the_same_wherever_its_bytes_are_split() -> None:
    raw = CHUNKED + chunked("né\n".encode(), b"x" * 20, b"\r\n") + b"0\r\nTrailer: t\r\n\r\n"
    for at in range(len(raw) + 1):
        answer = parsed(raw[:at], raw[at:])
        assert (answer.status, answer.headers["x-run-id"], answer.ended) == (200, "7", True)
        assert answer.body == "né\n".encode() + b"x" * 20 + b"\r\n"
        assert parsed(raw[:at]).ended == (at == len(raw))


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=8), st.randoms())
def test_chunks_come_off(chunks: list[bytes], chance: random.Random) -> None:
    raw = CHUNKED + chunked(*chunks) + b"0\r\n\r\n"
    answer = Answer()
    while raw:
        at = chance.randint(1, len(raw))
        answer.feed(raw[:at])
        raw = raw[at:]
    assert answer.ended
    assert answer.body == b"".join(chunks)


def test_sizes_may_have_extensions_and_capitals() -> None:
    assert parsed(CHUNKED, b"A;x=1\r\n0123456789\r\n0;last\r\n\r\n").body == b"0123456789"


def test_a_body_may_be_framed_by_length_or_by_the_close() -> None:
    assert parsed(HEAD, b"Content-Length: 3\r\n\r\nab").ended is False
    assert parsed(HEAD, b"Content-Length: 3\r\n\r\nabc").ended is True
    assert parsed(HEAD, b"Content-Length: 0\r\n\r\n").ended is True
    until_close = parsed(HEAD, b"\r\nabc")
    assert until_close.ended is False
    until_close.close()
    assert (until_close.ended, until_close.body) == (True, b"abc")
    cut = parsed(CHUNKED, b"5\r\nab")
    cut.close()
    assert (cut.ended, cut.body) == (False, b"ab")
    assert parsed(b"HTTP/1.1 204 No Content\r\n\r\n").ended is True
    assert (
        parsed(b"HTTP/1.1 100 Continue\r\n\r\n", HEAD, b"Content-Length: 0\r\n\r\n").status == 200
    )


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.0 200 OK\r\n",
        b"HTTP/1.1 two OK\r\n",
        b"hello\r\n",
        HEAD + b"no colon\r\n",
        HEAD + b"Space : before\r\n",
        HEAD + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        CHUNKED + b"\r\n",
        CHUNKED + b"xyz\r\n",
        CHUNKED + b"-1\r\n",
        CHUNKED + b"3\r\nabcd\r\n",
        CHUNKED + b"0\r\n\r\nmore",
        HEAD + b"Content-Length: 1\r\n\r\nab",
        b"x" * 70000,
    ],
)
def test_what_is_not_http_is_refused(raw: bytes) -> None:
    with pytest.raises(ProtocolError):
        parsed(raw)


def test_only_complete_json_lines_are_kept() -> None:
    assert complete_lines(b"") == []
    assert complete_lines(b'{"a":1') == []
    body = b'{"a":1}\n: heartbeat\n\n{"b":2}\n\n{"c"'
    assert complete_lines(body) == [b'{"a":1}\n', b'{"b":2}\n']
    assert complete_lines('{"a":"\u2028\x85"}\n'.encode()) == ['{"a":"\u2028\x85"}\n'.encode()]


@given(st.text(max_size=12))
def test_the_inside_of_a_character_is_found(text: str) -> None:
    raw = text.encode()
    ends = {len(text[:n].encode()) for n in range(len(text) + 1)}
    for at in range(len(raw) + 1):
        assert inside_utf8(raw[:at]) == (at not in ends)


def test_plans_repeat_and_hold_every_kind_of_cut() -> None:
    assert plans(3, 50, 1000) == plans(3, 50, 1000) != plans(4, 50, 1000)
    cuts = [cut for plan in plans(1, 200, 1000) for cut in plan]
    assert {cut.where for cut in cuts} == {"request", "headers", "line", "utf8", "anywhere"}
    assert {cut.how for cut in cuts} == {"fin", "rst"}
    assert all(1 <= len(plan) <= 3 for plan in plans(1, 200, 1000))


# --- against a server ---------------------------------------------------------------------------


def line(n: int) -> bytes:
    return (
        json.dumps({"n": n, "text": "né 你好 😀"[n % 9 :] * 2}, ensure_ascii=False).encode() + b"\n"
    )


LINES = [*(line(n) for n in range(60)), b'{"type":"stream_end"}\n']


class Server:
    """POST /run starts the stream (once per idempotency key) and GET /resume goes on with it."""

    def __init__(self, fault: str = "") -> None:
        self.fault = fault
        self.runs: set[str] = set()
        self.ends: list[str] = []
        self.ended = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            target = urlsplit(head.split()[1])
            fields = dict(h.split(": ", 1) for h in head.split("\r\n")[1:] if h)
            await reader.readexactly(int(fields.get("Content-Length", 0)))
            key = fields["Key"]
            if target.path == "/run":
                self.runs.add(key)
            first = int(parse_qs(target.query).get("last_index", ["0"])[0])
            if first and self.fault:
                first += {"loses": 1, "doubles": -1}[self.fault]
            await self.send(writer, LINES[first:] if key in self.runs else [])
            if (await reader.read()) == b"":
                self.ends.append("fin")
        except ConnectionResetError:
            self.ends.append("rst")
        except (ConnectionError, asyncio.IncompleteReadError):
            self.ends.append("lost")
        finally:
            if self.ends:
                self.ended.set()
            writer.close()

    async def send(self, writer: asyncio.StreamWriter, lines: list[bytes]) -> None:
        chance = random.Random(len(lines))
        writer.write(CHUNKED)
        data = b": heartbeat\n\n" + b"".join(lines)
        if not lines:
            data = b""
        while data:
            at = chance.randint(1, 40)
            writer.write(chunked(data[:at]))
            data = data[at:]
            await writer.drain()
            if chance.random() < 0.2:
                await asyncio.sleep(0.001)
        writer.write(b"0\r\n\r\n")
        await writer.drain()


@asynccontextmanager
async def serving(server: Server) -> AsyncIterator[str]:
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    async with listening:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"


def job(key: str, *cuts: Cut) -> Job:
    headers = {"Key": key}
    return Job(
        Request("POST", "/run", headers, b'{"q":1}'),
        lambda seen: Request("GET", f"/resume?last_index={seen}", headers),
        cuts,
    )


async def test_seeded_disconnects_lose_double_and_reorder_nothing() -> None:
    server = Server()
    jobs = [job(str(n), *cuts) for n, cuts in enumerate(plans(9, 200, 3500))]
    async with serving(server) as base:
        outcomes = await read_all(base, jobs, at_once=50)
    assert all(outcome.text == b"".join(LINES) for outcome in outcomes)
    cuts = [cut for outcome in outcomes for cut in outcome.cuts]
    assert {(cut.where, cut.how) for cut in cuts} == {
        (where, how)
        for where in ("request", "headers", "line", "utf8", "anywhere")
        for how in ("fin", "rst")
    }
    assert len(server.runs) == 200
    assert max(len(outcome.answers) for outcome in outcomes) > 3


@pytest.mark.parametrize("fault", ["loses", "doubles"])
async def test_a_server_that_resumes_wrongly_is_found_out(fault: str) -> None:
    async with serving(Server(fault)) as base:
        outcome = await read_through(base, job("1", Cut("line", 900)))
    assert outcome.text != b"".join(LINES)


@pytest.mark.parametrize("how", ["fin", "rst"])
async def test_the_server_sees_the_end_that_was_asked_for(how: str) -> None:
    server = Server()
    async with serving(server) as base:
        answer, was_cut = await exchange(base, job("1").request, Cut("utf8", 200, how))  # type: ignore[arg-type]
        async with asyncio.timeout(5):
            await server.ended.wait()
    assert was_cut
    assert inside_utf8(answer.body)
    assert not answer.ended
    assert server.ends == ["fin"] if how == "fin" else server.ends[0] in ("rst", "lost")


async def test_a_cut_takes_not_a_byte_more() -> None:
    async with serving(Server()) as base:
        for at in (1, 50, len(CHUNKED), 333, 334):
            whole = CHUNKED
            answer, was_cut = await exchange(base, job("1").request, Cut("anywhere", at))
            assert was_cut
            assert answer.in_body == (at >= len(whole))
            assert len(answer.body) <= max(0, at - len(whole))


async def test_a_stream_that_never_ends_is_unfinished() -> None:
    async with serving(Server()) as base:
        stranger = Job(
            Request("GET", "/resume?last_index=0", {"Key": "none"}),
            lambda seen: Request("GET", "/resume?last_index=0", {"Key": "none"}),
        )
        with pytest.raises(Unfinished):
            await read_through(base, stranger)

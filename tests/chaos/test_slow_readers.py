"""Clients that stop reading: they are cut off, cost a bounded amount of memory, and slow nobody."""

import asyncio
import json
import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.chaos.deployment import Site, Stream, deployed, entered, eventually, pss, streaming
from tests.chaos.disconnects import Answer, Request, complete_lines

UNREAD = 40
TOKENS = 40_000
"""Lines of the fast run: more than the kernel holds for a connection and 4,096 behind that."""
GROWTH_MAX = 96 * 1024 * 1024
OTHER = '[{"tokens": 300, "every_ms": 10}, {"say": "done"}]'


class Unread:
    """A connection whose owner sends its request, and never reads the answer."""

    def __init__(self, site: Site, request: Request) -> None:
        address = urlsplit(site.base)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.connect((address.hostname, address.port))
        self.socket.sendall(request.encoded("x"))
        self.socket.setblocking(False)

    async def drained(self) -> Answer:
        """What had been sent by the time the server gave up."""
        answer = Answer()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(30):
                while data := await loop.sock_recv(self.socket, 1 << 20):
                    answer.feed(data)
        except ConnectionError:
            pass
        self.socket.close()
        return answer


@pytest.mark.timeout(180)
async def test_who_stops_reading_is_cut_off_and_slows_nobody(tmp_path: Path) -> None:
    with deployed(tmp_path / "data") as server:
        site = await entered(server)
        async with streaming(site, site.turn("warm", OTHER)) as stream:
            await stream.closed()
        before = pss(server.process.pid)
        fast = await Stream(
            site.base, site.turn("fast", f'[{{"stall_ms": 1000}}, {{"tokens": {TOKENS}}}]')
        ).open()
        await fast.until(lambda: bool(fast.run_id))
        unread = [Unread(site, site.resumption("fast")) for _ in range(UNREAD)]
        peak = before
        async with streaming(site, site.turn("other", OTHER)) as other:
            while not (fast.task.done() and other.task.done()):
                peak = max(peak, pss(server.process.pid))
                await asyncio.wait({fast.task, other.task}, timeout=0.2)
        assert fast.ended
        assert other.ended
        assert [json.loads(line).get("content") for line in other.lines[:300]] == [
            f"t{i} " for i in range(300)
        ]
        assert len(fast.lines) == TOKENS + 2
        assert peak - before < GROWTH_MAX

        async def gone() -> bool:
            return streams_under_way(await site.call("GET", "/metrics")) == 0

        await eventually(gone, 30, 0.2)
        cut = await asyncio.gather(*(one.drained() for one in unread))
        whole = fast.lines
        for answer in cut:
            assert not answer.ended
            lines = complete_lines(answer.body)
            assert lines == whole[: len(lines)]
            assert len(lines) < len(whole)
        rest = await site.resumed("fast", len(complete_lines(cut[0].body)))
        assert complete_lines(cut[0].body) + rest == whole


def streams_under_way(metrics: Answer) -> float:
    assert metrics.status == 200
    lines = bytes(metrics.body).decode().splitlines()
    return float(next(line for line in lines if line.startswith("quartet_streams ")).split()[1])

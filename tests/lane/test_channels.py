"""Websockets on the lane (server/lane/channel.py), over real connections."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import uvicorn
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from domain.caller import Caller
from domain.errors import Forbidden, NotFound, Unavailable
from server import listening
from server.lane.access import Door
from server.lane.channel import Channel, Gone, Socket
from server.lane.contract import BindingError, Contract
from server.lane.leases import Leases
from server.lane.origin import Proxies
from server.lane.rates import Rates
from server.lane.replies import Drain
from server.protocol import Sockets
from tests.lane import shop
from tests.lane.conftest import Tokens, application, around, routes

DECLARED: dict[str, Any] = {
    "address": "/rooms/{room_id}/echo",
    "x-role": "user",
    "x-effect": "read",
    "x-rate-limit": "read",
    "x-stream-limit": "ws",
    "x-subprotocols": ["binary", "base64"],
    "parameters": {"room_id": {}},
    "bindings": {"ws": {"query": {"properties": {"token": {}, "say": {}}}}},
}
DESK = {**DECLARED, "address": "/rooms/{room_id}/desk", "x-effect": "write"}


class Known(Tokens):
    """Callers whose login sessions can end."""

    def __init__(self) -> None:
        self.over = asyncio.Event()

    def ended(self, caller: Caller) -> asyncio.Event:
        return self.over


class Rooms:
    """The handler: echoes what it gets, and does what a room's name says."""

    def __init__(self) -> None:
        self.left = asyncio.Event()
        self.none = asyncio.Event()
        self.open = 0

    async def open_echo(
        self, caller: Caller, room_id: str, say: str
    ) -> Callable[[Socket], Awaitable[None]]:
        if room_id == "foreign":
            raise Forbidden("auth.forbidden")
        if room_id == "missing":
            raise NotFound("request.not_found")

        async def carry(socket: Socket) -> None:
            self.open += 1
            self.none.clear()
            try:
                await socket.send(f"{caller.user_id} {say}".encode())
                while (data := await socket.receive()) != b"bye":
                    if data == b"away":
                        raise Unavailable("storage.unavailable")
                    if data == b"break":
                        raise ZeroDivisionError
                    await socket.send(data)
            except Gone:
                self.left.set()
                raise
            finally:
                self.open -= 1
                if not self.open:
                    self.none.set()

        return carry


class Running:
    """A server with one channel."""

    def __init__(self, url: str, rooms: Rooms, known: Known, drain: Drain) -> None:
        self.url = url
        self.rooms = rooms
        self.known = known
        self.drain = drain

    def connect(
        self, room: str = "one", token: str = "alice", channel: str = "echo", **options: Any
    ) -> connect:
        query = f"?token={token}&say=hello" if token else "?say=hello"
        return connect(f"{self.url}/sage/rooms/{room}/{channel}{query}", proxy=None, **options)


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    known, rooms, drain = Known(), Rooms(), Drain()
    door = Door(
        known,
        cookie_name="sage_session",
        origins=frozenset({"http://shop.test"}),
        proxies=Proxies([]),
    )
    made = Contract(
        "sage",
        shop.DOCUMENT,
        routes(CHANNELS={"room_open_echo": rooms.open_echo, "room_open_desk": rooms.open_echo}),
        around(
            door=door,
            drain=drain,
            rates=Rates({"login": "3/minute", "read": "6/minute"}),
            leases=Leases({"ws": 2}),
        ),
        websockets={"channels": {"room_open_echo": DECLARED, "room_open_desk": DESK}},
    )
    listener = listening.listen("127.0.0.1", 0)
    server = uvicorn.Server(
        uvicorn.Config(application(made), ws=Sockets, ws_max_size=1000, log_config=None)
    )
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    (host, port), *_ = listening.addresses([listener])
    yield Running(f"ws://{host}:{port}", rooms, known, drain)
    server.should_exit = True
    await serving


async def closed(socket: ClientConnection) -> int:
    """The code with which the server closes."""
    with contextlib.suppress(ConnectionClosed):
        while True:
            await socket.recv()
    assert socket.close_code is not None
    return socket.close_code


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [(None, None), (["binary"], "binary"), (["base64", "binary"], "binary"), (["chat"], None)],
)
async def test_bytes_go_both_ways(
    running: Running, offered: list[str] | None, chosen: str | None
) -> None:
    async with running.connect(subprotocols=offered) as socket:
        assert socket.subprotocol == chosen
        assert await socket.recv() == b"alice hello"
        await socket.send(b"\x00\xff")
        assert await socket.recv() == b"\x00\xff"
        await socket.send(b"bye")
        assert await closed(socket) == 1000


async def test_base64_is_text(running: Running) -> None:
    async with running.connect(subprotocols=["base64"]) as socket:
        assert await socket.recv() == "YWxpY2UgaGVsbG8="
        await socket.send("AP8=")
        assert await socket.recv() == "AP8="


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"token": ""}, 403),
        ({"token": "nobody"}, 403),
        ({"additional_headers": {"authorization": "Bearer nobody"}}, 403),
        ({"room": "foreign"}, 403),
        ({"room": "missing"}, 404),
        ({"origin": "http://elsewhere.test"}, 403),
        ({"room": "one/two"}, 403),
        ({"channel": "desk", "token": "vera"}, 403),
    ],
)
async def test_refused_in_the_handshake(
    running: Running, options: dict[str, Any], status: int
) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with running.connect(**options):
            pass
    assert refused.value.response.status_code == status
    if refused.value.response.body:
        body = json.loads(refused.value.response.body)
        assert body["data"] is None
        assert refused.value.response.headers["x-request-id"]


async def test_a_viewer_opens_what_only_reads(running: Running) -> None:
    for channel, token in (("echo", "vera"), ("desk", "alice")):
        async with running.connect(token=token, channel=channel) as socket:
            assert await socket.recv() == f"{token} hello".encode()


async def test_a_header_and_the_servers_own_page_do(running: Running) -> None:
    headers = {"authorization": "Bearer alice"}
    async with running.connect(
        token="", additional_headers=headers, origin="http://shop.test"
    ) as socket:
        assert await socket.recv() == b"alice hello"


async def test_the_end_of_a_login_closes_it(running: Running) -> None:
    async with running.connect() as socket:
        await socket.recv()
        running.known.over.set()
        assert await closed(socket) == 4401
    assert running.rooms.open == 0


async def test_a_third_socket_is_told_to_come_later(running: Running) -> None:
    async with running.connect() as one, running.connect() as two:
        await one.recv()
        await two.recv()
        async with running.connect() as third:
            assert await closed(third) == 1013
        async with running.connect(token="vera") as of_another:
            assert await of_another.recv() == b"vera hello"
            await of_another.send(b"bye")
            assert await closed(of_another) == 1000
    await running.rooms.none.wait()
    async with running.connect() as again:
        assert await again.recv() == b"alice hello"


async def test_a_seventh_in_a_minute_is_told_to_come_later(running: Running) -> None:
    for _ in range(6):
        async with running.connect() as socket:
            await socket.recv()
            await socket.send(b"bye")
            assert await closed(socket) == 1000
    async with running.connect() as socket:
        assert await closed(socket) == 1013


@pytest.mark.parametrize(("said", "code"), [(b"away", 1011), (b"break", 1011), (b"x" * 2000, 1009)])
async def test_faults_have_their_codes(running: Running, said: bytes, code: int) -> None:
    async with running.connect() as socket:
        await socket.recv()
        await socket.send(said)
        assert await closed(socket) == code


async def test_who_leaves_ends_the_work(running: Running) -> None:
    async with running.connect() as socket:
        await socket.recv()
    async with asyncio.timeout(10):
        await running.rooms.left.wait()
    assert len(running.drain) == 0


async def test_a_shutdown_says_later(running: Running) -> None:
    async with running.connect() as socket:
        await socket.recv()
        await running.drain.cut()
        assert await closed(socket) == 1013


def test_handler_and_channel_fit() -> None:
    async def open_echo(caller: Caller, room_id: str) -> Any:
        return None

    made = Contract(
        "sage",
        shop.DOCUMENT,
        routes(CHANNELS={"room_open_echo": open_echo}),
        around(),
        websockets={"channels": {"room_open_echo": DECLARED}},
    )
    with pytest.raises(BindingError, match=r"room_open_echo.*'say'"):
        made.bind()


def test_a_channel_compiles_its_address() -> None:
    made = Channel(
        channel_id="room_open_echo",
        declared=DECLARED,
        handler=Rooms().open_echo,
        shape=Contract("sage", shop.DOCUMENT, routes(), around()).shape,
        around=around(),
    )
    assert made.misfits == []
    assert made.path == "/rooms/{room_id}/echo"

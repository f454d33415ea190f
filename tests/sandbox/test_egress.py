"""The proxy of a sandbox: what goes through it, and what is turned away."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from gateways.outbound import Outbound
from gateways.sandbox import egress
from gateways.sandbox.sandboxes import Sandbox, Sandboxes
from tests.gateways.peer import Peer, Request, plain
from tests.sandbox.conftest import SMALL

SITE = "site.example"


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    peer = await Peer().start()
    yield peer
    await peer.stop()


async def _everywhere_here(host: str, port: int) -> list[str]:
    return ["127.0.0.1"]


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    """Reaches this machine by a name that is open to sandboxes."""
    outbound = Outbound([f"sandbox={SITE}"], resolve=_everywhere_here)
    made = Sandboxes(tmp_path / "workspaces", SMALL, connect=partial(outbound.connect, "sandbox"))
    yield await made.open("session")
    await made.close_all()


async def _said(sandbox: Sandbox, command: str) -> str:
    return (await sandbox.shell("a", command, timeout_s=30)).output


async def _asked(sandbox: Sandbox, request: str) -> str:
    """What the proxy answers to bytes."""
    code = (
        "import socket; s = socket.create_connection(('127.0.0.1', 3128)); "
        f"s.sendall({request!r}.encode())\n"
        "while piece := s.recv(65536): print(piece.decode(), end='')"
    )
    await _said(sandbox, f"cat > ask.py <<'END'\n{code}\nEND")
    return await _said(sandbox, "python3 ask.py")


async def test_a_request_reaches_a_host_by_its_name(sandbox: Sandbox, peer: Peer) -> None:
    peer.routes["/a"] = plain(body="here\n")
    url = f"http://{SITE}:{peer.port}/a?b=1"
    assert await _said(sandbox, f"curl -sS -d x=1 {url}") == "here\n"
    [request] = peer.requests
    assert (request.method, request.target, request.body) == ("POST", "/a?b=1", b"x=1")
    assert request.headers["host"] == f"{SITE}:{peer.port}"
    code = f"import urllib.request as u; print(u.urlopen({url!r}).read())"
    assert await _said(sandbox, f'python3 -c "{code}"') == "b'here\\n'\n"


async def test_a_tunnel_carries_both_ways(sandbox: Sandbox, peer: Peer) -> None:
    async def echo(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(plain(body=request.body))

    peer.routes["/echo"] = echo
    url = f"http://{SITE}:{peer.port}/echo"
    command = "head -c 3000000 /dev/urandom > sent;"
    command += f" curl -sSp --data-binary @sent -H Expect: -o back {url};"
    command += " cmp sent back; stat -c %s back"
    assert await _said(sandbox, command) == "3000000\n"


async def test_what_is_between_two_hops_stays_there(sandbox: Sandbox, peer: Peer) -> None:
    """RFC 9110 §7.6.1; and the Host of a request is the one that was checked (RFC 9112 §3.2.2)."""
    peer.routes["/"] = plain(body="fine")
    said = await _asked(
        sandbox,
        f"GET http://{SITE}:{peer.port}/ HTTP/1.1\r\nHost: other.example\r\nX-Kept: 1\r\n"
        "Proxy-Authorization: Basic c2VjcmV0\r\nConnection: keep-alive, X-Dropped\r\n"
        "X-Dropped: 1\r\nUpgrade: h2c\r\n\r\n",
    )
    assert said.endswith("fine")
    [request] = peer.requests
    assert request.headers == {
        "host": f"{SITE}:{peer.port}",
        "x-kept": "1",
        "connection": "close",
    }


@pytest.mark.parametrize("through", ["", "-p"])
@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://other.example:8080/", "other.example does not lead to a public address"),
        ("http://127.0.0.1:8080/", "127.0.0.1 is not a public address"),
        ("http://10.0.0.1/", "10.0.0.1 is not a public address"),
        ("http://169.254.169.254/latest/meta-data/", "169.254.169.254 is a metadata address"),
        ("http://[::1]:8080/", "::1 is not a public address"),
        ("http://8.8.8.8:25/", "port 25 is not open to sandboxes"),
    ],
)
async def test_the_door_holds(
    sandbox: Sandbox, peer: Peer, through: str, url: str, why: str
) -> None:
    said = await _said(sandbox, f"curl -sSv {through} --noproxy '' --globoff {url} 2>&1")
    assert "HTTP/1.1 403 Forbidden" in said
    assert through or why in said
    assert peer.connections == 0


@pytest.mark.parametrize(
    "request_",
    [
        "x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: site.example\r\n\r\n",
        "CONNECT site.example HTTP/1.1\r\nHost: site.example\r\n\r\n",
        "CONNECT user@site.example:443 HTTP/1.1\r\nHost: site.example\r\n\r\n",
        "GET http://a\r\nb/ HTTP/1.1\r\n\r\n",
        "GET http://0x7f.1/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET https://site.example/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "CONNECT 0x7f.1:443 HTTP/1.1\r\nHost: a\r\n\r\n",
        f"GET http://site.example/ HTTP/1.1\r\nHost: a\r\nX: {'x' * 40_000}\r\n\r\n",
    ],
)
async def test_what_is_no_request_to_a_proxy_is_turned_away(
    sandbox: Sandbox, peer: Peer, request_: str
) -> None:
    said = await _asked(sandbox, request_)
    assert said.startswith(("HTTP/1.1 400 Bad Request\r\n", "HTTP/1.1 403 Forbidden\r\n"))
    assert peer.connections == 0


async def test_a_host_that_does_not_answer_is_502(tmp_path: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        outbound = Outbound([f"sandbox={SITE}:{port}"], resolve=_everywhere_here)
        made = Sandboxes(tmp_path, SMALL, connect=partial(outbound.connect, "sandbox"))
        try:
            said = await _said(await made.open("a"), f"curl -sSi http://{SITE}:{port}/")
        finally:
            await made.close_all()
    assert said.startswith("HTTP/1.1 502 Bad Gateway")
    assert said.endswith(f"{SITE} does not answer\n")


async def test_past_the_proxy_there_is_nothing(sandbox: Sandbox, peer: Peer) -> None:
    peer.routes["/"] = plain(body="reached")
    said = await _said(
        sandbox,
        f"curl -sS --noproxy '*' -m 5 http://127.0.0.1:{peer.port}/ 2>&1;"
        " getent hosts localhost.example; tail -n +3 /proc/net/dev | cut -d: -f1",
    )
    assert "reached" not in said
    assert said.split()[-1] == "lo"
    assert peer.connections == 0


async def test_so_many_connections_and_no_more(
    sandbox: Sandbox, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(egress, "CONNECTIONS_MAX", 2)
    code = (
        "import socket\n"
        "held = [socket.create_connection(('127.0.0.1', 3128)) for _ in range(3)]\n"
        "print(held[2].recv(99).split()[1].decode())\n"
    )
    assert await _said(sandbox, f'python3 -c "{code}"') == "503\n"
    peer.routes["/"] = plain(body="free again")
    async with asyncio.timeout(20):
        while await _said(sandbox, f"curl -s http://{SITE}:{peer.port}/") != "free again":
            pass


@asynccontextmanager
async def _tunnel(sandbox: Sandbox) -> AsyncIterator[asyncio.Event]:
    """A tunnel through which nothing comes; set when its other end learns of its end."""
    begun, ended = asyncio.Event(), asyncio.Event()

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        begun.set()
        await reader.read()
        ended.set()
        writer.close()

    async with await asyncio.start_server(hold, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        await sandbox.shell("a", f"curl -sSp http://{SITE}:{port}/", timeout_s=0)
        async with asyncio.timeout(20):
            await begun.wait()
            yield ended
            await ended.wait()


async def test_a_tunnel_ends_with_its_sandbox(sandbox: Sandbox) -> None:
    async with _tunnel(sandbox) as ended:
        assert not ended.is_set()
        await sandbox.end("closed")


async def test_a_tunnel_that_carries_nothing_ends(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(egress, "IDLE_S", 0.5)
    async with _tunnel(sandbox):
        assert (await sandbox.wait_shell("a")).exit_code == 52, "curl: empty reply"


async def test_programs_are_told_of_it(sandbox: Sandbox) -> None:
    names = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "no_proxy")
    code = f"import os, json; print(json.dumps([os.environ[name] for name in {names}]))"
    proxy = "http://127.0.0.1:3128"
    assert json.loads(await _said(sandbox, f'python3 -c "{code}"')) == [
        *(proxy,) * 4,
        "localhost,127.0.0.1,::1",
    ]

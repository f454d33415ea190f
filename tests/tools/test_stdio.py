"""Servers over stdio: which are started, what they are given, how they end (security 39, 42)."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from gateways.errors import McpError, McpRefused
from gateways.mcp import McpClient
from gateways.mcp_stdio import Allowed, Command, Stdio, read_commands
from gateways.outbound import Outbound
from tests.tools.servers import SERVER

ARGV = (sys.executable, str(SERVER), "stdio")
CANARY = "canary-5d01c9aa"


@pytest.fixture
def client(outbound: Outbound) -> McpClient:
    allowed = Allowed(ARGV[:2], frozenset({"TOKEN"}), more=True)
    return McpClient(outbound, stdio=Stdio([allowed]), list_s=60, call_s=60)


async def ended(process: int) -> bool:
    """Whether a process is gone, or only its exit code is left, within ten seconds."""
    for _ in range(500):
        try:
            state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        await asyncio.sleep(0.02)
    return False


async def test_lists_and_calls(client: McpClient) -> None:
    command = Command(ARGV)
    assert "add" in [tool.name for tool in await client.tools(command)]
    assert (await client.call(command, "add", {"a": 1, "b": 2})).structured == {"result": 3}
    assert (await client.call(command, "echo", {"text": "你好\n\u2028"})).text == "你好\n\u2028"
    assert (await client.call(command, "fail", {"reason": "out of tea"})).failed
    assert len((await client.call(command, "huge", {"size": 500_000})).text) == 500_000


async def test_nothing_of_the_servers_own_environment_is_passed_on(
    client: McpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRETS_KEY", CANARY)
    monkeypatch.setenv("PYTHONPATH", CANARY)
    told = await client.call(Command(ARGV, {"TOKEN": "its own"}), "environment", {})
    assert told.structured is not None
    assert set(told.structured) == {"PATH", "HOME", "TMPDIR", "LANG", "TOKEN"}
    assert told.structured["TOKEN"] == "its own"
    assert CANARY not in repr(told)
    assert not Path(told.structured["HOME"]).exists()


async def test_it_is_limited(client: McpClient) -> None:
    pipes = [descriptor for _ in range(16) for descriptor in os.pipe()]
    try:
        for descriptor in pipes:
            os.set_inheritable(descriptor, True)
        told = (await client.call(Command(ARGV), "limits", {})).structured
    finally:
        for descriptor in pipes:
            os.close(descriptor)
    assert told is not None
    assert (told["files"], told["core"]) == (1024, 0)
    assert told["descriptors"] < 16, "nothing that is open here is open there"


async def test_what_it_started_ends_with_it(client: McpClient) -> None:
    """Also what has left its parent, its group and its session."""
    told = (await client.call(Command(ARGV), "leave", {})).structured
    assert told is not None
    assert await ended(told["result"])


async def test_cancelling_ends_it(client: McpClient, tmp_path: Path) -> None:
    before = set(children())
    call = asyncio.create_task(client.call(Command(ARGV), "wait", {"seconds": 300}))
    started = set[int]()
    for _ in range(1000):
        await asyncio.sleep(0.02)
        if started := set(children()) - before:
            break
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    for process in started:
        assert await ended(process)


def children() -> list[int]:
    here = Path(f"/proc/{os.getpid()}/task")
    return [
        int(process)
        for task in here.iterdir()
        for process in (task / "children").read_text().split()
    ]


@pytest.mark.parametrize("tool", ["die", "huge"])
async def test_one_that_breaks_the_protocol_is_an_error(client: McpClient, tool: str) -> None:
    arguments = {"size": 6_000_000} if tool == "huge" else {}
    with pytest.raises(McpError):
        await client.call(Command(ARGV), tool, arguments)


async def test_a_slow_one_is_given_up(outbound: Outbound) -> None:
    client = McpClient(outbound, stdio=Stdio([Allowed(ARGV)]), call_s=5)
    with pytest.raises(McpError, match="no answer within 5 s"):
        await client.call(Command(ARGV), "wait", {"seconds": 300})


@pytest.mark.parametrize(
    "command",
    [
        Command((sys.executable, "-c", "print(1)")),
        Command((sys.executable, str(SERVER))),
        Command((sys.executable, str(SERVER), "stdio", "more")),
        Command(("python3", str(SERVER), "stdio")),
        Command(ARGV, {"LD_PRELOAD": "/tmp/x.so"}),
        Command(ARGV, {"TOKEN": "x", "PATH": "/tmp"}),
        Command(()),
    ],
    ids=repr,
)
async def test_what_is_not_listed_is_not_started(outbound: Outbound, command: Command) -> None:
    before = set(children())
    listed = Stdio([Allowed(ARGV, frozenset({"TOKEN"}))])
    for stdio in (listed, None):
        with pytest.raises(McpRefused, match="not allowed by the operator"):
            await McpClient(outbound, stdio=stdio).tools(command)
    assert set(children()) == before


async def test_a_command_that_is_not_there_is_an_error(outbound: Outbound) -> None:
    argv = ("/nowhere/mcp-server",)
    with pytest.raises(McpError):
        await McpClient(outbound, stdio=Stdio([Allowed(argv)])).tools(Command(argv))


def test_how_an_operator_lists_commands() -> None:
    assert read_commands("") == ()
    assert read_commands(" mcp-server-time ") == (Allowed(("mcp-server-time",)),)
    assert read_commands("A= B_2= npx -y '@x/server, files' *, /bin/a") == (
        Allowed(("npx", "-y", "@x/server, files"), frozenset({"A", "B_2"}), more=True),
        Allowed(("/bin/a",)),
    )
    for wrong in ("A=", "*", "a 'b"):
        with pytest.raises(ValueError, match=r"command|quot"):
            read_commands(wrong)


@pytest.mark.parametrize(
    ("listed", "argv", "allowed"),
    [
        ("a", ("a",), True),
        ("a", ("a", "x"), False),
        ("a *", ("a",), True),
        ("a *", ("a", "x", "y"), True),
        ("a *", ("/usr/bin/a",), False),
        ("a -m s *", ("a", "-c", "s"), False),
        ("a -m s *", ("a", "-m"), False),
        ("a '*'", ("a", "*"), True),
    ],
)
def test_what_a_listed_command_allows(listed: str, argv: tuple[str, ...], allowed: bool) -> None:
    [one] = read_commands(listed)
    assert one.allows(Command(argv)) is allowed

"""(i) From nothing to the first command in a sandbox, by itself and through a chat."""

import asyncio
import json
import tempfile
import time
from pathlib import Path

from gateways.sandbox.sandboxes import Sandbox, Sandboxes
from scripts.benchmarks.load import ask, request
from scripts.benchmarks.processes import Process, quartet
from scripts.benchmarks.sessions import API, QUICK, register
from scripts.benchmarks.sse import listen
from scripts.benchmarks.streams import quantile
from scripts.benchmarks.tables import Table

STARTS = 30
OPENED = "`Sandboxes.open` → first command done"
FURTHER = "a further command → done"
DISPLAY = "first viewer of the screen → it speaks RFB"
CHAT = "first chat of a session → its command done"
ENDED = "first chat of a session → its end"
FURTHER_CHAT = "second chat of it → its command done"
RFB = b"RFB 003.008\n"
COMMAND, OUTPUT = "echo ready", "ready\n"
NEXT = "echo $((6 * 7))", "42\n"
SETTINGS = {
    **QUICK,
    "CHAT_RATE": "1000000/minute",
    "WRITE_RATE": "1000000/minute",
    "DEFAULT_PROVIDER": "embedded/script",
}
CALL = {"call": "shell_execute", "args": {"command": COMMAND}}
STEP = "script:" + json.dumps([CALL, {"say": "Done."}])
PLAN = {"title": "", "message": "", "closing": "All is done.", "steps": [{"description": STEP}]}
MESSAGE = "script:" + json.dumps([{"json": PLAN}])
CALLED = b'"output":' + json.dumps(OUTPUT).encode()
"""What a chat tells of the command once it has ended."""
Taken = dict[str, list[float]]
"""Seconds by what took them."""


async def _alone(root: Path) -> Taken:
    taken: Taken = {name: [] for name in (OPENED, FURTHER, DISPLAY)}
    sandboxes = Sandboxes(root)
    try:
        for number in range(STARTS + 1):
            session = f"session-{number}"
            begun = time.perf_counter()
            sandbox = await sandboxes.open(session)
            first = await sandbox.shell("main", COMMAND)
            ready = time.perf_counter()
            again = await sandbox.shell("main", NEXT[0])
            repeated = time.perf_counter()
            for result, output in ((first, OUTPUT), (again, NEXT[1])):
                if (result.output, result.exit_code) != (output, 0):
                    raise RuntimeError(f"the command gave {result}")
            if number:  # the first warms up
                taken[OPENED].append(ready - begun)
                taken[FURTHER].append(repeated - ready)
                taken[DISPLAY].append(await _displayed(sandbox))
            await sandboxes.close(session)
    finally:
        await sandboxes.close_all()
    return taken


async def _displayed(sandbox: Sandbox) -> float:
    """Seconds until its screen speaks RFB."""
    begun = time.perf_counter()
    reader, writer = await sandbox.display()
    async with asyncio.timeout(20):
        spoken = await reader.readexactly(len(RFB))
    taken = time.perf_counter() - begun
    writer.close()
    if spoken != RFB:
        raise RuntimeError(f"the display says {spoken!r}")
    return taken


async def _through(server: Process) -> Taken:
    """Chats whose plan runs the command; two in each session."""
    taken: Taken = {name: [] for name in (CHAT, FURTHER_CHAT, ENDED)}
    who = await register(server.port)
    for number in range(STARTS + 1):
        session = await who.create(server.port)
        path = f"{API}/sessions/{session}"
        asking = request("POST", f"{path}/chat", token=who.token, body={"message": MESSAGE})
        for name in (CHAT, FURTHER_CHAT):
            listener = await listen(server.port, asking)
            called = await listener.heard(CALLED, since=0.0)
            ended = await listener.heard(b"event: done", since=called)
            listener.close()
            if number:
                taken[name].append(called - listener.sent_at)
                if name == CHAT:
                    taken[ENDED].append(ended - listener.sent_at)
        await ask(server.port, request("POST", f"{path}/delete", token=who.token, body={}))
    return taken


def run() -> list[Table]:
    """The table of bench (i)."""
    table = Table(
        "(i) Start of a sandbox",
        ["from → to", "p50, ms", f"p99, the highest of {STARTS}"],
        note=f"{STARTS} one after another, each in a new session whose sandbox is gone before the "
        f"next; the command is `{COMMAND}` in a shell. Chats are `POST {API}/sessions/…/chat` of "
        "`embedded/script` over SQLite: a plan of one step that runs the command.",
    )
    with tempfile.TemporaryDirectory() as folder:
        taken = asyncio.run(_alone(Path(folder) / "workspaces"))
        with quartet(Path(folder) / "data", settings=SETTINGS) as server:
            taken |= asyncio.run(_through(server))
    for name, values in taken.items():
        table.rows.append([name, f"{quantile(values, 0.5):.1f}", f"{max(values) * 1e3:.1f}"])
    return [table]

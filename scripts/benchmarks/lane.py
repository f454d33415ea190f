"""(a) In process: CPU per request of the lane and its peers on the same 400 routes."""

import asyncio
import gc
import statistics
import time
from typing import Any

from scripts.benchmarks.catalogue import APIS, BODY, LIST_LENGTH, TOKEN, resources
from scripts.benchmarks.comparators import APPS
from scripts.benchmarks.tables import Table, ratios, spread

ROUNDS = 7
PER_ROUND = 600


def requests() -> dict[str, dict[str, Any]]:
    """GET one, list 50 (15 KB) and POST, each on the last route of the last API."""
    last = resources(APIS[-1])[-1]
    return {
        "GET": {"method": "GET", "path": f"/{APIS[-1]}/api/{last}/42"},
        "list": {
            "method": "GET",
            "path": f"/{APIS[-1]}/api/{last}",
            "query_string": b"limit=%d" % LIST_LENGTH,
        },
        "POST": {"method": "POST", "path": f"/{APIS[-1]}/api/{last}", "body": BODY},
    }


async def one(app: Any, request: dict[str, Any]) -> tuple[int, bytes]:
    """One request through an ASGI application: its status and body."""
    body = request.get("body", b"")
    headers = [
        (b"host", b"127.0.0.1"),
        (b"user-agent", b"bench"),
        (b"accept", b"*/*"),
        (b"authorization", b"Bearer " + TOKEN.encode()),
    ]
    if body:
        headers += [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
        ]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": request["method"],
        "scheme": "http",
        "path": request["path"],
        "raw_path": request["path"].encode(),
        "query_string": request.get("query_string", b""),
        "root_path": "",
        "headers": headers,
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8000),
        "state": {},
    }
    status = 0
    chunks = []
    given = False

    async def receive() -> Any:
        nonlocal given
        if given:
            await asyncio.sleep(3600)
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        else:
            chunks.append(message.get("body", b""))

    await app(scope, receive, send)
    return status, b"".join(chunks)


async def measure() -> dict[str, dict[str, list[float]]]:
    """CPU microseconds per request: app → request → one figure per round, rounds interleaved."""
    apps = {name: make() for name, make in APPS.items()}
    asked = requests()
    for app_name, app in apps.items():
        for name, request in asked.items():
            status, body = await one(app, request)
            if status != 200 or not body:
                raise RuntimeError(f"{app_name} answered {status} to {name}: {body[:200]!r}")
            for _ in range(50):
                await one(app, request)
    gc.collect()
    gc.freeze()
    figures: dict[str, dict[str, list[float]]] = {a: {r: [] for r in asked} for a in apps}
    for _ in range(ROUNDS):
        for name, request in asked.items():
            for app_name, app in apps.items():
                begun = time.process_time()
                for _ in range(PER_ROUND):
                    await one(app, request)
                spent = time.process_time() - begun
                figures[app_name][name].append(spent / PER_ROUND * 1e6)
    return figures


def run() -> list[Table]:
    """The table of bench (a)."""
    figures = asyncio.run(measure())
    table = Table(
        "(a) In process, 400 routes, authenticated: CPU µs per request",
        ["server", "GET", "list of 50", "POST", "× lane GET", "× lane list", "× lane POST"],
        note=f"Median of {ROUNDS} interleaved rounds of {PER_ROUND} requests; × is the median of "
        "per-round ratios, lowest–highest.",
    )
    for name, by_request in figures.items():
        row = [name, *(f"{statistics.median(values):.0f}" for values in by_request.values())]
        row += [spread(ratios(v, figures["lane"][r])) for r, v in by_request.items()]
        table.rows.append(row)
    for request in ("GET", "list", "POST"):
        for peer, at_least in (("FastAPI", 8), ("Litestar", 1)):
            ratio = statistics.median(ratios(figures[peer][request], figures["lane"][request]))
            table.claim(f"{peer} / lane, {request}", ratio, at_least=at_least)
    return [table]

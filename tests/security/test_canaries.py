"""Secrets that go in come out nowhere: line 53."""

import base64
import logging
from pathlib import Path
from unittest import mock

from tests.gateways.peer import Peer, Request
from tests.security import asgi
from tests.security.place import OPERATIONS, Place, fresh_address, opened, path_of, unique
from tests.security.web_defences import Logged, logged

CANARIES = {
    name: f"canary-{name}-5cH9xQ2v"
    for name in (
        *("provider", "moved", "request", "password", "new", "guess", "smtp", "search"),
        *("mcp-url", "mcp-key", "mcp-header"),
    )
} | {"metrics": "canary-metrics-5cH9xQ2v"}


def holds(text: bytes) -> list[str]:
    """The canaries in some bytes, plain or as base64."""
    found = []
    for name, canary in CANARIES.items():
        coded = base64.b64encode(canary.encode()).rstrip(b"=")[:-2]
        if canary.encode() in text or coded in text:
            found.append(name)
    return found


async def quoting(request: Request, writer: object) -> None:
    """A model's server that quotes the key it refuses."""
    told = f'{{"error":{{"message":"bad key {request.headers.get("authorization")}"}}}}'.encode()
    writer.write(  # type: ignore[attr-defined]
        b"HTTP/1.1 401 X\r\ncontent-type: application/json\r\nconnection: close\r\n"
        b"content-length: %d\r\n\r\n%b" % (len(told), told)
    )


def test_a_canary_is_found() -> None:
    canary = CANARIES["provider"]
    assert holds(f"x{canary}y".encode()) == ["provider"]
    assert holds(base64.b64encode(canary.encode())) == ["provider"]
    assert holds(b"canary") == []


async def use_every_secret(place: Place, model_url: str) -> list[asgi.Reply]:
    """Write each canary by every operation that takes one, twice under one Idempotency-Key."""
    owner, replies = place.owner, []

    async def twice(account: object, method: str, path: str, body: object) -> asgi.Reply:
        headers = {"idempotency-key": unique("key")}
        for _ in range(2):
            reply = await account.ask(method, path, body, headers=headers)  # type: ignore[attr-defined]
            replies.append(reply)
        return replies[-2]

    provider = {"base_url": model_url, "api_keys": [CANARIES["provider"]], "model": "m"}
    made = await twice(owner, "POST", "/api/llm-provider/create", provider)
    provider_id = made.data["provider_id"]
    moved = {"api_keys": [CANARIES["moved"]], "model": "n"}
    await twice(owner, "PUT", f"/api/llm-provider/update/{provider_id}", moved)
    for probe in ("verify", "verify-capabilities", "verify-multimodal"):
        await twice(owner, "POST", f"/api/llm-provider/{probe}", provider)
    for config in (
        {"base_url": model_url, "api_key": CANARIES["request"], "model": "m"},
        {"provider_id": provider_id},
        {"api_key": CANARIES["request"]},
        {"base_url": model_url, "api_key": CANARIES["request"], "model": 7},
    ):
        said = {"messages": [{"role": "user", "content": "hello"}], "llm_model_config": config}
        for path in ("/api/web-stream", "/api/stream"):
            await twice(owner, "POST", path, {**said, "session_id": unique("canary")})
    origin = model_url.removesuffix("/v1")
    for server in (
        {"url": f"{origin}/mcp?key={CANARIES['mcp-url']}", "api_key": CANARIES["mcp-key"]},
        {"url": f"{origin}/mcp", "headers": {"x-api-key": CANARIES["mcp-header"]}},
        {"url": f"{origin}/mcp", "headers": {"x y": CANARIES["mcp-header"]}},
        {"sse_url": f"{origin}/mcp#{CANARIES['mcp-url']}"},
        {"sse_url": f"{origin}/mcp", "api_key": f"{CANARIES['mcp-key']}\n"},
        {"url": f"{origin}/mcp", "headers": {"x-api-key": [CANARIES["mcp-header"]]}},
    ):
        body = {
            "messages": [{"role": "user", "content": "hello"}],
            "llm_model_config": {"model": "embedded/script"},
            "extra_mcp_config": {"docs": server},
        }
        await twice(owner, "POST", "/api/stream", {**body, "session_id": unique("canary")})
    account = {"username": unique("user"), "password": CANARIES["password"]}
    await twice(place.admin, "POST", "/api/user/add", account)
    for password in (CANARIES["password"], CANARIES["guess"]):
        body = {"username_or_email": account["username"], "password": password}
        reply = await place.ask("POST", "/api/auth/login", body=body, peer=fresh_address())
        replies.append(reply)
        if reply.status == 200:
            headers = {"authorization": f"Bearer {reply.data['access_token']}"}
            change = {"old_password": CANARIES["guess"], "new_password": CANARIES["new"]}
            for old in (CANARIES["guess"], CANARIES["password"]):
                change["old_password"] = old
                replies.append(
                    await place.ask(
                        "POST", "/api/user/change-password", body=change, headers=headers
                    )
                )
    return replies


async def read_everything(place: Place) -> list[asgi.Reply]:
    replies = []
    for operation in OPERATIONS:
        if operation.method == "GET":
            path = path_of(operation, **{"agent_id": place.agent, "session_id": place.session})
            for account in (place.owner, place.admin):
                replies.append(await account.ask("GET", path))
    for path in ("/", "/metrics", "/ready", "/sage/openapi.json", "/sage/docs"):
        headers = {"authorization": "Bearer wrong"}
        replies.append(await asgi.ask(place.application, "GET", path, headers=headers))
    listed = await place.owner.ask("GET", "/api/conversations?page_size=100")
    for one in listed.data["list"]:
        path = f"/api/conversations/{one['session_id']}/messages"
        replies.append(await place.owner.ask("GET", path))
        replies.append(await place.owner.ask("GET", f"/api/stream/resume/{one['session_id']}"))
    return replies


async def test_no_secret_comes_out(tmp_path: Path) -> None:
    peer = await Peer().start()
    peer.routes["/v1/chat/completions"] = quoting
    peer.routes["/mcp"] = peer.routes[f"/mcp?key={CANARIES['mcp-url']}"] = quoting
    data = tmp_path / "data"
    secrets = {
        "smtp_password": CANARIES["smtp"],
        "web_search_key": CANARIES["search"],
        "metrics_token": CANARIES["metrics"],
    }
    caught = Logged()
    try:
        async with opened(data, outbound_allow=("127.0.0.1",), **secrets) as place:
            caught = logged(place)
            logging.getLogger().setLevel("DEBUG")
            await place.populate()
            replies = await use_every_secret(place, f"{peer.url}/v1")
            sent = repr([(request.target, request.headers) for request in peer.requests])
            assert all(CANARIES[name] in sent for name in ("mcp-url", "mcp-key", "mcp-header"))
            with mock.patch.object(
                place.quartet.providers, "visible", side_effect=RuntimeError(CANARIES["request"])
            ):
                replies.append(await place.owner.ask("GET", "/api/llm-provider/list"))
            replies += await read_everything(place)
    finally:
        logging.getLogger().removeHandler(caught)
        logging.getLogger().setLevel("WARNING")
        await peer.stop()
    for reply in replies:
        assert holds(reply.body) == [], reply.body
        assert holds(repr(reply.headers).encode()) == []
    assert len(replies) > 60
    told = [line for line in caught.lines if "RuntimeError" not in line]
    assert holds("\n".join(told).encode()) == []
    files = [file for file in data.rglob("*") if file.is_file()]
    assert {"quartet.sqlite", "jobs.sqlite"} <= {file.name for file in files}
    for file in files:
        assert holds(file.read_bytes()) == [], file.name


async def test_a_secret_at_rest_is_not_guessed_from_a_fingerprint(tmp_path: Path) -> None:
    """A plain digest of a request that holds a password would let whoever reads the rows try
    passwords at the speed of SHA-256, past argon2."""
    import hashlib
    import json

    async with opened(tmp_path / "data") as place:
        await place.populate()
        body = {"username": unique("user"), "password": "password-to-guess"}
        headers = {"idempotency-key": "one", "content-type": "application/json"}
        sent = json.dumps(body).encode()
        assert (await place.admin.ask("POST", "/api/user/add", sent, headers=headers)).status == 200
    total = hashlib.sha256()
    for part in (b"POST", b"/sage/api/user/add", b"", sent):
        total.update(b"%d:" % len(part))
        total.update(part)
    rows = b"".join(file.read_bytes() for file in (tmp_path / "data").glob("quartet.sqlite*"))
    assert total.hexdigest().encode() not in rows
    assert b"/sage/api/user/add" in rows

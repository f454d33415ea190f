"""What nobody is shown: attacks on stored secrets and on errors (checklist 53 to 57)."""

import hashlib
import sys
from typing import Any
from unittest import mock

import msgspec

from gateways.errors import GatewayError, WrongKey
from gateways.secretbox import SecretBox, load_keys
from server.signing import signing_key
from tests.security.defences import without
from tests.security.place import Place, unique


@without(53, mask={"handlers.sage.llm_provider:masked": lambda row: ["sk-canary-key-0123456789"]})
async def a_stored_key_is_shown_masked(place: Place) -> None:
    key = "sk-canary-key-0123456789"
    body = {"base_url": "https://8.8.4.4/v1", "api_keys": [key], "model": unique("m")}
    await place.owner.ask("POST", "/api/llm-provider/create", body)
    for account in (place.owner, place.admin):
        shown = await account.ask("GET", "/api/llm-provider/list")
        assert key.encode() not in shown.body
        assert b"****6789" in shown.body


@without(54, seal={"gateways.secretbox:SecretBox.seal": lambda self, plaintext, context: plaintext})
async def a_key_lies_sealed(place: Place) -> None:
    key = unique("sk-sealed-canary")
    body = {"base_url": "https://8.8.4.4/v1", "api_keys": [key], "model": unique("m")}
    made = await place.owner.ask("POST", "/api/llm-provider/create", body)
    row = await place.quartet.providers._providers.get(made.data["provider_id"])
    assert key not in repr(msgspec.structs.asdict(row))
    box = place.quartet.providers._box
    assert box.open(row.api_key_sealed, f"provider:{row.id}") == key


@without(54, erasure={"domain.runs.ending:without_secrets": lambda request: request})
async def a_key_that_came_along_goes_with_its_run(place: Place) -> None:
    config = {"docs": {"url": "https://8.8.4.4/mcp", "api_key": "sk-brought", "disabled": False}}
    said = {"messages": [{"role": "user", "content": "hi"}], "extra_mcp_config": config}
    with mock.patch("domain.turn.mcp_tools.brought", _no_servers):
        async with place.stream(place.owner, "POST", "/api/web-stream", body=said) as stream:
            headers = {name.lower(): value for name, value in stream.headers}
            await stream.rest()
    run = await place.quartet.runs._store.get(headers[b"x-run-id"].decode())
    assert run.ended_at is not None
    assert "_sealed" not in repr(run.request)


async def _no_servers(*_: object) -> tuple[dict[str, object], list[str]]:
    return {}, []


@without(
    54,
    check={
        "gateways.secretbox:SecretBox.check": lambda self, canary: None,
        "gateways.secretbox:SecretBox.open": lambda self, sealed, context: "0123456789abcdef" * 4,
    },
)
async def the_wrong_key_stops_the_start(place: Place) -> None:
    right = SecretBox(load_keys(place.data, environment={}))
    assert await signing_key(place.database, right)
    wrong = SecretBox([hashlib.sha256(b"another key").digest()])
    try:
        await signing_key(place.database, wrong)
    except WrongKey:
        return
    raise AssertionError("a key that opens nothing was taken")


@without(54, rotation={"gateways.secretbox:SecretBox.rotate": lambda self, sealed, context: sealed})
async def a_rotated_value_needs_the_old_key_no_more(place: Place) -> None:
    del place
    old, new = (hashlib.sha256(name).digest() for name in (b"old", b"new"))
    sealed = SecretBox([old]).seal("text", "context")
    rotated = SecretBox([new, old]).rotate(sealed, "context")
    try:
        assert SecretBox([new]).open(rotated, "context") == "text"
    except GatewayError as error:
        raise AssertionError("it is still under the old key") from error


def _telling(shape: Any, refusal: Any, language: str) -> bytes:
    return str(sys.exc_info()[1]).encode()


@without(57, rendering={"server.lane.operation:render_refusal": _telling})
async def a_fault_says_its_id_and_nothing_else(place: Place) -> None:
    told = 'SELECT * FROM users; File "/work/server.py", line 3'
    with mock.patch.object(place.quartet.users, "get_config", side_effect=RuntimeError(told)):
        reply = await place.owner.ask(
            "GET", "/api/user/config", headers={"x-request-id": "my-request-1"}
        )
    assert reply.http == 500
    assert reply.headers["x-request-id"] == "my-request-1"
    for word in (b"SELECT", b"File", b".py", b"RuntimeError", b"Traceback"):
        assert word not in reply.body

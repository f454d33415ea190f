"""Idempotency-Key over the shop contract, on a real database."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from domain.errors import Conflict
from server.lane.idempotency import Idempotency
from storage.database import Database
from storage.idempotency import IdempotencyStore
from tests.lane import shop
from tests.lane.conftest import application, contract, routes

ITEM = {"name": "pen", "price": 1}


@pytest.fixture
async def keyed(database: Database) -> AsyncIterator[httpx.AsyncClient]:
    store = IdempotencyStore(
        database, seal=lambda b: b[::-1].decode(), unseal=lambda s: s.encode()[::-1]
    )

    async def slow_create(caller: Any, body: Any) -> Any:
        if body.name == "slow":
            await asyncio.sleep(0.3)
        if body.name == "taken":
            raise Conflict("user.exists")
        if body.name == "broken":
            shop.created.append({})
            raise RuntimeError("fault")
        return await shop.item_create(caller, body)

    made = contract(
        idempotency=Idempotency(store, b"secret"),
        routes=routes(HANDLERS={**shop.HANDLERS, "item_create": slow_create}),
    )
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=application(made)),
        base_url="http://shop.test:8000",
        headers={"authorization": "Bearer alice"},
    ) as client:
        yield client


async def post(client: httpx.AsyncClient, key: str, item: Any = ITEM, who: str = "alice") -> Any:
    headers = {"idempotency-key": key, "authorization": f"Bearer {who}"}
    return await client.post("/sage/items", json=item, headers=headers)


async def test_repeated_request_acts_once_and_answers_alike(keyed: httpx.AsyncClient) -> None:
    before = len(shop.created)
    first, second = await post(keyed, "k1"), await post(keyed, "k1")
    assert len(shop.created) == before + 1
    assert first.content == second.content
    assert "idempotency-replayed" not in first.headers
    assert second.headers["idempotency-replayed"] == "true"


async def test_a_refusal_is_answered_alike(keyed: httpx.AsyncClient) -> None:
    """To the byte: with the time of the first."""
    taken = {"name": "taken", "price": 1}
    first, second = await post(keyed, "k1r", taken), await post(keyed, "k1r", taken)
    assert first.status_code == second.status_code == 409
    assert first.content == second.content
    assert "idempotency-replayed" not in first.headers
    assert second.headers["idempotency-replayed"] == "true"


async def test_other_body_with_the_same_key_is_409(keyed: httpx.AsyncClient) -> None:
    await post(keyed, "k2")
    before = len(shop.created)
    assert (await post(keyed, "k2", {"name": "other", "price": 2})).status_code == 409
    assert len(shop.created) == before


async def test_keys_belong_to_their_user(keyed: httpx.AsyncClient) -> None:
    before = len(shop.created)
    await post(keyed, "k3")
    await post(keyed, "k3", who="root")
    assert len(shop.created) == before + 2


async def test_twenty_at_once_act_once(keyed: httpx.AsyncClient) -> None:
    before = len(shop.created)
    item = {"name": "slow", "price": 1}
    answers = await asyncio.gather(*(post(keyed, "k4", item) for _ in range(20)))
    assert {a.status_code for a in answers} == {200}
    assert len({a.content for a in answers}) == 1
    assert len(shop.created) == before + 1


async def test_a_fault_is_not_kept(keyed: httpx.AsyncClient) -> None:
    before = len(shop.created)
    broken = {"name": "broken", "price": 1}
    assert (await post(keyed, "k5", broken)).status_code == 500
    assert (await post(keyed, "k5", broken)).status_code == 500
    assert len(shop.created) == before + 2


async def test_key_must_be_visible_ascii(keyed: httpx.AsyncClient) -> None:
    before = len(shop.created)
    for key in ("a b", "", "x" * 256):
        assert (await post(keyed, key)).status_code == 400
    assert len(shop.created) == before

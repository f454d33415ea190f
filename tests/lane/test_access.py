"""Who may call: bearer, cookie, proxy; roles; another site's pages."""

import httpx
import pytest

from tests.lane.conftest import application, contract

BARE = {"authorization": ""}


async def test_no_credential_is_401_before_the_body_is_read(client: httpx.AsyncClient) -> None:
    answer = await client.post(
        "/sage/items", content=b"\xff" * 5000, headers={**BARE, "content-type": "text/x"}
    )
    assert answer.status_code == 401
    assert answer.json()["message"] == "未登录"
    assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("token", ["Bearer nobody", "Basic YTpi", "Bearer ", "bearer"])
async def test_unknown_credential_is_401(client: httpx.AsyncClient, token: str) -> None:
    answer = await client.get("/sage/items", headers={"authorization": token})
    assert answer.status_code == 401


async def test_banned_account_is_403(client: httpx.AsyncClient) -> None:
    answer = await client.get("/sage/items", headers={"authorization": "Bearer banned"})
    assert answer.status_code == 403


async def test_roles(client: httpx.AsyncClient) -> None:
    def as_(name: str) -> dict[str, str]:
        return {"authorization": f"Bearer {name}"}

    assert (await client.delete("/sage/items/1")).status_code == 403
    assert (await client.delete("/sage/items/1", headers=as_("root"))).status_code == 200
    item = {"name": "a", "price": 1}
    assert (await client.post("/sage/items", json=item, headers=as_("vera"))).status_code == 403
    assert (await client.get("/sage/items", headers=as_("vera"))).status_code == 200
    assert (await client.post("/sage/search", json={}, headers=as_("vera"))).status_code == 200


async def test_public_operation_knows_its_caller_if_there_is_one(
    client: httpx.AsyncClient,
) -> None:
    assert (await client.get("/sage/whoami")).json()["data"]["id"] == "alice"
    assert (await client.get("/sage/whoami", headers=BARE)).json()["data"]["id"] == ""
    bad = await client.get("/sage/whoami", headers={"authorization": "Bearer x"})
    assert bad.json()["data"]["id"] == ""


async def test_cookie_serves_and_an_invalid_bearer_falls_back_to_it(
    client: httpx.AsyncClient,
) -> None:
    for authorization in ("", "Bearer nobody"):
        answer = await client.get(
            "/sage/items", headers={"authorization": authorization, "cookie": "sage_session=s-root"}
        )
        assert answer.json()["data"]["who"] == "root"
    wins = await client.get("/sage/items", headers={"cookie": "sage_session=s-root"})
    assert wins.json()["data"]["who"] == "alice"
    stale = await client.get("/sage/items", headers={**BARE, "cookie": "a=b; sage_session=gone"})
    assert stale.status_code == 401


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": "http://shop.test"}, 200),
        ({"sec-fetch-site": "same-origin", "origin": "http://shop.test"}, 200),
        ({"sec-fetch-site": "none"}, 200),
        ({"origin": "http://evil.test"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
    ],
)
async def test_cookie_writes_only_from_our_own_pages(
    client: httpx.AsyncClient, headers: dict[str, str], status: int
) -> None:
    cookie = {**BARE, "cookie": "sage_session=s-alice", **headers}
    item = {"name": "a", "price": 1}
    assert (await client.post("/sage/items", json=item, headers=cookie)).status_code == status
    assert (await client.get("/sage/items", headers=cookie)).status_code == 200
    bearer = {"authorization": "Bearer alice", **headers}
    assert (await client.post("/sage/items", json=item, headers=bearer)).status_code == 200


async def test_proxy_identity_only_from_a_trusted_peer() -> None:
    app = application(contract())
    for peer, status in (("10.1.2.3", 200), ("1.2.3.4", 401)):
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app, client=(peer, 1)),
            base_url="http://shop.test:8000",
            headers={"x-user": "zoe"},
        ) as made:
            answer = await made.get("/sage/items")
            assert answer.status_code == status
            if status == 200:
                assert answer.json()["data"]["who"] == "zoe"


async def test_forwarded_address_counts_only_behind_a_trusted_peer() -> None:
    app = application(contract())
    forwarded = {"x-forwarded-for": "9.9.9.9, 8.8.8.8, 10.0.0.7"}
    for peer, seen in (("10.1.2.3", "8.8.8.8"), ("1.2.3.4", "1.2.3.4")):
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app, client=(peer, 1)),
            base_url="http://shop.test:8000",
            headers=forwarded,
        ) as made:
            assert (await made.get("/sage/whoami")).json()["data"]["address"] == seen


async def test_rate_limit_answers_429_with_retry_after(client: httpx.AsyncClient) -> None:
    statuses = [(await client.post("/sage/login", json={})).status_code for _ in range(4)]
    assert statuses == [200, 200, 200, 429]
    refused = await client.post("/sage/login", json={})
    assert 1 <= int(refused.headers["retry-after"]) <= 60


async def test_session_cookie_is_set_and_cleared(client: httpx.AsyncClient) -> None:
    assert (await client.post("/sage/login", json={})).headers["set-cookie"] == "sage_session=s-1"
    cleared = await client.post("/sage/login", json={"out": True})
    assert cleared.headers["set-cookie"] == "sage_session="

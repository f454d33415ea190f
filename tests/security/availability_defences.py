"""That the server stays there for everybody (checklist 58 to 62)."""

import time
from unittest import mock

from domain.errors import DomainError
from domain.identity.clock import Clock
from domain.quota import Quota
from server.lane.rates import Rates
from storage.database import Unit
from tests.security import asgi
from tests.security.defences import answering, without
from tests.security.place import Place, unique


async def _unlimited(self: Rates, bucket: str, key: str) -> None:
    return None


@without(58, rate={"server.lane.rates:Rates.hit": _unlimited})
async def rates_are_limited_per_user(place: Place) -> None:
    del place
    rates = Rates({"chat": "2/minute"})
    for _ in range(2):
        await rates.hit("chat", "one")
    try:
        await rates.hit("chat", "one")
    except DomainError:
        await rates.hit("chat", "another")
        return
    raise AssertionError("the third of two was let through")


@without(58, network={"server.lane.operation:network": lambda address: address})
async def a_customer_of_ipv6_is_one_address(place: Place) -> None:
    keys_: list[str] = []

    async def hit(self: Rates, bucket: str, key: str) -> None:
        keys_.append(key)

    with mock.patch.object(Rates, "hit", hit):
        for peer in ("2001:db8:1:2::a", "2001:db8:1:2:ffff::b", "2001:db8:1:3::a"):
            body = {"username_or_email": unique("nobody"), "password": "wrong password"}
            await place.ask("POST", "/api/auth/login", body=body, peer=peer)
    assert keys_[0] == keys_[1] != keys_[2]


@without(58, streams={"server.lane.replies:Drain.is_full": lambda self, user_id: False})
async def an_account_follows_so_many_streams(place: Place) -> None:
    follower, path = await place.account("follower"), "/api/stream/active_sessions"
    with mock.patch.object(place.started.drain, "_per_user", 2):
        async with place.stream(follower, "GET", path) as one, place.stream(follower, "GET", path):
            assert one.status == 200
            third = await follower.ask("GET", path)
            assert third.http == 429
            assert int(third.headers["retry-after"]) > 0
            assert (await place.stranger.ask("GET", path)).http == 200
        assert (await follower.ask("GET", path)).http == 200


def _unheld(self: Quota, owner_id: str) -> Unit[None]:
    return
    yield


@without(58, storage={"domain.quota:Quota.hold": _unheld})
async def an_account_keeps_so_many_bytes(place: Place) -> None:
    keeper = await place.account("keeper")
    upload = asgi.form(("file", "a.txt", b"x" * 600))
    with mock.patch.object(place.quartet.files._quota, "_most", 1000):
        assert (await keeper.ask("POST", "/api/oss/upload", **upload)).http == 200
        assert (await keeper.ask("POST", "/api/oss/upload", **upload)).http == 413
        assert (await place.stranger.ask("POST", "/api/oss/upload", **upload)).http == 200


@without(61, clock={"domain.identity.clock:Clock.__call__": lambda self: time.time()})
async def a_clock_set_back_revives_nothing(place: Place) -> None:
    del place
    clock = Clock()
    now = clock()
    with mock.patch.object(time, "time", return_value=now - 86_400):
        assert clock() >= now


@without(62, token={"server.metrics:_allowed": lambda given, token: True})
async def metrics_with_a_token_are_for_its_bearer(place: Place) -> None:
    from server.metrics import metrics_page

    page = metrics_page({}, gauges={}, check=answering(None), token="right-token")
    for sent in ("", "Bearer wrong", "Basic right-token", "Bearer right-token-and-more"):
        reply = await asgi.ask(page, "GET", "/metrics", headers={"authorization": sent})
        assert reply.http == 401, sent
    sent = "Bearer right-token"
    assert (await asgi.ask(page, "GET", "/metrics", headers={"authorization": sent})).http == 200
    del place

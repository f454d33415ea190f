"""Logging in at a provider: whose login it is, how often it is good, and where it leads
(security 46, "OAuth" in "Real cases")."""

import re
from collections.abc import Mapping
from urllib.parse import parse_qs, urlsplit

import pytest

from contracts.client import Reply
from contracts.running import PROVIDER
from contracts.sage import World, unique

pytestmark = pytest.mark.own_server


def back(world: World, query: Mapping[str, str], cookie: str) -> Reply:
    return world.anonymous.call(
        "auth_finish_upstream",
        path={"provider_id": PROVIDER},
        query=query,
        headers={"cookie": cookie} if cookie else {},
    )


def failed(reply: Reply) -> bool:
    """Whether it leads to the login page with an error, and opens no session."""
    assert reply.status == 302
    assert "sage_session=" not in reply.headers["set-cookie"]
    where = urlsplit(reply.headers["location"])
    return (where.netloc, where.path) == ("", "/login") and bool(parse_qs(where.query)["error"])


def account_of(world: World, reply: Reply) -> str:
    """The id of the account whose session a callback opened."""
    found = re.search(r"sage_session=[^;]+", reply.headers["set-cookie"])
    assert found, reply
    session = world.anonymous.call("auth_get_session", headers={"cookie": found[0]})
    assert session.success, session
    user_id: str = session.data["user"]["userid"]
    return user_id


def test_a_login_opens_the_session_of_its_subject(world: World) -> None:
    somebody, other = unique("subject"), unique("subject")
    ids = []
    for subject in (somebody, somebody, other):
        where, cookie = world.begun()
        ids.append(account_of(world, back(world, world.agreed(where, subject), cookie)))
    assert ids[0] == ids[1]
    assert ids[1] != ids[2]


def test_what_the_provider_is_asked(world: World) -> None:
    where, cookie = world.begun()
    asked = {name: values[0] for name, values in parse_qs(urlsplit(where).query).items()}
    assert asked["response_type"] == "code"
    assert asked["redirect_uri"].endswith(f"/api/auth/upstream/callback/{PROVIDER}")
    assert "openid" in asked["scope"].split()
    assert asked["code_challenge_method"] == "S256"
    assert len({asked["state"], asked["nonce"], asked["code_challenge"], cookie}) == 4
    again, _ = world.begun()
    assert asked["state"] not in again


def test_a_state_is_good_once(world: World) -> None:
    where, cookie = world.begun()
    query = world.agreed(where)
    account_of(world, back(world, query, cookie))
    assert failed(back(world, query, cookie))


def test_a_state_is_its_browsers(world: World) -> None:
    where, cookie = world.begun()
    _, other = world.begun()
    query = world.agreed(where)
    for wrong in ("", other, "sage_upstream=", f"{cookie}x"):
        assert failed(back(world, query, wrong))
    for state in (unique("state"), query["state"][:-1]):
        assert failed(back(world, {**query, "state": state}, cookie))
    account_of(world, back(world, query, cookie))


def test_a_refusal_is_told(world: World) -> None:
    where, cookie = world.begun()
    state = world.agreed(where)["state"]
    assert failed(back(world, {"state": state, "error": "access_denied"}, cookie))


@pytest.mark.parametrize(
    "wanted",
    [
        "//evil.example",
        "/\\evil.example",
        "/%2F/evil.example",
        "https://evil.example/",
        "javascript:alert(1)",
        "/sage/docs/../../evil",
        "/sage/docs@evil.example",
        "/sage/docs\r\nset-cookie: x=y",
    ],
)
def test_it_leads_to_places_of_ours(wanted: str, world: World) -> None:
    for named, expected in ((wanted, "/"), ("/sage/docs", "/sage/docs")):
        where, cookie = world.begun(next=named)
        assert back(world, world.agreed(where), cookie).headers["location"] == expected


@pytest.mark.parametrize("wanted", ["https://evil.example/", "//evil.example", "/callback"])
def test_the_provider_sends_to_places_of_ours(wanted: str, world: World) -> None:
    refused = world.anonymous.call(
        "auth_begin_upstream", path={"provider_id": PROVIDER}, query={"redirect_uri": wanted}
    )
    assert refused.status == 400
    assert "location" not in refused.headers

"""Each defence, an attack that it stops, and what takes it away.

A check raises AssertionError when its attack succeeds. test_defences_matter.py runs it twice: as
the server stands, and with the defence taken away, where it has to raise. What is taken away is
patched here; the product has no switch for any of it.
"""

import contextlib
import csv
import hashlib
import json
import logging
import re
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import argon2
import jsonschema_rs
import jwt
import msgspec

from domain import arithmetic
from domain.agents import Agents
from domain.caller import ANONYMOUS, Caller
from domain.errors import DomainError
from domain.identity import keys
from domain.identity.clock import Clock
from domain.identity.passwords import Passwords
from gateways.addresses import AllowList
from gateways.errors import GatewayError, OutboundError, OutboundFailed, WrongKey
from gateways.outbound import Outbound
from gateways.secretbox import SecretBox, load_keys
from server import observing
from server.lane.access import Access
from server.lane.origin import Proxies
from server.lane.rates import Rates
from server.lane.refusals import Refusal
from server.lane.schemas import Schemas
from server.signing import signing_key
from storage.agents import AgentStore
from storage.conversations import ConversationStore
from storage.database import Unit
from storage.email_codes import EmailCodeStore
from storage.providers import ProviderStore
from tests.gateways.peer import Peer, plain
from tests.gateways.test_outbound import FORMS
from tests.security.place import (
    BODIES,
    CONTRACT,
    NOWHERE,
    PASSWORD,
    Place,
    fresh_address,
    path_of,
    unique,
)

Check = Callable[[Place], Awaitable[None]]
AS_JSON = {"content-type": "application/json"}
_TRY_NEWEST = EmailCodeStore.try_newest
ROOT = Path(__file__).parent.parent.parent


class Defence(NamedTuple):
    """`removed` maps what is patched (`module:attribute.path`) to what stands there instead."""

    line: int
    name: str
    check: Check
    removed: Mapping[str, Any]


DEFENCES: list[Defence] = []


def without(line: int, **removals: Mapping[str, Any]) -> Callable[[Check], Check]:
    """Register a check of a line of the checklist once for each removal that it has to notice."""

    def register(check: Check) -> Check:
        for name, removed in removals.items():
            what = f"{check.__name__}-{name}"
            DEFENCES.append(Defence(line, what, check, removed))
        return check

    return register


def documented() -> dict[tuple[str, str], str]:
    """(method, path) → who may call, by the documents alone."""
    with (ROOT / "contracts" / "documented.tsv").open() as file:
        rows = csv.DictReader(file, delimiter="\t")
        return {(r["method"], r["path"]): r["auth"] for r in rows if r["contract"] == "sage"}


def operations(role: str = "") -> list[Any]:
    """Operations that are built and, with a role, that the documents give to it.

    Without those of a gate, which answer for themselves whoever asks (tests/jaeger).
    """
    table = documented()
    return [
        operation
        for operation in CONTRACT.operations.values()
        if operation.role != "gate"
        if not role or table.get((operation.method, operation.path), operation.role) == role
    ]


def unit_of(value: Any) -> Callable[..., Any]:
    """A unit of work that does nothing and returns `value`."""

    def unit(*_: Any, **__: Any) -> Unit[Any]:
        return value
        yield

    return unit


def answering(value: Any) -> Callable[..., Any]:
    async def answer(*_: Any, **__: Any) -> Any:
        return value

    return answer


# --- authentication -----------------------------------------------------------------------------


@without(1, access={"server.lane.access:Access.admit": answering(ANONYMOUS)})
async def no_credential_is_401_before_the_body(place: Place) -> None:
    table = documented()
    for operation in operations():
        if operation.public:
            assert table.get((operation.method, operation.path), "public") == "public", operation.id
            continue
        reply = await place.ask(
            operation.method, path_of(operation), body=b"{", headers={"content-type": "text/x"}
        )
        assert (reply.http, reply.read) == (401, 0), operation.id


FORGERIES: dict[str, Callable[[Place, dict[str, Any], dict[str, Any]], str]] = {
    "unsigned": lambda place, head, claims: jwt.encode(
        claims, None, algorithm="none", headers=head
    ),
    "other key": lambda place, head, claims: jwt.encode(
        claims, b"0" * 40, algorithm="HS256", headers=head
    ),
    "other algorithm": lambda place, head, claims: jwt.encode(
        claims, place.tokens._key, algorithm="HS512", headers=head
    ),
    **{
        f"header {name}": lambda place, head, claims, name=name, value=value: jwt.encode(
            claims, place.tokens._key, algorithm="HS256", headers={**head, name: value}
        )
        for name, value in {
            "kid": "../../dev/null",
            "jku": "https://example.com/keys",
            "x5u": "https://example.com/cert",
            "jwk": {"kty": "oct", "k": "AAAA"},
        }.items()
    },
    **{
        f"claim {name}": lambda place, head, claims, name=name, value=value: jwt.encode(
            {**claims, name: value}, place.tokens._key, algorithm="HS256", headers=head
        )
        for name, value in {
            "aud": "somebody-else",
            "iss": "https://evil.example",
            "exp": int(time.time()) - 10,
            "nbf": int(time.time()) + 3600,
            "type": "refresh",
            "sid": NOWHERE,
            "sub": NOWHERE,
        }.items()
    },
}


def _lax(self: Any, token: str, audience: str, kind: str) -> Any:
    return jwt.decode(token, options={"verify_signature": False, "verify_aud": False})


def _decode_lax(token: str, *_: Any, **__: Any) -> Any:
    return json.loads(
        jwt.api_jws.PyJWS().decode_complete(token, options={"verify_signature": False})["payload"]
    )


@without(
    2,
    verification={"domain.identity.tokens:Tokens._verified": _lax},
    signature={"jwt:decode": _decode_lax},
    foreign_keys={"domain.identity.tokens:_FOREIGN_KEYS": ()},
)
async def a_forged_token_is_401(place: Place) -> None:
    good = (await place.again(place.owner)).token
    claims = jwt.decode(good, options={"verify_signature": False})
    head = {"kid": jwt.get_unverified_header(good)["kid"]}
    forged = {name: forge(place, head, claims) for name, forge in FORGERIES.items()}
    login = await place.identity.login(place.owner.username, PASSWORD, address=fresh_address())
    forged["a refresh token"] = login.refresh_token
    for name, token in forged.items():
        headers = {"authorization": f"Bearer {token}"}
        reply = await place.ask("GET", "/api/user/config", headers=headers)
        assert reply.http == 401, name
    assert await place.ask("GET", "/api/user/config", headers={"authorization": f"Bearer {good}"})


@without(3, weak_list={"domain.identity.keys:_WEAK": frozenset()})
async def a_known_key_is_refused(place: Place) -> None:
    del place
    for weak in (b"secret", b"changeme", b"your-256-bit-secret"):
        try:
            keys.refuse_weak(weak.ljust(keys.KEY_BYTES, b"0"))
        except keys.WeakKey:
            continue
        raise AssertionError(weak)


@without(3, canary={"secrets:token_hex": lambda size: "5" * 2 * size})
async def every_deployment_draws_its_own_key(place: Place) -> None:
    assert len(set(place.tokens._key)) > 8
    import secrets

    assert secrets.token_hex(keys.KEY_BYTES) != secrets.token_hex(keys.KEY_BYTES)


@without(
    4,
    family={"storage.login_sessions:LoginSessionStore.revoke": unit_of([])},
    rotation={"storage.login_sessions:LoginSessionStore.rotate": unit_of(True)},
)
async def a_refresh_token_used_twice_ends_its_family(place: Place) -> None:
    first = await place.identity.login(place.owner.username, PASSWORD, address=fresh_address())
    second = await place.identity.refresh(first.refresh_token, address=fresh_address())
    for token in (first.refresh_token, second.refresh_token):
        try:
            await place.identity.refresh(token, address=fresh_address())
        except DomainError:
            continue
        raise AssertionError("a token was exchanged twice, or outlived its family")
    headers = {"authorization": f"Bearer {second.access_token}"}
    assert (await place.ask("GET", "/api/user/config", headers=headers)).http == 401


@without(5, memory={"domain.identity.known:Known.apply": lambda self, revocation: None})
async def logging_out_ends_the_token_at_once(place: Place) -> None:
    account = await place.again(place.owner)
    assert (await account.ask("GET", "/api/user/config")).http == 200
    assert (await account.ask("POST", "/api/auth/logout")).http == 200
    assert (await account.ask("GET", "/api/user/config")).http == 401


@without(5, signal={"domain.identity.known:Known._end": lambda self, key: None})
async def a_ban_cuts_open_streams_within_a_second(place: Place) -> None:
    account = await place.account("banned")
    async with place.stream(account, "GET", "/api/stream/active_sessions") as stream:
        assert await stream.chunks.get()
        await place.quartet.users.set_status(place.root, account.id, "banned")
        try:
            await stream.rest(within=1.0)
        except TimeoutError:
            raise AssertionError("the stream of a banned account goes on") from None


async def _early(self: Passwords, stored: str | None, password: str) -> bool:
    return stored is not None and await self._run(lambda: self._verify(stored, password))


@without(8, dummy_hash={"domain.identity.passwords:Passwords.verify": _early})
async def an_unknown_name_costs_what_a_known_one_does(place: Place) -> None:
    for name in (place.owner.username, unique("nobody")):
        with mock.patch.object(
            argon2.PasswordHasher, "verify", autospec=True, side_effect=argon2.PasswordHasher.verify
        ) as verify:
            body = {"username_or_email": name, "password": "wrong password"}
            reply = await place.ask("POST", "/api/auth/login", body=body, peer=fresh_address())
        assert reply.http == 401
        assert verify.call_count == 1, name


async def _guess(place: Place, account: Any, peer: str, number: int) -> Any:
    return await place.ask(
        "POST",
        "/api/auth/login",
        body={"username_or_email": account.username, "password": f"guess {number}"},
        headers={"x-forwarded-for": f"203.0.113.{number}"},
        peer=peer,
    )


@without(8, proxies={"server.lane.origin:Proxies.trusts": lambda self, address: True})
async def a_stated_address_does_not_free_a_guesser(place: Place) -> None:
    account, peer = await place.account("guessed"), fresh_address()
    statuses = [(await _guess(place, account, peer, n)).http for n in range(1, 13)]
    assert statuses[-1] == 429, statuses


@without(8, address={"domain.identity.lockout:network": lambda address: "everybody"})
async def a_guesser_locks_nobody_else_out(place: Place) -> None:
    account, peer = await place.account("victim"), fresh_address()
    for number in range(1, 12):
        await _guess(place, account, peer, number)
    body = {"username_or_email": account.username, "password": PASSWORD}
    reply = await place.ask("POST", "/api/auth/login", body=body, peer=fresh_address())
    assert reply.http == 200


@without(9, longest={"domain.identity.passwords:LONGEST": 10**9})
async def a_long_password_is_not_hashed(place: Place) -> None:
    with mock.patch.object(argon2.PasswordHasher, "verify", return_value=True) as verify:
        await place.identity._passwords.verify("$argon2id$", "x" * 2000)
    assert verify.call_count == 0


async def _code(place: Place) -> tuple[str, str]:
    email, peer = f"{unique('new')}@example.com", fresh_address()
    sent = await place.ask("POST", "/api/auth/register/send-code", body={"email": email}, peer=peer)
    assert sent.http == 200, sent
    return email, place.mailed(email)


async def _register(place: Place, email: str, code: str) -> Any:
    body = {
        "username": unique("registered"),
        "password": PASSWORD,
        "email": email,
        "verification_code": code,
    }
    return await place.ask("POST", "/api/auth/register", body=body, peer=fresh_address())


def _tried_for_ever(self: EmailCodeStore, email_key: str, *, most: int, now: float) -> Unit[Any]:
    return (yield from _TRY_NEWEST(self, email_key, most=10**6, now=now))


def _any_code(self: Any, code_id: str, now: float) -> Unit[bool]:
    return True
    yield


@without(10, cap={"storage.email_codes:EmailCodeStore.try_newest": _tried_for_ever})
async def a_code_is_not_guessed(place: Place) -> None:
    email, code = await _code(place)
    wrong = "000000" if code != "000000" else "111111"
    for _ in range(5):
        assert (await _register(place, email, wrong)).status != 200
    assert (await _register(place, email, code)).status != 200


@without(10, use={"storage.email_codes:EmailCodeStore.use": _any_code})
async def a_code_is_good_once(place: Place) -> None:
    email, code = await _code(place)
    used = await place.quartet.registration._check_code(email, code)
    now = time.time()
    use = place.quartet.registration._codes.use
    assert await place.database.write(lambda: use(used, now)) is True
    assert await place.database.write(lambda: use(used, now)) is False


@without(
    11,
    peers={
        "server.lane.origin:Proxies.trusts": lambda self, address: True,
    },
)
async def an_identity_header_counts_from_listed_peers_only(place: Place) -> None:
    named = {"x-sage-internal-userid": place.owner.id, "x-forwarded-for": "127.0.0.1"}
    with mock.patch.object(_door(place), "_proxy_header", b"x-sage-internal-userid"):
        reply = await place.ask("GET", "/api/user/config", headers=named)
        twice = [
            (b"x-sage-internal-userid", place.owner.id.encode()),
            (b"x-sage-internal-userid", b"somebody-else"),
        ]
        with mock.patch.object(Proxies, "trusts", return_value=True):
            assert (await place.ask("GET", "/api/user/config", headers=twice)).http == 400
    assert reply.http == 401


@without(
    11,
    mode={
        "server.lane.origin:Proxies.trusts": lambda self, address: True,
        "server.lane.access:Door.caller": answering(ANONYMOUS),
    },
)
async def an_identity_header_means_nothing_in_native_mode(place: Place) -> None:
    with mock.patch.object(Proxies, "trusts", return_value=True):
        named = {"x-sage-internal-userid": place.owner.id}
        assert (await place.ask("GET", "/api/user/config", headers=named)).http == 401


def _door(place: Place) -> Any:
    return _lane(place)["agent_get"]._access._door


def _lane(place: Place) -> Mapping[str, Any]:
    """The compiled operations of sage."""
    dispatch = place.application.lane._dispatch
    return dispatch._prefixes[b"/sage"].operations  # type: ignore[no-any-return]


# --- authorisation ------------------------------------------------------------------------------


async def _anybody(self: Access, scope: Any, headers: Any) -> Caller:
    return await self._door.caller(scope, headers, cookies=self._cookies)


@without(13, role={"server.lane.access:Access.admit": _anybody})
async def what_is_for_administrators_is_403_for_users(place: Place) -> None:
    found = operations("admin")
    assert len(found) >= 4
    for operation in found:
        for account in (place.owner, place.viewer):
            reply = await account.ask(operation.method, path_of(operation), b"{")
            assert reply.status == 403, operation.id
            assert reply.read == 0, operation.id


@without(13, viewer={"server.lane.access:Access.admit": _anybody})
async def a_viewer_writes_nothing(place: Place) -> None:
    found = [operation for operation in operations() if operation.writes]
    assert len(found) >= 20
    for operation in found:
        reply = await place.viewer.ask(operation.method, path_of(operation), b"{")
        assert reply.status == 403, operation.id


@without(13, ended={"domain.identity.known:Known.apply": lambda self, revocation: None})
async def a_revoked_account_is_401_everywhere(place: Place) -> None:
    account = await place.account("revoked")
    assert (await account.ask("GET", "/api/user/config")).http == 200
    await place.quartet.users.delete(place.root, account.id)
    for operation in operations():
        if not operation.public:
            reply = await account.ask(operation.method, path_of(operation), b"{")
            assert reply.http == 401, operation.id


def said(reply: Any) -> tuple[Any, ...]:
    """What tells two answers apart but for the time and the id that was asked for."""
    body = re.sub(rb'"timestamp":[0-9.]+', b"", reply.body)
    return reply.http, re.sub(rb"[0-9a-f-]{36}", b"", body), sorted(reply.headers)


def owned(place: Place) -> dict[str, str]:
    return {"agent_id": place.agent, "provider_id": place.provider, "session_id": place.session}


async def _granted(self: AgentStore, viewer: str, agent_id: str) -> Any:
    return await self.get(agent_id)


async def _found(self: ConversationStore, owner: str, key: str) -> Any:
    return await self.find_any(owner, key)


async def _forbidden(self: Any, caller: Caller, agent_id: str) -> Any:
    from domain.errors import Forbidden, NotFound

    found = await self._agents.get(agent_id)
    raise Forbidden("agent.forbidden") if found else NotFound("agent.not_found")


@without(
    14,
    conversations={"storage.conversations:ConversationStore.find": _found},
    agents={"storage.agents:AgentStore.get_visible": _granted},
    providers={"domain.providers:_may_see": lambda caller, provider: True},
)
async def every_id_in_a_path_is_its_owners(place: Place) -> None:
    """A stranger is answered as if what is the owner's did not exist (also line 15)."""
    theirs = {**owned(place)}
    for session in (place.session, place.conversation):
        theirs["session_id"] = session
        for operation in operations():
            if "{" not in operation.path:
                continue
            sent = BODIES.get(operation.id)
            caller = place.stranger
            foreign = await caller.ask(operation.method, path_of(operation, **theirs), sent)
            missing = await caller.ask(operation.method, path_of(operation), sent)
            assert said(foreign)[:2] == _renamed(said(missing)[:2], session), operation.id
    shown = await place.owner.ask("GET", f"/api/conversations/{place.session}/messages")
    assert shown.data["conversation_info"]["title"] != "taken"
    assert (await place.owner.ask("GET", f"/api/agent/{place.agent}")).data["name"] == "theirs"


def _renamed(told: tuple[Any, ...], session: str) -> tuple[Any, ...]:
    """An answer that repeats a session id, with another one."""
    if b'"session_id":""' in told[1] and "-7" not in session[8:20]:
        return told[0], told[1].replace(b'"session_id":""', b'"session_id":"%b"' % session.encode())
    return told


@without(15, alike={"domain.agents:Agents.get": _forbidden})
async def the_invisible_looks_like_the_missing(place: Place) -> None:
    for method, path, body in (
        ("GET", "/api/agent/{}", None),
        ("PUT", "/api/agent/{}", {"name": "x"}),
        ("DELETE", "/api/agent/{}", None),
        ("GET", "/api/agent/{}/auth", None),
    ):
        foreign = await place.stranger.ask(method, path.format(place.agent), body)
        missing = await place.stranger.ask(method, path.format(NOWHERE), body)
        assert said(foreign) == said(missing), (method, path)


@without(
    14,
    provider={"storage.providers:ProviderStore.is_own": unit_of(True)},
    sub_agent={"storage.agents:AgentStore.unknown": unit_of([])},
)
async def an_agent_refers_to_nothing_of_others(place: Place) -> None:
    for reference in ({"llm_provider_id": place.provider}, {"availableSubAgentIds": [place.agent]}):
        body = {"name": unique("agent"), **reference}
        reply = await place.stranger.ask("POST", "/api/agent/create", body)
        assert reply.status == 400, reference


async def _any_own(self: ProviderStore, owner: str, provider_id: str) -> Any:
    return await self.get(provider_id)


@without(
    14,
    agent={"storage.agents:AgentStore.get_visible": _granted},
    provider={"storage.providers:ProviderStore.get_own": _any_own},
    user={
        "domain.runs.life:_acting": lambda caller, user_id: Caller(
            user_id=user_id or caller.user_id, role="operator", via="bearer"
        )
    },
)
async def a_chat_refers_to_nothing_of_others(place: Place) -> None:
    said_ = {"messages": [{"role": "user", "content": "hello"}]}
    for reference in (
        {"agent_id": place.agent},
        {"llm_model_config": {"provider_id": place.provider}},
        {"llm_model_config": {"llm_provider_id": place.provider}},
        {"user_id": place.owner.id},
    ):
        for path in ("/api/web-stream", "/api/stream"):
            reply = await place.stranger.ask("POST", path, {**said_, **reference})
            assert reply.status in (400, 403, 404), (path, reference)


async def _as_stated(self: Any, caller: Caller, fields: Any) -> str:
    """An agent that is made for whom the body says."""
    return await _REAL_CREATE(self, msgspec.structs.replace(caller, user_id=_STATED[0]), fields)


_REAL_CREATE = Agents.create
_STATED = [""]
SERVER_OWNED = [
    "id",
    "user_id",
    "owner",
    "owner_id",
    "role",
    "status",
    "workspace",
    "created_at",
    "is_system",
    "is_admin",
    "approved",
]
DOCUMENTED_FIELDS = {
    ("agent_create", "id"),
    ("agent_create", "user_id"),
    ("agent_replace", "id"),
    ("agent_replace", "user_id"),
    ("chat_create", "user_id"),
    ("chat_stream", "user_id"),
    ("chat_stream_web", "user_id"),
    ("skill_import", "is_system"),
    ("user_create", "role"),
    ("user_delete", "user_id"),
}
"""Fields of these names that a document has; each is ignored, refused or an administrator's."""


@without(16, owner={"domain.agents:Agents.create": _as_stated})
async def fields_of_the_server_are_not_the_clients(place: Place) -> None:
    _STATED[0] = place.stranger.id
    for operation_id, operation in _lane(place).items():
        fields = set(getattr(operation._body_type, "__struct_fields__", ()))
        for name in fields & set(SERVER_OWNED):
            assert (operation_id, name) in DOCUMENTED_FIELDS, (operation_id, name)
    stated = dict.fromkeys(SERVER_OWNED, place.stranger.id)
    made = await place.owner.ask("POST", "/api/agent/create", {**stated, "name": unique("mine")})
    assert made.data["agent_id"] != place.stranger.id
    shown = await place.owner.ask("GET", f"/api/agent/{made.data['agent_id']}")
    assert shown.status == 200
    assert shown.data["user_id"] == place.owner.id
    assert "is_admin" not in shown.data
    again = {**stated, "id": made.data["agent_id"], "name": unique("mine")}
    await place.owner.ask("PUT", f"/api/agent/{made.data['agent_id']}", again)
    shown = await place.owner.ask("GET", f"/api/agent/{made.data['agent_id']}")
    assert shown.data["user_id"] == place.owner.id


@without(17, id={"domain.agents:uuid7": lambda: _STATED[0]})
async def a_post_with_an_id_changes_nothing_that_exists(place: Place) -> None:
    _STATED[0] = place.agent
    for account in (place.stranger, place.owner):
        body = {"id": place.agent, "name": unique("new")}
        made = await account.ask("POST", "/api/agent/create", body)
        assert made.status == 200
        assert made.data["agent_id"] != place.agent
    assert (await place.owner.ask("GET", f"/api/agent/{place.agent}")).data["name"] == "theirs"


async def _nobody_is_protected(
    self: Any, actor: Caller, user_id: str, *, address: str = ""
) -> None:
    await self.get(user_id)


@without(18, protection={"domain.users:Users.delete": _nobody_is_protected})
async def administrators_delete_no_administrator(place: Place) -> None:
    peer = await place.account("peer", "admin")
    for user_id in (peer.id, place.admin.id):
        reply = await place.admin.ask("POST", "/api/user/delete", {"user_id": user_id})
        assert reply.status not in (200, 404), reply
    assert (await peer.ask("GET", "/api/user/config")).http == 200


@without(
    21,
    link={"storage.conversations:ConversationStore.find_shared": _found},
    revoking={"storage.conversations:ConversationStore.unshare": unit_of(False)},
)
async def a_share_shows_one_conversation_until_it_ends(place: Place) -> None:
    shared = f"/api/conversations/{place.session}/share"
    public = "/api/share/conversations/{}/messages"
    for name in (place.session, place.conversation, NOWHERE):
        for asking in (place.ask, place.stranger.ask):
            assert (await asking("GET", public.format(name))).http == 404, name
    share_id = (await place.owner.ask("POST", shared)).data["share_id"]
    assert len(share_id) >= 32
    shown = await place.ask("GET", public.format(share_id))
    assert shown.status == 200
    assert place.conversation.encode() not in shown.body
    assert place.owner.id.encode() not in shown.body
    assert (await place.owner.ask("DELETE", shared)).status == 200
    assert (await place.ask("GET", public.format(share_id))).http == 404


# --- outbound -----------------------------------------------------------------------------------


@without(
    23,
    addresses={"gateways.addresses:AllowList.refusal": lambda *_: None},
    spelling={"gateways.outbound:_check_host": lambda host: None},
)
async def no_spelling_of_an_inner_address_passes(place: Place) -> None:
    del place
    assert len(set(FORMS)) >= 200

    async def inside(host: str, port: int) -> list[str]:
        raise OSError(host)

    outbound = Outbound(resolve=inside)
    for form in FORMS:
        url = form.format(port=":8080") if "{port}" in form else form
        try:
            await outbound.check("fetch", url)
        except OutboundFailed:
            # It is a name, which here has no address; what such a form looks like is settled.
            assert re.fullmatch(r"https?://[A-Za-z.]*localhost\.?:8080/", url, re.I), url
        except OutboundError:
            continue
        else:
            raise AssertionError(url)


async def _unchecked(self: Any, purpose: str, host: str, port: int) -> Any:
    return [ip_address("127.0.0.1")]


@without(
    24,
    pinning={"gateways.outbound:Outbound.addresses": _unchecked},
    at_use={"gateways.addresses:AllowList.refusal": lambda *_: None},
)
async def a_name_that_moves_inside_is_not_followed(place: Place) -> None:
    del place
    answers = [["8.8.8.8"], ["127.0.0.1"]]

    async def moving(host: str, port: int) -> list[str]:
        return answers.pop(0) if len(answers) > 1 else answers[0]

    peer = await Peer().start()
    outbound = Outbound(resolve=moving)
    try:
        peer.routes["/"] = plain(body="secret")
        url = f"http://moving.example:{peer.port}/"
        await outbound.check("fetch", url)
        with contextlib.suppress(OutboundError):
            await outbound.fetch("fetch", url, max_bytes=1000, timeout=5)
        assert peer.connections == 0
    finally:
        await outbound.close()
        await peer.stop()


@without(
    25,
    hops={"gateways.outbound:MAX_REDIRECTS": 50},
    credentials={"gateways.outbound:_CREDENTIALS": set()},
    targets={"gateways.addresses:AllowList.refusal": lambda *_: None},
)
async def redirects_are_few_checked_and_without_credentials(place: Place) -> None:
    del place
    peer, inner = await Peer().start(), await Peer().start()
    outbound = Outbound([f"fetch=127.0.0.1:{peer.port}", f"fetch=localhost:{peer.port}"])
    try:
        inner.routes["/"] = plain(body="secret")
        peer.routes["/in"] = plain(302, location=f"{inner.url}/")
        peer.routes["/away"] = plain(302, location=f"http://localhost:{peer.port}/end")
        peer.routes["/end"] = plain(body="end")
        for number in range(6):
            peer.routes[f"/{number}"] = plain(302, location=f"/{number + 1}")
        peer.routes["/6"] = plain(body="end")
        get = partial(outbound.fetch, "fetch", max_bytes=1000, timeout=5)
        for path in ("/in", "/0"):
            try:
                await get(peer.url + path)
            except OutboundError:
                continue
            raise AssertionError(path)
        assert inner.connections == 0
        await get(peer.url + "/away", headers={"authorization": "Bearer x", "cookie": "a=b"})
        assert not {"authorization", "cookie"} & set(peer.requests[-1].headers)
    finally:
        await outbound.close()
        await peer.stop()
        await inner.stop()


async def _all_of_it(response: Any, max_bytes: int) -> bytes:
    return b"".join([piece async for piece in response.aiter_bytes()])


@without(26, cap={"gateways.outbound:_read": _all_of_it})
async def an_answer_is_read_up_to_its_cap(place: Place) -> None:
    import gzip

    del place
    peer = await Peer().start()
    outbound = Outbound(["127.0.0.1"])
    try:
        bomb = gzip.compress(b"\0" * 2_000_000)
        peer.routes["/bomb"] = plain(body=bomb, content_encoding="gzip")
        peer.routes["/large"] = plain(body=b"x" * 200_000)
        for path in ("/bomb", "/large"):
            try:
                await outbound.fetch("fetch", peer.url + path, max_bytes=100_000, timeout=5)
            except OutboundError:
                continue
            raise AssertionError(path)
    finally:
        await outbound.close()
        await peer.stop()


@without(27, at_save={"gateways.outbound:Outbound.check": answering(None)})
async def an_inner_address_is_refused_when_it_is_saved(place: Place) -> None:
    for url in ("http://127.0.0.1:8000/v1", "http://[::ffff:7f00:1]/v1", "http://169.254.169.254"):
        body = {"base_url": url, "api_keys": ["sk-x"], "model": "m"}
        assert (await place.owner.ask("POST", "/api/llm-provider/create", body)).status == 400, url
        update = f"/api/llm-provider/update/{place.provider}"
        assert (await place.owner.ask("PUT", update, body)).status == 400, url
        chat = {
            "messages": [{"role": "user", "content": "x"}],
            "llm_model_config": {"base_url": url, "model": "m"},
        }
        assert (await place.owner.ask("POST", "/api/stream", chat)).status == 400, url


@without(28, metadata={"gateways.addresses:is_metadata": lambda address: False})
async def metadata_is_refused_even_where_it_is_listed(place: Place) -> None:
    del place
    listed = AllowList(["169.254.0.0/16", "100.100.100.200", "fd00::/8"])
    for address in ("169.254.169.254", "fd00:ec2::254", "::ffff:a9fe:a9fe", "64:ff9b::a9fe:a9fe"):
        reached = listed.refusal("fetch", address, 80, ip_address(address))
        assert "metadata" in (reached or ""), address


# --- bodies -------------------------------------------------------------------------------------


def _as_invalid(self: Any) -> Refusal:
    return Refusal(422, "request.invalid", errors=[])


@without(34, media={"server.lane.operation:Operation._wrong_media": _as_invalid})
async def another_media_type_is_415(place: Place) -> None:
    form = b'--x\r\ncontent-disposition: form-data; name="file"; filename="/etc/passwd"\r\n\r\n{}'
    for operation in operations():
        if not operation.media or operation.public:
            continue
        for media in ("multipart/form-data; boundary=x", "text/plain", "application/xml"):
            if media.partition(";")[0] in operation.media:
                continue
            reply = await place.admin.ask(
                operation.method, path_of(operation), form, headers={"content-type": media}
            )
            assert reply.http == 415, (operation.id, media)


async def _endless(receive: Any, limit: int, declared: Any) -> bytes:
    return bytes((await receive())["body"])


@without(34, size={"server.lane.bodies:read_body": _endless})
async def a_large_body_is_413(place: Place) -> None:
    body = json.dumps({"name": unique("large"), "pad": "y" * 1_100_000}).encode()
    reply = await place.owner.ask("POST", "/api/agent/create", body, headers=AS_JSON)
    assert reply.http == 413


@without(42, environment={"asyncio:create_subprocess_exec": answering(None)})
async def a_child_inherits_no_secret(place: Place) -> None:
    del place
    import asyncio

    from gateways import html_text

    given: dict[str, Any] = {}
    real = asyncio.create_subprocess_exec

    async def spawn(*command: Any, **options: Any) -> Any:
        given.update(options)
        return await real(*command, **options)

    with mock.patch.object(asyncio, "create_subprocess_exec", spawn):
        try:
            _, text = await html_text.read(b"<p>a</p>" * 4000)
        except AttributeError:
            raise AssertionError("no child read the page") from None
    assert given["env"] == {}
    assert text.startswith("a")


@without(43, grammar={"domain.arithmetic:evaluate": lambda text: eval(text)})
async def an_expression_is_numbers_alone(place: Place) -> None:
    del place
    for text in ("().__class__", "__import__('os').getpid()", "'a' * 3", "[1]", "(lambda: 1)()"):
        try:
            arithmetic.evaluate(text)
        except arithmetic.Unfit:
            continue
        raise AssertionError(text)


@without(44, site={"server.lane.access:Door._same_site": lambda self, headers: None})
async def another_site_writes_nothing_with_our_cookie(place: Place) -> None:
    login = await place.identity.login(place.owner.username, PASSWORD, address=fresh_address())
    for elsewhere in (
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ):
        for operation in operations():
            if operation.public or operation.method == "GET":
                continue
            if operation.role in ("admin", "oauth2"):
                continue
            headers = {"cookie": f"sage_session={login.cookie}", **elsewhere}
            reply = await place.ask(
                operation.method, path_of(operation), body=b"{", headers=headers
            )
            assert reply.http == 403, (operation.id, elsewhere)


@without(44, proxied={"server.lane.access:Door._same_site": lambda self, headers: None})
async def another_site_writes_nothing_behind_a_proxy(place: Place) -> None:
    with (
        mock.patch.object(_door(place), "_proxy_header", b"x-sage-internal-userid"),
        mock.patch.object(Proxies, "trusts", return_value=True),
    ):
        named = {"x-sage-internal-userid": unique("proxied")}
        reply = await place.ask("GET", "/api/user/config", headers=named)
        assert reply.http == 200, reply
        evil = {**named, "origin": "https://evil.example"}
        assert (await place.ask("POST", "/api/auth/logout", headers=evil)).http == 403


class Logged(logging.Handler):
    """What our formatter makes of every record."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


def logged(place: Place) -> Logged:
    """Catch what is logged as the server would print it."""
    from server.settings import Settings

    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    observing.configure_logs(Settings(_env_file=None, data=place.data, log_format="json"))
    handler = Logged()
    handler.setFormatter(root.handlers[0].formatter)
    root.handlers[:] = [*before, handler]
    root.setLevel(level)
    return handler


@without(
    45,
    scrubbing={
        "server.observing:scrubbed": lambda text: text,
        "server.observing:_SECRET_NAME": re.compile("(?!)"),
    },
)
async def logs_hold_no_credential(place: Place) -> None:
    handler = logged(place)
    try:
        log = logging.getLogger("quartet.test")
        log.setLevel("DEBUG")
        log.warning("GET /ws?token=canary-1&x=2 with Bearer canary-2")
        log.warning("calling", extra={"api_key": "canary-3", "headers": {"cookie": "canary-4"}})
        log.warning("postgresql://quartet:canary-5@db/quartet")
    finally:
        logging.getLogger().removeHandler(handler)
    assert len(handler.lines) == 3
    assert "canary" not in "".join(handler.lines)


@without(45, path={"server.observing:quote": lambda path: path})
async def a_path_forges_no_line(place: Place) -> None:
    from tests.security import asgi

    handler = Logged()
    access = logging.getLogger("quartet.access")
    access.addHandler(handler)
    level = access.level
    access.setLevel("INFO")
    try:
        application = observing.access_logged(place.application)
        await asgi.ask(application, "GET", "/nothing%0Aforged?token=canary")
    finally:
        access.removeHandler(handler)
        access.setLevel(level)
    assert len(handler.lines) == 1
    assert "\n" not in handler.lines[0]
    assert "canary" not in handler.lines[0]


@without(48, headers={"server.lane.replies:BASE_HEADERS": ()})
async def every_answer_carries_its_headers(place: Place) -> None:
    for reply in (
        await place.ask("GET", "/api/health"),
        await place.ask("GET", "/api/user/config"),
        await place.ask("GET", "/api/nothing"),
        await place.owner.ask("GET", "/api/agent/list"),
    ):
        assert reply.headers.get("x-content-type-options") == "nosniff"
        assert "default-src 'none'" in reply.headers.get("content-security-policy", "")
        assert reply.headers.get("cache-control") == "no-store"
        assert reply.headers.get("referrer-policy") == "no-referrer"


@without(48, origins={"server.dispatch:Dispatch._listed": lambda self, headers: True})
async def no_other_origin_reads_us(place: Place) -> None:
    dispatch = place.application.lane._dispatch
    with mock.patch.object(dispatch, "_cors", frozenset({"https://ours.example", "*"})):
        wild = await place.ask("GET", "/api/health", headers={"origin": "https://evil.example"})
    assert wild.headers.get("access-control-allow-credentials") is None
    with mock.patch.object(dispatch, "_cors", frozenset({"https://ours.example"})):
        for origin in ("https://evil.example", "null", "https://ours.example.evil.example"):
            reply = await place.ask("GET", "/api/health", headers={"origin": origin})
            assert "access-control-allow-origin" not in reply.headers, origin


@without(49, repeated={"server.lane.operation:_refuse_repeated": lambda pairs: None})
async def a_header_that_decides_comes_once(place: Place) -> None:
    good = (b"authorization", f"Bearer {place.owner.token}".encode())
    for name, value in (
        (b"authorization", b"Bearer other"),
        (b"cookie", b"sage_session=a"),
        (b"content-length", b"5"),
        (b"content-type", b"application/json"),
        (b"host", b"example.com"),
        (b"idempotency-key", b"a"),
    ):
        pairs = [(name, value), *([good] if name != good[0] else []), (name, value + b"x")]
        if name == good[0]:
            pairs = [(name, value), good]
        reply = await place.ask("GET", "/api/user/config", headers=pairs)
        assert reply.http == 400, name


BROKEN_JSON = (
    b'{"name":"a","name":"b"}',
    b'{"a":' + b"[" * 101 + b"]" * 101 + b"}",
    b'{"a":' + b"9" * 40 + b"}",
    b'{"a":1e999}',
    b'{"a":NaN}',
    b'{"a":Infinity}',
    b'{"a":"\\ud800"}',
    b'{"a":"\\u0000"}',
    b'{"a\\u0000":1}',
    b'{"a":"\xff"}',
    b"\xef\xbb\xbf{}",
    b"{",
    b"",
    b"[" * 100_000,
)


def _as_python_does(body: bytes) -> Any:
    return json.loads(body)


@without(
    50,
    parser={"server.lane.bodies:parse_json": _as_python_does},
    scan={"server.lane.bodies:_scan": lambda value: None},
)
async def json_that_no_store_holds_is_400(place: Place) -> None:
    for operation in operations():
        if "application/json" not in operation.media or operation.public:
            continue
        required = operation.raw["requestBody"].get("required", False)
        for body in BROKEN_JSON:
            if not body and not required:
                continue
            reply = await place.admin.ask(
                operation.method, path_of(operation), body, headers=AS_JSON
            )
            assert reply.http == 400, (operation.id, body[:30])


@without(51, engine={"server.lane.schemas:_LINEAR": jsonschema_rs.FancyRegexOptions()})
async def patterns_take_linear_time(place: Place) -> None:
    """A back-reference is what no linear engine can do, so one that refuses it is one."""
    del place
    try:
        Schemas("patterns", {}).validator({"type": "string", "pattern": r"^(a+)\1$"}).accepts("aa")
    except ValueError:
        return
    raise AssertionError("the engine backtracks")


def _unchecked_value(self: Any, texts: list[str] | None) -> Any:
    return texts[-1] if texts else (None if self.default is ... else self.default)


@without(52, plan={"server.lane.parameters:Parameter.value": _unchecked_value})
async def sorting_goes_by_listed_names(place: Place) -> None:
    for name in ("password_hash", "date; DROP TABLE users", "1", "", "DATE", "__class__"):
        from urllib.parse import quote

        reply = await place.owner.ask("GET", f"/api/conversations?sort_by={quote(name)}")
        assert reply.http == 422, name


# --- secrets ------------------------------------------------------------------------------------


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
    from tests.security import asgi

    page = metrics_page({}, gauges={}, check=answering(None), token="right-token")
    for sent in ("", "Bearer wrong", "Basic right-token", "Bearer right-token-and-more"):
        reply = await asgi.ask(page, "GET", "/metrics", headers={"authorization": sent})
        assert reply.http == 401, sent
    sent = "Bearer right-token"
    assert (await asgi.ask(page, "GET", "/metrics", headers={"authorization": sent})).http == 200
    del place

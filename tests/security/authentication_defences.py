"""Who somebody is: attacks on logins, tokens, codes and keys (checklist 1 to 11)."""

import json
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import argon2
import jwt

from contracts.document import Operation
from domain.caller import ANONYMOUS, Caller
from domain.errors import DomainError
from domain.identity import keys
from domain.identity.passwords import Passwords
from server.lane.access import Access
from server.lane.origin import Proxies
from storage.database import Unit
from storage.email_codes import EmailCodeStore
from tests.security import asgi
from tests.security.defences import answering, documented, door, operations, unit_of, without
from tests.security.place import NOWHERE, PASSWORD, Place, fresh_address, path_of, unique

_TRY_NEWEST = EmailCodeStore.try_newest


@without(1, access={"server.lane.access:Access.admit": answering(ANONYMOUS)})
async def no_credential_is_401_before_the_body(place: Place) -> None:
    table = documented()
    for operation in operations():
        if operation.public:
            row = (operation.contract, operation.method, operation.path)
            assert table.get(row, "public") == "public", row
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


_ADMIT = Access.admit


async def _judged_once(self: Access, scope: Any, headers: Any) -> Caller:
    """As if who calls were known for good by the headers."""
    if "judged" not in scope:
        scope["judged"] = await _ADMIT(self, scope, headers)
    judged: Caller = scope["judged"]
    return judged


async def _late(place: Place, operation: Operation, body: Any) -> int:
    """The status of an administrator's request whose body ends after the session did."""
    account = await place.again(place.admin)
    headers = [
        (b"authorization", f"Bearer {account.token}".encode()),
        (b"content-type", b"application/json"),
        (b"transfer-encoding", b"chunked"),
    ]
    scope = asgi.scope_of(operation.method, path_of(operation), headers, "192.0.2.10")
    sent = iter((b"", json.dumps(body).encode()))
    status = 0

    async def receive() -> dict[str, Any]:
        piece = next(sent)
        if piece:
            await account.ask("POST", "/api/auth/logout")
        return {"type": "http.request", "body": piece, "more_body": not piece}

    async def send(message: Any) -> None:
        nonlocal status
        status = message.get("status", status)

    await place.application(scope, receive, send)
    return status


@without(5, again={"server.lane.access:Access.admit": _judged_once})
async def what_comes_after_the_end_is_not_done(place: Place) -> None:
    """A body may take as long as its sender likes; the session may end meanwhile."""
    tried = 0
    for operation in operations():
        content = operation.raw.get("requestBody", {}).get("content", {})
        example = content.get("application/json", {}).get("example")
        if operation.public or operation.role == "oauth2" or example is None:
            continue
        assert await _late(place, operation, example) == 401, operation.id
        tried += 1
    assert tried > 30


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
    with mock.patch.object(door(place), "_proxy_header", b"x-sage-internal-userid"):
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

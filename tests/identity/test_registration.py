"""Registration by mailed code (security 10)."""

import asyncio
import re
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from typing import Any

import pytest

from domain.errors import (
    Conflict,
    Disabled,
    DomainError,
    Forbidden,
    Throttled,
    Unavailable,
    Unusable,
)
from gateways.errors import MailFailed, MailRefused
from gateways.mail import Mail
from tests.identity.conftest import ADMIN, PASSWORD, MakeWorld, World

EMAIL = "ann@example.com"


async def refusal(awaitable: Any) -> DomainError:
    with pytest.raises(DomainError) as refused:
        await awaitable
    return refused.value


async def coded(world: World, email: str = EMAIL) -> str:
    await world.registration.send_code(email)
    return world.mailbox.code(email)


async def register(world: World, code: str, **fields: Any) -> Any:
    given = {"username": "ann", "password": PASSWORD, "email": EMAIL, "code": code, **fields}
    return await world.registration.register(**given)


def other_than(code: str) -> str:
    return f"{(int(code) + 1) % 1_000_000:06}"


async def test_a_code_makes_an_operator_s_account(world: World) -> None:
    assert await world.registration.send_code(" Ann@Example.com ") == (300, 30)
    code = world.mailbox.code("Ann@Example.com")
    assert len(code) == 6
    user = await register(world, f" {code} ", phonenum="138", address="192.0.2.5")
    assert (user.role, user.status, user.email, user.phonenum) == (
        "operator",
        "active",
        EMAIL,
        "138",
    )
    assert (await world.login(EMAIL)).user.id == user.id
    assert (await world.events(f"user:{user.id}"))[0] == (
        "user.registered",
        {"actor": user.id, "address": "192.0.2.5", "role": "operator"},
    )


async def test_the_mail_speaks_the_language_asked_for(world: World) -> None:
    await world.registration.send_code("a@example.com")
    await world.registration.send_code("b@example.com", language="en")
    (_, _, zh), (_, _, en) = world.mailbox.mails
    assert "验证码" in zh
    assert "verification code" in en


async def test_a_code_is_good_once(world: World) -> None:
    code = await coded(world)
    answers = await asyncio.gather(
        *(register(world, code, username=f"ann{n}") for n in range(5)), return_exceptions=True
    )
    made = [answer for answer in answers if not isinstance(answer, BaseException)]
    assert len(made) == 1
    assert (await refusal(register(world, code, username="eve"))).key == "registration.code_wrong"
    assert (await world.users.page(1, 10))[1] == 1


async def test_every_bad_code_is_one_answer(make_world: MakeWorld) -> None:
    world = await make_world(code_attempts=10)
    code = await coded(world)
    for bad in (other_than(code), "", "abcdef", code + "0", "٠٠٠٠٠٠", "\ud800"):
        error = await refusal(register(world, bad))
        assert isinstance(error, Unusable)
        assert error.key == "registration.code_wrong"
    other = await refusal(register(world, code, email="bob@example.com"))
    assert other.key == "registration.code_wrong"
    await register(world, code)


async def test_attempts_are_capped_also_at_once(world: World) -> None:
    code = await coded(world)
    await asyncio.gather(*(refusal(register(world, other_than(code))) for _ in range(5)))
    assert (await refusal(register(world, code))).key == "registration.code_wrong"
    world.clock.ahead = 31
    await register(world, await coded(world))


async def test_a_code_expires_and_a_newer_one_replaces_it(world: World) -> None:
    old = await coded(world)
    world.clock.ahead = 31
    new = await coded(world)
    if old != new:
        assert (await refusal(register(world, old))).key == "registration.code_wrong"
    world.clock.ahead = 31 + 301
    assert (await refusal(register(world, new))).key == "registration.code_wrong"


async def test_codes_come_slowly_and_so_many_a_day(make_world: MakeWorld) -> None:
    world = await make_world(codes_per_day=3)
    await coded(world)
    error = await refusal(world.registration.send_code(EMAIL.upper()))
    assert isinstance(error, Throttled)
    assert 1 <= error.retry_after <= 31
    await coded(world, "bob@example.com")
    for _ in range(2):
        world.clock.ahead += 31
        await coded(world)
    world.clock.ahead += 31
    assert (await refusal(world.registration.send_code(EMAIL))).key == "registration.too_soon"
    assert sum(to == EMAIL for to, _, _ in world.mailbox.mails) == 3
    world.clock.ahead += 86400
    await coded(world)


async def test_codes_asked_for_at_once_are_one(world: World) -> None:
    answers = await asyncio.gather(
        *(world.registration.send_code(EMAIL) for _ in range(5)), return_exceptions=True
    )
    assert sum(isinstance(answer, tuple) for answer in answers) >= 1
    assert len(world.mailbox.mails) == sum(isinstance(answer, tuple) for answer in answers)


async def test_nobody_learns_whether_an_address_has_an_account(world: World) -> None:
    await world.add("ann", email=EMAIL)
    taken, free = EMAIL, "free@example.com"
    for email in (taken, free):
        assert await world.registration.send_code(email) == (300, 30)
        assert isinstance(await refusal(world.registration.send_code(email)), Throttled)
        error = await refusal(register(world, "000000", username="eve", email=email))
        assert error.key == "registration.code_wrong"
    assert world.mailbox.code(taken) == ""
    assert len(world.mailbox.code(free)) == 6
    assert [to for to, _, _ in world.mailbox.mails] == [taken, free]


async def test_a_taken_username_keeps_the_code_good(world: World) -> None:
    await world.add("Ann")
    code = await coded(world)
    error = await refusal(register(world, code))
    assert isinstance(error, Conflict)
    assert error.key == "user.exists"
    assert (await register(world, code, username="ann2")).username == "ann2"


async def test_an_address_taken_meanwhile_is_a_conflict(world: World) -> None:
    code = await coded(world)
    await world.add("bob", email=EMAIL)
    assert (await refusal(register(world, code))).key == "user.email_exists"


@pytest.mark.parametrize(
    "email",
    ["x", "@example.com", "a@", "a@b", "a b@example.com", "a@b@example.com", "a@example..com",
     "a\r\nBcc: x@example.com", "<a@example.com>", "a@-x.com", "a" * 65 + "@example.com",
     "a@" + "b" * 250 + ".com", "a\x00@example.com", ".a@example.com", "a,b@example.com"],
)  # fmt: skip
async def test_what_is_no_address_gets_no_mail(world: World, email: str) -> None:
    assert (await refusal(world.registration.send_code(email))).key == "registration.email_invalid"
    assert world.mailbox.mails == []


@pytest.mark.parametrize(
    "email", ["a.b+c@example.com", "müller@exämple.de", "o'neil@sub.example.co"]
)
async def test_what_is_an_address_gets_one(world: World, email: str) -> None:
    await world.registration.send_code(email)
    assert world.mailbox.mails[0][0] == email


async def test_an_address_is_needed(world: World) -> None:
    for empty in ("", "  "):
        for awaitable in (
            world.registration.send_code(empty),
            register(world, "123456", email=empty),
        ):
            assert (await refusal(awaitable)).key == "registration.email_missing"
    assert (await refusal(register(world, "1", email=None))).key == "registration.email_missing"


@pytest.mark.parametrize("name", ["a@b", "", "  ", "a\nb", "a\x00", "a＠b", "x" * 129, "a\u202eb"])
async def test_what_cannot_be_a_username_costs_no_attempt(world: World, name: str) -> None:
    code = await coded(world)
    for _ in range(6):
        error = await refusal(register(world, code, username=name))
        assert error.key == "user.username_invalid"
    assert (await refusal(register(world, code, password="short"))).key == "password.length"
    await register(world, code)


async def test_a_closed_door_and_other_modes(make_world: MakeWorld) -> None:
    world = await make_world(allow_registration=False)
    for closed in (lambda: world.registration.send_code(EMAIL), lambda: register(world, "1")):
        error = await refusal(closed())
        assert isinstance(error, Forbidden)
        assert error.key == "registration.closed"
    await world.system.update(ADMIN, allow_registration=True)
    await register(world, await coded(world))
    for mode in ("oauth", "trusted_proxy"):
        other = await make_world(mode=mode)
        for closed in (
            lambda other=other: other.registration.send_code(EMAIL),
            lambda other=other: register(other, "1"),
        ):
            error = await refusal(closed())
            assert isinstance(error, Disabled)
            assert error.key == "registration.disabled"


async def test_a_mail_that_fails_leaves_nothing(world: World) -> None:
    world.mailbox.fails = MailFailed("no mail server")
    for _ in range(2):
        error = await refusal(world.registration.send_code(EMAIL))
        assert isinstance(error, Unavailable)
        assert error.key == "registration.mail_failed"
    world.mailbox.fails = MailRefused("no such address")
    assert (await refusal(world.registration.send_code(EMAIL))).key == "registration.email_invalid"
    world.mailbox.fails = None
    await register(world, await coded(world))


async def test_old_codes_are_forgotten(world: World) -> None:
    await coded(world)
    assert await world.registration.purge() == 0
    world.clock.ahead = 2 * 86400
    assert await world.registration.purge() == 1


async def test_a_mail_goes_through_the_real_outbox(world: World, tmp_path: Path) -> None:
    mail = Mail("quartet@localhost.localdomain", tmp_path / "outbox")
    world.registration._send = mail.send
    await world.registration.send_code("o'neil@example.com", language="en")
    (kept,) = (tmp_path / "outbox").iterdir()
    message = message_from_bytes(kept.read_bytes(), policy=default)
    code = re.search(r"\b\d{6}\b", message.get_content())
    assert code is not None
    await register(world, code[0], email="o'neil@example.com")

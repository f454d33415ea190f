"""Each check passes as the server stands, and fails with its defence taken away."""

import pkgutil
from collections.abc import Iterator
from typing import Any

import pytest

from tests.security.defences import Check, Defence
from tests.security.every_defence import DEFENCES
from tests.security.place import Place

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHECKS = {defence.check: defence.check.__name__ for defence in DEFENCES}


def owner_of(where: str) -> tuple[Any, str]:
    """What holds an attribute, and its name. Raises when it does not exist."""
    module, _, path = where.partition(":")
    *holders, name = path.split(".")
    holder = pkgutil.resolve_name(f"{module}:{'.'.join(holders)}" if holders else module)
    getattr(holder, name)
    return holder, name


@pytest.fixture
def removed(defence: Defence, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for where, instead in defence.removed.items():
        monkeypatch.setattr(*owner_of(where), instead)
    yield
    monkeypatch.undo()


@pytest.mark.parametrize("check", CHECKS, ids=CHECKS.values())
async def test_attack_fails(check: Check, place: Place) -> None:
    await check(place)


@pytest.mark.parametrize("defence", DEFENCES, ids=[f"{d.line}-{d.name}" for d in DEFENCES])
async def test_attack_succeeds_without_the_defence(
    defence: Defence, place: Place, removed: None
) -> None:
    with pytest.raises(AssertionError):
        await defence.check(place)

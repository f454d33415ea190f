"""Each defence, an attack that it stops, and what takes it away.

A check raises AssertionError when its attack succeeds. test_defences_matter.py runs it twice: as
the server stands, and with the defence taken away, where it has to raise. What is taken away is
patched here; the product has no switch for any of it.
"""

import csv
from collections.abc import Awaitable, Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from storage.database import Unit
from tests.security.place import OPERATIONS, Place

Check = Callable[[Place], Awaitable[None]]
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


@cache
def documented() -> dict[tuple[str, str, str], str]:
    """(contract, method, path) → who may call, by the documents alone."""
    with (ROOT / "contracts" / "documented.tsv").open() as file:
        rows = csv.DictReader(file, delimiter="\t")
        return {(r["contract"], r["method"], r["path"]): r["auth"] for r in rows}


def operations(role: str = "") -> list[Any]:
    """Operations that are built and, with a role, that the documents give to it.

    Without those of a gate, which answer for themselves whoever asks (tests/jaeger).
    """
    table = documented()
    return [
        operation
        for operation in OPERATIONS
        if operation.role != "gate"
        if not role
        or table.get((operation.contract, operation.method, operation.path), operation.role) == role
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


def door(place: Place) -> Any:
    return lane(place)["agent_get"]._access._door


def lane(place: Place, contract: str = "sage") -> Mapping[str, Any]:
    """The compiled operations of a contract."""
    dispatch = place.application.lane._dispatch
    compiled: Mapping[str, Any] = dispatch._prefixes[f"/{contract}".encode()].operations
    return compiled

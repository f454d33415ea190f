"""What both executors do with units of work."""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, NoReturn

from storage.database import StorageError, T, Unit

CLOSING: ContextVar[Callable[[], Unit[None]] | None] = ContextVar("closing", default=None)
"""A sub-unit that ends every unit written in this context (storage.idempotency.attached)."""


class WentOn(RuntimeError):
    """A unit went on after one of its statements failed. PostgreSQL could not: use
    `ON CONFLICT`, or raise."""

    def __init__(self) -> None:
        super().__init__("the unit went on after a failed statement")


def refuse(unit: Unit[Any], error: StorageError) -> NoReturn:
    """Throw a statement's error into the unit, so that it can say what it means by raising
    another. Raises WentOn when the unit does anything but raise."""
    try:
        unit.throw(error)
    except StopIteration:
        raise WentOn from error
    unit.close()
    raise WentOn from error


def closed_by(unit: Callable[[], Unit[T]]) -> Callable[[], Unit[T]]:
    """The unit as it is to be run: with what closes every unit of this context."""
    closing = CLOSING.get()
    if closing is None:
        return unit

    def closed() -> Unit[T]:
        result = yield from unit()
        yield from closing()
        return result

    return closed

"""Whether the services behind the server answer, for whoever asks: a word each, no addresses."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import msgspec

from domain.errors import DomainError

CHECK_S = 3.0
"""How long a service may take to answer."""
KEPT_S = 2.0

Check = Callable[[], Awaitable[str]]
"""Returns what is wrong with a service, "" when nothing is; it may raise as well."""


class Service(msgspec.Struct, frozen=True):
    """A service; `wrong` is "" when it answers."""

    name: str
    wrong: str


class Status:
    """Asks every service, at most every two seconds: anyone may make us."""

    def __init__(self, checks: Mapping[str, Check], clock: Callable[[], float]) -> None:
        self._checks = checks
        self._clock = clock
        self._asking: asyncio.Future[list[Service]] | None = None
        self._until = 0.0

    async def services(self) -> list[Service]:
        """Every service, in the order they were given."""
        if self._asking is None or (self._asking.done() and self._clock() >= self._until):
            self._asking = asyncio.ensure_future(self._ask())
            self._asking.add_done_callback(self._keep)
        return await asyncio.shield(self._asking)

    def _keep(self, _: object) -> None:
        self._until = self._clock() + KEPT_S

    async def _ask(self) -> list[Service]:
        found = await asyncio.gather(*(self._one(check) for check in self._checks.values()))
        return [Service(name, wrong) for name, wrong in zip(self._checks, found, strict=True)]

    @staticmethod
    async def _one(check: Check) -> str:
        try:
            async with asyncio.timeout(CHECK_S):
                return await check()
        except (DomainError, OSError, TimeoutError):
            return "does not answer"


def remembered(check: Check, clock: Callable[[], float], seconds: float) -> Check:
    """The check, made again after so many seconds: for one that costs more than a question."""
    until, known = 0.0, ""

    async def asked() -> str:
        nonlocal until, known
        if clock() >= until:
            known = await check()
            until = clock() + seconds
        return known

    return asked

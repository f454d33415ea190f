"""A2A agents of the platform: everybody's sessions may send them messages.

An agent's card is read when it is added and now and then afterwards; lists, and what a model is
told, answer from that.
"""

import logging
import re
from collections.abc import Callable, Sequence, Set
from typing import Any
from urllib.parse import urlsplit

import msgspec

from domain.caller import Caller
from domain.deeds import deed
from domain.errors import Conflict, NotFound, Unusable
from domain.ids import uuid7
from domain.platform.addresses import checked, normalised
from domain.platform.refreshing import Refreshing, is_due
from domain.tools import ToolFailed
from gateways.a2a import A2aClient, Card
from gateways.errors import A2aError, OutboundRefused
from gateways.outbound import Outbound
from storage.a2a import A2aServer, A2aStore
from storage.database import Database, Duplicate, Unit
from storage.events import EventLog
from storage.tool_preferences import ToolPreferences

logger = logging.getLogger("quartet.a2a")

AGENTS_MAX = 500
TRIES = 5
NAME_MAX = 64
PREFIX = "a2a_"
"""How the names of agents' tools begin, and those of nobody else's."""
ERROR_MAX = 500
_UNFIT = re.compile(r"[^A-Za-z0-9]+")


class PlatformA2a:
    """The platform's agents. Methods that name one raise NotFound("a2a.not_found")."""

    def __init__(
        self,
        database: Database,
        store: A2aStore,
        preferences: ToolPreferences,
        log: EventLog,
        outbound: Outbound,
        client: A2aClient,
        *,
        clock: Callable[[], float],
    ) -> None:
        self._database = database
        self._store = store
        self._preferences = preferences
        self._log = log
        self._outbound = outbound
        self._client = client
        self._clock = clock
        self.refreshing = Refreshing(database, self.refresh, self._due)

    async def list(self) -> Sequence[A2aServer]:
        """Every agent as it was when it was last asked, the oldest first."""
        return await self._store.list_all()

    def lock(self, server_id: str) -> Unit[A2aServer]:
        """An agent, locked until the unit ends."""
        held = yield from self._store.lock(server_id)
        if held is None:
            raise NotFound("a2a.not_found")
        return held

    # --- what administrators keep ---------------------------------------------------------

    async def add(self, caller: Caller, base_url: str) -> None:
        """Keep an agent, and ask for its card afterwards. Two spellings of an address are one.

        Raises Unusable: platform.address_invalid, platform.address_refused, a2a.too_many;
        Conflict: a2a.exists, a2a.busy.
        """
        if "?" in base_url:
            raise Unusable("platform.address_invalid")
        base_url = _base(await checked(self._outbound, "a2a", base_url))
        server_id = uuid7()

        def unit() -> Unit[None]:
            if (yield from self._store.count()) >= AGENTS_MAX:
                raise Unusable("a2a.too_many", most=AGENTS_MAX)
            made = A2aServer(
                id=server_id,
                base_url=base_url,
                tool_name=_tool_name(base_url, (yield from self._store.tool_names())),
                created_at=self._clock(),
                refreshed_at=0.0,
                enabled=True,
                error="",
                **_unknown(base_url),
            )
            yield from self._store.insert(made)
            told = deed("a2a.added", caller, server_id=server_id, base_url=base_url)
            yield from self._log.append(f"user:{caller.user_id}", [told])

        for _ in range(TRIES):
            try:
                await self._database.write(unit)
                break
            except Duplicate as taken:
                if taken.constraint == "uq_a2a_servers_base_url":
                    raise Conflict("a2a.exists") from None
        else:
            raise Conflict("a2a.busy")
        await self.refreshing.now([server_id])

    async def set_enabled(self, caller: Caller, server_id: str, *, enabled: bool) -> None:
        def unit() -> Unit[None]:
            held = yield from self.lock(server_id)
            yield from self._store.update(msgspec.structs.replace(held, enabled=enabled))
            told = deed("a2a.enabled", caller, server_id=server_id, enabled=enabled)
            yield from self._log.append(f"user:{caller.user_id}", [told])

        await self._database.write(unit)
        if enabled:
            await self.refreshing.now([server_id])

    async def delete(self, caller: Caller, server_id: str) -> None:
        """Erase an agent and what accounts wanted of it."""

        def unit() -> Unit[None]:
            yield from self.lock(server_id)
            yield from self._store.delete(server_id)
            yield from self._preferences.forget("a2a", server_id)
            told = deed("a2a.deleted", caller, server_id=server_id)
            yield from self._log.append(f"user:{caller.user_id}", [told])

        await self._database.write(unit)

    # --- what agents say ------------------------------------------------------------------

    async def refresh(self, server_id: str) -> None:
        """Read an agent's card, if it is enabled, and keep it, or why there is none."""
        server = await self._store.get(server_id)
        if server is None or not server.enabled:
            return
        card: Card | None = None
        error = ""
        try:
            card = await self._client.card(server.base_url)
        except A2aError as failed:
            error = str(failed)[:ERROR_MAX]
            logger.info("A2A agent %s does not answer: %s", server.id, error)

        def unit() -> Unit[None]:
            held = yield from self._store.lock(server_id)
            if held is None:
                return
            seen = _unknown(held.base_url) if card is None else _known(held.base_url, card)
            yield from self._store.update(
                msgspec.structs.replace(held, error=error, refreshed_at=self._clock(), **seen)
            )

        await self._database.write(unit)

    async def ask(self, server_id: str, message: str) -> str:
        """What an agent says to a message, sent once. Raises ToolFailed."""
        server = await self._store.get(server_id)
        if server is None or not server.enabled or server.card is None:
            raise ToolFailed("the agent is gone")
        try:
            return await self._client.ask(server.card, message)
        except A2aError as error:
            raise ToolFailed(str(error)) from None

    async def _due(self) -> Sequence[str]:
        now = self._clock()
        return [
            server.id
            for server in await self._store.list_all()
            if server.enabled and is_due(server.refreshed_at, server.error, now)
        ]


def is_at(agent: A2aServer, address: str) -> bool:
    """Whether an agent is at an address, however that is spelt."""
    try:
        return _base(address.strip()) == agent.base_url
    except OutboundRefused:
        return False


def _base(address: str) -> str:
    """An address in its one spelling, without a slash at its end. Raises OutboundRefused."""
    return normalised(address).rstrip("/")


def _known(base_url: str, card: Card) -> dict[str, Any]:
    return {
        "name": card.name or _host(base_url),
        "description": card.description,
        "input_modes": card.input_modes,
        "output_modes": card.output_modes,
        "streaming": card.streaming,
        "push_notifications": card.push_notifications,
        "card": card.whole,
    }


def _unknown(base_url: str) -> dict[str, Any]:
    """What is said of an agent without a card (contract sandbox, "App config")."""
    return {
        "name": _host(base_url),
        "description": base_url,
        "input_modes": [],
        "output_modes": [],
        "streaming": False,
        "push_notifications": False,
        "card": None,
    }


def _host(base_url: str) -> str:
    return urlsplit(base_url).netloc


def _tool_name(base_url: str, taken: Set[str]) -> str:
    place = urlsplit(base_url)
    name = PREFIX + _UNFIT.sub("_", place.netloc + place.path).strip("_")
    name = found = name[:NAME_MAX]
    number = 1
    while found in taken:
        number += 1
        found = f"{name[: NAME_MAX - len(str(number)) - 1]}_{number}"
    return found

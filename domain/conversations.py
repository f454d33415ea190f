"""Conversations: who may read, find, share, rename and delete them.

A conversation is its owner's alone; administrators see all. It is named by its owner's session id
or by its id. What is invisible and what is missing look alike.
"""

import secrets
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial

import msgspec

from domain.caller import Caller
from domain.deeds import deed
from domain.errors import Conflict, Forbidden, NotFound, Unusable
from domain.ids import uuid7
from storage.conversations import (
    Conversation,
    ConversationStore,
    Message,
    MessageClash,
    NewMessage,
    Shared,
    Sort,
)
from storage.database import Database, NoSuchRow, T, Unit
from storage.events import Event, EventLog

ERASED_TOGETHER = 100
READINGS = 10
"""How often a conversation that is being written is read for one transcript."""

TITLE_MAX = 50
"""Characters of a title that is made of what a user said."""

PLANS = frozenset({"plan", "plan_step"})
"""Types of messages by which a session's turn plans: nobody said them."""
THOUGHTS = PLANS | {"reasoning_content", "thinking", "error"}
"""Types of messages that an assistant did not say to anyone."""


class Page(msgspec.Struct, frozen=True):
    """One page of conversations; `page` counts from 1."""

    rows: list[Conversation]
    total: int
    page: int
    page_size: int

    @property
    def pages(self) -> int:
        return -(-self.total // self.page_size)

    @property
    def has_next(self) -> bool:
        return self.page < self.pages

    @property
    def has_previous(self) -> bool:
        return self.page > 1


class Progress(msgspec.Struct, frozen=True):
    """How many lines a run has shown, and the messages that they add up to, where some of those
    may not be kept yet."""

    line: int = 0
    said: list[Message] = []


class Transcript(msgspec.Struct, frozen=True):
    """A conversation with its messages. `next_line` is the number of lines that its latest run
    has shown, where a client that has read these messages goes on reading: they say all that
    those lines say, and nothing that a later one does."""

    conversation: Conversation
    messages: list[Message]
    next_line: int


class Conversations:
    """Conversations of every account.

    `progress_of` tells how far a run is; `stop_runs` ends the live runs of a conversation and
    returns when they have ended. Methods that take a caller and a key raise
    NotFound("conversation.not_found").
    """

    def __init__(
        self,
        database: Database,
        conversations: ConversationStore,
        log: EventLog,
        *,
        progress_of: Callable[[str], Awaitable[Progress]],
        stop_runs: Callable[[str], Awaitable[object]],
    ) -> None:
        self._database = database
        self._conversations = conversations
        self._log = log
        self._progress_of = progress_of
        self._stop_runs = stop_runs
        self._deleted: list[Callable[[str, str], Awaitable[object]]] = []

    def on_deleted(self, callback: Callable[[str, str], Awaitable[object]]) -> None:
        """Call `callback` with owner and id of each conversation that is gone."""
        self._deleted.append(callback)

    # --- reading --------------------------------------------------------------------------

    async def find(self, caller: Caller, key: str) -> Conversation:
        """The caller's conversation of that session id, else of that id; an administrator's
        look reaches every account's."""
        if caller.is_admin:
            found = await self._conversations.find_any(caller.user_id, key)
        else:
            found = await self._conversations.find(caller.user_id, key)
        if found is None:
            raise NotFound("conversation.not_found")
        return found

    async def page(
        self,
        caller: Caller,
        *,
        page: int = 1,
        page_size: int = 10,
        user_id: str | None = None,
        search: str | None = None,
        agent_id: str | None = None,
        sort: Sort = "date",
    ) -> Page:
        """A page of the caller's conversations; of an administrator's choice of account, or of
        all accounts'. Raises Forbidden("conversation.foreign_user")."""
        if user_id and user_id != caller.user_id and not caller.is_admin:
            raise Forbidden("conversation.foreign_user")
        rows, total = await self._conversations.page(
            (user_id or None) if caller.is_admin else caller.user_id,
            limit=page_size,
            offset=(page - 1) * page_size,
            sort=sort,
            agent_id=agent_id or None,
            search=(search or "").strip(),
        )
        return Page(rows, total, page, page_size)

    async def transcript(self, caller: Caller, key: str) -> Transcript:
        """The conversation with every message that is more than a plan, and what its run is saying.

        Where a message was kept in between, all is read again; in a conversation that grows
        without a pause, what came last is then shown twice rather than never.
        """
        for _ in range(READINGS):
            found = await self.find(caller, key)
            progress = Progress()
            if found.latest_run_id:
                progress = await self._progress_of(found.latest_run_id)
            messages = await self._conversations.messages(found.id)
            if len(messages) == found.message_count:
                break
        kept = {message.message_id for message in messages}
        said = [message for message in progress.said if message.message_id not in kept]
        shown = [message for message in messages if message.type not in PLANS]
        return Transcript(found, [*shown, *said], progress.line)

    async def shared(self, caller: Caller, key: str) -> tuple[Shared, list[Message]]:
        """What users and assistants said in a conversation: under the id of its share for
        anyone, under its session id or id for its owner."""
        found = await self._conversations.find_shared(caller.user_id, key)
        if found is None:
            raise NotFound("conversation.not_found")
        said = await self._conversations.said(found.id)
        return found, [message for message in said if message.type not in THOUGHTS]

    # --- writing --------------------------------------------------------------------------

    async def rename(self, caller: Caller, key: str, title: str) -> Conversation:
        """Give it another title. Raises Unusable("conversation.title_blank")."""
        title = title.strip()
        if not title:
            raise Unusable("conversation.title_blank")
        found = await self.find(caller, key)

        def unit() -> Unit[Conversation]:
            renamed = yield from self._conversations.rename(found.id, title)
            told = deed("conversation.renamed", caller, title=title)
            yield from self._tell(found, told)
            yield from self._log.append(f"user:{found.owner_id}", [told])
            return renamed

        return await self._write(unit)

    async def delete(self, caller: Caller, key: str) -> Conversation:
        """End its runs, then remove it with its messages, shares, runs and their events."""
        found = await self.find(caller, key)
        await self._stop_runs(found.id)
        told = deed("conversation.deleted", caller, conversation_id=found.id)

        def unit() -> Unit[Conversation]:
            yield from self._erase(found.id)
            yield from self._log.append(f"user:{found.owner_id}", [told])
            return found

        await self._write(unit)
        await self._tell_deleted(found.owner_id, found.id)
        return found

    async def erase_all(self, owner_id: str) -> None:
        """End and remove every conversation of an account that is about to go."""
        while ids := await self._conversations.ids_of(owner_id, ERASED_TOGETHER):
            for conversation_id in ids:
                await self._stop_runs(conversation_id)
                with suppress(NoSuchRow):  # its owner was quicker
                    await self._database.write(partial(self._erase, conversation_id))
                await self._tell_deleted(owner_id, conversation_id)

    async def _tell_deleted(self, owner_id: str, conversation_id: str) -> None:
        for callback in self._deleted:
            await callback(owner_id, conversation_id)

    def _erase(self, conversation_id: str) -> Unit[None]:
        run_ids = yield from self._conversations.delete(conversation_id)
        runs = [f"run:{run_id}" for run_id in run_ids]
        yield from self._log.delete([*runs, f"conversation:{conversation_id}"])

    async def share(self, caller: Caller, key: str) -> str:
        """Let whoever knows the returned id, of 128 random bits, read what was said. A
        conversation that is shared already keeps its id."""
        found = await self.find(caller, key)
        fresh = secrets.token_hex(16)

        def unit() -> Unit[str]:
            share_id, begun = yield from self._conversations.share(found.owner_id, found.id, fresh)
            if begun:
                yield from self._tell(found, deed("conversation.shared", caller))
            return share_id

        return await self._write(unit)

    async def unshare(self, caller: Caller, key: str) -> Conversation:
        """End its share; without one nothing happens."""
        found = await self.find(caller, key)

        def unit() -> Unit[Conversation]:
            if (yield from self._conversations.unshare(found.id)):
                yield from self._tell(found, deed("conversation.unshared", caller))
            return found

        return await self._write(unit)

    # --- parts of a run's units ---------------------------------------------------------------

    def ensure(
        self,
        caller: Caller,
        session_id: str | None,
        *,
        agent_id: str | None,
        agent_name: str | None,
        title: str = "",
    ) -> Unit[Conversation]:
        """The caller's conversation of that session id (or id), made if there is none; without a
        session id a new one, whose session id is its id."""
        fresh = uuid7()
        found, made = yield from self._conversations.ensure(
            caller.user_id,
            fresh,
            session_id or fresh,
            agent_id=agent_id,
            agent_name=agent_name,
            title=title,
        )
        if made:
            told = deed("conversation.created", caller, title=title, agent_id=agent_id)
            yield from self._tell(found, told)
        return found

    def add_messages(
        self, caller: Caller, conversation: Conversation, fresh: Sequence[NewMessage]
    ) -> Unit[list[NewMessage]]:
        """Keep messages behind those that are there; returns those that were not there yet.

        A message whose id and words are there already is the same message, kept once. Raises
        Conflict("conversation.message_exists") where an id already names another message.
        """
        try:
            added = yield from self._conversations.add_messages(conversation.id, fresh)
        except MessageClash as clash:
            raise Conflict("conversation.message_exists", message_id=clash.message_id) from None
        if added:
            ids = [message.message_id for message in added]
            told = deed("conversation.messages_added", caller, message_ids=ids)
            yield from self._tell(conversation, told)
        return added

    def _tell(self, conversation: Conversation, event: Event) -> Unit[None]:
        yield from self._log.append(f"conversation:{conversation.id}", [event])

    async def _write(self, unit: Callable[[], Unit[T]]) -> T:
        try:
            return await self._database.write(unit)
        except NoSuchRow:
            raise NotFound("conversation.not_found") from None


def title_of(said: str) -> str:
    """A title made of what a user said first: its first words, at most TITLE_MAX characters."""
    words = " ".join(said[: 4 * TITLE_MAX].split())
    return words if len(words) <= TITLE_MAX else words[: TITLE_MAX - 1].rstrip() + "…"

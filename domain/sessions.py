"""Sessions: conversations as the sandbox contract sees them.

A session is its owner's; administrators reach everyone's, except where the document keeps it to
its owner. It is named by the conversation's id, and another account's is not taken for missing:
Forbidden("session.forbidden"), NotFound("session.not_found").

Its log is that of its runs, one after the other; a position in it is a run, a record of the run's
stream (0 stands for what the user said first), and a part of that record.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from functools import partial
from itertools import groupby
from typing import Any

import msgspec

from domain.caller import Caller
from domain.conversations import Conversations
from domain.deeds import deed
from domain.errors import Forbidden, NotFound, Unavailable, Unusable
from domain.runs.life import Runs
from domain.session_feeds import Feed, Feeds
from domain.session_work import Attachments, SessionWork
from domain.turn.plan import InputMessage, SessionTurn, TurnRequest
from domain.turn.telling import ENDED, WAITING, stream_of
from gateways.sandbox.errors import SandboxError
from gateways.sandbox.sandboxes import Sandbox
from gateways.sandbox.shells import ConsoleRecord
from storage.conversations import Conversation, ConversationStore, SessionRow
from storage.database import Database, Unit
from storage.events import EventLog, Record
from storage.files import File
from storage.idempotency import tell_run
from storage.runs import Run, RunStore

ATTENDED_S = 60.0
"""How long an open chat counts as read without being renewed."""
RENEW_S = 20.0
PAGE = 500


class Setting(msgspec.Struct, frozen=True):
    """What administrators have set for sessions: the model, in the words of `llm_model_config`, the
    agent's limits, and the names of the tools that servers and agents offer the account."""

    model: dict[str, Any] | None = None
    max_iterations: int = 100
    max_retries: int = 3
    max_search_results: int = 10
    offered: list[str] = []


class Position(msgspec.Struct, frozen=True):
    """A place in a session's log. `part` None is the whole of a record; `seq` -1 stands before the
    first of a run."""

    run_id: str
    seq: int
    part: int | None = None


class Passage(msgspec.Struct, frozen=True):
    """Records of one run, in order; none where nothing has happened for a while. With `opens` what
    the user said comes before them; parts of the first up to `part` were seen."""

    run: Run
    records: list[Record]
    opens: bool = False
    part: int | None = None


class Chat(msgspec.Struct, frozen=True):
    """A chat that may be streamed. `after` is the position behind which it begins; None means the
    session's beginning."""

    session: Conversation
    after: Position | None
    attends: bool


class Sessions:
    """Sessions of every account."""

    def __init__(
        self,
        database: Database,
        store: ConversationStore,
        run_store: RunStore,
        log: EventLog,
        conversations: Conversations,
        runs: Runs,
        *,
        work: SessionWork,
        setting: Callable[[str], Awaitable[Setting]],
    ) -> None:
        self._database = database
        self._store = store
        self._run_store = run_store
        self._log = log
        self._conversations = conversations
        self._runs = runs
        self._work = work
        self._setting = setting
        self._feeds = Feeds(log, store.sessions)
        self._attended: Counter[str] = Counter()

    # --- looking --------------------------------------------------------------------------------

    async def find(self, caller: Caller, session_id: str, *, own: bool = False) -> Conversation:
        """A session that the caller may see; its own alone with `own`."""
        found = await self._store.by_id(session_id)
        if found is None:
            raise NotFound("session.not_found")
        if found.owner_id != caller.user_id and (own or not caller.is_admin):
            raise Forbidden("session.forbidden")
        return found

    async def list(self, caller: Caller) -> Sequence[SessionRow]:
        """The caller's sessions, the one that changed last first."""
        return await self._store.sessions(caller.user_id)

    def feed(self, caller: Caller, render: Callable[[Sequence[SessionRow]], bytes]) -> Feed:
        """The list as it changes, shared by all who follow the caller's."""
        return self._feeds.of(caller.user_id, render)

    def wake(self, user_id: str) -> None:
        """Let those who follow an account's list look whether they still may."""
        self._feeds.wake(user_id)

    async def history(
        self, caller: Caller, session_id: str
    ) -> tuple[Conversation, Sequence[tuple[Run, Sequence[Record]]]]:
        """The session, and its runs with their records, without the pieces of what those that have
        ended have said."""
        session = await self.find(caller, session_id)
        runs = await self._run_store.all_of(session.id)
        records = await self._log.read_conversation(session.id)
        told = {stream: tuple(group) for stream, group in groupby(records, lambda one: one.stream)}
        return session, [(run, told.get(stream_of(run.id), ())) for run in runs]

    # --- its sandbox ----------------------------------------------------------------------------

    async def sandbox(self, caller: Caller, session_id: str) -> Sandbox:
        """The sandbox of a session, made if there is none. Raises SandboxUnavailable."""
        session = await self.find(caller, session_id)
        return await self._work.sandbox(session.owner_id, session.id)

    async def display(
        self, caller: Caller, session_id: str
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to its screen that speaks RFB. Raises Unavailable("session.no_display")."""
        try:
            return await (await self.sandbox(caller, session_id)).display()
        except SandboxError as error:
            raise Unavailable("session.no_display", reason=str(error)) from error

    async def files(self, caller: Caller, session_id: str) -> Sequence[File]:
        """The files of its workspace, by path."""
        return await self._work.files(await self.find(caller, session_id))

    async def read_file(self, caller: Caller, session_id: str, path: str) -> str:
        """A file of its workspace or its sandbox as text. Raises as SessionWork.read."""
        session = await self.find(caller, session_id)
        return await self._work.read(session.owner_id, session.id, path)

    async def console(
        self, caller: Caller, session_id: str, shell_id: str
    ) -> tuple[str, Sequence[ConsoleRecord]]:
        """The last output of a shell and its console. Raises as SessionWork.console."""
        session = await self.find(caller, session_id)
        return self._work.console(session.id, shell_id)

    # --- writing --------------------------------------------------------------------------------

    async def create(self, caller: Caller) -> str:
        """A new session's id. Raises NotFound("user.not_found")."""

        def unit() -> Unit[Conversation]:
            made = yield from self._conversations.ensure(
                caller, None, agent_id=None, agent_name=None
            )
            yield from self._tell(made.owner_id, caller, made.id, "created")
            return made

        return (await self._database.write(unit)).id

    async def stop(self, caller: Caller, session_id: str) -> None:
        """End what runs in it, commands in its sandbox included."""
        session = await self.find(caller, session_id)
        await self._runs.stop_conversation(session.id)
        await self._work.stop(session.id)

    async def clear_unread(self, caller: Caller, session_id: str) -> None:
        """Count everything in the caller's own session as read."""
        session = await self.find(caller, session_id, own=True)

        def unit() -> Unit[None]:
            if (yield from self._store.clear_unread(session.id)):
                yield from self._tell(session.owner_id, caller, session.id, "read")

        await self._database.write(unit)

    async def delete(self, caller: Caller, session_id: str) -> None:
        """End and remove the caller's own session."""
        session = await self.find(caller, session_id, own=True)
        try:
            await self._conversations.delete(caller, session.id)
        except NotFound:
            raise NotFound("session.not_found") from None

    # --- chatting -------------------------------------------------------------------------------

    async def chat(
        self,
        caller: Caller,
        session_id: str,
        said: str | None,
        *,
        attachments: Sequence[str] = (),
        event_id: Position | None = None,
        language: str = "zh",
    ) -> Chat:
        """Say something in a session, or only read along; what happens is `told`.

        Raises Unusable("session.event") for a position of no run of the session, what Files.find
        raises of an attachment, and what Runs.start raises.
        """
        session = await self.find(caller, session_id)
        if event_id is not None:
            await self._run_at(session, event_id)
        attends = caller.user_id == session.owner_id
        until = time.time() + ATTENDED_S if attends else 0.0
        if said is None and not attachments:
            if session.latest_run_id:
                tell_run(session.latest_run_id)
            if attends:
                await self._attend(session.id, until)
            return Chat(session, event_id, attends)
        files = await self._work.attachments(caller, session, attachments)
        try:
            after = await self._say(caller, session, said or "", files, until, language)
        except Exception:
            await files.take_back()
            raise
        return Chat(session, event_id or after, attends)

    async def _say(
        self,
        caller: Caller,
        session: Conversation,
        words: str,
        files: Attachments,
        until: float,
        language: str,
    ) -> Position:
        """Answer the run that waits, else begin one; the position before what comes of it."""
        answered = await self._runs.answer(
            caller, session, words, attach=files.place, attended_until=until
        )
        if answered is not None:
            run, seq = answered
            return Position(run.id, seq - 1)
        setting = await self._setting(session.owner_id)
        request = TurnRequest(
            messages=[InputMessage(role="user", content=words)],
            session_id=session.id,
            llm_model_config=setting.model,
            max_loop_count=setting.max_iterations,
        )
        started = await self._runs.start(
            caller,
            request,
            language=language,
            interrupts=True,
            user_id=session.owner_id,
            session=SessionTurn(
                untitled=not session.title,
                max_retries=setting.max_retries,
                max_search_results=setting.max_search_results,
                offered=setting.offered,
            ),
            attach=files.place if files else None,
            attended_until=until,
        )
        return Position(started.run.id, -1)

    async def chat_of_run(self, caller: Caller, run_id: str) -> Chat | None:
        """The chat that began a run, again from its beginning; None once it is gone."""
        run = await self._run_store.get(run_id)
        if run is None:
            return None
        session = await self._store.by_id(run.conversation_id)
        if session is None:
            return None
        attends = caller.user_id == session.owner_id
        if attends:
            await self._attend(session.id, time.time() + ATTENDED_S)
        return Chat(session, Position(run.id, -1), attends)

    async def told(
        self, chat: Chat, *, idle_s: float, on_cut: Callable[[], None] | None = None
    ) -> AsyncGenerator[Passage, None]:
        """What has happened behind the chat's beginning, and then what happens, until the
        session's latest run has ended or waits. Raises CutOff."""
        after, session = chat.after, chat.session
        run = await (self._run_at(session, after) if after else self._next(session, None))
        seq = after.seq if after else -1
        part = after.part if after else None
        renew_at = time.monotonic() + RENEW_S
        while run is not None:
            opens = seq < 0
            seq = max(seq - (part is not None), 0)
            if not run.live or run.state == "waiting":
                if opens:
                    yield Passage(run, [], opens=True)
                while records := await self._log.read(stream_of(run.id), seq, PAGE):
                    seq = records[-1].seq
                    yield Passage(run, records, part=part)
                    part = None
            else:
                if opens:
                    yield Passage(run, [], opens=True)
                async with self._log.follow(
                    stream_of(run.id), seq, idle_s=idle_s, on_cut=on_cut
                ) as follower:
                    async for records in follower:
                        yield Passage(run, records, part=part)
                        if records:
                            part = None
                            if records[-1].type == ENDED:
                                break
                            if records[-1].type == WAITING and await self._waits(run.id):
                                break
                        if chat.attends and time.monotonic() >= renew_at:
                            renew_at = time.monotonic() + RENEW_S
                            await self._attend(session.id, time.time() + ATTENDED_S)
            run, seq, part = await self._next(session, run), -1, None

    def began(self, chat: Chat) -> None:
        """A chat's stream is open."""
        if chat.attends:
            self._attended[chat.session.id] += 1

    def left(self, chat: Chat) -> None:
        """A chat's stream has ended: what comes now is unread, unless another is open here."""
        if not chat.attends:
            return
        session_id = chat.session.id
        self._attended[session_id] -= 1
        if self._attended[session_id] <= 0:
            del self._attended[session_id]
            self._database.in_background(partial(self._attend, session_id, 0.0))

    # --- parts ----------------------------------------------------------------------------------

    async def _attend(self, session_id: str, until: float) -> None:
        await self._database.write(lambda: self._store.attend(session_id, until))

    async def _run_at(self, session: Conversation, position: Position) -> Run:
        run = await self._run_store.get(position.run_id)
        if run is None or run.conversation_id != session.id:
            raise Unusable("session.event")
        return run

    async def _next(self, session: Conversation, run: Run | None) -> Run | None:
        return await self._run_store.after(session.id, run)

    async def _waits(self, run_id: str) -> bool:
        run = await self._run_store.get(run_id)
        return run is None or run.state == "waiting"

    def _tell(self, owner_id: str, caller: Caller, session_id: str, what: str) -> Unit[None]:
        told = deed(f"session.{what}", caller, session_id=session_id)
        yield from self._log.append(f"user:{owner_id}", [told])

"""Runs: one turn of an agent each, a durable workflow whose events are a stream.

A run's row commits together with the user's messages; its id is the workflow's. The workflow
starts after that commit, and where the process died in between, the reconciler starts it
(reconciler.py). Whoever ends a run from outside (an interrupt, a newer run of the session, the
reconciler) closes its row first; the attempt that carries it out then cannot write any more, and
is stopped.
"""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import msgspec

from domain.agents import Agents
from domain.caller import Caller
from domain.conversations import Conversations, Progress, title_of
from domain.errors import Conflict, Forbidden, NotFound, Throttled, Unusable
from domain.ids import uuid7
from domain.runs.admission import Gate
from domain.runs.ending import changed
from domain.runs.progress import progress
from domain.turn.loop import Next
from domain.turn.parts import Parts
from domain.turn.plan import InputMessage, LoopLimits, SessionTurn, TurnRequest
from domain.turn.planning import Planner
from domain.turn.telling import Answered, Titled, event, stream_of
from domain.turn.turn import Turn
from gateways.models.model import image_urls, text_of
from gateways.workflows import Workflows
from storage.conversations import Conversation, NewMessage
from storage.database import AfterCommit, NoSuchRow, Orphan, StorageError, Unit
from storage.events import Follower, StreamTaken
from storage.idempotency import tell_run
from storage.runs import Active, Run, Superseded

log = logging.getLogger("quartet.runs")

WORKFLOW = "run"
BACKLOG = 4
"""An account may have this many times as many live runs as are carried out at once."""
SHOWN_INTERRUPTED_S = 600.0
"""How long an interrupted session stays in the list of active sessions."""

Attach = Callable[[], Awaitable[list[dict[str, Any]]]]
"""Places files, as a run's plan keeps them (SessionTurn)."""


class RunPolicy(msgspec.Struct, frozen=True):
    """What the operator has set."""

    loops: LoopLimits = LoopLimits()
    per_user: int = 50
    per_provider: int = 200
    heartbeat_s: float = 20.0


class Started(msgspec.Struct, frozen=True):
    """A run that has just begun."""

    run: Run
    conversation: Conversation


class Found(msgspec.Struct, frozen=True):
    """A run of the caller's, with the conversation it belongs to."""

    run: Run
    conversation: Conversation


class _Live:
    """A run that this process carries out: its present stride, and whether it was stopped."""

    __slots__ = ("stopped", "stride")

    def __init__(self) -> None:
        self.stride: asyncio.Task[Next] | None = None
        self.stopped = False

    def stop(self) -> None:
        self.stopped = True
        if self.stride is not None:
            self.stride.cancel()


class Runs:
    """The runs of every account, and those that this process carries out."""

    def __init__(
        self,
        parts: Parts,
        conversations: Conversations,
        agents: Agents,
        workflows: Workflows,
        policy: RunPolicy,
    ) -> None:
        self._parts = parts
        self._database = parts.database
        self._store = parts.runs
        self._log = parts.log
        self._endings = parts.endings
        self._conversations = conversations
        self._planner = Planner(parts, agents, policy.loops)
        self._workflows = workflows
        self._policy = policy
        self._per_user = Gate(policy.per_user)
        self._per_provider = Gate(policy.per_provider)
        self.heartbeat_s = policy.heartbeat_s
        self._live: dict[str, _Live] = {}
        self.is_stopping = self._draining = False
        workflows.register(WORKFLOW, self._carry_out)

    # --- beginning ------------------------------------------------------------------------------

    async def start(
        self,
        caller: Caller,
        request: TurnRequest,
        *,
        language: str,
        stops_with_client: bool = False,
        interrupts: bool = False,
        user_id: str | None = None,
        session: SessionTurn | None = None,
        attach: Attach | None = None,
        attended_until: float = 0.0,
    ) -> Started:
        """Begin a run on the session; returns once it is durable and its workflow is on its way.

        A caller who sent no credential (`SAGE_OPEN_CHAT`) gets a session of its own every time,
        without tools and without memory.

        With a `session` the run is planned, and the conversation has to be there already
        (NotFound("session.not_found")); its owner reads along until `attended_until`. `attach`
        puts files beside what is said, which then need not be anything, and is called once all
        else that may be refused has been looked at.

        `user_id` is the account that the run is for where it is not the caller (administrators
        only). `interrupts` ends a run that is under way in the session; otherwise
        Conflict("session.busy").

        Raises Unusable: chat.empty, chat.nothing_to_answer, chat.message_repeated; what
        Planner.plan raises; Forbidden("chat.foreign_user"), Throttled("chat.too_many_runs").
        """
        caller = _acting(caller, user_id)
        if caller.via == "none":
            # Strangers share one account: none goes on with, or is told of, another's session.
            request = msgspec.structs.replace(request, session_id=None, memory_type="none")
        messages = _checked(request.messages, wordless=attach is not None)
        plan = await self._planner.plan(caller, request, language, messages)
        if session is not None:
            # The cap bounds what requests ask for; a session's rounds are the administrators'.
            rounds = request.max_loop_count or plan.max_loop_count
            if attach is not None:
                session = msgspec.structs.replace(session, attachments=await attach())
            plan = msgspec.structs.replace(plan, session=session, max_loop_count=rounds)
        run_id = uuid7()
        attached = session.attachments if session else []
        fresh = [_kept(message, run_id, {"attachments": attached}) for message in messages]
        said = next((text_of(m.content) for m in reversed(messages) if m.role == "user"), "")
        title = title_of(said) or title_of(", ".join(file["filename"] for file in attached))
        tell_run(run_id)

        def unit() -> Unit[Started]:
            conversation = yield from self._conversations.ensure(
                caller,
                request.session_id,
                agent_id=request.agent_id,
                agent_name=plan.own_name or None,
                title=title,
            )
            if session is not None:
                yield from self._attend(conversation, request.session_id, attended_until)
            yield from self._parts.conversations.lock(conversation.id)
            live = yield from self._store.live_in_conversation(conversation.id)
            if live and not interrupts:
                raise Conflict("session.busy")
            for old in live:
                # First of all: what it was saying stands before what is said now.
                yield from self._stop(old.id, "replaced")
            yield from self._conversations.add_messages(caller, conversation, fresh)
            if (yield from self._store.count_live(caller.user_id)) >= self._policy.per_user * (
                BACKLOG
            ):
                raise Throttled("chat.too_many_runs", retry_after=5)
            run = Run(
                id=run_id,
                conversation_id=conversation.id,
                owner_id=caller.user_id,
                agent_id=request.agent_id,
                state="queued",
                reason=None,
                request=msgspec.to_builtins(plan),
                query=said,
                stops_with_client=stops_with_client,
                process_id=self._parts.process_id,
                attempt=0,
                answers=0,
                lines=0,
                tasks=None,
                created_at=time.time(),
                started_at=None,
                ended_at=None,
            )
            yield from self._store.create(run)
            yield from self._parts.conversations.set_latest_run(
                conversation.id,
                run_id,
                agent_id=request.agent_id,
                agent_name=plan.own_name or None,
            )
            yield from self._log.append(f"user:{caller.user_id}", [changed(run_id, "queued")])
            if session is not None and session.untitled:
                yield from self._parts.conversations.rename(conversation.id, title)
                yield from self._log.append(stream_of(run_id), [event(Titled(title))])
            return Started(run, conversation)

        try:
            started = await self._database.write(unit)
        except Orphan:
            raise NotFound("user.not_found") from None
        await self._set_out(started.run)
        return started

    async def answer(
        self,
        caller: Caller,
        conversation: Conversation,
        said: str,
        *,
        attach: Attach,
        attended_until: float = 0.0,
    ) -> tuple[Run, int] | None:
        """Let the conversation's run that waits go on with what its user says and attaches. Returns
        the run and the record of its stream that tells of the answer; None where no run waits."""
        waiting = await self._store.latest(conversation.id)
        if waiting is None or waiting.state != "waiting":
            return None
        run_id, message_id, attachments = waiting.id, uuid7(), await attach()
        message = InputMessage(role="user", content=said, message_id=message_id)
        fresh = [_kept(message, run_id, {"attachments": attachments})]
        told = [event(Answered(message_id, said, attachments))]
        tell_run(run_id)

        def unit() -> Unit[tuple[Run, int]]:
            yield from self._attend(conversation, conversation.id, attended_until)
            yield from self._conversations.add_messages(caller, conversation, fresh)
            run = yield from self._store.answer(run_id)
            yield from self._log.append(f"user:{run.owner_id}", [changed(run_id, "queued")])
            return run, (yield from self._log.append(stream_of(run_id), told))

        try:
            answered = await self._database.write(unit)
        except Superseded:
            return None
        except NoSuchRow:
            raise NotFound("session.not_found") from None
        await self._set_out(answered[0])
        return answered

    def _attend(
        self, conversation: Conversation, session_id: str | None, until: float
    ) -> Unit[None]:
        if conversation.id != session_id:
            raise NotFound("session.not_found")  # it was deleted at this moment
        if until:
            yield from self._parts.conversations.attend(conversation.id, until)

    async def _set_out(self, run: Run) -> None:
        try:
            await self._workflows.start(WORKFLOW, run.workflow_id)
        except Exception:
            # The run is durable: the reconciler starts it, and its stream waits until then.
            log.exception("the workflow of run %s did not start", run.id)

    # --- ending from outside --------------------------------------------------------------------

    async def interrupt(self, caller: Caller, session_id: str, message: str = "") -> None:
        """Stop what runs in the caller's session; nothing to stop is a success."""
        try:
            conversation = await self._conversations.find(caller, session_id)
        except NotFound:
            return
        await self.stop_conversation(conversation.id, "interrupted", message)

    async def stop(self, run_id: str, reason: str, message: str = "") -> None:
        """End one run as cancelled, if it is live."""
        await self._database.write(lambda: self._stop(run_id, reason, message))

    async def stop_account(self, user_id: str) -> None:
        """End every live run of an account as cancelled."""
        for run in await self._store.active(user_id, since=math.inf):
            await self.stop(run.run_id, "interrupted")

    async def stop_conversation(
        self, conversation_id: str, reason: str = "interrupted", message: str = ""
    ) -> None:
        """End a conversation's live runs as cancelled; they have ended when this returns."""

        def unit() -> Unit[None]:
            live = yield from self._store.live_in_conversation(conversation_id)
            for run in live:
                yield from self._stop(run.id, reason, message)

        await self._database.write(unit)

    def _stop(self, run_id: str, reason: str, message: str = "") -> Unit[None]:
        if (yield from self._endings.cancel(run_id, reason, message)):
            yield AfterCommit(partial(self.halt, run_id))

    def halt(self, run_id: str) -> None:
        """Stop carrying out a run that has ended."""
        live = self._live.get(run_id)
        if live is not None:
            live.stop()

    def client_left(self, run_id: str) -> None:
        """The client of a run that stops with its client has gone, or was cut off because this
        process ends: end the run, in the background."""
        reason = "shutdown" if self.is_stopping else "client_left"
        self._database.in_background(partial(self.stop, run_id, reason))

    # --- looking --------------------------------------------------------------------------------

    async def find(
        self, caller: Caller, session_id: str, run_id: str | None = None
    ) -> Found | None:
        """A run of the caller's session: that one, else the latest. None where the session or the
        run is unknown or another account's."""
        conversation = await self._parts.conversations.find(caller.user_id, session_id)
        if conversation is None:
            return None
        if run_id:
            run = await self._store.get_owned(caller.user_id, run_id)
            if run is None or run.conversation_id != conversation.id:
                return None
        else:
            run = await self._store.latest(conversation.id)
        return Found(run, conversation) if run is not None else None

    async def get(self, caller: Caller, run_id: str) -> Found | None:
        """A run of the caller's by its id."""
        run = await self._store.get_owned(caller.user_id, run_id)
        if run is None:
            return None
        conversation = await self._parts.conversations.find(caller.user_id, run.conversation_id)
        return Found(run, conversation) if conversation is not None else None

    def follow(
        self,
        run_id: str,
        from_line: int = 0,
        *,
        idle_s: float,
        on_cut: Callable[[], None] | None = None,
    ) -> Follower:
        """A run's events behind the line that the client has received last."""
        return self._log.follow(
            stream_of(run_id), from_line=from_line, idle_s=idle_s, on_cut=on_cut
        )

    def follow_account(self, user_id: str, after_seq: int, *, idle_s: float) -> Follower:
        """What happens to an account's runs, behind a record of its stream."""
        return self._log.follow(f"user:{user_id}", after_seq, idle_s=idle_s)

    async def account_head(self, user_id: str) -> int:
        """The last record of an account's stream."""
        return await self._log.head(f"user:{user_id}")

    async def is_live(self, run_id: str) -> bool:
        """Whether a run has not ended."""
        run = await self._store.get(run_id)
        return run is not None and run.live

    async def lines_of(self, run_id: str) -> int:
        """How many lines a run has shown."""
        return await self._log.last_line(stream_of(run_id))

    async def progress_of(self, run_id: str) -> Progress:
        """How far a run is."""
        run = await self._store.get(run_id)
        return await progress(self._log, run) if run is not None else Progress()

    async def active(self, caller: Caller) -> list[Active]:
        """The caller's live runs, and sessions whose latest run was interrupted a while ago."""
        since = time.time() - SHOWN_INTERRUPTED_S
        return await self._store.active(caller.user_id, since)

    async def tasks(self, caller: Caller, session_id: str) -> list[dict[str, Any]]:
        """The tasks of the session's latest run. Raises NotFound("conversation.not_found")."""
        conversation = await self._conversations.find(caller, session_id)
        run = await self._store.latest(conversation.id)
        return (run.tasks or []) if run is not None else []

    # --- carrying out ---------------------------------------------------------------------------

    async def _carry_out(self, workflow_id: str) -> None:
        """The workflow's body. While the process drains it is cancelled instead of ended: the
        workflow stays unfinished in its record, and is taken up again."""
        if self._draining:
            raise asyncio.CancelledError
        run_id = workflow_id.partition(".")[0]
        run = await self._store.get(run_id)
        if run is None or not run.live or run.workflow_id != workflow_id:
            return
        choice = run.request.get("model") or {}
        provider = choice.get("provider_id") or choice.get("base_url") or ""
        live = self._live[run_id] = _Live()
        turn = Turn(self._parts, run_id)
        try:
            async with self._per_user.enter(run.owner_id), self._per_provider.enter(provider):
                while await self._stride(live, turn) == "more":
                    pass
        finally:
            if self._live.get(run_id) is live:
                del self._live[run_id]

    async def _stride(self, live: _Live, turn: Turn) -> Next:
        """One stride in a task of its own, which ends when the run is ended from outside."""
        if live.stopped:
            if self._draining:
                raise asyncio.CancelledError
            return "done"
        live.stride = asyncio.create_task(turn.advance())
        await asyncio.wait({live.stride})
        if live.stride.cancelled():
            if self._draining:
                raise asyncio.CancelledError
            return "done"
        error = live.stride.exception()
        if error is None:
            return live.stride.result()
        if isinstance(error, Superseded | StreamTaken):
            return "done"
        log.error("run %s failed", turn.run_id, exc_info=error)
        reason = "storage" if isinstance(error, StorageError) else "fault"
        try:
            await self._database.write(lambda: self._endings.fail(turn.run_id, reason))
        except StorageError:
            log.exception("run %s waits for the reconciler to end it", turn.run_id)
        return "done"

    @property
    def carried_out(self) -> list[str]:
        """The runs that this process carries out."""
        return list(self._live)

    async def halt_ended(self) -> None:
        """Stop carrying out runs that another process has ended."""
        for run_id in await self._store.ended_among(self.carried_out):
            self.halt(run_id)

    def prepare_to_stop(self) -> None:
        """This process has been told to end: that is what cuts clients off from now on."""
        self.is_stopping = True

    async def drain(self) -> None:
        """Before the process ends: end the runs that stop with their clients as interrupted, and
        leave the others to recovery."""
        self._draining = True
        for run_id in self.carried_out:
            run = await self._store.get(run_id)
            if run is not None and run.stops_with_client:
                await self.stop(run_id, "shutdown")
        strides = []
        for live in self._live.values():
            live.stop()
            if live.stride is not None:
                strides.append(live.stride)
        if strides:
            await asyncio.wait(strides)


def _acting(caller: Caller, user_id: str | None) -> Caller:
    if not user_id or user_id == caller.user_id:
        return caller
    if not caller.is_admin:
        raise Forbidden("chat.foreign_user")
    return Caller(user_id=user_id, role="operator", session_id=caller.session_id, via=caller.via)


def _checked(given: list[InputMessage], *, wordless: bool = False) -> list[InputMessage]:
    """The messages with ids; `wordless`, they may say nothing. Raises Unusable."""
    if not given:
        raise Unusable("chat.empty")
    if not wordless and not any(
        message.role == "user" and (text_of(message.content).strip() or image_urls(message.content))
        for message in given
    ):
        raise Unusable("chat.nothing_to_answer")
    seen: set[str] = set()
    messages = []
    for message in given:
        message_id = message.message_id or uuid7()
        if message_id in seen:
            raise Unusable("chat.message_repeated", message_id=message_id[:128])
        seen.add(message_id)
        messages.append(msgspec.structs.replace(message, message_id=message_id))
    return messages


def _kept(message: InputMessage, run_id: str, details: dict[str, Any] | None = None) -> NewMessage:
    types = {"user": "user_input", "assistant": "assistant_text"}
    return NewMessage(
        id=uuid7(),
        message_id=message.message_id or "",
        role=message.role,
        type=types.get(message.role, message.role),
        text=text_of(message.content),
        content=message.content if isinstance(message.content, list) else None,
        run_id=run_id if message.role == "user" else None,
        details=details if details and details.get("attachments") else None,
    )

"""How a run ends when it does not come to its end by itself: interrupted, failed, given up."""

from collections.abc import Sequence

import msgspec

from domain.ids import uuid7
from domain.turn import planned
from domain.turn.plan import without_secrets
from domain.turn.telling import (
    DECODERS,
    Delegated,
    Ended,
    Failed,
    Noted,
    Telling,
    Text,
    TextKind,
    Whole,
    event,
    stream_of,
)
from storage.conversations import SAID, ConversationStore, NewMessage
from storage.database import NoSuchRow, Unit
from storage.events import EventLog
from storage.records import LAST_LINE, READ, Event
from storage.runs import LIVE, Run, RunStore, State

PAGE = 2000
MESSAGE_TYPES = {
    "answer": "assistant_text",
    "reasoning": "reasoning_content",
    "thinking": "thinking",
    "summary": "stage_summary",
}
"""How a kind of text is kept as a message (sage's type, which is the one that is stored)."""


class Endings:
    """Units that end a run from outside its turn, whoever carries it out.

    The run's row is closed and its attempt fenced off, what was streamed of unfinished messages is
    kept as messages, and the last events are logged, all in one transaction. Locks are taken in
    one order: the conversation, its run, the account's stream, the run's stream.
    """

    def __init__(self, runs: RunStore, conversations: ConversationStore, log: EventLog) -> None:
        self._runs = runs
        self._conversations = conversations
        self._log = log

    def fail(self, run_id: str, reason: str, detail: str = "") -> Unit[bool]:
        """End a live run as failed: an error, then the end. False if it had ended."""
        failed = Failed(uuid7(), reason, detail)
        return (yield from self.end(run_id, "failed", reason, failed))

    def cancel(self, run_id: str, reason: str, text: str = "") -> Unit[bool]:
        """End a live run as cancelled; `text` are the words of whoever stopped it."""
        noted = Noted(uuid7(), reason, text=text)
        return (yield from self.end(run_id, "cancelled", reason, noted))

    def end(self, run_id: str, state: State, reason: str, last: Telling) -> Unit[bool]:
        """End a live run; `last` is told before the end."""
        run = yield from self._runs.peek(run_id)
        try:
            yield from self._conversations.lock(run.conversation_id)
        except NoSuchRow:
            return False
        run = yield from self._runs.lock(run_id)
        if run.state not in LIVE:
            return False
        yield from self._log.append(f"user:{run.owner_id}", [changed(run_id, state)])
        stream = stream_of(run_id)
        yield from self._log.hold(stream)
        unkept = yield from self._unkept(run)
        yield from self._conversations.add_messages(run.conversation_id, unkept)
        yield from self._runs.end_open_calls(run_id)
        shown = yield LAST_LINE(stream=stream)
        told: Sequence[Telling] = ()
        if run.tasks and "session" in run.request:
            tasks, told = planned.broken(run.tasks)
            yield from self._runs.set_tasks(run_id, run.attempt, tasks)
        final = [event(one) for one in (*wholes(unkept), *told, last, Ended(state, reason))]
        lines = (shown[0][0] if shown else 0) + sum(one.shown for one in final)
        yield from settled(self._runs, run, state, reason, lines)
        yield from self._log.append(stream, final)
        return True

    def _unkept(self, run: Run) -> Unit[list[NewMessage]]:
        """What was streamed of messages that are not kept yet."""
        texts: dict[tuple[str, str], list[str]] = {}
        tellers: dict[str, Delegated | None] = {}
        after = 0
        while True:
            records = yield READ(stream=stream_of(run.id), after=after, limit=PAGE)
            for record in records:
                if record.type == "text":
                    told: Text = DECODERS["text"].decode(record.payload)
                    texts.setdefault((told.message_id, told.kind), []).append(told.text)
                    tellers[told.message_id] = told.by
            if len(records) < PAGE:
                break
            after = records[-1].seq
        kept = yield from self._conversations.kept(
            run.conversation_id, [message_id for message_id, _ in texts]
        )
        return [
            unfinished(run, message_id, kind, "".join(pieces), tellers[message_id])
            for (message_id, kind), pieces in texts.items()
            if message_id not in kept
        ]


def settled(runs: RunStore, run: Run, state: State, reason: str | None, lines: int) -> Unit[None]:
    """Close a run's row. What the request brought along was for carrying it out alone."""
    request = without_secrets(run.request)
    if request != run.request:
        yield from runs.set_request(run.id, request)
    yield from runs.settle(run.id, state, reason, lines)


def unfinished(run: Run, message_id: str, kind: str, text: str, by: Delegated | None) -> NewMessage:
    """What was streamed of a message, as a message to keep."""
    task = {"task": by.shown()} if by else {}
    return NewMessage(
        id=uuid7(),
        message_id=message_id,
        role="assistant",
        type=MESSAGE_TYPES[kind],
        text=text,
        agent_name=by.agent_name if by else run.request.get("agent_name"),
        run_id=run.id,
        task_id=by.task_id if by else None,
        details={"unfinished": True, **task},
    )


def wholes(messages: Sequence[NewMessage]) -> list[Whole]:
    """What is told of messages that are finished, or cut off: those that the run's own agent says
    to the user."""
    kinds: dict[str, TextKind] = {"stage_summary": "summary"}
    return [
        Whole(message.message_id, kinds.get(message.type, "answer"), message.text)
        for message in messages
        if message.type in SAID and message.text and message.task_id is None
    ]


def changed(run_id: str, state: State) -> Event:
    """The event on an account's stream that tells of a run's beginning and end."""
    return Event("run.changed", msgspec.json.encode({"run_id": run_id, "state": state}))

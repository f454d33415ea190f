"""How a run ends when it does not come to its end by itself: interrupted, failed, given up."""

from collections.abc import Sequence
from typing import Any

import msgspec

from domain.ids import uuid7
from domain.turn import planned
from domain.turn.plan import without_secrets
from domain.turn.telling import (
    DECODERS,
    Called,
    Delegated,
    Ended,
    Failed,
    Noted,
    Returned,
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
CUT_OFF = "The call was cut off: the run ended before there was a result."


class Course:
    """What a run's events leave open, read in their order: texts by message and kind, results of
    tools, and calls that have none. Ids of calls may come again; each result is its latest's."""

    def __init__(self) -> None:
        self.texts: dict[tuple[str, str], list[str]] = {}
        self.tellers: dict[str, Delegated | None] = {}
        self.results: list[Returned] = []
        self._open: dict[tuple[str, str], Returned] = {}

    def take(self, type_: str, payload: bytes) -> None:
        if type_ not in ("text", "tool.called", "tool.returned"):
            return
        match DECODERS[type_].decode(payload):
            case Text() as told:
                self.texts.setdefault((told.message_id, told.kind), []).append(told.text)
                self.tellers[told.message_id] = told.by
            case Called() as told:
                boxes = told.toolboxes or [""] * len(told.tool_calls)
                for call, box in zip(told.tool_calls, boxes, strict=True):
                    self._open[_key(told.by, call["id"])] = _cut_off(call, box, told.by)
            case Returned() as told:
                self.results.append(told)
                self._open.pop(_key(told.by, told.tool_call_id), None)

    @property
    def cut_off(self) -> list[Returned]:
        """What is told of calls that nothing has come of."""
        return list(self._open.values())


class Endings:
    """Units that end a run from outside its turn, whoever carries it out.

    The run's row is closed and its attempt fenced off, what was streamed of unfinished messages is
    kept as messages, calls of tools that are cut off are told as failed, and the last events are
    logged, all in one transaction. Locks are taken in
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
        course = yield from self._course(run)
        cut_off = course.cut_off
        unkept = yield from self._unkept(run, course)
        unkept += [result_of(run, each) for each in cut_off]
        why = [failure(run, last)] if isinstance(last, Failed) else []
        yield from self._conversations.add_messages(run.conversation_id, [*unkept, *why])
        yield from self._runs.end_open_calls(run_id)
        shown = yield LAST_LINE(stream=stream)
        told: Sequence[Telling] = ()
        if run.tasks and "session" in run.request:
            tasks, told = planned.broken(run.tasks)
            yield from self._runs.set_tasks(run_id, run.attempt, tasks)
        ends = (*cut_off, *wholes(unkept), *told, last, Ended(state, reason))
        final = [event(one) for one in ends]
        lines = (shown[0][0] if shown else 0) + sum(one.shown for one in final)
        yield from settled(self._runs, run, state, reason, lines)
        yield from self._log.append(stream, final)
        return True

    def _course(self, run: Run) -> Unit[Course]:
        course = Course()
        after = 0
        while True:
            records = yield READ(stream=stream_of(run.id), after=after, limit=PAGE)
            for record in records:
                course.take(record.type, record.payload)
            if len(records) < PAGE:
                return course
            after = records[-1].seq

    def _unkept(self, run: Run, course: Course) -> Unit[list[NewMessage]]:
        """What was told of messages that are not kept yet."""
        kept = yield from self._conversations.kept(
            run.conversation_id,
            [message_id for message_id, _ in course.texts]
            + [result.message_id for result in course.results],
        )
        results = [result_of(run, one) for one in course.results if one.message_id not in kept]
        return results + [
            unfinished(run, message_id, kind, "".join(pieces), course.tellers[message_id])
            for (message_id, kind), pieces in course.texts.items()
            if message_id not in kept
        ]


def _key(by: Delegated | None, call_id: str) -> tuple[str, str]:
    return by.task_id if by else "", call_id


def _cut_off(call: dict[str, Any], toolbox: str, by: Delegated | None) -> Returned:
    function = call["function"]
    return Returned(
        uuid7(),
        call["id"],
        function["name"],
        CUT_OFF,
        failed=True,
        toolbox=toolbox,
        arguments=function["arguments"],
        by=by,
    )


def result_of(run: Run, told: Returned) -> NewMessage:
    """The message that holds a tool's result."""
    by = told.by
    task = {"task": by.shown()} if by else {}
    return NewMessage(
        id=uuid7(),
        message_id=told.message_id,
        role="tool",
        type="tool_call_result",
        text=told.text,
        tool_call_id=told.tool_call_id,
        agent_name=by.agent_name if by else run.request.get("agent_name"),
        run_id=run.id,
        task_id=by.task_id if by else None,
        details={"name": told.name, **task},
    )


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


def failure(run: Run, told: Failed) -> NewMessage:
    """The message that keeps why a run failed. It has no words of its own: the wire's are those of
    the line that told it."""
    language = run.request.get("language", "zh")
    return NewMessage(
        id=uuid7(),
        message_id=told.message_id,
        role="assistant",
        type="error",
        agent_name=run.request.get("agent_name"),
        run_id=run.id,
        details={"reason": told.reason, "detail": told.detail, "language": language},
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

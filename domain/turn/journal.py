"""What a run writes as it goes: its rows and its events, in step with each other.

One attempt writes; the first calls that it notes claim the run. The run's own agent and its
sub-agents write side by side: what any of them tells is logged in the order in which it was told,
and what one of them has finished is committed together with all that was told until then.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from domain.runs.ending import changed, settled
from domain.turn.parts import Parts
from domain.turn.telling import Begun, Ended, Telling, Waiting, event, stream_of
from gateways.models.model import Usage
from storage.conversations import Message, NewMessage
from storage.database import Unit
from storage.records import Event
from storage.runs import Call, Kind, Outcome, Run, State
from storage.writers import Writer

SIDE_BY_SIDE = 8
"""Model calls of one run that go out at once; further ones wait."""

Finished = tuple[int, Outcome, Usage | None]
"""A call that has come back: its step, what came of it, and what it cost."""


class Journal:
    """The rows and the stream of a run, for one attempt. Whatever writes raises Superseded or
    StreamTaken once another has taken the run."""

    def __init__(
        self, parts: Parts, run: Run, made: Sequence[Call], of_tasks: Sequence[Message] = ()
    ) -> None:
        self.run = run
        self.tasks: list[dict[str, Any]] = list(run.tasks or ())
        """What tasks_status shows; changed through `put_tasks`."""
        self.of_tasks: dict[str, list[Message]] = {}
        """What an earlier attempt's sub-agents said, by task."""
        for message in of_tasks:
            self.of_tasks.setdefault(message.task_id or "", []).append(message)
        self.places = asyncio.Semaphore(SIDE_BY_SIDE)
        self._parts = parts
        self._stream = stream_of(run.id)
        self._step = max((call.step for call in made), default=-1) + 1
        self._claimed = False
        self._tasks_moved = False
        self._head = 0
        self._line = 0
        self._writer: Writer | None = None
        self._committing = asyncio.Lock()
        self._meanwhile: list[Event] = []

    async def begin(self, kind: Kind, names: Sequence[str]) -> int:
        """Note calls that are about to go out; returns the first one's step."""
        step, parts = self._step, self._parts
        self._step += len(names)
        if self._claimed:
            await parts.database.write(lambda: self._note(kind, step, list(names)))
            return step
        self.run = await parts.database.write(lambda: self._claim(kind, step, list(names)))
        self._claimed = True
        if self.run.attempt > 1:
            self._line = await parts.log.last_line(self._stream)
        return step

    def tell(self, telling: Telling) -> None:
        """Log what is told; it shows within milliseconds."""
        self.push(event(telling))

    def push(self, told: Event) -> None:
        if self._committing.locked():
            self._meanwhile.append(told)
        else:
            self._open().push(told)

    async def drain(self) -> None:
        """Wait while the log is far behind."""
        if self._writer is not None:
            await self._writer.drain()
        else:
            async with self._committing:
                pass

    def put_tasks(self, tasks: Sequence[dict[str, Any]]) -> None:
        """Show these tasks from the next commit on."""
        self.tasks = list(tasks)
        self._tasks_moved = True

    async def commit(
        self,
        finished: Sequence[Finished] = (),
        fresh: Sequence[NewMessage] = (),
        told: Sequence[Telling] = (),
        *,
        title: str = "",
        waits: str = "",
        ends: bool = False,
        reason: str = "",
    ) -> None:
        """Commit calls that have come back and the messages that they leave, with everything
        told so far and `told` behind it. `title` is the session's from now on; `waits`, a
        message's id, lets the run wait for the answer to it; `ends` ends the run, `reason` as
        failed."""
        state: State = "failed" if reason else "completed"
        last: list[Telling] = []
        if waits:
            last.append(Waiting(waits))
        elif ends:
            last.append(Ended(state, reason))
        final = [event(telling) for telling in (*told, *last)]
        async with self._committing:
            writer, self._writer = self._open(), None
            tasks = self.tasks if self._tasks_moved else None
            self._tasks_moved = False
            lines = writer.pushed_line + sum(one.shown for one in final)

            def unit() -> Unit[None]:
                yield from self._kept(finished, fresh, tasks, title, bool(last))
                if waits:
                    yield from self._waited()
                elif ends:
                    yield from self._ended(state, reason, lines)

            await writer.close_with(unit, final)
            self._head, self._line = writer.head, writer.line
        meanwhile, self._meanwhile = self._meanwhile, []
        for each in meanwhile:
            self.push(each)

    def _open(self) -> Writer:
        if self._writer is None:
            self._writer = self._parts.log.writer(self._stream, head=self._head, line=self._line)
        return self._writer

    def _claim(self, kind: Kind, step: int, names: list[str]) -> Unit[Run]:
        runs = self._parts.runs
        run = yield from runs.claim(self.run.id, self._parts.process_id)
        self._head = yield from self._parts.log.append(self._stream, [event(Begun(run.attempt))])
        yield from runs.begin_calls(run, step, kind, names)
        return run

    def _note(self, kind: Kind, step: int, names: list[str]) -> Unit[None]:
        yield from self._parts.runs.hold(self.run.id, self.run.attempt)
        yield from self._parts.runs.begin_calls(self.run, step, kind, names)

    def _kept(
        self,
        finished: Sequence[Finished],
        fresh: Sequence[NewMessage],
        tasks: list[dict[str, Any]] | None,
        title: str,
        stands: bool,
    ) -> Unit[None]:
        """The rows of calls that are over. Locks: the conversation, then its run."""
        parts, run = self._parts, self.run
        if fresh:
            yield from parts.conversations.add_messages(run.conversation_id, fresh)
        elif stands:
            yield from parts.conversations.lock(run.conversation_id)
        if title:
            yield from parts.conversations.rename(run.conversation_id, title)
        yield from parts.runs.hold(run.id, run.attempt)
        for step, outcome, usage in finished:
            yield from parts.runs.end_call(
                run,
                step,
                outcome,
                usage.input_tokens if usage else None,
                usage.output_tokens if usage else None,
            )
        if tasks is not None:
            yield from parts.runs.set_tasks(run.id, run.attempt, tasks)

    def _waited(self) -> Unit[None]:
        parts, run = self._parts, self.run
        yield from parts.runs.wait(run.id, run.attempt)
        yield from parts.log.append(f"user:{run.owner_id}", [changed(run.id, "waiting")])

    def _ended(self, state: State, reason: str, lines: int) -> Unit[None]:
        parts, run = self._parts, self.run
        if run.attempt > 1:
            yield from parts.runs.end_open_calls(run.id)
        yield from settled(parts.runs, run, state, reason or None, lines)
        yield from parts.log.append(f"user:{run.owner_id}", [changed(run.id, state)])


def as_kept(run: Run, fresh: Sequence[NewMessage]) -> list[Message]:
    """New messages as they will read back."""
    return [
        Message(
            conversation_id=run.conversation_id,
            position=0,
            created_at=time.time(),
            **msgspec.structs.asdict(message),
        )
        for message in fresh
    ]

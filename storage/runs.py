"""Rows of runs and of the calls they make.

A run is written by one attempt at a time: `claim` numbers the attempts, and every later write of
that attempt stands behind `hold`, which fails once the run was claimed again or has ended. So a
process that stalled and comes back cannot overwrite what its replacement wrote.
"""

import time
from typing import Any, Literal

import msgspec
from sqlalchemy import (
    Double,
    String,
    and_,
    bindparam,
    func,
    insert,
    literal,
    or_,
    select,
    tuple_,
    update,
)

from storage.database import Database, NoSuchRow, Statement, StorageError, Unit
from storage.membership import members, per_dialect
from storage.schema import calls, conversations, runs

State = Literal["queued", "running", "waiting", "paused", "completed", "failed", "cancelled"]
LIVE: tuple[State, ...] = ("queued", "running", "waiting", "paused")
"""The states of a run that has not ended."""

Kind = Literal["model", "tool"]
Outcome = Literal["ok", "error", "cancelled"]


class Superseded(StorageError):
    """The run has ended, or another attempt has taken it over: this one may not write any more."""


def workflow_of(run_id: str, answers: int) -> str:
    """The workflow of a run that was answered so often."""
    return f"{run_id}.{answers}" if answers else run_id


class Run(msgspec.Struct, frozen=True):
    """A row of `runs`, in table order. Times are UTC seconds since the epoch.

    `request` is what the turn was asked to do with its overrides settled (domain.turn.plan.Plan),
    of a run that has ended without the secrets that came along;
    `answers` counts how often a waiting run was answered; `lines` counts the sage lines of a run
    that has ended; `tasks` are `{id, description, status, workflow}`.
    """

    id: str
    conversation_id: str
    owner_id: str
    agent_id: str | None
    state: State
    reason: str | None
    request: dict[str, Any]
    query: str
    stops_with_client: bool
    process_id: str | None
    attempt: int
    answers: int
    lines: int
    tasks: list[dict[str, Any]] | None
    created_at: float
    started_at: float | None
    ended_at: float | None

    @property
    def live(self) -> bool:
        return self.ended_at is None

    @property
    def workflow_id(self) -> str:
        """The workflow that carries it out: another one after each answer."""
        return workflow_of(self.id, self.answers)


class Call(msgspec.Struct, frozen=True):
    """A row of `calls`, in table order: one model or tool call, written before it goes out.

    `outcome` is None from then until it has come back.
    """

    run_id: str
    step: int
    attempt: int
    owner_id: str
    agent_id: str | None
    kind: Kind
    name: str
    outcome: Outcome | None
    input_tokens: int | None
    output_tokens: int | None
    begun_at: float
    ended_at: float | None


class Active(msgspec.Struct, frozen=True):
    """What the list of active sessions shows of a run. `changed_at` is when it ended, or began to
    be carried out."""

    run_id: str
    session_id: str
    state: State
    query: str
    created_at: float
    changed_at: float


class Unfinished(msgspec.Struct, frozen=True):
    """A live run as the reconciler sees it."""

    id: str
    state: State
    process_id: str | None
    answers: int
    created_at: float

    @property
    def workflow_id(self) -> str:
        return workflow_of(self.id, self.answers)


class Tokens(msgspec.Struct, frozen=True):
    """Token counts of a set of model calls."""

    calls: int
    input_tokens: int
    output_tokens: int


class _Id(msgspec.Struct, frozen=True):
    id: str


class _Count(msgspec.Struct, frozen=True):
    count: int


_IS_LIVE = runs.c.state.in_([literal(state) for state in LIVE])
_UNDER_WAY = runs.c.state.in_([literal(state) for state in LIVE if state != "waiting"])
"""A run that waits for an answer takes nothing up, and has no workflow."""
_LIVE = runs.c.ended_at.is_(None)
_ID = runs.c.id == bindparam("run_id")
_HELD = (_ID, runs.c.attempt == bindparam("attempt"), _LIVE)

INSERT = Statement(insert(runs))
FIND = Statement(select(runs).where(_ID), into=Run)
FIND_OWNED = Statement(select(runs).where(_ID, runs.c.owner_id == bindparam("owner_id")), into=Run)
LATEST = Statement(
    select(runs)
    .where(runs.c.conversation_id == bindparam("conversation_id"))
    .order_by(runs.c.created_at.desc(), runs.c.id.desc())
    .limit(1),
    into=Run,
)
LIVE_IN_CONVERSATION = Statement(
    select(runs)
    .where(runs.c.conversation_id == bindparam("conversation_id"), _LIVE)
    .order_by(runs.c.id)
    .with_for_update(),
    into=Run,
)
ACTIVE = Statement(
    select(
        runs.c.id,
        conversations.c.session_id,
        runs.c.state,
        runs.c.query,
        runs.c.created_at,
        func.coalesce(runs.c.ended_at, runs.c.started_at, runs.c.created_at),
    )
    .join(conversations, conversations.c.id == runs.c.conversation_id)
    .where(
        runs.c.owner_id == bindparam("owner_id"),
        or_(
            _IS_LIVE,
            and_(
                runs.c.state == literal("cancelled"),
                runs.c.ended_at >= bindparam("since"),
                conversations.c.latest_run_id == runs.c.id,
            ),
        ),
    )
    .order_by(runs.c.created_at, runs.c.id),
    into=Active,
)
COUNT_LIVE = Statement(
    select(func.count())
    .select_from(runs)
    .where(runs.c.owner_id == bindparam("owner_id"), _UNDER_WAY),
    into=_Count,
)
UNFINISHED = Statement(
    select(runs.c.id, runs.c.state, runs.c.process_id, runs.c.answers, runs.c.created_at)
    .where(_UNDER_WAY)
    .order_by(runs.c.id),
    into=Unfinished,
)
ENDED_AMONG = Statement(
    per_dialect(
        lambda dialect: select(runs.c.id).where(
            runs.c.id.in_(members("ids", dialect)), runs.c.ended_at.is_not(None)
        )
    ),
    into=_Id,
)
LOCK = Statement(select(runs).where(_ID).with_for_update(), into=Run)
HOLD = Statement(select(runs.c.id).where(*_HELD).with_for_update(read=True), into=_Id)
CLAIM = Statement(
    update(runs)
    .where(_ID, _LIVE)
    .values(
        state="running",
        attempt=runs.c.attempt + 1,
        process_id=bindparam("process_id"),
        started_at=func.coalesce(runs.c.started_at, bindparam("now")),
    )
    .returning(runs),
    into=Run,
)
SETTLE = Statement(
    update(runs)
    .where(_ID, _LIVE)
    .values(
        state=bindparam("new_state"),
        reason=bindparam("reason"),
        lines=bindparam("lines"),
        ended_at=bindparam("now"),
        attempt=runs.c.attempt + 1,
    )
)
WAIT = Statement(update(runs).where(*_HELD).values(state="waiting"))
ANSWER = Statement(
    update(runs)
    .where(_ID, _LIVE, runs.c.state == literal("waiting"))
    .values(state="queued", answers=runs.c.answers + 1)
    .returning(runs),
    into=Run,
)
ALL_OF = Statement(
    select(runs)
    .where(runs.c.conversation_id == bindparam("conversation_id"))
    .order_by(runs.c.created_at, runs.c.id),
    into=Run,
)
AFTER = Statement(
    select(runs)
    .where(
        runs.c.conversation_id == bindparam("conversation_id"),
        tuple_(runs.c.created_at, runs.c.id)
        > tuple_(bindparam("created_at", type_=Double), bindparam("run_id", type_=String)),
    )
    .order_by(runs.c.created_at, runs.c.id)
    .limit(1),
    into=Run,
)
SET_REQUEST = Statement(update(runs).where(_ID, _LIVE).values(request=bindparam("request")))
SET_TASKS = Statement(update(runs).where(*_HELD).values(tasks=bindparam("tasks")))
BEGIN = Statement(insert(calls))
END = Statement(
    update(calls)
    .where(
        calls.c.run_id == bindparam("run_id"),
        calls.c.step == bindparam("step"),
        calls.c.attempt == bindparam("attempt"),
        calls.c.outcome.is_(None),
    )
    .values(
        outcome=bindparam("new_outcome"),
        input_tokens=bindparam("input_tokens"),
        output_tokens=bindparam("output_tokens"),
        ended_at=bindparam("now"),
    )
)
END_OPEN = Statement(
    update(calls)
    .where(calls.c.run_id == bindparam("of_run"), calls.c.outcome.is_(None))
    .values(outcome="cancelled", ended_at=bindparam("now"))
)
CALLS = Statement(
    select(calls)
    .where(calls.c.run_id == bindparam("run_id"))
    .order_by(calls.c.step, calls.c.attempt),
    into=Call,
)
_SINCE = (calls.c.owner_id == bindparam("owner_id"), calls.c.begun_at >= bindparam("since"))
TOOL_COUNTS = Statement(
    select(calls.c.name, func.count())
    .where(*_SINCE, calls.c.kind == "tool")
    .group_by(calls.c.name)
    .order_by(calls.c.name)
)
TOOL_COUNTS_OF_AGENT = Statement(
    select(calls.c.name, func.count())
    .where(*_SINCE, calls.c.kind == "tool", calls.c.agent_id == bindparam("agent_id"))
    .group_by(calls.c.name)
    .order_by(calls.c.name)
)
TOKENS = Statement(
    select(
        func.count(),
        func.coalesce(func.sum(calls.c.input_tokens), 0),
        func.coalesce(func.sum(calls.c.output_tokens), 0),
    ).where(*_SINCE, calls.c.kind == "model"),
    into=Tokens,
)


class RunStore:
    """Runs and calls over a Database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, run_id: str) -> Run | None:
        return await self._database.read_one(FIND(run_id=run_id))

    async def get_owned(self, owner_id: str, run_id: str) -> Run | None:
        """The run if it is that account's."""
        return await self._database.read_one(FIND_OWNED(run_id=run_id, owner_id=owner_id))

    async def latest(self, conversation_id: str) -> Run | None:
        """The newest run of a conversation."""
        return await self._database.read_one(LATEST(conversation_id=conversation_id))

    async def all_of(self, conversation_id: str) -> list[Run]:
        """The runs of a conversation in the order in which they began."""
        return await self._database.scan(ALL_OF(conversation_id=conversation_id))

    async def after(self, conversation_id: str, run: Run | None) -> Run | None:
        """The run of a conversation that follows another, or its first."""
        return await self._database.read_one(
            AFTER(
                conversation_id=conversation_id,
                created_at=run.created_at if run else 0.0,
                run_id=run.id if run else "",
            )
        )

    async def active(self, owner_id: str, since: float) -> list[Active]:
        """An account's live runs, and the latest runs of conversations that were cancelled since
        a time; oldest first."""
        return await self._database.read(ACTIVE(owner_id=owner_id, since=since))

    async def unfinished(self) -> list[Unfinished]:
        """Every account's runs that are to be carried out, oldest first."""
        return await self._database.read(UNFINISHED())

    async def ended_among(self, ids: list[str]) -> list[str]:
        """Those of the runs that have ended."""
        if not ids:
            return []
        return [row.id for row in await self._database.read(ENDED_AMONG(ids=ids))]

    async def calls(self, run_id: str) -> list[Call]:
        """A run's calls in the order they were made."""
        return await self._database.read(CALLS(run_id=run_id))

    async def tool_counts(
        self, owner_id: str, since: float, agent_id: str | None = None
    ) -> dict[str, int]:
        """How often the account's runs called each tool since a time, by name."""
        if agent_id is None:
            bound = TOOL_COUNTS(owner_id=owner_id, since=since)
        else:
            bound = TOOL_COUNTS_OF_AGENT(owner_id=owner_id, since=since, agent_id=agent_id)
        return dict(await self._database.read(bound))

    async def tokens(self, owner_id: str, since: float) -> Tokens:
        """What the account's model calls have cost since a time."""
        found = await self._database.read_one(TOKENS(owner_id=owner_id, since=since))
        return found or Tokens(0, 0, 0)

    # --- units ----------------------------------------------------------------------------------

    def count_live(self, owner_id: str) -> Unit[int]:
        rows = yield COUNT_LIVE(owner_id=owner_id)
        return int(rows[0].count)

    def live_in_conversation(self, conversation_id: str) -> Unit[list[Run]]:
        """The conversation's live runs, locked until the unit ends."""
        found: list[Run] = yield LIVE_IN_CONVERSATION(conversation_id=conversation_id)
        return found

    def create(self, run: Run) -> Unit[None]:
        yield INSERT(**msgspec.structs.asdict(run))

    def peek(self, run_id: str) -> Unit[Run]:
        """The run as it stands. Raises NoSuchRow("run")."""
        rows: list[Run] = yield FIND(run_id=run_id)
        if not rows:
            raise NoSuchRow("run")
        return rows[0]

    def lock(self, run_id: str) -> Unit[Run]:
        """The run, locked until the unit ends. Raises NoSuchRow("run")."""
        rows: list[Run] = yield LOCK(run_id=run_id)
        if not rows:
            raise NoSuchRow("run")
        return rows[0]

    def claim(self, run_id: str, process_id: str) -> Unit[Run]:
        """Begin the next attempt of a live run in a process. Raises Superseded when it is over."""
        rows: list[Run] = yield CLAIM(run_id=run_id, process_id=process_id, now=time.time())
        if not rows:
            raise Superseded(run_id)
        return rows[0]

    def hold(self, run_id: str, attempt: int) -> Unit[None]:
        """Go on only if this attempt is still the run's. Raises Superseded."""
        if not (yield HOLD(run_id=run_id, attempt=attempt)):
            raise Superseded(run_id)

    def wait(self, run_id: str, attempt: int) -> Unit[None]:
        """The run waits for an answer. Raises Superseded."""
        if not (yield WAIT(run_id=run_id, attempt=attempt)):
            raise Superseded(run_id)

    def answer(self, run_id: str) -> Unit[Run]:
        """A waiting run goes on. Raises Superseded when it does not wait any more."""
        rows: list[Run] = yield ANSWER(run_id=run_id)
        if not rows:
            raise Superseded(run_id)
        return rows[0]

    def settle(self, run_id: str, state: State, reason: str | None, lines: int) -> Unit[bool]:
        """End a run; no attempt may write afterwards. False if it had ended before."""
        changed = yield SETTLE(
            run_id=run_id, new_state=state, reason=reason, lines=lines, now=time.time()
        )
        return bool(changed)

    def set_request(self, run_id: str, request: dict[str, Any]) -> Unit[None]:
        """Put another request in the place of a live run's."""
        yield SET_REQUEST(run_id=run_id, request=request)

    def set_tasks(self, run_id: str, attempt: int, tasks: list[dict[str, Any]]) -> Unit[None]:
        """Raises Superseded."""
        if not (yield SET_TASKS(run_id=run_id, attempt=attempt, tasks=tasks)):
            raise Superseded(run_id)

    def begin_calls(self, run: Run, first_step: int, kind: Kind, names: list[str]) -> Unit[None]:
        """Note calls that are about to go out, at `first_step` and the steps after it."""
        now = time.time()
        yield BEGIN.many(
            [
                {
                    "run_id": run.id,
                    "step": first_step + i,
                    "attempt": run.attempt,
                    "owner_id": run.owner_id,
                    "agent_id": run.agent_id,
                    "kind": kind,
                    "name": name,
                    "outcome": None,
                    "input_tokens": None,
                    "output_tokens": None,
                    "begun_at": now,
                    "ended_at": None,
                }
                for i, name in enumerate(names)
            ]
        )

    def end_open_calls(self, run_id: str) -> Unit[None]:
        """Nobody waits any more for what these calls may bring."""
        yield END_OPEN(of_run=run_id, now=time.time())

    def end_call(
        self,
        run: Run,
        step: int,
        outcome: Outcome,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
    ) -> Unit[None]:
        """Note that a call has come back. A call that had ended is left as it is."""
        yield END(
            run_id=run.id,
            step=step,
            attempt=run.attempt,
            new_outcome=outcome,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            now=time.time(),
        )

"""Requests that a client may repeat (rules: `Idempotency-Key`).

A request claims its key, acts, and leaves its answer:

    outcome = await store.begin(scope, fingerprint, now=now)
    if isinstance(outcome, Claim):
        with attached(outcome):
            answer = await handle()
        await store.finish(outcome, answer, now=now)      # or abandon(outcome), or leave(outcome)

**Never twice.** Within `attached`, every unit that the request writes ends with a sub-unit that
marks the claim as having taken effect, in the same transaction; if another request has taken the
claim over meanwhile (the holder stalled for longer than its lease), the unit fails with ClaimLost
and none of it is kept. A claim that took effect is never taken over. So whatever the moment of a
crash, an effect and its mark are both there or both not.

The answer is made after the effect has committed, and is kept by `finish` before it is sent. A
crash between the two leaves an effect whose answer is lost: the retry is told so (AnswerLost)
instead of acting again. A run has no such gap: `tell_run` puts its id into the mark itself, and
the run's stream is the answer.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import msgspec
from sqlalchemy import and_, bindparam, delete, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from storage.database import AfterCommit, Database, Statement, StorageError, Unit
from storage.schema import idempotency
from storage.units import CLOSING

LEASE_S = 60.0
"""How long a claim stands without being renewed."""
KEPT_S = 24 * 3600.0
"""How long a key is remembered."""
SECRET_KEPT_S = 600.0
"""How long an answer that shows a secret can be repeated."""


class Scope(msgspec.Struct, frozen=True):
    """What a key stands for: one user, one operation, one set of path values."""

    user_id: str
    operation: str
    path: str
    key: str


class Claim(msgspec.Struct, eq=False):
    """A key that this request holds. `holder` is unique to the request."""

    scope: Scope
    holder: str
    run_id: str | None = None
    took_effect: bool = False
    over: bool = False


class Answer(msgspec.Struct, frozen=True):
    """A finished request's answer, to be repeated. `body` is UTF-8 text."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


class RunStarted(msgspec.Struct, frozen=True):
    """The request began a run: its answer is that run's stream, from the first line."""

    run_id: str


class InProgress(msgspec.Struct, frozen=True):
    """Another request holds the key until `until` (UTC seconds), or until it renews."""

    until: float


class Mismatch(msgspec.Struct, frozen=True):
    """The key was used for another request."""


class AnswerLost(msgspec.Struct, frozen=True):
    """The request took effect, and its answer was not kept (a crash, a failure after the effect,
    or a secret that is shown no longer)."""


Outcome = Claim | Answer | RunStarted | InProgress | Mismatch | AnswerLost


class ClaimLost(StorageError):
    """Another request has taken this one's claim over; nothing of the unit was kept."""


class _Row(msgspec.Struct, frozen=True, gc=False):
    fingerprint: str
    status: int | None
    headers: Any
    body: str | None
    run_id: str | None
    took_effect: bool
    lease_until: float
    answer_until: float | None
    expires_at: float


_COLUMNS = [idempotency.c[name] for name in _Row.__struct_fields__]
_THIS = and_(
    idempotency.c.user_id == bindparam("user_id_"),
    idempotency.c.operation == bindparam("operation_"),
    idempotency.c.path == bindparam("path_"),
    idempotency.c.key == bindparam("key_"),
)
_HELD = and_(_THIS, idempotency.c.holder == bindparam("holder_"), idempotency.c.status.is_(None))

FIND = Statement(select(*_COLUMNS).where(_THIS), into=_Row)


def _claim(dialect: Any) -> Any:
    """Insert, or take over what has expired or whose holder died before it took effect."""
    insert = dialect.insert(idempotency).values(
        {
            name: bindparam(name)
            for name in (
                *("user_id", "operation", "path", "key", "fingerprint", "holder"),
                *("took_effect", "lease_until", "created_at", "expires_at"),
            )
        }
    )
    now = insert.excluded.created_at
    old = idempotency.c
    return insert.on_conflict_do_update(
        index_elements=["user_id", "operation", "path", "key"],
        set_={
            "fingerprint": insert.excluded.fingerprint,
            "holder": insert.excluded.holder,
            "lease_until": insert.excluded.lease_until,
            "created_at": now,
            "expires_at": insert.excluded.expires_at,
            "took_effect": insert.excluded.took_effect,
            "status": None,
            "headers": None,
            "body": None,
            "run_id": None,
            "answer_until": None,
        },
        where=or_(
            old.expires_at <= now,
            and_(
                old.fingerprint == insert.excluded.fingerprint,
                old.status.is_(None),
                old.took_effect.is_(False),
                old.lease_until <= now,
            ),
        ),
    ).returning(old.holder)


CLAIM = Statement({"sqlite": _claim(sqlite), "postgresql": _claim(postgresql)})
MARK = Statement(
    update(idempotency).where(_HELD).values(took_effect=True, run_id=bindparam("run_id_"))
)
FINISH = Statement(
    update(idempotency)
    .where(_HELD)
    .values(
        status=bindparam("status_"),
        headers=bindparam("headers_"),
        body=bindparam("body_"),
        took_effect=True,
        answer_until=bindparam("answer_until_"),
    )
)
FORGET = Statement(delete(idempotency).where(_HELD, idempotency.c.took_effect.is_(False)))
LET_GO = Statement(update(idempotency).where(_HELD).values(lease_until=0.0))
RENEW = Statement(update(idempotency).where(_HELD).values(lease_until=bindparam("until")))
SWEEP = Statement(delete(idempotency).where(idempotency.c.expires_at <= bindparam("now")))
SWEEP_SECRETS = Statement(
    update(idempotency)
    .where(idempotency.c.answer_until <= bindparam("now"), idempotency.c.body.is_not(None))
    .values(body=None)
)


class IdempotencyStore:
    """Claims and answers by scope. `seal` and `unseal` encrypt answers that show a secret."""

    def __init__(
        self,
        database: Database,
        *,
        seal: Callable[[bytes], str],
        unseal: Callable[[str], bytes],
    ) -> None:
        self._database = database
        self._seal = seal
        self._unseal = unseal
        self._held: set[Claim] = set()

    async def begin(self, scope: Scope, fingerprint: str, *, holder: str, now: float) -> Outcome:
        """Claim the key, or learn what became of it. `fingerprint` (64 characters at most) tells
        two requests with one key apart; `holder` must be unique to this request."""
        names = _names(scope)
        row = await self._database.read_one(FIND(**names))
        if row is not None and not _free(row, fingerprint, now):
            return self._outcome(row, fingerprint, now)

        def unit() -> Unit[_Row | None]:
            taken = yield CLAIM(
                **{name.removesuffix("_"): value for name, value in names.items()},
                fingerprint=fingerprint,
                holder=holder,
                took_effect=False,
                lease_until=now + LEASE_S,
                created_at=now,
                expires_at=now + KEPT_S,
            )
            if taken:
                return None
            rows: list[_Row] = yield FIND(**names)
            return rows[0]

        row = await self._database.write(unit)
        if row is not None:
            return self._outcome(row, fingerprint, now)
        claim = Claim(scope, holder)
        self._held.add(claim)
        return claim

    def _outcome(self, row: _Row, fingerprint: str, now: float) -> Outcome:
        if row.fingerprint != fingerprint:
            return Mismatch()
        if row.status is not None:
            if row.body is None or (row.answer_until is not None and row.answer_until <= now):
                return AnswerLost()
            sealed = row.answer_until is not None
            body = self._unseal(row.body) if sealed else row.body.encode()
            headers = tuple((name, value) for name, value in row.headers)
            return Answer(row.status, headers, body)
        if row.run_id is not None:
            return RunStarted(row.run_id)
        if row.took_effect and row.lease_until <= now:
            return AnswerLost()
        return InProgress(row.lease_until)

    async def finish(
        self, claim: Claim, answer: Answer, *, now: float, shows_secret: bool = False
    ) -> None:
        """Keep the answer, before it is sent. Raises ClaimLost."""
        claim.over = True
        self._held.discard(claim)
        body = self._seal(answer.body) if shows_secret else answer.body.decode()

        def unit() -> Unit[None]:
            kept = yield FINISH(
                **_names(claim.scope),
                holder_=claim.holder,
                status_=answer.status,
                headers_=answer.headers,
                body_=body,
                answer_until_=now + SECRET_KEPT_S if shows_secret else None,
            )
            if not kept:
                raise ClaimLost(claim.scope.key)

        await self._database.write(unit)

    async def abandon(self, claim: Claim) -> None:
        """The request failed in a way that is not kept (5xx, 429): the key is free again, unless
        the request took effect before it failed."""
        claim.over = True
        self._held.discard(claim)

        def unit() -> Unit[None]:
            names = _names(claim.scope)
            if not (yield FORGET(**names, holder_=claim.holder)):
                yield LET_GO(**names, holder_=claim.holder)

        await self._database.write(unit)

    def leave(self, claim: Claim) -> None:
        """The request began a run (`tell_run`): nothing more is to be kept."""
        claim.over = True
        self._held.discard(claim)

    async def renew(self, now: float) -> None:
        """Lengthen the leases of the claims that this process holds; to be called several times
        within LEASE_S."""
        held: list[Mapping[str, Any]] = [
            {**_names(claim.scope), "holder_": claim.holder, "until": now + LEASE_S}
            for claim in self._held
        ]
        if held:
            await self._database.write(lambda: _once(RENEW.many(held)))

    async def sweep(self, now: float) -> int:
        """Forget keys after KEPT_S and secrets after SECRET_KEPT_S; returns how many keys."""

        def unit() -> Unit[int]:
            yield SWEEP_SECRETS(now=now)
            count: int = yield SWEEP(now=now)
            return count

        return await self._database.write(unit)


_attached: ContextVar[Claim | None] = ContextVar("claim", default=None)


@contextmanager
def attached(claim: Claim) -> Iterator[None]:
    """Every unit written in this context marks the claim, in its own transaction."""
    claim_token = _attached.set(claim)
    closing_token = CLOSING.set(lambda: _mark(claim))
    try:
        yield
    finally:
        CLOSING.reset(closing_token)
        _attached.reset(claim_token)


def tell_run(run_id: str) -> None:
    """Name the run that the next unit of this request starts, if the request carries a key: a
    retry is answered with that run's stream."""
    claim = _attached.get()
    if claim is not None and not claim.took_effect:
        claim.run_id = run_id


def _mark(claim: Claim) -> Unit[None]:
    # Tasks that the request leaves behind keep its context; their writes are not its effect.
    if claim.took_effect or claim.over:
        return
    marked = yield MARK(**_names(claim.scope), holder_=claim.holder, run_id_=claim.run_id)
    if not marked:
        raise ClaimLost(claim.scope.key)

    def committed() -> None:
        claim.took_effect = True

    yield AfterCommit(committed)


def _once(bound: Any) -> Unit[Any]:
    return (yield bound)


def _names(scope: Scope) -> dict[str, str]:
    path = scope.path
    if len(path) > 512:
        path = hashlib.sha256(path.encode()).hexdigest()
    return {
        "user_id_": scope.user_id,
        "operation_": scope.operation,
        "path_": path,
        "key_": scope.key,
    }


def _free(row: _Row, fingerprint: str, now: float) -> bool:
    if row.expires_at <= now:
        return True
    return (
        row.fingerprint == fingerprint
        and row.status is None
        and not row.took_effect
        and row.lease_until <= now
    )

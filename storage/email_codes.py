"""Codes sent by e-mail. Only the newest code of an address counts, and only as its keyed hash."""

import msgspec
from sqlalchemy import bindparam, delete, func, insert, select, update

from storage.database import Statement, Unit
from storage.schema import email_codes as codes


class EmailCode(msgspec.Struct, frozen=True):
    """A code that was sent. `code_hash` is keyed by the caller: six digits can be guessed."""

    id: str
    email_key: str
    code_hash: str
    created_at: float
    expires_at: float


_newest = (
    select(codes.c.id)
    .where(codes.c.email_key == bindparam("email_key"))
    .order_by(codes.c.created_at.desc(), codes.c.id.desc())
    .limit(1)
    .scalar_subquery()
)

ADD = Statement(insert(codes))
SENT_SINCE = Statement(
    select(func.count(), func.max(codes.c.created_at)).where(
        codes.c.email_key == bindparam("email_key"), codes.c.created_at > bindparam("since")
    )
)
TRY = Statement(
    update(codes)
    .where(
        codes.c.id == _newest,
        codes.c.used_at.is_(None),
        codes.c.expires_at > bindparam("now"),
        codes.c.attempts < bindparam("most"),
    )
    .values(attempts=codes.c.attempts + 1)
    .returning(codes.c.id, codes.c.code_hash)
)
USE = Statement(
    update(codes)
    .where(codes.c.id == bindparam("code_id"), codes.c.used_at.is_(None))
    .values(used_at=bindparam("now"))
    .returning(codes.c.id)
)
DELETE = Statement(delete(codes).where(codes.c.id == bindparam("code_id")))
PURGE = Statement(delete(codes).where(codes.c.expires_at < bindparam("before")))


class EmailCodeStore:
    """Units only: a code is never looked at without something being written down."""

    def add(self, code: EmailCode) -> Unit[None]:
        yield ADD(**msgspec.structs.asdict(code))

    def sent_since(self, email_key: str, since: float) -> Unit[tuple[int, float]]:
        """How many codes went to an address since a time, and when the last one did (0.0: none)."""
        ((count, last),) = yield SENT_SINCE(email_key=email_key, since=since)
        return count, last or 0.0

    def try_newest(self, email_key: str, *, most: int, now: float) -> Unit[tuple[str, str] | None]:
        """Count one attempt at the newest code: its (id, hash), or None if it is used up, expired,
        tried `most` times, or was never sent. The attempt counts whether or not it is right."""
        rows = yield TRY(email_key=email_key, most=most, now=now)
        return tuple(rows[0]) if rows else None

    def use(self, code_id: str, now: float) -> Unit[bool]:
        """Take the code; False if somebody took it before."""
        return bool((yield USE(code_id=code_id, now=now)))

    def delete(self, code_id: str) -> Unit[None]:
        yield DELETE(code_id=code_id)

    def purge(self, before: float) -> Unit[int]:
        changed: int = yield PURGE(before=before)
        return changed

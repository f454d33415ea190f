"""`scripts/admin check`: is what is stored whole?"""

import asyncio
import os
import secrets
import sqlite3
from collections.abc import AsyncIterator, Container, Iterable
from contextlib import closing
from pathlib import Path

from sqlalchemy import exists, func, literal, or_, select
from sqlalchemy.sql.elements import ColumnElement

from gateways.errors import SealBroken, WrongKey
from gateways.secretbox import KEY_BYTES, SecretBox, load_keys
from server.administration.backup import read_only
from server.administration.copying import printable
from server.administration.keys import PLACES
from server.administration.stored import SELECTS, SKILLS, folders, named
from server.settings import Settings
from storage.database import Database, Statement, StorageError
from storage.migrating import HEAD, version
from storage.objects import DIRECTORY, open_objects
from storage.schema import conversations, events, messages, metadata, runs, streams, users

_SHOWN = 20


def _missing(kind: str, owner: ColumnElement[str]) -> ColumnElement[bool]:
    """Streams `<kind>:<id>` whose row is gone."""
    return streams.c.id.like(f"{kind}:%") & ~exists().where(
        literal(f"{kind}:").concat(owner) == streams.c.id
    )


GAPS = Statement(
    select(events.c.stream)
    .group_by(events.c.stream)
    .having(func.max(events.c.seq) - func.min(events.c.seq) + 1 != func.count())
    .limit(_SHOWN)
)
"""A sweep may take the oldest records, never some in between."""
BEYOND_HEAD = Statement(
    select(events.c.stream)
    .outerjoin(streams, streams.c.id == events.c.stream)
    .group_by(events.c.stream)
    .having(
        or_(func.max(streams.c.head).is_(None), func.max(events.c.seq) > func.max(streams.c.head))
    )
    .limit(_SHOWN)
)
NOT_AT_HEAD = Statement(
    select(streams.c.id)
    .join(events, streams.c.id == events.c.stream)
    .group_by(streams.c.id, streams.c.head)
    .having(func.max(events.c.seq) < streams.c.head)
    .limit(_SHOWN)
)
ORPHAN_STREAMS = Statement(
    select(streams.c.id)
    .where(_missing("run", runs.c.id) | _missing("conversation", conversations.c.id))
    .limit(_SHOWN)
)
MISCOUNTED = Statement(
    select(conversations.c.id)
    .outerjoin(messages, messages.c.conversation_id == conversations.c.id)
    .group_by(conversations.c.id, conversations.c.message_count)
    .having(func.count(messages.c.id) != conversations.c.message_count)
    .limit(_SHOWN)
)
NO_ADMIN = Statement(select(func.count()).select_from(users).where(users.c.role == "admin"))


async def findings(settings: Settings, database: Database) -> AsyncIterator[str]:
    """What is wrong, a line each; nothing when all is well."""
    found = version(settings.database_url, settings.data)
    if found != HEAD:
        yield f"the schema is {found}, this release's is {HEAD}: start the server once"
        return
    if settings.embedded:
        for file in ("quartet.sqlite", "jobs.sqlite"):
            for line in _sqlite(settings, file):
                yield line
    for statement, text in (
        (GAPS, "a gap in the event log of {}"),
        (BEYOND_HEAD, "events beyond the head of {}"),
        (NOT_AT_HEAD, "the newest events of {} are missing"),
        (ORPHAN_STREAMS, "events of {}, which does not exist"),
        (MISCOUNTED, "conversation {} counts its messages wrongly"),
    ):
        for (name,) in await database.scan(statement()):
            yield text.format(name)
    async for line in _orphans(database):
        yield line
    ((admins,),) = await database.scan(NO_ADMIN())
    if not admins:
        yield "no administrator (scripts/admin create-admin)"
    async for line in _sealed(settings, database):
        yield line
    async for line in _stored(settings, database):
        yield line


def _sqlite(settings: Settings, file: str) -> list[str]:
    path = settings.data / file
    if not path.exists():
        return []
    try:
        with closing(read_only(path)) as connection:
            checked = [row[0] for row in connection.execute("PRAGMA integrity_check(20)")]
            broken = connection.execute("PRAGMA foreign_key_check").fetchmany(_SHOWN)
    except sqlite3.DatabaseError as error:
        return [f"{file}: {error}"]
    found = [f"{file}: {line}" for line in checked if line != "ok"]
    return found + [f"{file}: a row of {table} refers to no {to}" for table, _, to, _ in broken]


async def _orphans(database: Database) -> AsyncIterator[str]:
    """Rows whose owner is gone, for each foreign key there is."""
    for table in metadata.sorted_tables:
        for key in table.foreign_keys:
            statement = Statement(
                select(func.count())
                .select_from(table)
                .where(
                    key.parent.is_not(None),
                    ~exists().where(key.column == key.parent).correlate(table),
                )
            )
            ((count,),) = await database.scan(statement())
            if count:
                yield f"{count} rows of {table.name} refer to no {key.column.table.name}"


async def _sealed(settings: Settings, database: Database) -> AsyncIterator[str]:
    """Values that no key at hand opens. Under a key that seals nothing yet each is unwrapped."""
    try:
        keys = load_keys(settings.data, settings.secrets_key_file, os.environ)
    except (ValueError, OSError) as error:
        yield f"secrets key: {error}"
        return
    box = SecretBox([secrets.token_bytes(KEY_BYTES), *keys])
    for place in PLACES:
        for row in await database.scan(place.find()):
            try:
                place.rewrap(box, row)
            except (WrongKey, SealBroken) as error:
                yield f"{place.name}, {row[0]}: {error}"


async def _stored(settings: Settings, database: Database) -> AsyncIterator[str]:
    """Files that rows name and that are not stored."""
    names = await _named(database)
    try:
        there = await _objects(settings)
    except (StorageError, ValueError) as error:
        yield f"objects: {error}"
        return
    skills = folders(settings)[SKILLS]
    missing = await asyncio.to_thread(_gone, names, there, skills)
    if missing:  # but for what was deleted since the rows were read
        missing &= (await _named(database)).keys()
    gone = sorted(missing)
    for path in gone[:_SHOWN]:
        yield f"{path} ({printable(names[path])}) is missing"
    if len(gone) > _SHOWN:
        yield f"{len(gone) - _SHOWN:,} more files are missing"


async def _named(database: Database) -> dict[str, str]:
    return named(*[await database.scan(Statement(each)()) for each in SELECTS])


async def _objects(settings: Settings) -> set[str]:
    """The paths of what is stored as objects. A directory that is not there is not made."""
    if not settings.object_store_url and not (settings.data / DIRECTORY).exists():
        return set()
    objects = open_objects(settings.object_store_url, settings.data)
    return {f"{DIRECTORY}/{each.key}" async for each in objects.list()}


def _gone(names: Iterable[str], there: Container[str], skills: Path) -> set[str]:
    found = set()
    for path in names:
        top, _, below = path.partition("/")
        if not ((skills / below).is_file() if top == SKILLS else path in there):
            found.add(path)
    return found

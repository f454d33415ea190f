"""Opening what the server would open, for one command."""

import contextlib
import os
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

import msgspec

from gateways.secretbox import SecretBox, load_keys
from server.settings import Settings
from server.signing import signing_key
from storage.database import Database
from storage.events import EventLog
from storage.lock import DirectoryLock
from storage.migrating import migrate
from storage.opening import open_database

if TYPE_CHECKING:
    from domain.accounts import Accounts


class Refused(Exception):
    """The command cannot be carried out; the text says why and what to do."""


class Parts(msgspec.Struct):
    """What commands work with."""

    database: Database
    box: SecretBox
    accounts: "Accounts"


@contextlib.contextmanager
def alone(settings: Settings) -> Iterator[None]:
    """Hold the data directory's lock. Raises Locked while a server or a command has it."""
    if not settings.embedded:
        yield
        return
    lock = DirectoryLock(settings.data)
    lock.acquire()
    try:
        yield
    finally:
        lock.release()


def present(settings: Settings) -> None:
    """Raises Refused where no server has ever run: a mistyped directory is not made."""
    if settings.embedded and not (settings.data / "quartet.sqlite").exists():
        raise Refused(f"{settings.data} holds no database; name the data directory by --data")


@contextlib.asynccontextmanager
async def reading(settings: Settings) -> AsyncIterator[Database]:
    """The database as it is, beside a running server or not."""
    present(settings)
    database = await open_database(settings.database_url, settings.data, connections=2)
    try:
        yield database
    finally:
        await database.close()


@contextlib.asynccontextmanager
async def writing(settings: Settings) -> AsyncIterator[Parts]:
    """The database, brought up to date, and the accounts over it."""
    from domain.accounts import accounts
    from server.configured import mail_of, policy_of, wakeups_of

    present(settings)
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(alone(settings))
        await migrate(settings.database_url, settings.data)
        database = await stack.enter_async_context(reading(settings))
        box = SecretBox(load_keys(settings.data, settings.secrets_key_file, os.environ))
        wakeups = wakeups_of(settings)
        stack.push_async_callback(wakeups.close)
        log = EventLog(database, wakeups)
        stack.push_async_callback(log.close)
        parts = accounts(
            database,
            log,
            key=await signing_key(database, box),
            issuer=settings.base_url,
            policy=policy_of(settings),
            send=mail_of(settings).send,
        )
        stack.push_async_callback(parts.identity.close)
        yield Parts(database, box, parts)

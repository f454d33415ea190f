"""A log over each database."""

from collections.abc import AsyncIterator

import pytest

from storage.database import Database
from storage.events import EventLog
from storage.wakeups import OneProcess, Polling


@pytest.fixture
async def log(database: Database) -> AsyncIterator[EventLog]:
    wakeups = OneProcess() if database.dialect == "sqlite" else Polling()
    opened = EventLog(database, wakeups)
    yield opened
    await opened.close()

"""One launched process over each database."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

import pytest

from storage.database import Database
from tests.runs.world import World, world
from tests.storage.accounts import make_accounts

Here = Callable[..., AbstractAsyncContextManager[World]]


@pytest.fixture
async def make(database: Database, data: Path, database_url: str) -> Here:
    """Launches the parts of one process, with the accounts ada and bob."""
    await make_accounts(database, "ada", "bob")
    return partial(world, database, data, database_url)


@pytest.fixture
async def here(make: Here) -> AsyncIterator[World]:
    """The parts of one process."""
    async with make() as made:
        yield made

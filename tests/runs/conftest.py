"""One launched process over each database."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from storage.database import Database
from tests.runs.world import World, world
from tests.storage.accounts import make_accounts


@pytest.fixture
async def here(database: Database, data: Path, database_url: str) -> AsyncIterator[World]:
    """The parts of one process, with the accounts ada and bob."""
    await make_accounts(database, "ada", "bob")
    async with world(database, data, database_url) as made:
        yield made

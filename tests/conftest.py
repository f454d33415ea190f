"""Fixtures that every area shares."""

import shutil
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from storage.database import Database
from storage.opening import open_database
from storage.schema import metadata


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with every table and no row."""
    from sqlalchemy import create_engine

    path = tmp_path_factory.mktemp("template") / "quartet.sqlite"
    engine = create_engine(f"sqlite:///{path}")
    metadata.create_all(engine)
    engine.dispose()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
    connection.close()
    return path


@pytest.fixture(params=["sqlite"])
async def database(
    request: pytest.FixtureRequest, tmp_path: Path, sqlite_template: Path
) -> AsyncIterator[Database]:
    """An empty, migrated database, on each dialect."""
    data = tmp_path / "data"
    data.mkdir()
    shutil.copy(sqlite_template, data / "quartet.sqlite")
    opened = await open_database("", data)
    yield opened
    await opened.close()

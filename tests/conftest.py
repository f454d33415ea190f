"""Fixtures that every area shares."""

import asyncio
import os
import shutil
import uuid
from collections.abc import AsyncIterator, Iterator
from functools import cache
from pathlib import Path

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine

from storage.database import Database
from storage.migrating import migrate
from storage.opening import open_database
from storage.schema import metadata


def include_name(name: str | None, kind: str, parents: object) -> bool:
    """The full text index and its shadows, which a revision makes by hand, stand in no schema."""
    return not (kind == "table" and name is not None and name.startswith("knowledge_words"))


POSTGRES = os.environ.get("TEST_DATABASE_URL", "postgresql://postgres@127.0.0.1:5432").rstrip("/")
"""A PostgreSQL server whose user may create databases; the tests make their own."""


@cache
def postgres_answers() -> bool:
    """Whether POSTGRES answers. In CI a missing service is a failure."""
    try:
        psycopg.connect(f"{POSTGRES}/postgres", connect_timeout=3).close()
    except psycopg.OperationalError:
        if os.environ.get("CI"):
            raise
        return False
    return True


def pytest_report_header() -> str:
    if postgres_answers():
        return f"PostgreSQL: {POSTGRES.rpartition('@')[2]}"
    return (
        f"PostgreSQL: nothing answers at {POSTGRES.rpartition('@')[2]}, so the tests run on SQLite"
        " alone. Start one (docker compose up -d postgres), or set TEST_DATABASE_URL."
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "dialect" in metafunc.fixturenames:
        here = ["postgresql"] if postgres_answers() else []
        dialects = here if "postgres" in metafunc.fixturenames else ["sqlite", *here]
        metafunc.parametrize("dialect", dialects)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with every table and no row."""
    data = tmp_path_factory.mktemp("template")
    asyncio.run(migrate("", data))
    path = data / "quartet.sqlite"
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"include_name": include_name})
        missing = compare_metadata(context, metadata)
    engine.dispose()
    if missing:
        pytest.fail(f"storage/schema.py has changed, run scripts/revision: {missing}")
    return path


@pytest.fixture(scope="session")
def postgres_database() -> Iterator[str]:
    """The URL of this process's own PostgreSQL database, migrated."""
    name = f"quartet_test_{uuid.uuid4().hex[:12]}"
    with administrator() as admin:
        admin.execute(f"CREATE DATABASE {name}")
    asyncio.run(migrate(f"{POSTGRES}/{name}", Path()))
    yield f"{POSTGRES}/{name}"
    with administrator() as admin:
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def database_url(dialect: str, request: pytest.FixtureRequest) -> str:
    """What DATABASE_URL would say for an empty, migrated database: "" on SQLite.

    On PostgreSQL it is the same database for every test of a process, emptied before each: that
    takes 2 ms, where creating one takes 150.
    """
    if dialect == "sqlite":
        return ""
    url: str = request.getfixturevalue("postgres_database")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        for table in reversed(metadata.sorted_tables):
            connection.execute(f"DELETE FROM {table.name}".encode())
    return url


@pytest.fixture
def data(tmp_path: Path, sqlite_template: Path) -> Path:
    """A data directory with an empty, migrated SQLite file."""
    directory = tmp_path / "data"
    directory.mkdir()
    shutil.copy(sqlite_template, directory / "quartet.sqlite")
    return directory


@pytest.fixture
async def database(database_url: str, data: Path) -> AsyncIterator[Database]:
    """An empty, migrated database; every test that asks for it runs once per dialect."""
    opened = await open_database(database_url, data)
    yield opened
    await opened.close()


@pytest.fixture
def postgres(database: Database) -> Database:
    """The same; a test that asks for it runs on PostgreSQL alone."""
    return database


def administrator() -> psycopg.Connection[tuple[object, ...]]:
    """A connection that may create and drop databases."""
    return psycopg.connect(f"{POSTGRES}/postgres", autocommit=True)

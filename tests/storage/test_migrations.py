"""Migrations: what they make is what storage/schema.py says, on both databases."""

import asyncio
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, inspect, text

from storage.migrating import HEAD, NewerSchema, alembic_config, migrate
from storage.schema import metadata
from tests.conftest import POSTGRES, administrator, include_name


@pytest.fixture
def database_url(dialect: str) -> Iterator[str]:
    """A database whose tables a test may change."""
    if dialect == "sqlite":
        yield ""
        return
    name = f"quartet_test_{uuid.uuid4().hex[:12]}"
    with administrator() as admin:
        admin.execute(f"CREATE DATABASE {name}")
    asyncio.run(migrate(f"{POSTGRES}/{name}", Path()))
    yield f"{POSTGRES}/{name}"
    with administrator() as admin:
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def engine(database_url: str, data: Path) -> Iterator[Engine]:
    """A plain connection to the migrated database."""
    engine = create_engine(engine_url(database_url, data))
    yield engine
    engine.dispose()


@pytest.fixture
def empty(engine: Engine, database_url: str) -> None:
    """No table at all."""
    with engine.begin() as connection:
        drop_all(connection)
        connection.execute(text("DROP TABLE alembic_version"))


def drop_all(connection: Connection) -> None:
    """Every table, the full text index first, which refers to another on PostgreSQL."""
    connection.execute(text("DROP TABLE knowledge_words"))
    metadata.drop_all(connection)


def engine_url(database_url: str, data: Path) -> str:
    if not database_url:
        return f"sqlite:///{data / 'quartet.sqlite'}"
    return database_url.replace("postgresql:", "postgresql+psycopg:")


def described(engine: Engine) -> dict[str, Any]:
    """Every table as the database itself describes it."""
    seen = inspect(engine)

    def sorted_(items: list[Any]) -> list[Any]:
        return sorted(items, key=repr)

    def str_values(options: dict[str, Any]) -> dict[str, str]:
        """An index's condition comes as a clause, which equals nothing but itself."""
        return {name: str(value) for name, value in options.items()}

    return {
        table: {
            "columns": [
                {**column, "type": str(column["type"])} for column in seen.get_columns(table)
            ],
            "primary key": seen.get_pk_constraint(table),
            "foreign keys": sorted_(seen.get_foreign_keys(table)),
            "unique": sorted_(seen.get_unique_constraints(table)),
            "indexes": sorted_(
                [
                    {**index, "dialect_options": str_values(index.get("dialect_options", {}))}
                    for index in seen.get_indexes(table)
                ]
            ),
        }
        for table in sorted(set(seen.get_table_names()) - {"alembic_version"})
        if include_name(table, "table", None)
    }


def test_the_revisions_make_what_the_schema_says(engine: Engine) -> None:
    migrated = described(engine)
    with engine.begin() as connection:
        drop_all(connection)
        metadata.create_all(connection)
    assert migrated == described(engine), "storage/schema.py has changed: run scripts/revision"
    assert migrated.keys() == metadata.tables.keys()


def test_downgrading_takes_everything_away(engine: Engine) -> None:
    with engine.begin() as connection:
        command.downgrade(alembic_config(connection), "base")
    assert described(engine) == {}


async def test_an_empty_database_is_migrated_once(
    engine: Engine, empty: None, database_url: str, data: Path
) -> None:
    assert await migrate(database_url, data) is True
    assert described(engine).keys() == metadata.tables.keys()
    assert await migrate(database_url, data) is False


async def test_processes_that_start_together_wait_for_each_other(
    engine: Engine, empty: None, database_url: str, data: Path
) -> None:
    migrating = (
        "import asyncio, sys, pathlib; from storage.migrating import migrate;"
        "asyncio.run(migrate(sys.argv[1], pathlib.Path(sys.argv[2])))"
    )
    processes = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", migrating, database_url, data), stderr=subprocess.PIPE
        )
        for _ in range(2)
    ]
    for process in processes:
        _, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()
    assert described(engine).keys() == metadata.tables.keys()


async def test_a_newer_schema_is_refused_and_left_alone(
    engine: Engine, database_url: str, data: Path
) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    before = described(engine)
    with pytest.raises(NewerSchema, match=f"9999.*after {HEAD}"):
        await migrate(database_url, data)
    assert described(engine) == before


async def test_a_failing_revision_leaves_nothing(
    engine: Engine, empty: None, database_url: str, data: Path
) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE shares (mine INTEGER)"))
    with pytest.raises(sa.exc.DBAPIError, match="shares"):
        await migrate(database_url, data)
    assert inspect(engine).get_table_names() == ["shares"]


def test_the_head_is_the_head() -> None:
    with create_engine("sqlite://").connect() as connection:
        scripts = ScriptDirectory.from_config(alembic_config(connection))
    assert scripts.get_heads() == [HEAD]


def test_a_start_with_current_tables_imports_no_alembic(database_url: str, data: Path) -> None:
    check = (
        "import asyncio, sys, pathlib; from storage.migrating import migrate;"
        "assert asyncio.run(migrate(sys.argv[1], pathlib.Path(sys.argv[2]))) is False;"
        "assert not any(name.startswith(('alembic', 'mako')) for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", check, database_url, data], check=True)

"""Bringing the tables up to this release, at start and under a lock.

Nothing of alembic is imported when the tables are current, which is at every start but the first
after an upgrade.
"""

import asyncio
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

from storage.database import StorageError, StorageUnavailable

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy import Connection

HEAD = "0002"
"""The newest revision in storage/migrations/versions."""

_LOCK = 0x71756172746574  # "quartet"
_VERSION = "SELECT version_num FROM alembic_version"


class NewerSchema(StorageError):
    """The database was migrated by a newer release than this one."""

    def __init__(self, found: str) -> None:
        super().__init__(
            f"the database has schema {found}, this release knows no schema after {HEAD}:"
            " start the newer release, or restore a backup made before the upgrade"
        )


async def migrate(url: str, data: Path) -> bool:
    """Create or upgrade the tables of the database that `open_database(url, data)` opens.

    All revisions run in one transaction: a failing one leaves the tables as they were. Processes
    that start together wait for each other. Returns whether there was anything to do. Raises
    NewerSchema, StorageUnavailable.
    """
    if await asyncio.to_thread(version, url, data) == HEAD:
        return False
    await asyncio.to_thread(_upgrade, url, data)
    return True


def version(url: str, data: Path) -> str | None:
    """The revision the database is at; None when it has no tables."""
    if url:
        return _version_of_postgres(url)
    from storage.sqlite import connect

    connection = connect(data / "quartet.sqlite", reader=True)
    try:
        row = connection.execute(_VERSION).fetchone()
    except sqlite3.OperationalError:
        return None
    finally:
        connection.close()
    return str(row[0]) if row else None


def _version_of_postgres(url: str) -> str | None:
    import psycopg

    from storage.postgres import driver_url

    try:
        with psycopg.connect(driver_url(url), connect_timeout=10) as connection:
            row = connection.execute(_VERSION).fetchone()
    except psycopg.errors.UndefinedTable:
        return None
    except psycopg.OperationalError as error:
        raise StorageUnavailable("PostgreSQL does not answer") from error
    return str(row[0]) if row else None


def _upgrade(url: str, data: Path) -> None:
    from alembic import command
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory
    from sqlalchemy import create_engine, event, text
    from sqlalchemy.pool import NullPool

    from storage.postgres import driver_url

    if url:
        target = (
            driver_url(url).replace("://", "+psycopg://", 1).replace("postgres+", "postgresql+")
        )
        engine = create_engine(target, poolclass=NullPool)
        lock = text(f"SELECT pg_advisory_xact_lock({_LOCK})")
    else:
        engine = create_engine(f"sqlite:///{data / 'quartet.sqlite'}", poolclass=NullPool)
        # Foreign keys stay off: rebuilding a table must not cascade into its children.
        event.listen(engine, "connect", _begin_is_ours)
        lock = text("BEGIN IMMEDIATE")
    try:
        with engine.begin() as connection:
            connection.execute(lock)
            config = alembic_config(connection)
            found = MigrationContext.configure(connection).get_current_revision()
            known = {
                script.revision for script in ScriptDirectory.from_config(config).walk_revisions()
            }
            if found is not None and found not in known:
                raise NewerSchema(found)
            command.upgrade(config, "head")
    finally:
        engine.dispose()


def _begin_is_ours(connection: Any, record: Any) -> None:
    """Python's sqlite3 would leave CREATE TABLE outside of any transaction."""
    connection.isolation_level = None


def alembic_config(connection: "Connection") -> "Config":
    """alembic's configuration for our revisions over a connection."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config

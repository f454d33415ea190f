"""Which database to open."""

from pathlib import Path

from storage.database import Database


async def open_database(url: str, data: Path) -> Database:
    """The database at `url`, migrated; the SQLite file `quartet.sqlite` of the data directory
    when `url` is empty. Raises StorageUnavailable."""
    from storage.sqlite import SqliteDatabase

    return SqliteDatabase(data / "quartet.sqlite")

"""Which database to open."""

from pathlib import Path

from storage.database import Database


async def open_database(url: str, data: Path, *, connections: int = 10) -> Database:
    """The PostgreSQL database at `url` over at most `connections` connections, or, when `url` is
    empty, the SQLite file `quartet.sqlite` of the data directory. Tables are storage.migrating's
    affair. Raises StorageUnavailable; ValueError for a URL of another kind."""
    if not url:
        from storage.sqlite import SqliteDatabase

        return SqliteDatabase(data / "quartet.sqlite")
    if url.startswith(("postgresql://", "postgresql+psycopg://", "postgres://")):
        from storage.postgres import PostgresDatabase

        return await PostgresDatabase.open(url, connections=connections)
    raise ValueError("DATABASE_URL must start with postgresql:// or be empty")

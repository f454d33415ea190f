"""Settings that an administrator changes while the server runs."""

from typing import Any

from sqlalchemy import bindparam, select
from sqlalchemy.dialects import postgresql, sqlite

from storage.database import Database, Statement, Unit
from storage.schema import settings

FIND = Statement(select(settings.c.value).where(settings.c.key == bindparam("name")))
LOCK = Statement(
    select(settings.c.value).where(settings.c.key == bindparam("name")).with_for_update()
)


def _put(dialect: Any) -> Any:
    insert = dialect.insert(settings).values(
        key=bindparam("name"), value=bindparam("value"), updated_at=bindparam("now")
    )
    return insert.on_conflict_do_update(
        index_elements=["key"],
        set_={"value": insert.excluded.value, "updated_at": insert.excluded.updated_at},
    )


def _put_first(dialect: Any) -> Any:
    return (
        dialect.insert(settings)
        .values(key=bindparam("name"), value=bindparam("value"), updated_at=bindparam("now"))
        .on_conflict_do_nothing(index_elements=["key"])
    )


PUT = Statement({"sqlite": _put(sqlite), "postgresql": _put(postgresql)})
PUT_FIRST = Statement({"sqlite": _put_first(sqlite), "postgresql": _put_first(postgresql)})


class StoredSettings:
    """Values by name, none of them None. They belong to the deployment, so there is no owner."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, name: str, default: Any) -> Any:
        """What was last put under a name, or `default`."""
        row = await self._database.read_one(FIND(name=name))
        return default if row is None else row[0]

    def lock(self, name: str, default: Any) -> Unit[Any]:
        """What was last put under a name, locked until the unit ends. Where nothing was, `default`
        is put: what is not there cannot be locked."""
        yield PUT_FIRST(name=name, value=default, now=0.0)
        rows = yield LOCK(name=name)
        return rows[0][0]

    def put(self, name: str, value: Any, now: float) -> Unit[None]:
        yield PUT(name=name, value=value, now=now)

    def put_first(self, name: str, value: Any, now: float) -> Unit[None]:
        """Put a value unless the name has one."""
        yield PUT_FIRST(name=name, value=value, now=now)

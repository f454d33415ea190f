"""Accounts that own what a store's suite puts in."""

import time

from sqlalchemy import insert

from storage.database import Database, Statement, Unit
from storage.schema import users

_INSERT = Statement(insert(users))


async def make_accounts(database: Database, *names: str) -> None:
    """One active operator per name, with the name as its id."""

    def unit() -> Unit[None]:
        now = time.time()
        for name in names:
            yield _INSERT(
                id=name,
                username=name,
                username_key=name,
                role="operator",
                status="active",
                config={},
                created_at=now,
                updated_at=now,
                version=1,
            )

    await database.write(unit)

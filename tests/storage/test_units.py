"""Units of work: all or nothing, each on its own."""

import asyncio

import pytest
from sqlalchemy import bindparam, func, insert, select, update

from storage.database import AfterCommit, Bound, Database, Duplicate, Orphan, Statement, Unit
from storage.schema import leases, login_sessions

ADD = Statement(insert(leases))
COUNT = Statement(select(func.count()).select_from(leases))
FIND = Statement(select(leases).where(leases.c.name == bindparam("name")))
NAMED = Statement(
    select(leases.c.name).where(leases.c.name.in_(bindparam("names", expanding=True)))
)
MOVE = Statement(
    update(leases)
    .where(leases.c.name == bindparam("which"))
    .values(until=leases.c.until + bindparam("by"))
    .returning(leases.c.until)
)
ORPHAN = Statement(insert(login_sessions))


def lease(name: str) -> Bound:
    return ADD(name=name, holder="me", until=1.5)


def add(*names: str) -> Unit[int]:
    for name in names:
        yield lease(name)
    return len(names)


async def names(database: Database, *wanted: str) -> list[str]:
    rows = await database.read(NAMED(names=wanted))
    return sorted(name for (name,) in rows)


async def test_a_unit_returns_what_it_returns_and_its_rows_are_there(database: Database) -> None:
    assert await database.write(lambda: add("a", "b")) == 2
    assert await names(database, "a", "b", "c") == ["a", "b"]
    assert await names(database) == []
    assert await database.read_one(FIND(name="a")) == ("a", "me", 1.5)
    assert await database.read_one(FIND(name="z")) is None
    assert await database.scan(COUNT()) == [(2,)]


async def test_rows_come_back_from_returning_and_counts_from_the_rest(database: Database) -> None:
    def unit() -> Unit[list[object]]:
        inserted = yield ADD.many([{"name": n, "holder": "me", "until": 1.0} for n in "abc"])
        moved = yield MOVE(which="a", by=2.0)
        missed = yield MOVE(which="z", by=2.0)
        return [inserted, moved, missed]

    assert await database.write(unit) == [3, [(3.0,)], []]


async def test_a_failing_unit_leaves_nothing_and_says_which_constraint(database: Database) -> None:
    await database.write(lambda: add("a"))
    with pytest.raises(Duplicate) as refused:
        await database.write(lambda: add("b", "a"))
    assert refused.value.constraint == "pk_leases"
    assert await names(database, "a", "b") == ["a"]


async def test_a_row_without_its_owner_is_refused(database: Database) -> None:
    def unit() -> Unit[None]:
        yield ORPHAN(id="s", user_id="nobody", via="x", created_at=1.0, expires_at=2.0)

    with pytest.raises(Orphan):
        await database.write(unit)


async def test_an_error_of_the_unit_comes_out_and_rolls_back(database: Database) -> None:
    def unit() -> Unit[None]:
        yield lease("a")
        raise LookupError("no")

    with pytest.raises(LookupError):
        await database.write(unit)
    assert await names(database, "a") == []


async def test_of_200_concurrent_units_only_the_failing_ones_fail(database: Database) -> None:
    await database.write(lambda: add("taken"))

    def unit(i: int) -> Unit[int]:
        yield lease(f"n{i}")
        if i % 10 == 0:
            yield lease("taken")
        if i % 10 == 1:
            raise LookupError
        return i

    outcomes = await asyncio.gather(
        *(database.write(lambda i=i: unit(i)) for i in range(200)), return_exceptions=True
    )
    for i, outcome in enumerate(outcomes):
        if i % 10 == 0:
            assert isinstance(outcome, Duplicate)
        elif i % 10 == 1:
            assert isinstance(outcome, LookupError)
        else:
            assert outcome == i
    kept = await names(database, *(f"n{i}" for i in range(200)))
    assert kept == sorted(f"n{i}" for i in range(200) if i % 10 > 1)


async def test_callbacks_run_after_the_commit_and_before_the_caller(database: Database) -> None:
    seen: list[object] = []

    def unit(fails: bool) -> Unit[None]:
        yield lease("a")
        yield AfterCommit(lambda: seen.append("callback"))
        if fails:
            raise LookupError

    with pytest.raises(LookupError):
        await database.write(lambda: unit(True))
    assert seen == []
    await database.write(lambda: unit(False))
    seen.append("caller")
    assert seen == ["callback", "caller"]


async def test_a_wrong_parameter_is_an_error_not_a_null(database: Database) -> None:
    with pytest.raises(TypeError):
        await database.read(FIND(nme="a"))
    with pytest.raises(TypeError):
        await database.read(FIND(name="a", more=1))
    with pytest.raises(TypeError):
        await database.read(FIND())

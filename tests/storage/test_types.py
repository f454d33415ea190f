"""Values come back as what they went in as, on both databases."""

from typing import Any

import msgspec
import pytest
from sqlalchemy import (
    Integer,
    bindparam,
    column,
    func,
    insert,
    literal,
    literal_column,
    select,
    text,
    update,
)

from storage.database import Bound, Database, Statement, StorageError, Unit
from storage.schema import agents, events, settings, streams, users

ADD_USER = Statement(insert(users))
ADD_AGENT = Statement(insert(agents))


class Agent(msgspec.Struct):
    id: str
    description: str | None
    tools: Any
    max_loop_count: int | None
    deep_thinking: bool
    multimodal: bool
    created_at: float
    version: int


NAMES = Agent.__struct_fields__
FIND = Statement(select(*(agents.c[name] for name in NAMES)), into=Agent)


def once(bound: Bound) -> Unit[Any]:
    return (yield bound)


async def run(database: Database, bound: Bound) -> Any:
    return await database.write(lambda: once(bound))


async def add_user(database: Database, name: str = "ada") -> None:
    row = {"id": name, "username": name, "username_key": name, "role": "operator"}
    await run(database, ADD_USER(**row, created_at=1.0, updated_at=1.0))


def agent(**given: Any) -> dict[str, Any]:
    return {
        **{"id": "a", "owner_id": "ada", "name": "n", "deep_thinking": False},
        **{"multimodal": True, "multi_agent": False, "created_at": 1.0, "updated_at": 1.0},
        **given,
    }


async def test_a_record_has_its_types(database: Database) -> None:
    await add_user(database)
    await run(
        database, ADD_AGENT(**agent(created_at=2, tools=["a", 1, 2.5, None, True, {"k": {}}]))
    )
    found = await database.read_one(FIND())
    assert found == Agent(
        "a", None, ["a", 1, 2.5, None, True, {"k": {}}], None, False, True, 2.0, 1
    )
    assert [type(getattr(found, name)) for name in NAMES] == [
        *(str, type(None), list, type(None), bool, bool, float, int)
    ]
    assert [type(item) for item in found.tools] == [str, int, float, type(None), bool, dict]
    assert [await database.read(FIND()), await database.scan(FIND())] == [[found], [found]]


JSONS = [
    *(None, True, 0, -1, 2**63 - 1, 1.5, "", "Zoë 漢字 🎈", "a'b\"c\\d%s$1:x?", [], {}, [[]]),
    {"ключ": [1, {"b": None}], "": 0},
]


@pytest.mark.parametrize("value", JSONS, ids=repr)
async def test_json_values_survive(database: Database, value: Any) -> None:
    await add_user(database)
    await run(database, ADD_AGENT(**agent(system_context=value)))
    (row,) = await database.read(Statement(select(agents.c.system_context))())
    assert row == (value,)
    assert type(row[0]) is type(value)


TEXTS = ["", " ", "NULL", "Zoë 漢字 🎈", "a'b\"c\\d%s%(x)s$1:x?", "x" * 1_000_000, "line\r\n\ttab"]


@pytest.mark.parametrize("value", TEXTS, ids=lambda value: value[:10])
async def test_texts_survive(database: Database, value: str) -> None:
    await add_user(database)
    await run(database, ADD_AGENT(**agent(description=value)))
    found = await database.read_one(FIND())
    assert found.description == value


@pytest.mark.parametrize("value", [0.0, -1.5, 1e-300, 1e300, 1763862000.123456, 0.1 + 0.2, 7])
async def test_times_are_doubles_to_the_last_bit(database: Database, value: float) -> None:
    await add_user(database)
    await run(database, ADD_AGENT(**agent(created_at=value)))
    found = await database.read_one(FIND())
    assert type(found.created_at) is float
    assert found.created_at == value


async def test_integers_of_64_bits_survive(database: Database) -> None:
    for head in (0, 1, 2**31, 2**62, -(2**62)):
        await run(database, Statement(insert(streams))(id=f"s{head}", head=head))
        rows = await database.read(
            Statement(select(streams.c.head).where(streams.c.head == bindparam("head")))(head=head)
        )
        assert rows == [(head,)]
        assert type(rows[0][0]) is int


@pytest.mark.parametrize("value", ["\ud800", "a\udfff"], ids=ascii)
async def test_a_lone_surrogate_is_refused(database: Database, value: str) -> None:
    await add_user(database)
    with pytest.raises(StorageError):
        await run(database, ADD_AGENT(**agent(description=value)))
    with pytest.raises(StorageError):
        await database.read(Statement(select(agents.c.id).where(agents.c.name == value))())
    assert await database.read(FIND()) == []


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, 10**30])
async def test_an_integer_beyond_64_bits_is_refused(database: Database, value: int) -> None:
    with pytest.raises(StorageError):
        await run(database, Statement(insert(streams))(id="s", head=value))
    assert await database.read(Statement(select(streams.c.id))()) == []


async def test_a_nul_in_a_text_is_refused_or_kept_but_never_cut(database: Database) -> None:
    await add_user(database)
    try:
        await run(database, ADD_AGENT(**agent(description="a\x00b")))
    except StorageError:
        assert await database.read(FIND()) == []
    else:
        assert (await database.read_one(FIND())).description == "a\x00b"


async def test_literals_defaults_and_expressions(database: Database) -> None:
    await add_user(database)
    await run(database, ADD_AGENT(**agent()))
    statement = Statement(
        select(
            literal(True),
            literal("x%"),
            literal_column("1"),
            func.coalesce(agents.c.max_loop_count, bindparam("default", 7, type_=Integer)),
            agents.c.name.like("%n%"),
        ).where(agents.c.multimodal.is_(True), agents.c.name == "n")
    )
    assert await database.read(statement()) == [(True, "x%", 1, 7, True)]
    assert await database.read(statement(default=9)) == [(True, "x%", 1, 9, True)]
    with pytest.raises(TypeError):
        await database.read(statement(other=9))


async def test_text_statements_take_names(database: Database) -> None:
    statement = Statement(text("SELECT 'a%' || :x, :x || '\\:y' WHERE :y = 1"))
    assert await database.read(statement(x="b", y=1)) == [("a%b", "b:y")]


async def test_lists_of_any_length_and_several_of_them(database: Database) -> None:
    await run(
        database,
        Statement(insert(streams)).many([{"id": f"s{i}", "head": i} for i in range(500)]),
    )
    statement = Statement(
        select(streams.c.head)
        .where(streams.c.id.in_(bindparam("ids", expanding=True)))
        .where(streams.c.head.not_in(bindparam("but", expanding=True)))
        .where(streams.c.head < bindparam("below"))
        .order_by(streams.c.head)
    )
    for count in (0, 1, 2, 500, 2, 0):
        ids = [f"s{i}" for i in range(count)]
        rows = await database.read(statement(ids=ids, but=[1, 3], below=400))
        assert rows == [(i,) for i in range(count) if i not in (1, 3) and i < 400]
    assert await database.read(statement(ids=["s1"], but=[], below=2)) == [(1,)]
    assert await database.read(
        Statement(select(streams.c.head).where(streams.c.id.in_(["s7"])))()
    ) == [(7,)]


async def test_an_update_writes_the_columns_it_is_given(database: Database) -> None:
    await add_user(database)
    await run(database, ADD_AGENT(**agent()))
    change = Statement(update(agents).where(agents.c.id == bindparam("which")))
    assert await run(database, change(which="a", tools=["t"], version=2)) == 1
    assert await run(database, change(which="a", deep_thinking=True)) == 1
    assert await run(database, change(which="b", deep_thinking=True)) == 0
    assert await database.read_one(FIND()) == Agent("a", None, ["t"], None, True, True, 1.0, 2)


async def test_many_rows_go_in_order_and_return_theirs(database: Database) -> None:
    rows = [{"name": f"k{i}", "value": {"i": i}, "updated_at": i} for i in range(300)]
    add = Statement(
        insert(settings)
        .values(key=bindparam("name"), value=bindparam("value"), updated_at=bindparam("updated_at"))
        .returning(settings.c.key, settings.c.value)
    )
    assert await run(database, add.many(rows)) == [(f"k{i}", {"i": i}) for i in range(300)]
    plain = Statement(insert(events))
    given = [
        {"stream": "s", "seq": i, "type": "t", "payload": "{}", "line": None, "at": 1.0}
        for i in range(300)
    ]
    assert await run(database, plain.many(given)) == 300
    assert await run(database, plain.many([])) == 0
    with pytest.raises(TypeError):
        await run(database, plain.many([*given, {"stream": "s"}]))
    assert await database.read(
        Statement(select(func.count(column("seq"))).select_from(events))()
    ) == [(300,)]

"""ConversationStore on every database."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import bindparam, func, insert, select, text, update

from domain.ids import uuid7
from storage.conversations import (
    SESSIONS,
    Conversation,
    ConversationStore,
    MessageClash,
    NewMessage,
    Sort,
    _page,
)
from storage.database import Database, NoSuchRow, Statement, Unit
from storage.opening import open_database
from storage.schema import conversations, messages, runs, shares
from tests.storage.accounts import make_accounts

_MOVE = Statement(
    update(conversations)
    .where(conversations.c.id == bindparam("which"))
    .values(updated_at=bindparam("at"))
)
_RUN = Statement(insert(runs))


@pytest.fixture
async def store(database: Database) -> ConversationStore:
    await make_accounts(database, "ann", "bob")
    return ConversationStore(database)


async def make(
    database: Database, store: ConversationStore, owner: str, session: str, **fields: Any
) -> Conversation:
    made, _ = await database.write(lambda: store.ensure(owner, uuid7(), session, **fields))
    return made


def said(role: str, text: str, message_id: str = "", **fields: Any) -> NewMessage:
    kind = "user_input" if role == "user" else "assistant_text"
    row = uuid7()
    return NewMessage(
        id=row, message_id=message_id or row, role=role, type=kind, text=text, **fields
    )


async def add(
    database: Database, store: ConversationStore, conversation_id: str, *fresh: NewMessage
) -> list[NewMessage]:
    return await database.write(lambda: store.add_messages(conversation_id, fresh))


async def count(database: Database, table: Any) -> int:
    rows = await database.scan(Statement(select(func.count()).select_from(table))())
    return rows[0][0]


async def test_ensure_makes_once(database: Database, store: ConversationStore) -> None:
    unit = lambda: store.ensure("ann", uuid7(), "s", agent_id="a", agent_name="A", title="t")  # noqa: E731
    first, made = await database.write(unit)
    again, made_again = await database.write(unit)
    assert (made, made_again) == (True, False)
    assert again == first == await store.find("ann", "s")
    assert (first.owner_id, first.session_id, first.agent_id, first.agent_name, first.title) == (
        "ann",
        "s",
        "a",
        "A",
        "t",
    )
    assert type(first.created_at) is float
    assert first.latest_run_id is None


async def test_of_many_ensures_at_once_one_makes(
    database: Database, store: ConversationStore
) -> None:
    results = await asyncio.gather(
        *(database.write(lambda: store.ensure("ann", uuid7(), "s")) for _ in range(8))
    )
    assert sum(made for _, made in results) == 1
    assert len({conversation.id for conversation, _ in results}) == 1
    assert await count(database, conversations) == 1


async def test_a_session_id_belongs_to_its_owner(
    database: Database, store: ConversationStore
) -> None:
    hers = await make(database, store, "ann", "same")
    his = await make(database, store, "bob", "same")
    assert hers.id != his.id
    assert await store.find("ann", "same") == hers
    assert await store.find("bob", "same") == his
    assert await store.find("bob", hers.id) is None


async def test_it_is_found_by_session_before_id(
    database: Database, store: ConversationStore
) -> None:
    one = await make(database, store, "ann", "one")
    named_like_it = await make(database, store, "ann", "two")
    assert await store.find("ann", one.id) == one
    assert await database.write(lambda: store.ensure("ann", uuid7(), one.id)) == (one, False)
    assert await store.find("ann", "two") == named_like_it


async def test_find_any_prefers_the_callers_own(
    database: Database, store: ConversationStore
) -> None:
    his = await make(database, store, "bob", "same")
    assert await store.find_any("ann", "same") == his
    assert await store.find_any("ann", his.id) == his
    hers = await make(database, store, "ann", "same")
    assert await store.find_any("ann", "same") == hers
    assert await store.find_any("ann", "nothing") is None


async def test_find_any_takes_no_strangers_for_the_one_that_was_meant(
    database: Database, store: ConversationStore
) -> None:
    his = await make(database, store, "bob", "same")
    hers = await make(database, store, "ann", "same")
    assert await store.find_any("root", "same") is None
    assert await store.find_any("root", his.id) == his
    assert await store.find_any("root", hers.id) == hers


async def test_messages_keep_order_and_counts(database: Database, store: ConversationStore) -> None:
    made = await make(database, store, "ann", "s")
    await add(database, store, made.id, said("user", "one"), said("assistant", "two"))
    await add(
        database,
        store,
        made.id,
        said("tool", "three", tool_call_id="c1"),
        said("assistant", "four", tool_calls=[{"id": "c1"}], details={"n": 1}),
    )
    kept = await store.messages(made.id)
    assert [message.text for message in kept] == ["one", "two", "three", "four"]
    assert [message.position for message in kept] == [0, 1, 2, 3]
    assert kept[3].tool_calls == [{"id": "c1"}]
    assert kept[3].details == {"n": 1}
    assert [message.text for message in await store.history(made.id, 3)] == ["two", "three", "four"]
    found = await store.find("ann", "s")
    assert found is not None
    assert (found.message_count, found.user_count, found.agent_count) == (4, 1, 2)
    assert found.updated_at > made.updated_at


async def test_the_same_message_again_is_kept_once(
    database: Database, store: ConversationStore
) -> None:
    made = await make(database, store, "ann", "s")
    first = said("user", "hello", "m1")
    assert await add(database, store, made.id, first) == [first]
    fresh = said("user", "more", "m2")
    again = said("user", "hello", "m1")
    assert await add(database, store, made.id, again, fresh, said("user", "more", "m2")) == [fresh]
    found = await store.find("ann", "s")
    assert found is not None
    assert found.message_count == found.user_count == 2
    assert [message.message_id for message in await store.messages(made.id)] == ["m1", "m2"]


@pytest.mark.parametrize(
    "other",
    [
        said("user", "changed", "m1"),
        said("assistant", "hello", "m1"),
        said("user", "hello", "m1", content=[{"type": "text", "text": "hello"}]),
        said("user", "hello", "m1", tool_calls=[{"id": "c"}]),
        said("user", "hello", "m1", tool_call_id="c"),
    ],
)
async def test_another_message_of_the_same_id_is_refused(
    database: Database, store: ConversationStore, other: NewMessage
) -> None:
    made = await make(database, store, "ann", "s")
    await add(database, store, made.id, said("user", "hello", "m1"))
    with pytest.raises(MessageClash) as caught:
        await add(database, store, made.id, said("user", "new", "m2"), other)
    assert caught.value.message_id == "m1"
    assert [message.text for message in await store.messages(made.id)] == ["hello"]
    found = await store.find("ann", "s")
    assert found is not None
    assert found.message_count == 1


async def test_a_message_id_is_free_in_another_conversation(
    database: Database, store: ConversationStore
) -> None:
    one, two = await make(database, store, "ann", "1"), await make(database, store, "ann", "2")
    await add(database, store, one.id, said("user", "a", "m"))
    await add(database, store, two.id, said("user", "b", "m"))
    assert [message.text for message in await store.messages(two.id)] == ["b"]


async def test_messages_added_at_once_are_dense(
    database: Database, store: ConversationStore
) -> None:
    made = await make(database, store, "ann", "s")
    await asyncio.gather(
        *(
            add(
                database,
                store,
                made.id,
                said("user", f"{number}"),
                said("user", "same", "shared"),
                said("assistant", f"{number}"),
            )
            for number in range(10)
        )
    )
    kept = await store.messages(made.id)
    assert [message.position for message in kept] == list(range(21))
    found = await store.find("ann", "s")
    assert found is not None
    assert (found.message_count, found.user_count, found.agent_count) == (21, 11, 10)


async def test_many_messages_at_once(database: Database, store: ConversationStore) -> None:
    made = await make(database, store, "ann", "s")
    fresh = [said("user", f"word {number}") for number in range(2000)]
    assert await add(database, store, made.id, *fresh) == fresh
    assert await add(database, store, made.id, *fresh) == []


async def test_no_messages_for_no_conversation(
    database: Database, store: ConversationStore
) -> None:
    with pytest.raises(NoSuchRow):
        await add(database, store, "nothing", said("user", "x"))
    assert await count(database, messages) == 0


async def listed(store: ConversationStore, owner: str | None, **options: Any) -> list[str]:
    rows, total = await store.page(owner, limit=100, **options)
    assert total == len(rows)
    return [row.session_id for row in rows]


async def test_pages_are_exact(database: Database, store: ConversationStore) -> None:
    for number in range(7):
        made = await make(database, store, "ann", f"s{number}")
        await database.write(lambda made=made, number=number: _moved(made.id, float(number)))
    await make(database, store, "bob", "other")
    pages = [await store.page("ann", limit=3, offset=offset) for offset in (0, 3, 6, 9)]
    assert [[row.session_id for row in rows] for rows, _ in pages] == [
        ["s6", "s5", "s4"],
        ["s3", "s2", "s1"],
        ["s0"],
        [],
    ]
    assert {total for _, total in pages} == {7}
    assert await store.page("nobody", limit=3) == ([], 0)


def _moved(conversation_id: str, at: float) -> Unit[None]:
    yield _MOVE(which=conversation_id, at=at)


@pytest.mark.parametrize(
    ("sort", "expected"),
    [("date", ["b", "c", "a"]), ("title", ["c", "a", "b"]), ("messages", ["a", "b", "c"])],
)
async def test_sorts(
    database: Database, store: ConversationStore, sort: Sort, expected: list[str]
) -> None:
    plan = [("a", "Moss", 3, 1.0), ("b", "Tree", 2, 3.0), ("c", "Fern", 1, 2.0)]
    for session, title, amount, at in plan:
        made = await make(database, store, "ann", session, title=title)
        await add(database, store, made.id, *(said("user", "x") for _ in range(amount)))
        await database.write(lambda made=made, at=at: _moved(made.id, at))
    assert await listed(store, "ann", sort=sort) == expected


async def test_ties_have_one_order(database: Database, store: ConversationStore) -> None:
    made = [await make(database, store, "ann", f"s{number}") for number in range(6)]
    for one in made:
        await database.write(lambda one=one: _moved(one.id, 5.0))
    seen = []
    for offset in range(0, 6, 2):
        rows, _ = await store.page("ann", limit=2, offset=offset)
        seen += [row.id for row in rows]
    assert seen == sorted((one.id for one in made), reverse=True)


async def test_a_list_is_its_owners(database: Database, store: ConversationStore) -> None:
    await make(database, store, "ann", "hers", agent_id="x")
    await make(database, store, "bob", "his", agent_id="x")
    assert await listed(store, "ann", agent_id="x") == ["hers"]
    assert await listed(store, "ann", agent_id="y") == []
    assert sorted(await listed(store, None)) == ["hers", "his"]
    assert sorted(await listed(store, None, agent_id="x")) == ["hers", "his"]


async def test_search_reads_titles_and_what_was_said(
    database: Database, store: ConversationStore
) -> None:
    titled = await make(database, store, "ann", "titled", title="The Harvest")
    spoken = await make(database, store, "ann", "spoken")
    await add(database, store, spoken.id, said("user", 'say "harvest" \\ 100% of_it\n你好'))
    tool = await make(database, store, "ann", "tool")
    await add(database, store, tool.id, said("tool", "harvest"), said("system", "harvest"))
    picture = await make(database, store, "ann", "picture")
    parts = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,harvest"}}]
    await add(database, store, picture.id, said("user", "a picture", content=parts))
    other = await make(database, store, "bob", "other", title="harvest")

    assert sorted(await listed(store, "ann", search="HARVEST")) == ["spoken", "titled"]
    assert await listed(store, "ann", search='"harvest" \\ 100%') == ["spoken"]
    assert await listed(store, "ann", search="你好") == ["spoken"]
    assert await listed(store, "ann", search="of_it\n") == ["spoken"]
    for nothing in ("ofXit", "100% of%it", "image_url", "%", "' OR 1=1 --", "_"):
        found = await listed(store, "ann", search=nothing)
        assert found == (["spoken"] if nothing in ("%", "_") else [])
    assert sorted(await listed(store, None, search="harvest")) == ["other", "spoken", "titled"]
    assert titled.owner_id != other.owner_id


async def test_rename(database: Database, store: ConversationStore) -> None:
    made = await make(database, store, "ann", "s")
    renamed = await database.write(lambda: store.rename(made.id, "New"))
    assert (renamed.title, renamed.version, renamed.updated_at) == ("New", 2, made.updated_at)
    with pytest.raises(NoSuchRow):
        await database.write(lambda: store.rename("nothing", "New"))


async def test_the_latest_run_is_noted(database: Database, store: ConversationStore) -> None:
    made = await make(database, store, "ann", "s")
    await database.write(lambda: store.set_latest_run(made.id, "r", agent_id="a", agent_name="A"))
    found = await store.find("ann", "s")
    assert found is not None
    assert (found.latest_run_id, found.agent_id, found.agent_name) == ("r", "a", "A")


async def test_delete_takes_everything_along(database: Database, store: ConversationStore) -> None:
    gone, stays = await make(database, store, "ann", "1"), await make(database, store, "ann", "2")
    for one in (gone, stays):
        await add(database, store, one.id, said("user", "x"))
        await database.write(lambda one=one: store.share("ann", one.id, uuid7()))
        await database.write(lambda one=one: _run(f"run of {one.session_id}", one.id))
    assert await database.write(lambda: store.delete(gone.id)) == ["run of 1"]
    assert await store.find("ann", "1") is None
    for table in (conversations, messages, shares, runs):
        assert await count(database, table) == 1
    assert [message.text for message in await store.messages(stays.id)] == ["x"]
    with pytest.raises(NoSuchRow):
        await database.write(lambda: store.delete(gone.id))


def _run(run_id: str, conversation_id: str) -> Unit[None]:
    yield _RUN(
        id=run_id,
        conversation_id=conversation_id,
        owner_id="ann",
        state="completed",
        request={},
        query="",
        stops_with_client=False,
        created_at=1.0,
    )


async def test_shares(database: Database, store: ConversationStore) -> None:
    made = await make(database, store, "ann", "s")
    assert await database.write(lambda: store.share("ann", made.id, "secret")) == ("secret", True)
    assert await database.write(lambda: store.share("ann", made.id, "other")) == ("secret", False)

    anyone = await store.find_shared("", "secret")
    assert anyone is not None
    assert (anyone.id, anyone.share_id) == (made.id, "secret")
    for key in ("s", made.id):
        own = await store.find_shared("ann", key)
        assert own is not None
        assert (own.id, own.share_id) == (made.id, None)
        for stranger in ("", "bob"):
            assert await store.find_shared(stranger, key) is None
    assert await store.find_shared("ann", "other") is None

    assert await database.write(lambda: store.unshare(made.id)) is True
    assert await database.write(lambda: store.unshare(made.id)) is False
    assert await store.find_shared("", "secret") is None


async def test_a_session_named_like_a_share_shows_the_share(
    database: Database, store: ConversationStore
) -> None:
    shared = await make(database, store, "ann", "s")
    await database.write(lambda: store.share("ann", shared.id, "secret"))
    await make(database, store, "bob", "secret")
    found = await store.find_shared("bob", "secret")
    assert found is not None
    assert found.id == shared.id


async def test_shared_at_once_there_is_one_share(
    database: Database, store: ConversationStore
) -> None:
    made = await make(database, store, "ann", "s")
    results = await asyncio.gather(
        *(database.write(lambda n=n: store.share("ann", made.id, f"{n}")) for n in range(6))
    )
    assert len({share_id for share_id, _ in results}) == 1
    assert await count(database, shares) == 1


async def test_what_was_said(database: Database, store: ConversationStore) -> None:
    made = await make(database, store, "ann", "s")
    await add(
        database,
        store,
        made.id,
        said("system", "hidden"),
        said("user", "one"),
        said("assistant", "", tool_calls=[{"id": "c"}]),
        said("tool", "hidden", tool_call_id="c"),
        said("assistant", "two"),
    )
    assert [message.text for message in await store.said(made.id)] == ["one", "two"]


async def test_what_sub_agents_said_stands_apart(
    database: Database, store: ConversationStore
) -> None:
    """Kept with the conversation in its place, and no part of what was said in it."""
    made = await make(database, store, "ann", "s", title="t")
    await add(
        database,
        store,
        made.id,
        said("user", "one"),
        said("assistant", "harvest", run_id="r", task_id="t1"),
        said("assistant", "of another run", run_id="q", task_id="t2"),
        said("assistant", "two", run_id="r"),
    )
    assert len(await store.messages(made.id)) == 4
    assert [message.text for message in await store.said(made.id)] == ["one", "two"]
    assert [message.text for message in await store.history(made.id, 2)] == ["one", "two"]
    [kept] = await store.of_tasks(made.id, "r")
    assert (kept.text, kept.task_id) == ("harvest", "t1")
    assert await store.page("ann", limit=9, search="harvest") == ([], 0)


async def test_the_default_list_reads_the_index(data: Path) -> None:
    """On SQLite, whose planner needs no statistics to answer."""
    database = await open_database("", data)
    sql = str(_page("date", True, False, False).construct("sqlite"))
    explain = Statement(text(f"EXPLAIN QUERY PLAN {sql}"))
    plan = await database.scan(explain(owner="ann", limit=20, offset=0))
    await database.close()
    told = " / ".join(str(row[-1]) for row in plan)
    assert told.count("ix_conversations_owner_updated") == 2
    assert "TEMP B-TREE" not in told
    assert "SCAN conversations" not in told


async def test_what_a_session_shows_of_its_messages(
    database: Database, store: ConversationStore
) -> None:
    made = await make(database, store, "ann", "s")
    other = await make(database, store, "bob", "s")
    answer = {"run_id": "r"}
    await add(database, store, made.id, said("user", "one"), said("assistant", "two", **answer))
    [row] = await store.sessions("ann")
    assert (row.latest_message, row.unread, row.state) == ("two", 1, None)
    assert row.latest_message_at is not None

    cut = {"details": {"unfinished": True}, **answer}
    silent = said("assistant", "", **answer)
    call = said("assistant", "", tool_calls=[{"id": "c"}], **answer)
    given = said("assistant", "from the client")
    await add(database, store, made.id, silent, call, given, said("assistant", "x" * 600, **cut))
    [row] = await store.sessions("ann")
    assert (row.latest_message, row.unread) == ("x" * 500, 1)

    await database.write(lambda: store.attend(made.id, time.time() + 60))
    await add(database, store, made.id, said("assistant", "seen", **answer))
    await database.write(lambda: store.attend(made.id, 0.0))
    await add(database, store, made.id, said("assistant", "not seen", **answer))
    [row] = await store.sessions("ann")
    assert (row.latest_message, row.unread) == ("not seen", 2)
    assert await database.write(lambda: store.clear_unread(made.id)) is True
    assert await database.write(lambda: store.clear_unread(made.id)) is False
    assert (await store.sessions("ann"))[0].unread == 0
    assert [row.id for row in await store.sessions("bob")] == [other.id]


async def test_sessions_come_in_order_with_the_state_of_their_latest_run(
    database: Database, store: ConversationStore
) -> None:
    first, second = [await make(database, store, "ann", name) for name in ("1", "2")]
    run = dict.fromkeys(column.name for column in runs.c) | {
        "id": "r",
        "conversation_id": first.id,
        "owner_id": "ann",
        "state": "waiting",
        "request": {},
        "query": "",
        "stops_with_client": False,
        "attempt": 0,
        "answers": 0,
        "lines": 0,
        "created_at": 1.0,
    }

    def unit() -> Unit[None]:
        yield _RUN(**run)
        yield from store.set_latest_run(first.id, "r", agent_id=None, agent_name=None)

    await database.write(unit)
    found = [(row.id, row.state) for row in await store.sessions("ann")]
    assert found == [(first.id, "waiting"), (second.id, None)]


async def test_the_list_of_sessions_reads_indexes(data: Path) -> None:
    """On SQLite, whose planner needs no statistics to answer."""
    database = await open_database("", data)
    explain = Statement(text(f"EXPLAIN QUERY PLAN {SESSIONS.construct('sqlite')}"))
    plan = await database.scan(explain(owner="ann"))
    await database.close()
    told = " / ".join(str(row[-1]) for row in plan)
    assert "ix_conversations_owner_updated" in told
    assert "TEMP B-TREE" not in told
    assert "SCAN" not in told


async def test_a_nul_is_kept_as_a_replacement(database: Database, store: ConversationStore) -> None:
    made = await make(database, store, "ann", "s")
    details = {"question": "a\0b"}
    for times in (1, 0):
        fresh = said("assistant", "a\0b", "once", tool_call_id="c", details=details)
        assert len(await add(database, store, made.id, fresh)) == times
    (kept,) = await store.messages(made.id)
    assert (kept.text, kept.details) == ("a\ufffdb", details)
    titled = await database.write(lambda: store.rename(made.id, "c\0d"))
    assert (titled.title, titled.latest_message) == ("c\ufffdd", "a\ufffdb")

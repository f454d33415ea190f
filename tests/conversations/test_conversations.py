"""Conversations: who may read, find, share, rename and delete them."""

import hashlib
from collections.abc import AsyncIterator

import msgspec
import pytest

from domain.caller import ANONYMOUS
from domain.conversations import Progress, title_of
from domain.errors import Conflict, Forbidden, NotFound, Unusable
from domain.ids import uuid7
from handlers.sage.conversation import message, shown
from storage.conversations import Conversation, NewMessage
from storage.database import Database
from tests.providers.parts import ANN, BOB, ROOT, Parts, parts, told


@pytest.fixture
async def here(database: Database) -> AsyncIterator[Parts]:
    async with parts(database) as made:
        yield made


async def make(here: Parts, caller: object, session: str | None, *said: NewMessage) -> Conversation:
    def unit():
        found = yield from here.conversations.ensure(
            caller, session, agent_id=None, agent_name=None, title="T"
        )
        yield from here.conversations.add_messages(caller, found, said)
        return found

    return await here.database.write(unit)


def said(role: str, text: str, message_id: str = "", kind: str = "") -> NewMessage:
    row = uuid7()
    kind = kind or ("user_input" if role == "user" else "assistant_text")
    return NewMessage(id=row, message_id=message_id or row, role=role, type=kind, text=text)


async def refused(attempt: object, error: type[Exception], key: str) -> None:
    with pytest.raises(error) as caught:
        await attempt
    assert caught.value.key == key


async def test_without_a_session_id_its_id_serves(here: Parts) -> None:
    made = await make(here, ANN, None)
    assert made.session_id == made.id
    assert await here.conversations.find(ANN, made.id) == made
    assert await told(here.log, f"conversation:{made.id}") == ["conversation.created"]


async def test_to_strangers_it_does_not_exist(here: Parts) -> None:
    made = await make(here, ANN, "s", said("user", "x"))
    for key in ("s", made.id, "nothing"):
        for attempt in (
            here.conversations.find(BOB, key),
            here.conversations.transcript(BOB, key),
            here.conversations.rename(BOB, key, "x"),
            here.conversations.delete(BOB, key),
            here.conversations.share(BOB, key),
            here.conversations.unshare(BOB, key),
            here.conversations.shared(BOB, key),
            here.conversations.shared(ANONYMOUS, key),
        ):
            await refused(attempt, NotFound, "conversation.not_found")
    assert here.stopped == []
    assert (await here.conversations.find(ROOT, "s")).id == made.id


async def test_a_transcript_says_where_to_go_on(here: Parts) -> None:
    made = await make(here, ANN, "s", said("user", "x"))
    assert (await here.conversations.transcript(ANN, "s")).next_line == 0
    await here.database.write(
        lambda: here.store.set_latest_run(made.id, "r", agent_id=None, agent_name=None)
    )
    here.progress["r"] = Progress(7)
    found = await here.conversations.transcript(ANN, made.id)
    assert found.next_line == 7
    assert [one.text for one in found.messages] == ["x"]


async def test_pages_and_their_neighbours(here: Parts) -> None:
    for number in range(5):
        await make(here, ANN, f"s{number}")
    await make(here, BOB, "other")
    seen = []
    for number in (1, 2, 3, 4):
        page = await here.conversations.page(ANN, page=number, page_size=2)
        seen.append((len(page.rows), page.total, page.pages, page.has_next, page.has_previous))
    assert seen == [
        (2, 5, 3, True, False),
        (2, 5, 3, True, True),
        (1, 5, 3, False, True),
        (0, 5, 3, False, True),
    ]
    assert (await here.conversations.page(ROOT)).total == 6
    assert (await here.conversations.page(ROOT, user_id="bob")).total == 1
    assert (await here.conversations.page(ANN, user_id="ann", search=" ")).total == 5
    await refused(
        here.conversations.page(ANN, user_id="bob"), Forbidden, "conversation.foreign_user"
    )


async def test_rename(here: Parts) -> None:
    made = await make(here, ANN, "s")
    assert (await here.conversations.rename(ANN, "s", " New ")).title == "New"
    await refused(here.conversations.rename(ANN, "s", " "), Unusable, "conversation.title_blank")
    assert (await told(here.log, f"conversation:{made.id}"))[-1] == "conversation.renamed"


async def test_delete_ends_runs_first_and_takes_the_streams_along(here: Parts) -> None:
    made = await make(here, ANN, "s", said("user", "x"))
    await here.conversations.delete(ANN, "s")
    assert here.stopped == [made.id]
    assert await told(here.log, f"conversation:{made.id}") == []
    assert await told(here.log, "user:ann") == ["conversation.deleted"]
    await refused(here.conversations.delete(ANN, "s"), NotFound, "conversation.not_found")
    again = await make(here, ANN, "s")
    assert again.id != made.id


async def test_a_share_shows_words_to_anyone_until_it_ends(here: Parts) -> None:
    await make(
        here,
        ANN,
        "s",
        said("system", "hidden"),
        said("user", "hello"),
        said("assistant", "hidden", kind="reasoning_content"),
        said("assistant", "hi"),
        said("tool", "hidden"),
    )
    share_id = await here.conversations.share(ANN, "s")
    assert len(bytes.fromhex(share_id)) == 16
    assert await here.conversations.share(ANN, "s") == share_id
    for caller, key in ((ANONYMOUS, share_id), (BOB, share_id), (ANN, "s")):
        _, messages = await here.conversations.shared(caller, key)
        assert [one.text for one in messages] == ["hello", "hi"]
    await refused(here.conversations.shared(BOB, "s"), NotFound, "conversation.not_found")
    await here.conversations.unshare(ANN, "s")
    await here.conversations.unshare(ANN, "s")
    await refused(
        here.conversations.shared(ANONYMOUS, share_id), NotFound, "conversation.not_found"
    )
    assert await here.conversations.share(ANN, "s") != share_id


async def test_a_message_id_names_one_message(here: Parts) -> None:
    made = await make(here, ANN, "s", said("user", "x", "m"))
    await make(here, ANN, "s", said("user", "x", "m"))
    await refused(
        make(here, ANN, "s", said("user", "y", "m")), Conflict, "conversation.message_exists"
    )
    kinds = await told(here.log, f"conversation:{made.id}")
    assert kinds == ["conversation.created", "conversation.messages_added"]


async def test_the_wire_form_leaves_out_what_is_not_there(here: Parts) -> None:
    made = await make(here, ANN, "sess_123", said("user", "x", "m"))
    listed = msgspec.to_builtins(shown(made))
    assert listed["trace_id"] == hashlib.md5(b"sess_123").hexdigest()
    assert "agent_id" not in listed
    (kept,) = (await here.conversations.transcript(ANN, "sess_123")).messages
    wire = msgspec.to_builtins(message(kept, "sess_123"))
    assert set(wire) == {
        "message_id",
        "role",
        "type",
        "content",
        "session_id",
        "timestamp",
        "metadata",
    }


def test_titles() -> None:
    assert title_of("  a\n b ") == "a b"
    assert title_of("x" * 51) == "x" * 49 + "…"
    assert title_of("") == ""


async def test_an_account_that_goes_leaves_nothing_of_its_conversations(here: Parts) -> None:
    gone = [await make(here, ANN, f"s{number}", said("user", "x")) for number in range(3)]
    kept = await make(here, BOB, "s", said("user", "y"))
    await here.conversations.erase_all("ann")
    assert sorted(here.stopped) == sorted(one.id for one in gone)
    assert (await here.conversations.page(ANN)).total == 0
    for one in gone:
        assert await told(here.log, f"conversation:{one.id}") == []
    assert (await here.conversations.find(BOB, "s")).id == kept.id
    assert (await told(here.log, f"conversation:{kept.id}"))[0] == "conversation.created"
    await here.conversations.erase_all("ann")

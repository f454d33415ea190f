"""SessionSkills on every database."""

import msgspec
import pytest

from domain.ids import uuid7
from storage.conversations import ConversationStore
from storage.database import Database, Orphan
from storage.session_skills import SessionSkill, SessionSkills
from tests.storage.accounts import make_accounts


async def test_the_first_edition_stays(database: Database) -> None:
    await make_accounts(database, "ann")
    conversations, store = ConversationStore(database), SessionSkills(database)
    made, _ = await database.write(lambda: conversations.ensure("ann", uuid7(), "s", title="T"))
    row = SessionSkill(made.id, "k", {"digest": "first", "files": {"a": 1}}, 2.5)
    await database.write(lambda: store.add(row))
    await database.write(lambda: store.add(msgspec.structs.replace(row, edition={"digest": "x"})))
    assert await store.of(made.id) == [row]
    assert await store.of("nobody") == []
    with pytest.raises(Orphan):
        await database.write(lambda: store.add(SessionSkill("nobody", "k", {}, 2.5)))
    await database.write(lambda: conversations.delete(made.id))
    assert await store.of(made.id) == []

"""What an account uploads while it is being deleted is not kept."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from domain.caller import Caller
from domain.errors import NotFound, Unauthenticated
from domain.knowledge.documents import File
from storage.database import StorageUnavailable
from storage.objects import ObjectStore
from tests.security import asgi
from tests.security.place import Place, opened


@pytest.fixture
async def place(data: Path, database_url: str) -> AsyncIterator[Place]:
    async with opened(data, database_url=database_url) as place:
        yield place


async def content() -> AsyncIterator[bytes]:
    yield b"a secret of who leaves"


async def publish(place: Place, caller: Caller) -> str:
    return await place.quartet.files.publish(caller, "a.txt", "", 22, content())


async def add_document(place: Place, caller: Caller) -> str:
    knowledge = place.quartet.knowledge
    base_id = await knowledge.bases.create(caller, name="Late", type_="rag")
    files = [File("a.md", 22, content)]
    await knowledge.documents.add(caller, base_id, files, override=False)
    return base_id


def stored(place: Place) -> list[Path]:
    return [path for path in (place.data / "objects").rglob("*") if path.is_file()]


async def test_uploads_that_overlap_the_deletion_leave_no_file(place: Place) -> None:
    ann, bob = await place.account("ann"), await place.account("bob")
    rounds = []

    async def late(user_id: str) -> None:
        """What had been admitted before the account was barred, and ends behind the erasers."""
        rounds.append(user_id)
        if len(rounds) < 3:
            await publish(place, ann.caller())
            await add_document(place, ann.caller())

    await publish(place, ann.caller())
    kept = await publish(place, bob.caller())
    place.quartet.users.on_leaving(late)
    await place.quartet.users.delete(place.root, ann.id)
    assert rounds == [ann.id] * 3
    assert len(stored(place)) == 1
    assert await place.quartet.files.read_published(*(place.quartet.files.published_at(kept) or ""))
    with pytest.raises(NotFound):
        await place.quartet.users.get(ann.id)


async def test_uploads_that_come_too_late_are_refused(place: Place) -> None:
    ann = await place.account("ann")
    await place.quartet.users.delete(place.root, ann.id)
    for upload in (publish, add_document):
        with pytest.raises(Unauthenticated):
            await upload(place, ann.caller())
    assert stored(place) == []


async def test_a_base_whose_files_cannot_be_erased_stays(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = await place.account("ann")
    base_id = await add_document(place, ann.caller())

    async def fail(self: ObjectStore, keys: Sequence[str]) -> None:
        raise StorageUnavailable("the object store does not answer")

    with monkeypatch.context() as patched:
        patched.setattr(ObjectStore, "delete", fail)
        for deletion in (
            place.quartet.knowledge.bases.delete(ann.caller(), base_id),
            place.quartet.users.delete(place.root, ann.id),
        ):
            with pytest.raises(StorageUnavailable):
                await deletion
    assert len(stored(place)) == 1
    await place.quartet.users.delete(place.root, ann.id)
    assert stored(place) == []


async def test_an_account_is_barred_while_it_is_erased(place: Place) -> None:
    ann, bob = await place.account("ann"), await place.account("bob")
    seen = []

    async def leaving(user_id: str) -> None:
        for who in (ann, bob):
            form = asgi.form(("file", "a.txt", b"x"))
            seen.append((await who.ask("POST", "/api/oss/upload", **form)).http)
        raise OSError("the store does not answer")

    place.quartet.users.on_leaving(leaving)
    with pytest.raises(OSError, match="does not answer"):
        await place.quartet.users.delete(place.root, ann.id)
    assert seen == [401, 200]
    assert (await place.quartet.users.get(ann.id)).status == "inactive"
    assert (await place.quartet.users.get(bob.id)).status == "active"
    place.quartet.users._leaving.remove(leaving)
    await place.quartet.users.delete(place.root, ann.id)
    with pytest.raises(NotFound):
        await place.quartet.users.get(ann.id)

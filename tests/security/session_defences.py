"""The defences around sessions: attacks, and what takes each defence away.

Imported, it adds its checks to those of defences.py.
"""

import os
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from domain.caller import Caller
from domain.files import Files
from domain.sessions import Sessions
from storage.files import File
from storage.workspace_files import NoSuchFile, WorkspaceFiles
from storage.workspace_files import Place as Workspace
from tests.security.defences import DEFENCES as DEFENCES
from tests.security.defences import without
from tests.security.place import BODIES, CONTRACTS, Account, Place, path_of, unique


async def _any_session(self: Sessions, caller: Caller, session_id: str, **_: Any) -> Any:
    return await self._store.by_id(session_id)


async def _any_files(self: Files, caller: Caller, file_ids: Any) -> Any:
    return await self._store.get_some(file_ids)


async def _any_file(self: Files, caller: Caller, file_id: str) -> Any:
    return await self._store.get(file_id)


async def _kept(place: Place, who: Account) -> File:
    async def content() -> AsyncIterator[bytes]:
        yield b"secret"

    return await place.quartet.files.keep(who.caller(), "secret.txt", "text/plain", 6, content())


async def _refused(place: Place, **theirs: str) -> None:
    """Every operation of the sandbox contract that names them, asked by a stranger: 403; 404 where
    there is no such thing."""
    naming = [
        operation
        for operation in CONTRACTS["sandbox"].operations.values()
        if any(f"{{{name}}}" in operation.path for name in theirs)
    ]
    assert len(naming) > 1
    for operation in naming:
        for values, status in ((theirs, 403), ({}, 404)):
            body = BODIES.get(operation.id)
            path = path_of(operation, **values)
            reply = await place.stranger.ask(operation.method, path, body)
            assert reply.status == status, (operation.id, values)


@without(14, own={"domain.sessions:Sessions.find": _any_session})
async def a_session_is_its_owners(place: Place) -> None:
    await _refused(place, session_id=place.conversation)


@without(14, own={"domain.files:Files.find": _any_file})
async def a_file_is_its_owners(place: Place) -> None:
    await _refused(place, file_id=(await _kept(place, place.owner)).id)


@without(
    14,
    own={"domain.files:Files.find_all": _any_files, "domain.files:Files.find": _any_file},
)
async def an_attachment_is_its_owners(place: Place) -> None:
    theirs = await _kept(place, place.stranger)
    body = {"message": "read it", "attachments": [theirs.id]}
    path = f"/sandbox/api/sessions/{place.conversation}/chat"
    assert (await place.owner.ask("POST", path, body)).status == 403


@without(
    31,
    links={"storage.workspace_files:_WRITTEN": os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC},
)
async def nothing_is_written_through_a_link(place: Place) -> None:
    """As a tool that writes a file where the sandbox has put a link."""

    async def content() -> AsyncIterator[bytes]:
        yield b"written"

    root, outside = place.data / unique("linked"), place.data / unique("outside")
    outside.write_text("kept")
    here = root / "sessions" / "ann" / "s"
    here.mkdir(parents=True)
    (here / "link").symlink_to(outside)
    with suppress(NoSuchFile):
        await WorkspaceFiles(root).write(Workspace("sessions", "ann", "s"), ("link",), content())
    assert outside.read_text() == "kept"

"""Knowledge bases: an owner's documents, of one type, that retrieval looks through.

A base is its owner's and the administrators'; to everyone else it does not exist.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from domain.caller import Caller
from domain.errors import NotFound, Unauthenticated, Unusable
from domain.ids import uuid7
from storage.database import Database, NoSuchRow, Orphan, StorageError
from storage.knowledge import Base, KnowledgeStore, Listed
from storage.objects import ObjectStore
from storage.vectors import Vectors

log = logging.getLogger("quartet.knowledge")

LANGUAGE = "zh-cn"
SWEEP_S = 3600.0


def prefix(base_id: str) -> str:
    """Below what the files of a base are in the object store."""
    return f"knowledge/{base_id}"


def key(base_id: str, document_id: str) -> str:
    """Where a document's file is in the object store."""
    return f"{prefix(base_id)}/{document_id}"


class KnowledgeBases:
    """The bases of every account. Where a base is not visible to the caller, every method raises
    NotFound("knowledge.not_found")."""

    def __init__(
        self,
        database: Database,
        store: KnowledgeStore,
        objects: Callable[[], ObjectStore],
        vectors: Vectors,
        *,
        embedder: str,
    ) -> None:
        """`embedder` is the name of the one that makes the vectors of new bases."""
        self._database = database
        self._store = store
        self._objects = objects
        self._vectors = vectors
        self._embedder = embedder

    async def get(self, caller: Caller, base_id: str) -> Base:
        """A base of the caller's; any, for an administrator."""
        found = await self._store.find(caller.user_id, base_id, everything=caller.is_admin)
        if found is None:
            raise NotFound("knowledge.not_found")
        return found

    async def page(
        self, caller: Caller, *, name: str, type_: str, page: int, size: int
    ) -> tuple[list[Listed], int]:
        """One page of the bases that the caller sees, newest first, and how many there are;
        `name` is contained in their names, `type_` is theirs. Empty texts ask for nothing."""
        return await self._store.list_bases(
            caller.user_id,
            everything=caller.is_admin,
            name=name,
            type_=type_,
            limit=size,
            offset=(page - 1) * size,
        )

    async def create(
        self, caller: Caller, *, name: str, type_: str, intro: str = "", language: str = ""
    ) -> str:
        """Make a base of the caller's; its id. Raises Unusable("knowledge.name_blank")."""
        if not (name := name.strip()):
            raise Unusable("knowledge.name_blank")
        base_id = uuid7()
        setting = {"kdbAttach": {"language": language or LANGUAGE}}
        try:
            await self._database.write(
                lambda: self._store.create(
                    caller.user_id, base_id, name, type_, intro, setting, embedder=self._embedder
                )
            )
        except Orphan:  # the caller's account
            raise Unauthenticated("auth.expired") from None
        return base_id

    async def update(
        self,
        caller: Caller,
        base_id: str,
        *,
        name: str = "",
        intro: str = "",
        setting: dict[str, Any] | None = None,
    ) -> Base:
        """Change what is given; an empty text or mapping keeps what there is. Returns the base as
        it was."""
        base = await self.get(caller, base_id)
        try:
            await self._database.write(
                lambda: self._store.update(base_id, name.strip(), intro, setting or None)
            )
        except NoSuchRow:
            raise NotFound("knowledge.not_found") from None
        return base

    async def delete(self, caller: Caller, base_id: str) -> Base:
        """Remove a base with its documents, and their files."""
        base = await self.get(caller, base_id)
        try:
            await self._remove(base_id)
        except NoSuchRow:
            raise NotFound("knowledge.not_found") from None
        return base

    async def clear(self, caller: Caller, base_id: str) -> Base:
        """Remove a base's documents, and their files."""
        base = await self.get(caller, base_id)
        try:
            gone = await self._database.write(lambda: self._store.clear(base_id))
        except NoSuchRow:
            raise NotFound("knowledge.not_found") from None
        await self._objects().delete([key(base_id, one) for one in gone])
        return base

    async def erase_all(self, owner: str) -> None:
        """Remove every base of an account that is leaving."""
        while True:
            found, _ = await self._store.list_bases(
                owner, everything=False, name="", type_="", limit=100, offset=0
            )
            if not found:
                return
            for one in found:
                with suppress(NoSuchRow):  # its owner was quicker
                    await self._remove(one.base.id)

    def launch(self) -> None:
        """Begin to look for what deleted bases have left, in the background."""
        self._database.in_background(self._sweep_now_and_then)

    async def _remove(self, base_id: str) -> None:
        """Remove a base and all that lies under its prefix: before the row goes, so that it can be
        removed again where the object store fails, and afterwards, for uploads that overlap. One
        that ends later finds no base to add to, and removes its own."""
        await self._empty(base_id)
        await self._database.write(lambda: self._store.delete(base_id))
        self._vectors.forget(base_id)
        await self._empty(base_id)

    async def _empty(self, base_id: str) -> None:
        objects = self._objects()
        await objects.delete([one.key async for one in objects.list(prefix(base_id))])

    async def _sweep_now_and_then(self) -> None:
        while True:
            try:
                await self._vectors.sweep()
            except (StorageError, OSError) as error:
                log.warning("looking for vectors of deleted bases failed: %s", error)
            await asyncio.sleep(SWEEP_S)

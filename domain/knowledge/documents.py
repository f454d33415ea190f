"""The documents of knowledge bases: taking files in, telling how far they are, taking them again.

Documents belong to their base's owner (bases.py). Files that come together are one task.
"""

import re
import time
from collections.abc import AsyncIterator, Callable, Sequence

import msgspec

from domain.caller import Caller
from domain.errors import NotFound, Unusable
from domain.ids import uuid7
from domain.knowledge.bases import KnowledgeBases, key
from domain.knowledge.ingestion import Ingestion, suffix_of
from domain.quota import Quota
from gateways.documents.parser import DocumentUnreadable, Parser
from storage.database import Database, NoSuchRow, Orphan, Unit
from storage.knowledge import Base, Document, Kind, KnowledgeStore, State
from storage.objects import ObjectStore

TEXT_FORMATS = (".csv", ".html", ".htm", ".md", ".markdown", ".txt", ".log", ".json", ".eml")
FORMATS = frozenset({".pdf", ".docx", ".xlsx", ".xls", *TEXT_FORMATS})
QUESTION_FORMATS = frozenset({".csv", ".xls", ".xlsx"})
NAME_MAX = 255
STATES: tuple[State, ...] = ("waiting", "processing", "succeeded", "failed")


class File(msgspec.Struct, frozen=True):
    """A file that was uploaded. `read` begins at the start at every call."""

    name: str
    size: int
    read: Callable[[], AsyncIterator[bytes]]


class Progress(msgspec.Struct, frozen=True):
    """How many of a task's documents are in each state."""

    waiting: int = 0
    processing: int = 0
    succeeded: int = 0
    failed: int = 0

    @property
    def total(self) -> int:
        return self.waiting + self.processing + self.succeeded + self.failed

    @property
    def percent(self) -> int:
        """Whole percent of the documents that succeeded, 0 to 100."""
        return 100 * self.succeeded // self.total if self.total else 0


class Documents:
    """The documents of every account's bases. Where a base is not visible to the caller, every
    method that names one raises NotFound("knowledge.not_found")."""

    def __init__(
        self,
        database: Database,
        store: KnowledgeStore,
        objects: Callable[[], ObjectStore],
        bases: KnowledgeBases,
        ingestion: Ingestion,
        parser: Parser,
        quota: Quota,
    ) -> None:
        self._database = database
        self._store = store
        self._objects = objects
        self._bases = bases
        self._ingestion = ingestion
        self._parser = parser
        self._quota = quota

    async def add(
        self, caller: Caller, base_id: str, files: Sequence[File], *, override: bool
    ) -> tuple[str, Base]:
        """Take files into a base; the id of their task, and the base. With `override` documents
        of the same names go first. All are taken, or none.

        Raises Unusable: knowledge.no_file, knowledge.file_name, knowledge.format,
        knowledge.questions (a base of the type `qa` takes tables of questions and answers),
        knowledge.repeated (with `override`, two files of one name); TooLarge("storage.quota").
        """
        base = await self._bases.get(caller, base_id)
        names = await self._checked(base, files)
        if override and len(set(names)) != len(names):
            raise Unusable("knowledge.repeated")
        task_id, now = uuid7(), time.time()
        fresh = [
            Document(
                id=uuid7(),
                base_id=base_id,
                task_id=task_id,
                name=name,
                kind=_kind(base.type, name),
                size=file.size,
                state="waiting",
                reason=None,
                attempt=1,
                chunks=0,
                created_at=now,
                updated_at=now,
            )
            for file, name in zip(files, names, strict=True)
        ]
        stored = [key(base_id, document.id) for document in fresh]

        def unit() -> Unit[list[str]]:
            gone = yield from self._store.add(fresh, override=override)
            yield from self._quota.hold(base.owner_id)
            return gone

        try:
            for file, where in zip(files, stored, strict=True):
                await self._objects().put(where, file.read())
            gone = await self._database.write(unit)
        except (NoSuchRow, Orphan):
            await self._objects().delete(stored)
            raise NotFound("knowledge.not_found") from None
        except BaseException:
            await self._objects().delete(stored)
            raise
        await self._ingestion.start(fresh)
        await self._objects().delete([key(base_id, one) for one in gone])
        return task_id, base

    async def page(
        self,
        caller: Caller,
        base_id: str,
        *,
        name: str,
        states: Sequence[State],
        task_id: str,
        page: int,
        size: int,
    ) -> tuple[list[Document], int, Base]:
        """One page of a base's documents, newest first, how many match, and the base. Empty texts
        and no states ask for nothing."""
        base = await self._bases.get(caller, base_id)
        found, total = await self._store.list_documents(
            base_id,
            name=name,
            states=states or STATES,
            task_id=task_id,
            limit=size,
            offset=(page - 1) * size,
        )
        return found, total, base

    async def get(self, caller: Caller, document_id: str) -> tuple[Document, Base] | None:
        """A document and its base; None where it is not visible to the caller."""
        found = await self._store.visible_document(
            caller.user_id, document_id, everything=caller.is_admin
        )
        if found is None:
            return None
        return found, await self._bases.get(caller, found.base_id)

    async def delete(self, caller: Caller, document_id: str) -> Base:
        """Remove a document with its chunks and its file. Raises
        NotFound("knowledge.document_not_found")."""
        found = await self.get(caller, document_id)
        if found is None:
            raise NotFound("knowledge.document_not_found")
        base = found[1]
        try:
            await self._database.write(lambda: self._store.delete_document(base.id, document_id))
        except NoSuchRow:
            raise NotFound("knowledge.document_not_found") from None
        await self._objects().delete([key(base.id, document_id)])
        return base

    async def progress(self, caller: Caller, base_id: str, task_id: str) -> tuple[Progress, Base]:
        """How far a task is; of an unknown one there is nothing."""
        base = await self._bases.get(caller, base_id)
        return Progress(**await self._store.progress(base_id, task_id)), base

    async def redo(self, caller: Caller, document_id: str) -> Base | None:
        """Ingest a document anew; None, and nothing done, where it is not visible."""
        found = await self.get(caller, document_id)
        if found is None:
            return None
        await self._again(found[1], document_id=document_id)
        return found[1]

    async def redo_task(self, caller: Caller, base_id: str, task_id: str) -> Base:
        """Ingest a task's documents anew; of an unknown one there are none."""
        base = await self._bases.get(caller, base_id)
        await self._again(base, task_id=task_id)
        return base

    async def redo_all(self, caller: Caller, base_id: str) -> Base:
        """Ingest every document of a base anew."""
        base = await self._bases.get(caller, base_id)
        await self._again(base)
        return base

    async def _again(self, base: Base, *, task_id: str = "", document_id: str = "") -> None:
        rows = await self._database.write(
            lambda: self._store.again(base.id, task_id=task_id, document_id=document_id)
        )
        await self._ingestion.start(rows)

    async def _checked(self, base: Base, files: Sequence[File]) -> list[str]:
        """The names that the files get. Raises Unusable where one cannot be taken."""
        if not files:
            raise Unusable("knowledge.no_file")
        known = QUESTION_FORMATS if base.type == "qa" else FORMATS
        names = []
        for file in files:
            name = _plain(file.name)
            if not name:
                raise Unusable("knowledge.file_name")
            if suffix_of(name) not in known:
                raise Unusable("knowledge.format", name=name, known=", ".join(sorted(known)))
            names.append(name)
        if base.type == "qa":
            for file, name in zip(files, names, strict=True):
                try:
                    await self._parser.read(file.read(), suffix_of(name), "qa")
                except DocumentUnreadable as error:
                    raise Unusable("knowledge.questions", name=name, reason=str(error)) from None
        return names


def _kind(type_: str, name: str) -> Kind:
    if type_ == "qa":
        return "qa"
    return "eml" if suffix_of(name) == ".eml" else "file"


def _plain(name: str) -> str:
    """A name to be shown, never a path: its last part, without what cannot be printed. Its
    beginning gives way where it is too long, for its end is the format."""
    last = re.split(r"[/\\]", name)[-1]
    return "".join(c for c in last if c.isprintable()).strip(" .")[-NAME_MAX:]

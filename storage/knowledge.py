"""Rows of knowledge bases, their documents, and the chunks that retrieval finds.

A chunk is kept with its words for the full text index and with its vector. All chunks of a
document are replaced in one unit, under the lock of the base's row: numbers of chunks therefore
grow in the order of their commits within a base, and whoever has read up to a number has missed
nothing (storage/vectors.py).

Vectors of different embedders do not compare. Each chunk says which one made its vector, and
vectors are read of one embedder alone.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Integer,
    Text,
    and_,
    bindparam,
    case,
    cast,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.sql.expression import ColumnElement, Executable

from storage.database import Database, NoSuchRow, Statement, Unit
from storage.membership import members, per_dialect
from storage.schema import Json
from storage.schema import knowledge_bases as bases
from storage.schema import knowledge_chunks as chunks
from storage.schema import knowledge_documents as documents
from storage.users import folded

State = Literal["waiting", "processing", "succeeded", "failed"]
Kind = Literal["file", "qa", "eml"]


class Base(msgspec.Struct, frozen=True):
    """A row of `knowledge_bases`, in table order. `edition` grows with every change of its chunks;
    `erased` is the edition at which chunks, or their vectors, last went away. `embedder` made all
    of its vectors, "" where several may have; `rebuild` counts how often they were made anew."""

    id: str
    owner_id: str
    name: str
    type: str
    intro: str
    setting: dict[str, Any]
    edition: int
    erased: int
    embedder: str
    rebuild: int
    created_at: float
    updated_at: float


class Listed(msgspec.Struct, frozen=True):
    """A base in a list, with the number of its documents and the size of the whole list."""

    base: Base
    documents: int
    total: int


class Document(msgspec.Struct, frozen=True):
    """A row of `knowledge_documents`, in table order. `size` is in bytes; `attempt` counts how
    often it was to be ingested, from 1; `chunks` is how many it has."""

    id: str
    base_id: str
    task_id: str
    name: str
    kind: Kind
    size: int
    state: State
    reason: str | None
    attempt: int
    chunks: int
    created_at: float
    updated_at: float


class Chunk(msgspec.Struct, frozen=True):
    """A piece of a document, found. `position` counts from 0 within the document."""

    number: int
    document_id: str
    document: str
    position: int
    content: str


class Unread(msgspec.Struct, frozen=True):
    """A chunk whose vector another embedder has made."""

    number: int
    content: str


class Words(msgspec.Struct, frozen=True):
    """What is kept of one piece: its text, the words to find it by, its vector (float32)."""

    content: str
    words: str
    vector: bytes


def _listed(*columns: Any) -> Listed:
    return Listed(Base(*columns[:-2]), columns[-2], columns[-1])


_BASE = [bases.c[name] for name in Base.__struct_fields__]
_DOCUMENT = [documents.c[name] for name in Document.__struct_fields__]
"""All columns but `name_key`, which is searched and not read."""

_VISIBLE: ColumnElement[bool] = or_(
    bases.c.owner_id == bindparam("viewer"), bindparam("everything", type_=Boolean).is_(True)
)
_COUNT = (
    select(func.count())
    .select_from(documents)
    .where(documents.c.base_id == bases.c.id)
    .scalar_subquery()
)


def _holds(column: ColumnElement[str], name: str, dialect: str) -> ColumnElement[bool]:
    position = func.instr if dialect == "sqlite" else func.strpos
    asked = bindparam(name, type_=Text)
    return or_(asked == "", position(column, asked) > 0)


def _list_bases(dialect: str) -> Executable:
    return (
        select(*_BASE, _COUNT, func.count().over())
        .where(
            _VISIBLE,
            _holds(bases.c.name_key, "name_key", dialect),
            or_(bindparam("type", type_=Text) == "", bases.c.type == bindparam("type")),
        )
        .order_by(bases.c.created_at.desc(), bases.c.id.desc())
        .limit(bindparam("limit", type_=Integer))
        .offset(bindparam("offset", type_=Integer))
    )


def _count_bases(dialect: str) -> Executable:
    return select(func.count()).where(
        _VISIBLE,
        _holds(bases.c.name_key, "name_key", dialect),
        or_(bindparam("type", type_=Text) == "", bases.c.type == bindparam("type")),
    )


def _matching(dialect: str) -> ColumnElement[bool]:
    return and_(
        documents.c.base_id == bindparam("base_id"),
        _holds(documents.c.name_key, "name_key", dialect),
        or_(bindparam("task_id", type_=Text) == "", documents.c.task_id == bindparam("task_id")),
        documents.c.state.in_(members("states", dialect)),
    )


def _list_documents(dialect: str) -> Executable:
    return (
        select(*_DOCUMENT)
        .where(_matching(dialect))
        .order_by(documents.c.created_at.desc(), documents.c.id.desc())
        .limit(bindparam("limit", type_=Integer))
        .offset(bindparam("offset", type_=Integer))
    )


def _term(base_id: str) -> str:
    """A base's id as one word of the full text index."""
    return base_id.replace("-", "")


def _numbers(dialect: str) -> Any:
    """The integers of the list bound as `numbers`, one a row."""
    if dialect == "sqlite":
        return members("numbers", dialect)
    array = cast(cast(bindparam("numbers", type_=Json), Text), JSON)
    found = func.json_array_elements_text(array).table_valued("value")
    return select(cast(found.c.value, BigInteger))


_LIVE = documents.c.state.in_(("waiting", "processing"))

FIND = Statement(select(*_BASE).where(bases.c.id == bindparam("base_id"), _VISIBLE), into=Base)
FIND_MANY = Statement(
    per_dialect(lambda dialect: select(*_BASE).where(bases.c.id.in_(members("ids", dialect)))),
    into=Base,
)
LIST = Statement(per_dialect(_list_bases), into=_listed)
COUNT = Statement(per_dialect(_count_bases))
INSERT = Statement(insert(bases))
UPDATE = Statement(
    update(bases)
    .where(bases.c.id == bindparam("base_id"))
    .values(
        name=case(
            (bindparam("name", type_=Text) == "", bases.c.name),
            else_=bindparam("name", type_=Text),
        ),
        name_key=case(
            (bindparam("name_key", type_=Text) == "", bases.c.name_key),
            else_=bindparam("name_key", type_=Text),
        ),
        intro=case(
            (bindparam("intro", type_=Text) == "", bases.c.intro),
            else_=bindparam("intro", type_=Text),
        ),
        setting=func.coalesce(bindparam("setting", type_=bases.c.setting.type), bases.c.setting),
        updated_at=bindparam("now"),
    )
)
LOCK = Statement(select(bases.c.id).where(bases.c.id == bindparam("base_id")).with_for_update())
DELETE = Statement(delete(bases).where(bases.c.id == bindparam("base_id")))
CHANGE = Statement(
    update(bases)
    .where(bases.c.id == bindparam("base_id"))
    .values(
        edition=bases.c.edition + 1,
        erased=case(
            (bindparam("erases", type_=Boolean).is_(True), bases.c.edition + 1),
            else_=bases.c.erased,
        ),
    )
)
UNMARK = Statement(
    update(bases)
    .where(bases.c.id == bindparam("base_id"), bases.c.embedder != bindparam("by"))
    .values(embedder="")
)
MARK = Statement(
    update(bases)
    .where(
        bases.c.id == bindparam("base_id"),
        ~exists().where(
            chunks.c.base_id == bindparam("base_id"), chunks.c.embedder != bindparam("by")
        ),
    )
    .values(embedder=bindparam("by"))
)
OUTDATED = Statement(select(bases.c.id, bases.c.rebuild).where(bases.c.embedder != bindparam("by")))
REBUILD_AGAIN = Statement(
    update(bases)
    .where(bases.c.id == bindparam("base_id"), bases.c.rebuild == bindparam("seen"))
    .values(rebuild=bases.c.rebuild + 1)
)
EDITION = Statement(
    select(bases.c.edition, bases.c.erased).where(bases.c.id == bindparam("base_id"))
)

FIND_DOCUMENT = Statement(
    select(*_DOCUMENT).where(documents.c.id == bindparam("document_id")), into=Document
)
FIND_VISIBLE_DOCUMENT = Statement(
    select(*_DOCUMENT)
    .join(bases, bases.c.id == documents.c.base_id)
    .where(documents.c.id == bindparam("document_id"), _VISIBLE),
    into=Document,
)
OWNER_OF = Statement(
    select(bases.c.owner_id)
    .join(documents, documents.c.base_id == bases.c.id)
    .where(documents.c.id == bindparam("document_id"))
)
LIST_DOCUMENTS = Statement(per_dialect(_list_documents), into=Document)
COUNT_DOCUMENTS = Statement(
    per_dialect(lambda dialect: select(func.count()).where(_matching(dialect)))
)
OF_BASE = Statement(select(documents.c.id).where(documents.c.base_id == bindparam("base_id")))
NAMED = Statement(
    per_dialect(
        lambda dialect: select(documents.c.id).where(
            documents.c.base_id == bindparam("base_id"),
            documents.c.name.in_(members("names", dialect)),
        )
    )
)
INSERT_DOCUMENT = Statement(insert(documents))
DELETE_DOCUMENTS = Statement(
    per_dialect(
        lambda dialect: delete(documents).where(documents.c.id.in_(members("ids", dialect)))
    )
)
AGAIN = Statement(
    update(documents)
    .where(
        documents.c.base_id == bindparam("base_id"),
        or_(
            bindparam("task_id", type_=Text) == "",
            documents.c.task_id == bindparam("task_id"),
        ),
        or_(
            bindparam("document_id", type_=Text) == "",
            documents.c.id == bindparam("document_id"),
        ),
    )
    .values(
        state="waiting",
        reason=None,
        attempt=documents.c.attempt + 1,
        updated_at=bindparam("now"),
    )
    .returning(*_DOCUMENT),
    into=Document,
)
BEGIN = Statement(
    update(documents)
    .where(
        documents.c.id == bindparam("document_id"),
        documents.c.attempt == bindparam("number"),
        _LIVE,
    )
    .values(state="processing", updated_at=bindparam("now"))
    .returning(*_DOCUMENT),
    into=Document,
)
END = Statement(
    update(documents)
    .where(
        documents.c.id == bindparam("document_id"),
        documents.c.attempt == bindparam("number"),
        _LIVE,
    )
    .values(
        state=bindparam("ended"),
        reason=bindparam("why"),
        chunks=bindparam("count"),
        updated_at=bindparam("now"),
    )
)
UNFINISHED = Statement(select(*_DOCUMENT).where(_LIVE), into=Document)
STATES = Statement(
    select(documents.c.state, func.count())
    .where(documents.c.base_id == bindparam("base_id"), documents.c.task_id == bindparam("task_id"))
    .group_by(documents.c.state)
)
DELETE_CHUNKS = Statement(delete(chunks).where(chunks.c.document_id == bindparam("document_id")))
INSERT_CHUNK = Statement(insert(chunks))
NUMBERS = Statement(
    select(chunks.c.number)
    .where(chunks.c.document_id == bindparam("document_id"))
    .order_by(chunks.c.position)
)
INSERT_WORDS = Statement(
    {
        "sqlite": text(
            "INSERT INTO knowledge_words (rowid, base, words) VALUES (:number, :base, :words)"
        ),
        "postgresql": text(
            "INSERT INTO knowledge_words (number, base, words)"
            " VALUES (:number, :base, to_tsvector('english', :words))"
        ),
    }
)
VECTORS = Statement(
    select(chunks.c.number, chunks.c.vector)
    .where(
        chunks.c.base_id == bindparam("base_id"),
        chunks.c.number > bindparam("after"),
        chunks.c.embedder == bindparam("by"),
    )
    .order_by(chunks.c.number)
    .limit(bindparam("limit", type_=Integer))
)
UNREAD = Statement(
    select(chunks.c.number, chunks.c.content)
    .where(
        chunks.c.base_id == bindparam("base_id"),
        chunks.c.number > bindparam("after"),
        chunks.c.embedder != bindparam("by"),
    )
    .order_by(chunks.c.number)
    .limit(bindparam("limit", type_=Integer)),
    into=Unread,
)
REPLACE_VECTOR = Statement(
    update(chunks)
    .where(chunks.c.number == bindparam("at"))
    .values(vector=bindparam("made"), embedder=bindparam("by"))
)
BY_WORDS = Statement(
    {
        "sqlite": text(
            "SELECT rowid FROM knowledge_words WHERE knowledge_words MATCH :query"
            " ORDER BY bm25(knowledge_words, 0.0, 1.0), rowid LIMIT :limit"
        ).bindparams(bindparam("limit", type_=Integer)),
        "postgresql": text(
            "SELECT w.number FROM knowledge_words AS w,"
            " to_tsquery('english', :query) AS asked"
            " WHERE w.base = :base AND w.words @@ asked"
            " ORDER BY ts_rank_cd(w.words, asked, 1) DESC, w.number LIMIT :limit"
        ).bindparams(bindparam("limit", type_=Integer)),
    }
)
BY_NUMBER = Statement(
    per_dialect(
        lambda dialect: (
            select(
                chunks.c.number,
                chunks.c.document_id,
                documents.c.name,
                chunks.c.position,
                chunks.c.content,
            )
            .join(documents, documents.c.id == chunks.c.document_id)
            .where(chunks.c.number.in_(_numbers(dialect)))
        )
    ),
    into=Chunk,
)


class KnowledgeStore:
    """Knowledge over a Database. Lists are newest first. `everything` shows every account's."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # --- bases ----------------------------------------------------------------------------------

    async def find(self, viewer: str, base_id: str, *, everything: bool = False) -> Base | None:
        """A base, if it is the viewer's own."""
        return await self._database.read_one(
            FIND(viewer=viewer, base_id=base_id, everything=everything)
        )

    async def find_many(self, base_ids: Sequence[str]) -> list[Base]:
        """Those of the bases that exist, whoever owns them."""
        return await self._database.read(FIND_MANY(ids=list(base_ids))) if base_ids else []

    async def list_bases(
        self,
        viewer: str,
        *,
        everything: bool,
        name: str,
        type_: str,
        limit: int,
        offset: int,
    ) -> tuple[list[Listed], int]:
        """One page of bases whose name contains `name`, both folded, and how many there are in
        all."""
        asked = {"viewer": viewer, "everything": everything, "type": type_}
        asked["name_key"] = folded(name)
        rows = await self._database.scan(LIST(**asked, limit=limit, offset=offset))
        if rows:
            return rows, rows[0].total
        found = await self._database.scan(COUNT(**asked))
        return [], found[0][0]

    async def edition(self, base_id: str) -> tuple[int, int] | None:
        """A base's edition, and the one at which chunks last went away."""
        row = await self._database.read_one(EDITION(base_id=base_id))
        return None if row is None else (row[0], row[1])

    async def outdated(self, embedder: str) -> list[tuple[str, int]]:
        """The bases with vectors that another embedder may have made, and how often they were
        made anew."""
        rows = await self._database.scan(OUTDATED(by=embedder))
        return [(row[0], row[1]) for row in rows]

    def create(
        self,
        owner: str,
        base_id: str,
        name: str,
        type_: str,
        intro: str,
        setting: dict[str, Any],
        *,
        embedder: str,
    ) -> Unit[None]:
        now = time.time()
        yield INSERT(
            id=base_id,
            owner_id=owner,
            name=name,
            name_key=folded(name),
            type=type_,
            intro=intro,
            setting=setting,
            edition=0,
            erased=0,
            embedder=embedder,
            rebuild=0,
            created_at=now,
            updated_at=now,
        )

    def update(
        self, base_id: str, name: str, intro: str, setting: dict[str, Any] | None
    ) -> Unit[None]:
        """Change what is given: an empty text and None keep what there is. Raises NoSuchRow."""
        changed = yield UPDATE(
            base_id=base_id,
            name=name,
            name_key=folded(name),
            intro=intro,
            setting=setting,
            now=time.time(),
        )
        if not changed:
            raise NoSuchRow("knowledge_base")

    def delete(self, base_id: str) -> Unit[None]:
        """Remove a base with everything in it. Raises NoSuchRow."""
        if not (yield DELETE(base_id=base_id)):
            raise NoSuchRow("knowledge_base")

    def clear(self, base_id: str) -> Unit[list[str]]:
        """Remove a base's documents; their ids."""
        yield from self._change(base_id, erases=True)
        gone = [row[0] for row in (yield OF_BASE(base_id=base_id))]
        if gone:
            yield DELETE_DOCUMENTS(ids=gone)
        return gone

    def _lock(self, base_id: str) -> Unit[None]:
        """Hold a base until the unit ends: nobody adds documents to it meanwhile, and those that
        somebody was adding are there. Raises NoSuchRow."""
        if not (yield LOCK(base_id=base_id)):
            raise NoSuchRow("knowledge_base")

    def _change(self, base_id: str, *, erases: bool) -> Unit[None]:
        """Lock a base and raise its edition. Raises NoSuchRow."""
        if not (yield CHANGE(base_id=base_id, erases=erases)):
            raise NoSuchRow("knowledge_base")

    # --- documents ------------------------------------------------------------------------------

    async def document(self, document_id: str) -> Document | None:
        """Any account's document."""
        return await self._database.read_one(FIND_DOCUMENT(document_id=document_id))

    async def owner_of(self, document_id: str) -> str | None:
        """Whose base a document is in."""
        row = await self._database.read_one(OWNER_OF(document_id=document_id))
        return None if row is None else row[0]

    async def visible_document(
        self, viewer: str, document_id: str, *, everything: bool = False
    ) -> Document | None:
        """A document, if its base is the viewer's own."""
        return await self._database.read_one(
            FIND_VISIBLE_DOCUMENT(viewer=viewer, document_id=document_id, everything=everything)
        )

    async def list_documents(
        self,
        base_id: str,
        *,
        name: str,
        states: Sequence[State],
        task_id: str,
        limit: int,
        offset: int,
    ) -> tuple[list[Document], int]:
        """One page of a base's documents whose name contains `name`, both folded, and how many
        match in all."""
        asked = {"base_id": base_id, "states": list(states), "task_id": task_id}
        asked["name_key"] = folded(name)
        total = await self._database.scan(COUNT_DOCUMENTS(**asked))
        rows = await self._database.scan(LIST_DOCUMENTS(**asked, limit=limit, offset=offset))
        return rows, total[0][0]

    async def progress(self, base_id: str, task_id: str) -> dict[str, int]:
        """How many of a task's documents are in each state; a state that none is in is left out."""
        rows = await self._database.read(STATES(base_id=base_id, task_id=task_id))
        return dict(tuple(row) for row in rows)

    async def unfinished(self) -> list[Document]:
        """Every document that waits or is being processed."""
        return await self._database.scan(UNFINISHED())

    def add(self, fresh: Sequence[Document], *, override: bool) -> Unit[list[str]]:
        """Add documents of one base; with `override` those of the same names go. Returns the ids
        of those that went. Raises NoSuchRow."""
        base_id = fresh[0].base_id
        gone: list[str] = []
        if override:
            yield from self._lock(base_id)
            rows = yield NAMED(base_id=base_id, names=[one.name for one in fresh])
            gone = [row[0] for row in rows]
        if gone:
            yield from self._change(base_id, erases=True)
            yield DELETE_DOCUMENTS(ids=gone)
        added: list[Mapping[str, Any]] = [
            {**msgspec.structs.asdict(one), "name_key": folded(one.name)} for one in fresh
        ]
        yield INSERT_DOCUMENT.many(added)
        return gone

    def delete_document(self, base_id: str, document_id: str) -> Unit[None]:
        """Remove a document and its chunks. Raises NoSuchRow."""
        yield from self._change(base_id, erases=True)
        if not (yield DELETE_DOCUMENTS(ids=[document_id])):
            raise NoSuchRow("knowledge_document")

    def again(
        self, base_id: str, *, task_id: str = "", document_id: str = ""
    ) -> Unit[list[Document]]:
        """Have a base's documents ingested anew: all, a task's, or one; as they are then."""
        rows: list[Document] = yield AGAIN(
            base_id=base_id, task_id=task_id, document_id=document_id, now=time.time()
        )
        return rows

    # --- ingestion ------------------------------------------------------------------------------

    def begin(self, document_id: str, attempt: int) -> Unit[Document | None]:
        """Claim a document for this attempt. None when another attempt has it, or it is over."""
        rows = yield BEGIN(document_id=document_id, number=attempt, now=time.time())
        return rows[0] if rows else None

    def succeed(self, document: Document, pieces: Sequence[Words], *, embedder: str) -> Unit[bool]:
        """Replace all chunks of a document, unless the attempt is over. `embedder` has made their
        vectors. Raises NoSuchRow."""
        yield from self._change(document.base_id, erases=document.chunks > 0)
        yield UNMARK(base_id=document.base_id, by=embedder)
        ended = yield END(
            document_id=document.id,
            number=document.attempt,
            ended="succeeded",
            why=None,
            count=len(pieces),
            now=time.time(),
        )
        if not ended:
            return False
        yield DELETE_CHUNKS(document_id=document.id)
        if pieces:
            yield INSERT_CHUNK.many(
                [
                    {
                        "document_id": document.id,
                        "base_id": document.base_id,
                        "position": position,
                        "content": piece.content,
                        "vector": piece.vector,
                        "embedder": embedder,
                    }
                    for position, piece in enumerate(pieces)
                ]
            )
            numbers = yield NUMBERS(document_id=document.id)
            yield INSERT_WORDS.many(
                [
                    {"number": row[0], "base": _term(document.base_id), "words": piece.words}
                    for row, piece in zip(numbers, pieces, strict=True)
                ]
            )
        return True

    def fail(self, document_id: str, attempt: int, reason: str) -> Unit[bool]:
        """End an attempt without chunks of its own; those of an earlier one stay."""
        document = yield FIND_DOCUMENT(document_id=document_id)
        if not document:
            return False
        ended = yield END(
            document_id=document_id,
            number=attempt,
            ended="failed",
            why=reason,
            count=document[0].chunks,
            now=time.time(),
        )
        return bool(ended)

    # --- another embedder -----------------------------------------------------------------------

    async def unread(self, base_id: str, embedder: str, after: int, limit: int) -> list[Unread]:
        """A base's chunks behind a number that this embedder has not read, in their order."""
        return await self._database.scan(
            UNREAD(base_id=base_id, by=embedder, after=after, limit=limit)
        )

    def replace_vectors(self, vectors: Mapping[int, bytes], embedder: str) -> Unit[None]:
        """Give chunks, by their numbers, the vectors of another embedder. Those that are gone are
        left out. Nobody finds them by these before `rebuilt`."""
        yield REPLACE_VECTOR.many(
            [{"at": number, "made": vector, "by": embedder} for number, vector in vectors.items()]
        )

    def rebuilt(self, base_id: str, embedder: str) -> Unit[bool]:
        """Note that all vectors of a base are this embedder's; False where some are not. Raises
        NoSuchRow."""
        yield from self._change(base_id, erases=True)
        return bool((yield MARK(base_id=base_id, by=embedder)))

    def rebuild_again(self, base_id: str, seen: int) -> Unit[bool]:
        """Count another rebuilding; False where somebody else has."""
        return bool((yield REBUILD_AGAIN(base_id=base_id, seen=seen)))

    # --- retrieval ------------------------------------------------------------------------------

    async def vectors(
        self, base_id: str, embedder: str, after: int, limit: int
    ) -> list[tuple[int, bytes]]:
        """Vectors of a base's chunks behind a number that this embedder has made, in the order of
        their numbers."""
        return await self._database.scan(
            VECTORS(base_id=base_id, by=embedder, after=after, limit=limit)
        )

    async def by_words(self, base_id: str, words: Sequence[str], limit: int) -> list[int]:
        """Numbers of the chunks that have some of the words, the best first."""
        if not words:
            return []
        asked: dict[str, Any] = {"limit": limit}
        if self._database.dialect == "sqlite":
            terms = " OR ".join(f'"{word}"' for word in words)
            asked["query"] = f'base : "{_term(base_id)}" AND words : ({terms})'
        else:
            asked["base"] = _term(base_id)
            asked["query"] = " | ".join(f"'{word}'" for word in words)
        return [row[0] for row in await self._database.scan(BY_WORDS(**asked))]

    async def chunks(self, numbers: Sequence[int]) -> list[Chunk]:
        """Those of the chunks that still exist, in no order."""
        return await self._database.read(BY_NUMBER(numbers=list(numbers))) if numbers else []

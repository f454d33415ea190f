"""Rows of conversations, their messages and their share links."""

import time
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Literal, cast

import msgspec
from sqlalchemy import (
    and_,
    bindparam,
    case,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.expression import ColumnElement, Executable

from storage.database import Database, NoSuchRow, Statement, Unit
from storage.membership import members, per_dialect
from storage.schema import conversations, messages, runs, shares

Sort = Literal["date", "title", "messages"]

SAID = frozenset({"user_input", "assistant_text", "stage_summary"})
"""Types of messages that somebody said to somebody."""
LATEST_MAX = 500
"""Characters of a message that its session's row repeats."""


class Conversation(msgspec.Struct, frozen=True):
    """A row of `conversations`, in table order. Times are UTC seconds since the epoch.

    `session_id` is the client's name for it, unique for its owner; `user_count` and `agent_count`
    count the messages of the roles user and assistant. `latest_message` begins what was said last;
    `unread` counts what runs have said while nobody attended, which is until `attended_until`.
    """

    id: str
    owner_id: str
    session_id: str
    agent_id: str | None
    agent_name: str | None
    title: str
    message_count: int
    user_count: int
    agent_count: int
    latest_run_id: str | None
    latest_message: str
    latest_message_at: float | None
    unread: int
    attended_until: float
    created_at: float
    updated_at: float
    version: int


class Message(msgspec.Struct, frozen=True):
    """A row of `messages`, in table order. `text` is what the message says in words; `content`
    holds the parts of a multimodal message and is None where `text` is all there is. `task_id`
    names the task in which a sub-agent said it, and is None for all else."""

    id: str
    conversation_id: str
    position: int
    message_id: str
    run_id: str | None
    task_id: str | None
    role: str
    type: str
    text: str | None
    content: list[Any] | None
    tool_calls: list[Any] | None
    tool_call_id: str | None
    agent_name: str | None
    details: dict[str, Any] | None
    created_at: float


class NewMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A message to be kept; `id` is the row's and time-ordered."""

    id: str
    message_id: str
    role: str
    type: str
    text: str | None = None
    content: list[Any] | None = None
    tool_calls: list[Any] | None = None
    tool_call_id: str | None = None
    agent_name: str | None = None
    run_id: str | None = None
    task_id: str | None = None
    details: dict[str, Any] | None = None

    def says_what(self, kept: Message) -> bool:
        """Whether a kept message is this one: the same role, words, parts and tool calls."""
        return (
            self.role == kept.role
            and self.text == kept.text
            and self.content == kept.content
            and (self.tool_calls or None) == (kept.tool_calls or None)
            and self.tool_call_id == kept.tool_call_id
        )


class MessageClash(Exception):
    """A message id of the conversation already names another message."""

    def __init__(self, message_id: str) -> None:
        super().__init__(message_id)
        self.message_id = message_id


class Shared(Conversation, frozen=True):
    """A conversation as a share link, or its owner, reaches it; `share_id` is None for the
    owner's own look."""

    share_id: str | None


class SessionRow(msgspec.Struct, frozen=True, gc=False):
    """A conversation as the list of sessions shows it; `state` is its latest run's."""

    id: str
    title: str
    latest_message: str
    latest_message_at: float | None
    unread: int
    state: str | None
    run_id: str | None = None


class _Counted(Conversation, frozen=True):
    total: int


class _Total(msgspec.Struct, frozen=True):
    total: int


class _Id(msgspec.Struct, frozen=True):
    id: str


_OF = conversations.c.id == bindparam("conversation_id")
_BY_SESSION = and_(
    conversations.c.owner_id == bindparam("owner"), conversations.c.session_id == bindparam("key")
)
_BY_ID = and_(
    conversations.c.owner_id == bindparam("owner"), conversations.c.id == bindparam("key")
)
_OWN = messages.c.task_id.is_(None)
_SAID = and_(messages.c.role.in_((literal("user"), literal("assistant"))), _OWN)

FIND = Statement(
    select(conversations)
    .where(or_(_BY_SESSION, _BY_ID))
    .order_by(case((_BY_SESSION, 0), else_=1))
    .limit(1),
    into=Conversation,
)
FIND_ANY = Statement(
    select(conversations)
    .where(
        or_(
            conversations.c.session_id == bindparam("key"),
            conversations.c.id == bindparam("key"),
        )
    )
    .order_by(
        case((_BY_SESSION, 0), (conversations.c.id == bindparam("key"), 1), else_=2),
        conversations.c.updated_at.desc(),
    )
    .limit(2),
    into=Conversation,
)
GET = Statement(select(conversations).where(_OF), into=Conversation)
LOCK = Statement(select(conversations).where(_OF).with_for_update(), into=Conversation)


def _insert_unless_there(dialect: str) -> Executable:
    build = sqlite.insert if dialect == "sqlite" else postgresql.insert
    return (
        build(conversations)
        .on_conflict_do_nothing(index_elements=["session_id", "owner_id"])
        .returning(*conversations.c)
    )


ENSURE = Statement(per_dialect(_insert_unless_there), into=Conversation)
RENAME = Statement(
    update(conversations)
    .where(_OF)
    .values(title=bindparam("title"), version=conversations.c.version + 1)
    .returning(*conversations.c),
    into=Conversation,
)
LATEST_RUN = Statement(
    update(conversations)
    .where(_OF)
    .values(
        latest_run_id=bindparam("run_id"),
        agent_id=bindparam("agent_id"),
        agent_name=bindparam("agent_name"),
        updated_at=bindparam("now"),
        version=conversations.c.version + 1,
    )
)
COUNT_UP = Statement(
    update(conversations)
    .where(_OF)
    .values(
        message_count=conversations.c.message_count + bindparam("all_new"),
        user_count=conversations.c.user_count + bindparam("user_new"),
        agent_count=conversations.c.agent_count + bindparam("agent_new"),
        latest_message=bindparam("said"),
        latest_message_at=bindparam("said_at"),
        unread=conversations.c.unread + bindparam("unseen"),
        updated_at=bindparam("now"),
        version=conversations.c.version + 1,
    )
)
ATTEND = Statement(update(conversations).where(_OF).values(attended_until=bindparam("until")))
CLEAR_UNREAD = Statement(
    update(conversations)
    .where(_OF, conversations.c.unread > 0)
    .values(unread=0, version=conversations.c.version + 1)
)
SESSIONS = Statement(
    select(
        conversations.c.id,
        conversations.c.title,
        conversations.c.latest_message,
        conversations.c.latest_message_at,
        conversations.c.unread,
        # Not a join: PostgreSQL would rather read all runs of all accounts.
        select(runs.c.state).where(runs.c.id == conversations.c.latest_run_id).scalar_subquery(),
        conversations.c.latest_run_id,
    )
    .where(conversations.c.owner_id == bindparam("owner"))
    .order_by(conversations.c.updated_at.desc(), conversations.c.id.desc()),
    into=SessionRow,
)
DELETE = Statement(delete(conversations).where(_OF))
RUNS = Statement(
    select(runs.c.id).where(runs.c.conversation_id == bindparam("conversation_id")), into=_Id
)

KEPT = Statement(
    per_dialect(
        lambda dialect: select(messages).where(
            messages.c.conversation_id == bindparam("conversation_id"),
            messages.c.message_id.in_(members("ids", dialect)),
        )
    ),
    into=Message,
)
INSERT_MESSAGE = Statement(insert(messages))
_MESSAGES = select(messages).where(messages.c.conversation_id == bindparam("conversation_id"))
MESSAGES = Statement(_MESSAGES.order_by(messages.c.position), into=Message)
LATEST_MESSAGES = Statement(
    _MESSAGES.where(_OWN).order_by(messages.c.position.desc()).limit(bindparam("limit")),
    into=Message,
)
TASK_MESSAGES = Statement(
    _MESSAGES.where(messages.c.run_id == bindparam("run_id"), ~_OWN).order_by(messages.c.position),
    into=Message,
)
SAID_MESSAGES = Statement(
    _MESSAGES.where(_SAID, messages.c.text.is_not(None), messages.c.text != literal("")).order_by(
        messages.c.position
    ),
    into=Message,
)

SHARE = Statement(insert(shares))
SHARES = Statement(
    select(shares.c.id)
    .where(shares.c.conversation_id == bindparam("conversation_id"))
    .order_by(shares.c.created_at)
    .limit(1),
    into=_Id,
)
UNSHARE = Statement(delete(shares).where(shares.c.conversation_id == bindparam("conversation_id")))
FIND_SHARED = Statement(
    select(*conversations.c, shares.c.id)
    .select_from(
        conversations.outerjoin(
            shares,
            and_(shares.c.conversation_id == conversations.c.id, shares.c.id == bindparam("key")),
        )
    )
    .where(
        or_(
            conversations.c.id.in_(
                select(shares.c.conversation_id).where(shares.c.id == bindparam("key"))
            ),
            _BY_SESSION,
            _BY_ID,
        )
    )
    .order_by(case((shares.c.id.is_not(None), 0), (_BY_SESSION, 1), else_=2))
    .limit(1),
    into=Shared,
)

_ORDERS: dict[Sort, tuple[ColumnElement[Any], ...]] = {
    "date": (conversations.c.updated_at.desc(), conversations.c.id.desc()),
    "title": (conversations.c.title, conversations.c.id.desc()),
    "messages": (
        conversations.c.message_count.desc(),
        conversations.c.updated_at.desc(),
        conversations.c.id.desc(),
    ),
}


def _selected(owned: bool, of_agent: bool, searched: bool) -> ColumnElement[bool]:
    """What a list holds. One statement per combination: a filter that may be absent
    (`:owner IS NULL OR …`) would keep the planner from the index."""
    conditions: list[ColumnElement[bool]] = [true()]
    if owned:
        conditions.append(conversations.c.owner_id == bindparam("owner"))
    if of_agent:
        conditions.append(conversations.c.agent_id == bindparam("agent_id"))
    if searched:
        said = (
            select(messages.c.id)
            .where(
                messages.c.conversation_id == conversations.c.id,
                _SAID,
                messages.c.text.ilike(bindparam("like"), escape="\\"),
            )
            .exists()
        )
        conditions.append(or_(conversations.c.title.ilike(bindparam("like"), escape="\\"), said))
    return and_(*conditions)


@cache
def _page(sort: Sort, owned: bool, of_agent: bool, searched: bool) -> Statement:
    selected = _selected(owned, of_agent, searched)
    total = select(func.count()).select_from(conversations).where(selected).scalar_subquery()
    return Statement(
        select(*conversations.c, total)
        .where(selected)
        .order_by(*_ORDERS[sort])
        .limit(bindparam("limit"))
        .offset(bindparam("offset")),
        into=_Counted,
    )


@cache
def _total(owned: bool, of_agent: bool, searched: bool) -> Statement:
    selected = _selected(owned, of_agent, searched)
    return Statement(select(func.count()).select_from(conversations).where(selected), into=_Total)


def _like(words: str) -> str:
    escaped = words.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"


def _latest(row: Conversation, added: Sequence[NewMessage], now: float) -> dict[str, Any]:
    """What a session's row tells of the messages that it gains."""
    said = [
        message
        for message in added
        if message.type in SAID and message.text and message.task_id is None
    ]
    finished = sum(
        message.role == "assistant" and message.run_id is not None
        for message in said
        if not (message.details or {}).get("unfinished")
    )
    return {
        "said": (said[-1].text or "")[:LATEST_MAX] if said else row.latest_message,
        "said_at": now if said else row.latest_message_at,
        "unseen": 0 if now < row.attended_until else finished,
    }


def keepable(text: str) -> str:
    """Text without NUL, which models and tools write and no text of PostgreSQL holds; in JSON,
    which is kept as text, it is an escape like others."""
    return text.replace("\0", "\ufffd")


def _keepable(message: NewMessage) -> NewMessage:
    if message.text is None or "\0" not in message.text:
        return message
    return msgspec.structs.replace(message, text=keepable(message.text))


IDS = Statement(
    select(conversations.c.id)
    .where(conversations.c.owner_id == bindparam("owner"))
    .limit(bindparam("limit"))
)


class ConversationStore:
    """Conversations over a Database. Units raise NoSuchRow("conversation") where there is none.

    Counts, positions and messages change together under the conversation's row lock.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    # --- reading --------------------------------------------------------------------------

    async def find(self, owner: str, key: str) -> Conversation | None:
        """The owner's conversation of that session id, else of that id."""
        return await self._database.read_one(FIND(owner=owner, key=key))

    async def find_any(self, owner: str, key: str) -> Conversation | None:
        """As `find`, else the conversation of any account with that id, else the only one with
        that session id: where several accounts have chosen the same, a stranger's must not be
        taken for the one that was meant."""
        rows = await self._database.read(FIND_ANY(owner=owner, key=key))
        if len(rows) == 2 and rows[0].id != key and rows[0].owner_id != owner:
            return None
        found: Conversation | None = rows[0] if rows else None
        return found

    async def find_shared(self, owner: str, key: str) -> Shared | None:
        """The conversation that `key` shares, else the owner's own of that session id or id."""
        return await self._database.read_one(FIND_SHARED(owner=owner, key=key))

    async def page(
        self,
        owner: str | None,
        *,
        limit: int,
        offset: int = 0,
        sort: Sort = "date",
        agent_id: str | None = None,
        search: str = "",
    ) -> tuple[list[Conversation], int]:
        """One page and how many there are in all; `owner` None means every account's.

        `date` and `messages` come greatest first, `title` in order of its characters; ties
        newest first. `search` looks for the words, ignoring case (on SQLite of ASCII letters),
        in titles and in what users and assistants said.
        """
        chosen = (owner is not None, agent_id is not None, bool(search))
        parameters: dict[str, Any] = {}
        if owner is not None:
            parameters["owner"] = owner
        if agent_id is not None:
            parameters["agent_id"] = agent_id
        if search:
            parameters["like"] = _like(search)
        indexed = owner is not None and sort == "date" and not search and agent_id is None
        read = self._database.read if indexed else self._database.scan
        rows = await read(_page(sort, *chosen)(limit=limit, offset=offset, **parameters))
        if rows or not offset:
            return cast(list[Conversation], rows), rows[0].total if rows else 0
        counted = await read(_total(*chosen)(**parameters))
        return [], counted[0].total

    async def ids_of(self, owner: str, limit: int) -> list[str]:
        """Ids of some of an account's conversations."""
        rows = await self._database.read(IDS(owner=owner, limit=limit))
        return [conversation_id for (conversation_id,) in rows]

    async def sessions(self, owner: str) -> list[SessionRow]:
        """Every conversation of an account, the one that changed last first."""
        return await self._database.scan(SESSIONS(owner=owner))

    async def by_id(self, conversation_id: str) -> Conversation | None:
        """The conversation of that id, whoever owns it."""
        return await self._database.read_one(GET(conversation_id=conversation_id))

    async def messages(self, conversation_id: str) -> list[Message]:
        """Every message, in order."""
        return await self._database.scan(MESSAGES(conversation_id=conversation_id))

    async def said(self, conversation_id: str) -> list[Message]:
        """The messages of users and assistants that say something in words, in order; what
        sub-agents said among themselves is no part of it."""
        return await self._database.scan(SAID_MESSAGES(conversation_id=conversation_id))

    async def history(self, conversation_id: str, limit: int) -> list[Message]:
        """The latest `limit` messages, in order; without those of sub-agents."""
        rows = await self._database.read(
            LATEST_MESSAGES(conversation_id=conversation_id, limit=limit)
        )
        rows.reverse()
        return rows

    async def of_tasks(self, conversation_id: str, run_id: str) -> list[Message]:
        """What a run's sub-agents said, in order."""
        return await self._database.scan(
            TASK_MESSAGES(conversation_id=conversation_id, run_id=run_id)
        )

    # --- units ----------------------------------------------------------------------------

    def get(self, conversation_id: str) -> Unit[Conversation]:
        """The row as it stands inside this unit of work."""
        rows = yield GET(conversation_id=conversation_id)
        if not rows:
            raise NoSuchRow("conversation")
        row: Conversation = rows[0]
        return row

    def lock(self, conversation_id: str) -> Unit[Conversation]:
        """The row, locked until the unit ends: whoever also locks a run of it takes this first."""
        rows = yield LOCK(conversation_id=conversation_id)
        if not rows:
            raise NoSuchRow("conversation")
        row: Conversation = rows[0]
        return row

    def kept(self, conversation_id: str, message_ids: Sequence[str]) -> Unit[set[str]]:
        """Those of the message ids that the conversation has."""
        if not message_ids:
            return set()
        rows = yield KEPT(conversation_id=conversation_id, ids=list(message_ids))
        return {row.message_id for row in rows}

    def ensure(
        self,
        owner: str,
        conversation_id: str,
        session_id: str,
        *,
        agent_id: str | None = None,
        agent_name: str | None = None,
        title: str = "",
    ) -> Unit[tuple[Conversation, bool]]:
        """The owner's conversation of that session id (or id), made if there is none.

        `conversation_id`, agent and title are those of a new row. The second value is True where
        this unit made it; of two units at once exactly one does.
        """
        found = yield FIND(owner=owner, key=session_id)
        if found:
            return found[0], False
        now = time.time()
        made = yield ENSURE(
            id=conversation_id,
            owner_id=owner,
            session_id=session_id,
            agent_id=agent_id,
            agent_name=agent_name,
            title=title,
            message_count=0,
            user_count=0,
            agent_count=0,
            latest_run_id=None,
            latest_message="",
            latest_message_at=None,
            unread=0,
            attended_until=0.0,
            created_at=now,
            updated_at=now,
            version=1,
        )
        if made:
            return made[0], True
        found = yield FIND(owner=owner, key=session_id)
        if not found:
            raise NoSuchRow("conversation")
        return found[0], False

    def add_messages(
        self, conversation_id: str, fresh: Sequence[NewMessage]
    ) -> Unit[list[NewMessage]]:
        """Keep messages behind those that are there; returns those that were not there yet.

        A message id is unique in its conversation. One that comes again and says the same is the
        same message, kept once and where it was; one that says something else raises
        MessageClash, and nothing of the unit is kept. A NUL is kept as U+FFFD (`keepable`).
        """
        if not fresh:
            return []
        fresh = [_keepable(message) for message in fresh]
        locked = yield LOCK(conversation_id=conversation_id)
        if not locked:
            raise NoSuchRow("conversation")
        rows = yield KEPT(
            conversation_id=conversation_id, ids=[message.message_id for message in fresh]
        )
        kept: dict[str, Message] = {row.message_id: row for row in rows}
        now = time.time()
        position = locked[0].message_count
        added: dict[str, NewMessage] = {}
        values: list[Mapping[str, Any]] = []
        for message in fresh:
            before = kept.get(message.message_id)
            if before is not None:
                if not message.says_what(before):
                    raise MessageClash(message.message_id)
                continue
            row = Message(
                conversation_id=conversation_id,
                position=position,
                created_at=now,
                **msgspec.structs.asdict(message),
            )
            kept[message.message_id] = row
            added[message.message_id] = message
            values.append(msgspec.structs.asdict(row))
            position += 1
        if values:
            yield INSERT_MESSAGE.many(values)
            yield COUNT_UP(
                conversation_id=conversation_id,
                all_new=len(values),
                user_new=sum(message.role == "user" for message in added.values()),
                agent_new=sum(message.role == "assistant" for message in added.values()),
                **_latest(locked[0], list(added.values()), now),
                now=now,
            )
        return list(added.values())

    def set_latest_run(
        self,
        conversation_id: str,
        run_id: str,
        *,
        agent_id: str | None,
        agent_name: str | None,
    ) -> Unit[None]:
        """Note the run that began last and the agent it is of."""
        changed = yield LATEST_RUN(
            conversation_id=conversation_id,
            run_id=run_id,
            agent_id=agent_id,
            agent_name=agent_name,
            now=time.time(),
        )
        if not changed:
            raise NoSuchRow("conversation")

    def rename(self, conversation_id: str, title: str) -> Unit[Conversation]:
        """Give it a title. Its place in a list by date stays. A NUL is kept as U+FFFD."""
        rows = yield RENAME(conversation_id=conversation_id, title=keepable(title))
        if not rows:
            raise NoSuchRow("conversation")
        row: Conversation = rows[0]
        return row

    def attend(self, conversation_id: str, until: float) -> Unit[None]:
        """Somebody reads along until then: what runs say counts as seen."""
        yield ATTEND(conversation_id=conversation_id, until=until)

    def clear_unread(self, conversation_id: str) -> Unit[bool]:
        """Count everything as seen; whether anything was not."""
        return bool((yield CLEAR_UNREAD(conversation_id=conversation_id)))

    def delete(self, conversation_id: str) -> Unit[list[str]]:
        """Remove it with its messages, shares and runs; returns the ids of those runs, whose
        streams are the event log's to delete."""
        if not (yield LOCK(conversation_id=conversation_id)):
            raise NoSuchRow("conversation")
        of_it = yield RUNS(conversation_id=conversation_id)
        yield DELETE(conversation_id=conversation_id)
        return [run.id for run in of_it]

    def share(self, owner: str, conversation_id: str, share_id: str) -> Unit[tuple[str, bool]]:
        """The id under which it is shared, and whether this unit began to share it."""
        if not (yield LOCK(conversation_id=conversation_id)):
            raise NoSuchRow("conversation")
        shared = yield SHARES(conversation_id=conversation_id)
        if shared:
            return shared[0].id, False
        yield SHARE(
            id=share_id, conversation_id=conversation_id, owner_id=owner, created_at=time.time()
        )
        return share_id, True

    def unshare(self, conversation_id: str) -> Unit[bool]:
        """End every share of it; whether there was one."""
        return bool((yield UNSHARE(conversation_id=conversation_id)))

"""Conversations in the words of sage (document, "Conversations and history")."""

import hashlib
from typing import Any, cast

from msgspec import UNSET

from domain.caller import Caller
from domain.quartet import Quartet
from generated.sage.models import (
    Conversation,
    ConversationInfo,
    ConversationMessages,
    ConversationPage,
    ConversationTitle,
    Message,
)
from handlers.run_failures import failure_text
from handlers.times import iso
from storage.conversations import Conversation as Row
from storage.conversations import Message as MessageRow
from storage.conversations import Sort


async def list_(
    quartet: Quartet,
    caller: Caller,
    page: int,
    page_size: int,
    user_id: str | None,
    search: str | None,
    agent_id: str | None,
    sort_by: Sort,
) -> ConversationPage:
    found = await quartet.conversations.page(
        caller,
        page=page,
        page_size=page_size,
        user_id=user_id,
        search=search,
        agent_id=agent_id,
        sort=sort_by,
    )
    return ConversationPage(
        list=[shown(row) for row in found.rows],
        total=found.total,
        page=found.page,
        page_size=found.page_size,
        total_pages=found.pages,
        has_next=found.has_next,
        has_prev=found.has_previous,
        user_id=UNSET if caller.is_admin else caller.user_id,
    )


async def list_messages(quartet: Quartet, caller: Caller, session_id: str) -> ConversationMessages:
    found = await quartet.conversations.transcript(caller, session_id)
    row = found.conversation
    return ConversationMessages(
        conversation_id=row.id,
        messages=[message(one, row.session_id) for one in found.messages],
        message_count=len(found.messages),
        next_stream_index=found.next_line,
        conversation_info=info(row, row.session_id),
    )


async def rename(
    quartet: Quartet, caller: Caller, session_id: str, body: ConversationTitle
) -> dict[str, str]:
    renamed = await quartet.conversations.rename(caller, session_id, body.title)
    return {"session_id": renamed.session_id, "title": renamed.title}


async def delete(quartet: Quartet, caller: Caller, session_id: str) -> dict[str, str]:
    gone = await quartet.conversations.delete(caller, session_id)
    return {"session_id": gone.session_id}


def shown(row: Row) -> Conversation:
    """A conversation as a list shows it."""
    return Conversation(
        session_id=row.session_id,
        conversation_id=row.id,
        user_id=row.owner_id,
        agent_id=row.agent_id or UNSET,
        agent_name=row.agent_name or UNSET,
        title=row.title,
        message_count=row.message_count,
        user_count=row.user_count,
        agent_count=row.agent_count,
        created_at=iso(row.created_at),
        updated_at=iso(row.updated_at),
        trace_id=hashlib.md5(row.session_id.encode(), usedforsecurity=False).hexdigest(),
    )


def info(row: Row, session_id: str, *, agent: bool = True) -> ConversationInfo:
    """What stands above the messages; `session_id` is what the reader may call it."""
    return ConversationInfo(
        session_id=session_id,
        agent_id=(row.agent_id if agent else None) or UNSET,
        agent_name=row.agent_name or UNSET,
        title=row.title,
        created_at=iso(row.created_at),
        updated_at=iso(row.updated_at),
    )


def message(row: MessageRow, session_id: str) -> Message:
    """A whole message; what it has not is left out."""
    content, details = row.text if row.content is None else row.content, row.details or {}
    if row.type == "error" and "reason" in details:
        content = failure_text(details["reason"], details["detail"], details["language"])
        details = {"reason": details["reason"]}
    return Message(
        message_id=row.message_id,
        role=cast(Any, row.role),
        type=cast(Any, row.type),
        content=UNSET if content is None else content,
        tool_calls=row.tool_calls or UNSET,
        tool_call_id=row.tool_call_id or UNSET,
        agent_name=row.agent_name or UNSET,
        session_id=session_id,
        timestamp=row.created_at,
        metadata=details,
    )

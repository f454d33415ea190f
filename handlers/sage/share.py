"""Share links of conversations."""

from typing import Any, cast

from domain.caller import Caller
from domain.quartet import Quartet
from generated.sage.models import ConversationMessages, Message
from handlers.sage.conversation import info
from storage.conversations import Message as Row


async def create(quartet: Quartet, caller: Caller, session_id: str) -> dict[str, str]:
    return {"share_id": await quartet.conversations.share(caller, session_id)}


async def delete(quartet: Quartet, caller: Caller, session_id: str) -> dict[str, str]:
    found = await quartet.conversations.unshare(caller, session_id)
    return {"session_id": found.session_id}


async def list_messages(quartet: Quartet, caller: Caller, session_id: str) -> ConversationMessages:
    """Under a share id, neither the conversation's id nor its session id is told."""
    found, said = await quartet.conversations.shared(caller, session_id)
    return ConversationMessages(
        conversation_id=found.share_id or found.id,
        messages=[words(one) for one in said],
        message_count=len(said),
        next_stream_index=0,
        conversation_info=info(
            found, found.share_id or found.session_id, agent=found.share_id is None
        ),
    )


def words(row: Row) -> Message:
    """What a message says, and nothing else."""
    return Message(
        message_id=row.message_id,
        role=cast(Any, row.role),
        type=cast(Any, row.type),
        content=row.text or "",
        timestamp=row.created_at,
        metadata={},
    )

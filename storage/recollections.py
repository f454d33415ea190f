"""What a user said to an agent elsewhere."""

from sqlalchemy import and_, bindparam, select

from storage.database import Database, Statement
from storage.schema import messages, runs

SAID = Statement(
    select(messages.c.text)
    .select_from(
        runs.join(
            messages,
            # By the conversation, too, which messages are indexed by.
            and_(
                messages.c.conversation_id == runs.c.conversation_id,
                messages.c.run_id == runs.c.id,
            ),
        )
    )
    .where(
        runs.c.owner_id == bindparam("owner"),
        runs.c.agent_id == bindparam("agent_id"),
        runs.c.conversation_id != bindparam("here"),
        messages.c.role == "user",
        messages.c.text.is_not(None),
        messages.c.text != "",
    )
    .order_by(messages.c.created_at.desc(), messages.c.position.desc())
    .limit(bindparam("limit"))
)


class RecollectionStore:
    """Reads over conversations for an agent's memory."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def said_elsewhere(
        self, owner: str, agent_id: str, conversation_id: str, limit: int
    ) -> list[str]:
        """The latest texts of the user to the agent in other conversations, latest first."""
        rows = await self._database.scan(
            SAID(owner=owner, agent_id=agent_id, here=conversation_id, limit=limit)
        )
        return [text for (text,) in rows]

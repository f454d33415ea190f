"""What turns work with."""

from collections.abc import Awaitable, Callable, Mapping

import msgspec

from domain.brought_mcp import BroughtMcp
from domain.knowledge.retrieval import Retrieval
from domain.mcp import McpServers
from domain.model_choice import ModelChoices
from domain.runs.ending import Endings
from domain.skills import Skills
from domain.tools import Tools, TurnTool
from domain.turn.images import LoadImage
from domain.turn.plan import SessionTurn
from storage.conversations import ConversationStore
from storage.database import Database
from storage.events import EventLog
from storage.recollections import RecollectionStore
from storage.runs import Run, RunStore
from storage.workspace_files import WorkspaceFiles

SessionTools = Callable[[Run, SessionTurn], Awaitable[Mapping[str, TurnTool]]]
"""The tools of a session's run, by name."""


class Parts(msgspec.Struct, frozen=True):
    """The collaborators of every turn in a process."""

    database: Database
    runs: RunStore
    conversations: ConversationStore
    recollections: RecollectionStore
    log: EventLog
    endings: Endings
    choices: ModelChoices
    tools: Tools
    load_image: LoadImage
    process_id: str
    retrieval: Retrieval | None = None
    mcp: McpServers | None = None
    brought_mcp: BroughtMcp | None = None
    skills: Skills | None = None
    session_tools: SessionTools | None = None
    workspaces: WorkspaceFiles | None = None

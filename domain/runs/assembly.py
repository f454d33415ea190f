"""The parts of runs, put together."""

import msgspec

from domain.agents import Agents
from domain.brought_mcp import BroughtMcp
from domain.conversations import Conversations
from domain.knowledge.retrieval import Retrieval
from domain.mcp import McpServers
from domain.model_choice import ModelChoices
from domain.runs.ending import Endings
from domain.runs.life import RunPolicy, Runs
from domain.runs.liveness import Liveness, Pace
from domain.runs.reconciler import Reconciler
from domain.skills import Skills
from domain.tools import Tools
from domain.turn.images import LoadImage
from domain.turn.parts import Parts, SessionTools
from domain.usage import Usage
from gateways.workflows import Workflows
from storage.conversations import ConversationStore
from storage.database import Database
from storage.events import EventLog
from storage.processes import ProcessStore
from storage.recollections import RecollectionStore
from storage.runs import RunStore
from storage.workspace_files import WorkspaceFiles


class Assembled(msgspec.Struct, frozen=True):
    """What `assemble` makes. `liveness.launch()` begins the work and `liveness.close()` ends it."""

    runs: Runs
    conversations: Conversations
    usage: Usage
    liveness: Liveness


def assemble(
    database: Database,
    log: EventLog,
    *,
    agents: Agents,
    choices: ModelChoices,
    tools: Tools,
    load_image: LoadImage,
    workflows: Workflows,
    policy: RunPolicy,
    process_id: str,
    pace: Pace = Pace(),  # noqa: B008
    retrieval: Retrieval | None = None,
    mcp: McpServers | None = None,
    brought_mcp: BroughtMcp | None = None,
    skills: Skills | None = None,
    session_tools: SessionTools | None = None,
    workspaces: WorkspaceFiles | None = None,
) -> Assembled:
    """Runs, and the conversations that they make, over one database.

    `process_id` is domain.runs.liveness.EMBEDDED where this process is alone, else an id that no
    other process has; `workflows` were made with the same one as executor. Without a `retrieval`
    runs skip knowledge bases, without `mcp` and `brought_mcp` the tools of MCP servers, without
    `skills` skills, without `workspaces` the tools over agents' files; `session_tools` are what
    those of sessions have beside.
    """
    store, conversation_store = RunStore(database), ConversationStore(database)
    endings = Endings(store, conversation_store, log)
    runs: Runs
    conversations = Conversations(
        database,
        conversation_store,
        log,
        progress_of=lambda run_id: runs.progress_of(run_id),
        stop_runs=lambda conversation_id: runs.stop_conversation(conversation_id),
    )
    parts = Parts(
        database=database,
        runs=store,
        conversations=conversation_store,
        recollections=RecollectionStore(database),
        log=log,
        endings=endings,
        choices=choices,
        tools=tools,
        load_image=load_image,
        process_id=process_id,
        retrieval=retrieval,
        mcp=mcp,
        brought_mcp=brought_mcp,
        skills=skills,
        session_tools=session_tools,
        workspaces=workspaces,
    )
    runs = Runs(parts, conversations, agents, workflows, policy)
    reconciler = Reconciler(database, store, endings, workflows)
    return Assembled(
        runs=runs,
        conversations=conversations,
        usage=Usage(store),
        liveness=Liveness(
            database, ProcessStore(database), runs, reconciler, workflows, process_id, pace
        ),
    )

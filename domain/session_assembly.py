"""The parts of sessions, put together."""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from domain.files import Files
from domain.platform.assembly import Platform
from domain.platform.skills import PlatformSkills
from domain.runs.assembly import Assembled
from domain.session_work import SessionWork
from domain.sessions import Sessions, Setting
from domain.skill_runtime import NAMES as SKILL_TOOLS
from domain.skill_runtime import SkillRuntime
from domain.tools import TurnTool, web_search
from domain.turn.plan import SessionTurn
from gateways.sandbox.sandboxes import Sandboxes
from gateways.search import WebSearch
from storage.conversations import ConversationStore
from storage.database import Database
from storage.events import EventLog
from storage.files import FileStore
from storage.runs import Run, RunStore
from storage.skill_files import SkillFiles
from storage.skills import SkillStore
from storage.workspace_files import WorkspaceFiles

NAMES = frozenset(
    {
        *("shell_execute", "shell_wait", "shell_write", "shell_kill"),
        *("file_read", "file_write", "file_find", "file_search"),
        *SKILL_TOOLS,
    }
)
"""What the tools of sessions are called: nobody else's may be."""


class Workshop(msgspec.Struct, frozen=True):
    """Where sessions work; made before runs are, which use its tools."""

    work: SessionWork
    platform: Platform
    skills: SkillRuntime
    web: WebSearch

    async def tools(self, run: Run, session: SessionTurn) -> Mapping[str, TurnTool]:
        """The tools of a session's run, by name."""
        offered = await self.platform.tools.named(run.owner_id, session.offered)
        most = session.max_search_results
        own = self.work.tools(run.owner_id, run.conversation_id, most)
        own.append(web_search(self.web, most=most, usual=most))
        skilled = await self.skills.tools(run.owner_id, run.conversation_id)
        return {**offered, **{tool.name: tool for tool in (*own, *skilled)}}


def workshop(
    database: Database,
    *,
    root: Path,
    files: Files,
    sandboxes: Sandboxes,
    platform: Platform,
    skills: PlatformSkills,
    skill_files: SkillFiles,
    web: WebSearch,
) -> Workshop:
    """Workspaces of sessions below `root`, in sandboxes."""
    conversations, workspaces = ConversationStore(database), WorkspaceFiles(root)
    work = SessionWork(database, conversations, FileStore(database), files, workspaces, sandboxes)
    runtime = SkillRuntime(
        database,
        SkillStore(database),
        skill_files,
        skills,
        conversations,
        work,
        workspaces,
        sandboxes,
        platform.tools,
    )
    return Workshop(work, platform, runtime, web)


def assemble(
    database: Database, log: EventLog, *, turning: Assembled, workshop: Workshop
) -> Sessions:
    """Sessions over the conversations and runs of one database."""
    platform = workshop.platform
    turning.conversations.on_deleted(workshop.work.erase)

    async def setting(owner_id: str) -> Setting:
        agent = await platform.config.agent()
        return Setting(
            model=await platform.config.model(),
            max_iterations=agent.max_iterations,
            max_retries=agent.max_retries,
            max_search_results=agent.max_search_results,
            offered=list(await platform.tools.offered(owner_id)),
        )

    return Sessions(
        database,
        ConversationStore(database),
        RunStore(database),
        log,
        turning.conversations,
        turning.runs,
        work=workshop.work,
        setting=setting,
    )

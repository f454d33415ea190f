"""One attempt at a run: its rows are read, its agent's loop goes on from them."""

from collections.abc import Mapping

import msgspec

from domain.tools import TurnTool
from domain.turn import mcp_tools
from domain.turn.journal import Journal
from domain.turn.loop import Loop, Next, Shared, opened
from domain.turn.parts import Parts
from domain.turn.plan import Plan
from domain.turn.toolset import repeatable
from storage.runs import Run
from storage.workspace_files import Place

INTERRUPTED = "interrupted_by_restart"
HISTORY = 1000
"""Messages of a conversation that a prompt is made of, at most."""
RECOLLECTIONS = 20


class Turn:
    """One attempt at a run. `advance` is called until it says "done"."""

    def __init__(self, parts: Parts, run_id: str) -> None:
        self._parts = parts
        self.run_id = run_id
        self._loop: Loop | None = None

    async def advance(self) -> Next:
        """Make the next stride. Raises Superseded, StreamTaken when another has taken the run."""
        if self._loop is None:
            self._loop = await self._open()
        return "done" if self._loop is None else await self._loop.advance()

    async def _open(self) -> Loop | None:
        """Read the rows. None when the run is over, waits for an answer, or has to be ended as
        interrupted: a call was under way that must not be made again."""
        parts = self._parts
        run = await parts.runs.get(self.run_id)
        if run is None or not run.live or run.state == "waiting":
            return None
        plan = msgspec.convert(run.request, Plan)
        session: Mapping[str, TurnTool] = {}
        if plan.session is not None and parts.session_tools is not None:
            session = await parts.session_tools(run, plan.session)
        made = await parts.runs.calls(run.id)
        if any(call.outcome is None and not repeatable(parts, call.name, session) for call in made):
            await parts.database.write(lambda: parts.endings.fail(run.id, INTERRUPTED))
            return None
        of_tasks = []
        if made and (plan.delegates or plan.mode == "fibre"):
            of_tasks = await parts.conversations.of_tasks(run.conversation_id, run.id)
        shared = Shared(
            parts,
            Journal(parts, run, made, of_tasks),
            plan.sub_agents,
            session=session,
            place=await self._place(run, plan),
        )
        if plan.brought_mcp is not None and parts.brought_mcp is not None:
            taken = set(plan.mcp_tools)
            for one in plan.sub_agents.values():
                taken |= set(one.mcp_tools)
            shared.brought, silent = await mcp_tools.brought(
                parts.brought_mcp, plan.brought_mcp, taken
            )
            if silent:
                skipped = {**plan.skipped, "mcp_servers": silent}
                plan = msgspec.structs.replace(plan, skipped=skipped)
        return await opened(
            shared,
            plan,
            await parts.conversations.history(run.conversation_id, HISTORY),
            path=(plan.agent_id,),
            recollections=await self._recollections(run, plan),
        )

    async def _place(self, run: Run, plan: Plan) -> Place | None:
        """The workspace of a run that has an agent, or sub-agents; a session has its own."""
        if plan.session is not None or not (run.agent_id or plan.sub_agents):
            return None
        conversation = await self._parts.conversations.by_id(run.conversation_id)
        if conversation is None:
            return None
        return Place(run.agent_id or "", run.owner_id, conversation.session_id)

    async def _recollections(self, run: Run, plan: Plan) -> list[str]:
        if plan.memory_type != "user" or not run.agent_id:
            return []
        return await self._parts.recollections.said_elsewhere(
            run.owner_id, run.agent_id, run.conversation_id, RECOLLECTIONS
        )

"""The agent's loop: model, tools, model, … answer.

It goes in **strides**, each one model call, one round of tool calls, or one round of tasks that
sub-agents work on, in loops of their own. What comes next is read off the rows alone, so a loop
that stood between two strides goes on from them, in this process or another. A call's row commits
before the call goes out; a turn that finds one begun and not ended does not call again (calls that
may be repeated aside) and ends the run as interrupted.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeVar

import msgspec

from domain.ids import uuid7
from domain.model_choice import Resolved
from domain.runs.ending import failure, wholes
from domain.tools import Consent, Result, ToolFailed, TurnTool
from domain.turn import consent, delegation, planned, toolset, workflow_tools
from domain.turn.delegation import Delegation, Handed
from domain.turn.images import with_images
from domain.turn.journal import Finished, Journal, as_kept
from domain.turn.listening import REASONS, Purpose, Said, listen
from domain.turn.mcp_tools import RemoteTool
from domain.turn.parts import Parts
from domain.turn.plan import Plan
from domain.turn.prompt import APART, PLAN, conversation_messages, system_message, within
from domain.turn.telling import (
    Delegated,
    Failed,
    Noted,
    Telling,
    Text,
    Titled,
    Tokens,
    Whole,
)
from domain.turn.toolset import Toolset
from domain.turn.voice import SUGGESTIONS, Voice
from gateways.errors import ModelError
from gateways.models import model as models
from storage.conversations import Message, NewMessage
from storage.workspace_files import Place

Next = Literal["more", "done"]
Stride = Literal[
    "think", "plan", "convene", "model", "tools", "delegate", "summary", "suggest", "wait", "end"
]
T = TypeVar("T")

TITLE_MAX = 100
"""Characters of a title that a plan gives its session."""

THINK = (
    "Before you answer, think the task through: what is asked, what is known, which steps lead to"
    " the answer. Write down your thoughts only; do not answer yet."
)
SUMMARISE = "Summarise in a few sentences what was asked, what was done and what came of it."
SUGGEST = (
    f"Suggest {SUGGESTIONS} short questions that the user may ask next, one a line, nothing else."
)
ASKED: dict[Purpose, str] = {"think": THINK, "summary": SUMMARISE, "suggest": SUGGEST}


class Shared(msgspec.Struct):
    """What all agents of a run have in common: `agents` are the plans of its sub-agents by key,
    `brought` the tools of servers that the request brought along, `session` those of its session,
    which the run's own agent has; `place` is the workspace, its agent "" where the run has none."""

    parts: Parts
    journal: Journal
    agents: Mapping[str, Plan]
    brought: Mapping[str, RemoteTool] = {}
    session: Mapping[str, TurnTool] = {}
    place: Place | None = None

    def place_of(self, plan: Plan) -> Place | None:
        """Where an agent of the run works."""
        place = self.place
        if place is not None and not place.agent_id:
            place = msgspec.structs.replace(place, agent_id=plan.agent_id)
        return place if place is not None and place.agent_id else None


async def opened(
    shared: Shared,
    plan: Plan,
    messages: Sequence[Message],
    *,
    path: Sequence[str],
    by: Delegated | None = None,
    recollections: Sequence[str] = (),
) -> "Loop":
    """The loop of an agent, with its model and its tools at hand. `path` as in Delegation."""
    names = plan.brought_tools
    brought = {
        name: tool for name, tool in shared.brought.items() if names is None or name in names
    }
    session = shared.session if plan.session is not None else {}
    return Loop(
        shared,
        plan,
        messages,
        resolved=await shared.parts.choices.open(plan.model),
        tools=await toolset.opened(
            shared.parts, plan, {**brought, **session}, shared.place_of(plan)
        ),
        path=path,
        by=by,
        recollections=recollections,
    )


class Loop:
    """What one agent does in a run: the run's own, or, in a task (`by`), a sub-agent."""

    def __init__(
        self,
        shared: Shared,
        plan: Plan,
        messages: Sequence[Message],
        *,
        resolved: Resolved,
        tools: Toolset,
        path: Sequence[str],
        by: Delegated | None,
        recollections: Sequence[str],
    ) -> None:
        self._shared = shared
        self._journal = shared.journal
        self._plan = plan
        self._messages = list(messages)
        self._resolved = resolved
        self._tools = tools
        self._path = tuple(path)
        self._by = by
        self._recollections = recollections
        self._voice = Voice(plan.agent_name, shared.journal.run.id, by, tools)
        self._delegation = Delegation(plan, shared.agents, self._path)

    async def advance(self) -> Next:
        """Make the next stride. Raises Superseded, StreamTaken when another has taken the run."""
        stride = self._next_stride()
        match stride:
            case "tools":
                if wanted := await self._consents():
                    return await self._ask_consent(wanted)
                await self._call_tools()
            case "delegate":
                await self._delegate()
            case "convene":
                await self._convene()
            case "end" | "wait":
                if self._by is not None:
                    return "done"
                await self._journal.begin("model", [])
                return await self._commit()
            case _:
                return await self._call_model(stride)
        return "more"

    async def work(self) -> tuple[str, bool]:
        """As a sub-agent, go on to the end; returns the result, and whether there is one."""
        while await self.advance() == "more":
            pass
        own = self._own()
        for message in own:
            if message.type == "error":
                return f"The task failed: {message.text}", False
        return next((m.text or "" for m in reversed(own) if m.type == "assistant_text"), ""), True

    # --- where the loop stands ------------------------------------------------------------------

    def _own(self) -> list[Message]:
        """What the agent has said in this run so far."""
        return [m for m in self._course() if m.role in ("assistant", "tool")]

    def _course(self) -> list[Message]:
        """The messages of this run, those of its user among them."""
        return [m for m in self._messages if m.run_id == self._journal.run.id]

    def _pending(self) -> list[tuple[dict[str, Any], str]]:
        """Tool calls that the model has asked for and that have no result yet, each with an id
        that is its own in the run: those that models give may come again."""
        pending: dict[str, tuple[dict[str, Any], str]] = {}
        for message in self._own():
            for place, call in enumerate(message.tool_calls or ()):
                pending[call["id"]] = call, f"{message.message_id}.{place}"
            if message.role == "tool" and message.tool_call_id:
                pending.pop(message.tool_call_id, None)
        return list(pending.values())

    def _next_stride(self) -> Stride:
        plan = self._plan
        if pending := self._pending():
            others = any(call["function"]["name"] != delegation.NAME for call, _ in pending)
            return "tools" if others else "delegate"
        if plan.session is not None:
            following = planned.next_stride(self._course(), plan.session)
            # Without tools nothing can be carried out: such a model answers as well as it can.
            plans = self._resolved.model.capabilities.tools
            return "model" if following == "plan" and not plans else following
        own = self._own()
        types = {m.type for m in own}
        if "error" in types:
            return "end"
        if plan.deep_thinking and plan.mode != "simple" and "thinking" not in types:
            return "think"
        if self._delegation.convenes and "tool_call" not in types:
            return "convene"
        said = [m for m in own if m.type not in APART]
        if not said or said[-1].role == "tool":
            return "model"
        if any((m.details or {}).get("ask") for m in said):
            return "end"
        if plan.force_summary and "stage_summary" not in types:
            return "summary"
        if plan.more_suggest and "query_suggest" not in types:
            return "suggest"
        return "end"

    @property
    def _rounds(self) -> int:
        """How many times the model has asked for tools in this run."""
        return sum(
            m.type == "tool_call" and not (m.details or {}).get("convened") for m in self._own()
        )

    # --- model calls ----------------------------------------------------------------------------

    async def _call_model(self, purpose: Purpose) -> Next:
        plan, journal = self._plan, self._journal
        last = purpose == "model" and self._rounds + 1 >= plan.max_loop_count
        # A session's agent is offered tools to the last: if it asks for them, it is not done.
        offers = purpose == "model" and (not last or plan.session is not None)
        try:
            call = await self._model_call(purpose, offers=offers)
        except ModelError as error:
            step = await journal.begin("model", [self._resolved.name])
            return await self._after_failure(purpose, step, Said(), error)
        step = await journal.begin("model", [self._resolved.name])
        if not self._own():
            self._tell_skipped()
        said = Said()
        try:
            await listen(journal, self._resolved.model, call, purpose, said, self._by)
        except ModelError as error:
            return await self._after_failure(purpose, step, said, error)
        final: list[Telling] = []
        if said.usage is not None:
            usage = said.usage
            counts = (usage.input_tokens, usage.output_tokens, usage.estimated)
            final.append(Tokens(uuid7(), self._resolved.name, *counts, self._by))
        if last and said.calls and plan.session is not None:
            fresh = self._voice.unfinished(purpose, said)
            return await self._fail([(step, "ok", said.usage)], fresh, final, "loop_limit")
        if last and said.calls:
            final.append(Noted(uuid7(), "loop_limit", by=self._by))
            said.calls = []
        fresh = self._voice.kept(purpose, said, final)
        title = self._move_on(said, fresh, final)
        return await self._commit([(step, "ok", said.usage)], fresh, final, title)

    async def _model_call(self, purpose: Purpose, *, offers: bool) -> models.ModelCall:
        resolved, plan = self._resolved, self._plan
        capable = resolved.model.capabilities
        draws = purpose == "plan"
        offers = offers and capable.tools
        workflows = offers and plan.mode != "simple" and bool(plan.workflows)
        functions: list[dict[str, Any]] = []
        if offers:
            functions = self._tools.functions()
        if workflows:
            functions += workflow_tools.functions(plan.workflows)
        if offers and self._delegation:
            functions.append(self._delegation.function())
        knows = self._delegation.convenes or (
            bool(self._delegation) and capable.tools and (offers or purpose == "think")
        )
        images = resolved.supports_multimodal and plan.images
        earlier, present = self._split()
        shown = conversation_messages([*earlier, *present], images=images)
        cut = next(
            (i for i, (m, _) in enumerate(shown) if m.id in {p.id for p in present}), len(shown)
        )
        if plan.memory_type == "none":
            shown, cut = conversation_messages(present, images=images), 0
        messages = within(
            plan.budget,
            resolved.max_model_len,
            [prompt for _, prompt in shown[:cut]],
            [prompt for _, prompt in shown[cut:]],
        )
        system = system_message(
            plan,
            workflows=workflows,
            skills=offers and self._tools.has_skills,
            sub_agents=self._delegation.section() if knows else "",
            recollections=self._recollections,
            thinking="\n".join(m.text or "" for m in self._own() if m.type == "thinking"),
        )
        if plan.session is not None:
            tasks = self._journal.tasks
            system["content"] += planned.attached(self._messages)
            system["content"] += f"\n\n{planned.ASKED}" if draws else planned.section(tasks)
        if images:
            parts = self._shared.parts
            messages = await with_images(messages, parts.load_image, self._journal.run.owner_id)
        if asked := ASKED.get(purpose):
            messages = [*messages, {"role": "user", "content": asked}]
        return models.ModelCall(
            messages=[system, *messages],
            tools=functions,
            temperature=resolved.temperature,
            max_tokens=resolved.max_tokens,
            top_p=resolved.top_p,
            presence_penalty=resolved.presence_penalty,
            json_schema=planned.SCHEMA if draws and capable.json_schema else None,
        )

    def _split(self) -> tuple[list[Message], list[Message]]:
        """Earlier turns, and the present one."""
        asked, run_id = set(self._plan.asked), self._journal.run.id
        earlier: list[Message] = []
        present: list[Message] = []
        for message in self._messages:
            here = message.run_id == run_id or message.message_id in asked
            (present if here else earlier).append(message)
        return earlier, present

    def _move_on(self, said: Said, fresh: list[NewMessage], final: list[Telling]) -> str:
        """What a model call changes about the plan: its tasks, and which step is due. Returns the
        title that it gives the session."""
        journal, session = self._journal, self._plan.session
        if session is None:
            return ""
        title = ""
        if said.drawn is not None:
            tasks = planned.begun(said.drawn)
            title = said.drawn.title.strip()[:TITLE_MAX] if session.untitled else ""
            if title:
                final.append(Titled(title))
            final += planned.drawn_up(tasks) if tasks else []
        elif planned.present(journal.tasks) and not (said.calls or said.ask):
            tasks, told = planned.moved(journal.tasks)
            final += told
        else:
            return ""
        if tasks:
            journal.put_tasks(tasks)
            due = planned.present(tasks)
            text = due["description"] if due else self._closing()
            fresh.append(self._voice.due(text))
        return title

    def _closing(self) -> str:
        """What the model is told once every step is done."""
        plans = [m.details or {} for m in self._own() if m.type == PLAN]
        return plans[-1].get("closing") or planned.CLOSE

    async def _after_failure(
        self, purpose: Purpose, step: int, said: Said, error: ModelError
    ) -> Next:
        """A model call that failed ends the run, unless the answer stood already; a sub-agent's
        ends its task."""
        reason, detail = REASONS.get(type(error), "model_failed"), str(error)
        finished: list[Finished] = [(step, "error", None)]
        noted = Noted(uuid7(), reason, text=detail, by=self._by)
        if purpose in ("summary", "suggest"):
            type_ = "stage_summary" if purpose == "summary" else "query_suggest"
            fresh = [self._voice.assistant(said.text_id or uuid7(), type_, said.text)]
            return await self._commit(finished, fresh, [*wholes(fresh), noted])
        fresh = self._voice.unfinished(purpose, said)
        if self._by is not None:
            fresh.append(self._voice.assistant(noted.message_id, "error", detail or reason))
            return await self._commit(finished, fresh, [noted])
        return await self._fail(finished, fresh, [], reason, detail)

    async def _fail(
        self,
        finished: Sequence[Finished],
        fresh: Sequence[NewMessage],
        told: Sequence[Telling],
        reason: str,
        detail: str = "",
    ) -> Next:
        """End the run as failed, and with it the step that is under way."""
        last: list[Telling] = [*told, *wholes(fresh)]
        if self._plan.session is not None:
            tasks, broken = planned.broken(self._journal.tasks)
            self._journal.put_tasks(tasks)
            last += broken
        failed = Failed(uuid7(), reason, detail)
        last.append(failed)
        kept = [*fresh, failure(self._journal.run, failed)]
        await self._journal.commit(finished, kept, last, ends=True, reason=reason)
        return "done"

    # --- tools ----------------------------------------------------------------------------------

    async def _call_tools(self) -> None:
        """Make every call that the model has asked for, side by side; delegations come after."""
        asked = [call for call, _ in self._pending() if call["function"]["name"] != delegation.NAME]
        first = await self._journal.begin("tool", [call["function"]["name"] for call in asked])
        answers = consent.answers(self._course())

        async def use(place: int) -> tuple[str | Result, bool]:
            name, arguments = (
                asked[place]["function"]["name"],
                asked[place]["function"]["arguments"],
            )
            if name in workflow_tools.NAMES and self._plan.workflows:
                return self._follow(name, arguments)
            return await self._tools.use(name, arguments, answers.get(asked[place]["id"]))

        await self._answer(asked, first, use)

    async def _consents(self) -> dict[str, Consent]:
        """What the user has to agree to before the calls that are pending, and was not asked yet;
        by the call's id."""
        asked = {call for message in self._own() for call in consent.asked(message)}
        wanted: dict[str, Consent] = {}
        for call, _ in self._pending():
            if call["id"] not in asked:
                one = await self._tools.consent(
                    call["function"]["name"], call["function"]["arguments"]
                )
                if one is not None:
                    wanted[call["id"]] = one
        return wanted

    async def _ask_consent(self, wanted: Mapping[str, Consent]) -> Next:
        """Ask the user, and let the run wait."""
        await self._journal.begin("tool", [])
        message_id = uuid7()
        text = consent.question(self._plan.language, list(wanted.values()))
        details = {consent.KEY: {call: one.digest for call, one in wanted.items()}}
        fresh = [self._voice.assistant(message_id, "assistant_text", text, details=details)]
        self._messages += as_kept(self._journal.run, fresh)
        told: list[Telling] = [
            Text(message_id, "answer", text, time.time()),
            Whole(message_id, "answer", text),
        ]
        await self._journal.commit([], fresh, told, waits=message_id)
        return "done"

    async def _answer(
        self,
        asked: Sequence[dict[str, Any]],
        first: int,
        use: Callable[[int], Awaitable[tuple[str | Result, bool]]],
    ) -> None:
        """Make calls side by side and keep what they give. Each result is told as it comes; the
        last one, when nothing is waited for any more, commits with the rows."""
        finished: list[Finished] = []
        fresh: dict[int, NewMessage] = {}
        last: list[Telling] = []

        async def one(place: int) -> None:
            given, fits = await use(place)
            fresh[place], told = self._voice.answered(asked[place], given, fits)
            finished.append((first + place, "ok" if fits else "error", None))
            if len(finished) < len(asked):
                self._journal.tell(told)
            else:
                last.append(told)

        await side_by_side(one(place) for place in range(len(asked)))
        kept = [fresh[place] for place in range(len(asked))]
        await self._journal.commit(finished, kept, last)
        self._messages += as_kept(self._journal.run, kept)

    def _follow(self, name: str, arguments: str) -> tuple[str, bool]:
        """A step of the agent's workflow; each agent's steps are its own."""
        of = self._by.task_id if self._by else ""
        tasks = self._journal.tasks
        mine = [task for task in tasks if task["workflow"] and task.get("of", "") == of]
        text, after, fits = workflow_tools.follow(name, arguments, self._plan.workflows, mine)
        if after:
            moved = [{**task, "of": of} if of else task for task in after]
            self._journal.put_tasks([*(task for task in tasks if task not in mine), *moved])
        return text, fits

    # --- sub-agents -----------------------------------------------------------------------------

    async def _convene(self) -> None:
        """A team begins with everybody at work on what the user said."""
        _, present = self._split()
        text = "\n\n".join(m.text or "" for m in present if m.role == "user")
        calls = [
            (uuid7(), delegation.NAME, arguments) for arguments in self._delegation.everybody(text)
        ]
        await self._journal.begin("tool", [])
        if not self._own():
            self._tell_skipped()
        final: list[Telling] = []
        asks = self._voice.asks(calls, final, {"convened": True})
        await self._commit([], [asks], final)

    async def _delegate(self) -> None:
        """Have the tasks that the model has handed out worked on, side by side."""
        pending = self._pending()
        asked = [call for call, _ in pending]
        first = await self._journal.begin("tool", [delegation.NAME] * len(pending))
        handed = [self._handed(call["function"]["arguments"], id_) for call, id_ in pending]
        await self._journal.commit()

        async def have_done(place: int) -> tuple[str | Result, bool]:
            tasks = handed[place]
            if isinstance(tasks, str):
                return tasks, False
            call_id = asked[place]["id"]
            results = await side_by_side(self._have_done(each, call_id) for each in tasks)
            return delegation.together(results)

        await self._answer(asked, first, have_done)

    def _handed(self, arguments: str, ids: str) -> list[Handed] | str:
        """The tasks of a call, or why there are none; those that are new join the run's."""
        if not self._delegation:
            return f"There is no tool {delegation.NAME!r}."
        try:
            handed = self._delegation.handed(arguments, ids)
        except ToolFailed as error:
            return f"{delegation.NAME} failed: {error}"
        tasks = self._journal.tasks
        known = {task["id"] for task in tasks if "agent_name" in task}
        fresh = [each.shown("in_progress") for each in handed if each.id not in known]
        if len(known) + len(fresh) > delegation.TASKS_OF_RUN:
            return f"{delegation.NAME} failed: a run has at most {delegation.TASKS_OF_RUN} tasks"
        self._journal.put_tasks([*tasks, *fresh])
        return handed

    async def _have_done(self, handed: Handed, call_id: str) -> tuple[Handed, str, bool]:
        """One task, in a loop of its own that goes on where an earlier attempt left it."""
        journal, plan = self._journal, handed.plan
        by = Delegated(
            handed.id,
            plan.agent_name,
            call_id,
            plan.agent_id,
            self._by.task_id if self._by else "",
        )
        asked = NewMessage(
            id=handed.id,
            message_id=handed.id,
            role="user",
            type="user_input",
            text=handed.text,
            run_id=journal.run.id,
        )
        kept = journal.of_tasks.get(handed.id, ())
        loop = await opened(
            self._shared,
            msgspec.structs.replace(plan, asked=[handed.id]),
            [*as_kept(journal.run, [asked]), *kept],
            path=(*self._path, handed.key),
            by=by,
        )
        text, fits = await loop.work()
        status = handed.shown("completed" if fits else "failed")
        journal.put_tasks([status if task["id"] == handed.id else task for task in journal.tasks])
        return handed, text, fits

    # --- rows and events ------------------------------------------------------------------------

    async def _commit(
        self,
        finished: Sequence[Finished] = (),
        fresh: Sequence[NewMessage] = (),
        told: Sequence[Telling] = (),
        title: str = "",
    ) -> Next:
        """Commit a stride, and the end of the run where it ends with it, or its wait."""
        self._messages += as_kept(self._journal.run, fresh)
        following = self._next_stride()
        await self._journal.commit(
            finished,
            fresh,
            told,
            title=title,
            waits=self._own()[-1].message_id if following == "wait" else "",
            ends=following == "end" and self._by is None,
        )
        return "done" if following in ("wait", "end") else "more"

    def _tell_skipped(self) -> None:
        plan, skipped = self._plan, dict(self._plan.skipped)
        skipped["tools"] = [
            name for name in skipped.get("tools", ()) if name not in self._shared.brought
        ]
        if not self._resolved.model.capabilities.tools:
            wanted = [*(plan.tools or ()), *plan.mcp_tools, *self._shared.brought]
            handed = () if self._delegation.convenes else plan.delegates
            skipped["tools"] += [*wanted, *handed]
        names = [name for named in skipped.values() for name in named]
        if names:
            self._journal.tell(Noted(uuid7(), "skipped", names, by=self._by))


async def side_by_side(works: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of all, in order. The first that raises ends the others, and is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in works]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]

"""The agent's loop: model, tools, model, … answer.

A turn goes in **strides**, each one model call or one round of tool calls. What comes next is
read off the run's rows alone, so a turn that stood between two strides goes on from them, in this
process or another. A call's row commits before the call goes out; a turn that finds one begun and
not ended does not call again (calls that may be repeated aside) and ends the run as interrupted.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Any, Literal

import msgspec

from domain.ids import uuid7
from domain.knowledge.retrieval import Retrieval
from domain.mcp import McpServers
from domain.model_choice import ModelChoices, Resolved
from domain.runs.ending import MESSAGE_TYPES, Endings, changed
from domain.skills import Skills
from domain.tools import Tool, ToolFailed, Tools
from domain.turn import knowledge_tool, mcp_tools, skill_tool, workflow_tools
from domain.turn.images import LoadImage
from domain.turn.plan import Plan
from domain.turn.prompt import APART, conversation_messages, system_message, within
from domain.turn.telling import (
    Begun,
    Called,
    Ended,
    Failed,
    Noted,
    Returned,
    Suggested,
    Telling,
    Text,
    TextKind,
    Tokens,
    event,
    stream_of,
)
from gateways.errors import (
    GatewayError,
    ModelDropped,
    ModelError,
    ModelMalformed,
    ModelRefused,
    ModelTimeout,
    ModelUnreachable,
)
from gateways.models import model as models
from storage.conversations import ConversationStore, Message, NewMessage
from storage.database import Database, Unit
from storage.events import Event, EventLog, Writer
from storage.recollections import RecollectionStore
from storage.runs import Call, Outcome, Run, RunStore, State

Next = Literal["more", "done"]
Stride = Literal["think", "model", "tools", "summary", "suggest", "end"]

HISTORY = 1000
"""Messages of a conversation that a prompt is made of, at most."""
RECOLLECTIONS = 20
CALLS_MAX = 16
"""Tool calls of one answer that are made; a model asks for any number, and they go side by side."""
ANSWER_MAX = 2 * 1024 * 1024
"""Characters of one answer with its reasoning: every one of them is logged."""
ANSWER_S = 1800.0
"""Seconds that one answer may take. A model's own timeout bounds its silence alone, and one that
says a word a minute would hold a run for ever."""
IMAGES_MAX = 16
IMAGE_CHARACTERS_MAX = 32 * 1024 * 1024
"""Images of one prompt, and the characters of their `data:` URLs: all are in memory at once."""
SUGGESTIONS = 3

THINK = (
    "Before you answer, think the task through: what is asked, what is known, which steps lead to"
    " the answer. Write down your thoughts only; do not answer yet."
)
SUMMARISE = "Summarise in a few sentences what was asked, what was done and what came of it."
SUGGEST = (
    f"Suggest {SUGGESTIONS} short questions that the user may ask next, one a line, nothing else."
)

REASONS: dict[type[ModelError], str] = {
    ModelRefused: "model_refused",
    ModelUnreachable: "model_unreachable",
    ModelTimeout: "model_timeout",
    ModelDropped: "model_dropped",
    ModelMalformed: "model_malformed",
}
INTERRUPTED = "interrupted_by_restart"


class Parts(msgspec.Struct, frozen=True):
    """What a turn works with."""

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
    skills: Skills | None = None


class Said(msgspec.Struct):
    """What came of one model call."""

    text: str = ""
    text_id: str = ""
    reasoning: str = ""
    reasoning_id: str = ""
    calls: list[models.ToolCall] = []
    ask: models.Ask | None = None
    usage: models.Usage | None = None


class Turn:
    """One attempt at a run. `advance` is called until it says "done"."""

    def __init__(self, parts: Parts, run_id: str) -> None:
        self._parts = parts
        self.run_id = run_id
        self._run: Run | None = None
        self._plan: Plan
        self._resolved: Resolved
        self._messages: list[Message] = []
        self._new: list[NewMessage] = []
        self._step = 0
        self._claimed = False
        self._head = 0
        self._line = 0
        self._lines = 0
        self._recollections: list[str] = []
        self._remote: dict[str, mcp_tools.RemoteTool] = {}

    async def advance(self) -> Next:
        """Make the next stride. Raises Superseded, StreamTaken when another has taken the run."""
        if self._run is None and not await self._open():
            return "done"
        stride = self._next_stride()
        match stride:
            case "tools":
                await self._call_tools()
            case "end":
                await self._end_now()
                return "done"
            case _:
                return await self._call_model(stride)
        return "more"

    # --- where the turn stands ------------------------------------------------------------------

    async def _open(self) -> bool:
        """Read the rows. False when the run is over, or has to be ended as interrupted."""
        parts = self._parts
        run = await parts.runs.get(self.run_id)
        if run is None or not run.live:
            return False
        made = await parts.runs.calls(run.id)
        self._plan = msgspec.convert(run.request, Plan)
        if any(call.outcome is None and not self._repeatable(call) for call in made):
            await parts.database.write(lambda: parts.endings.fail(run.id, INTERRUPTED))
            return False
        self._run = run
        self._step = max((call.step for call in made), default=-1) + 1
        self._messages = await parts.conversations.history(run.conversation_id, HISTORY)
        self._resolved = await parts.choices.open(self._plan.model)
        if self._plan.mcp_tools and parts.mcp is not None:
            self._remote = await mcp_tools.opened(parts.mcp, self._plan.mcp_tools)
        if self._plan.memory_type == "user" and run.agent_id:
            self._recollections = await parts.recollections.said_elsewhere(
                run.owner_id, run.agent_id, run.conversation_id, RECOLLECTIONS
            )
        return True

    def _repeatable(self, call: Call) -> bool:
        if call.kind != "tool":
            return False
        tool = self._tool(call.name)
        return call.name in workflow_tools.NAMES or (tool is not None and tool.repeatable)

    def _tool(self, name: str) -> Tool | mcp_tools.RemoteTool | None:
        """A tool that this turn may use."""
        plan, retrieval = self._plan, self._parts.retrieval
        if name == knowledge_tool.NAME:
            if retrieval is None or not plan.knowledge_bases:
                return None
            return knowledge_tool.knowledge_tool(retrieval, plan.knowledge_bases)
        if name == skill_tool.NAME:
            if self._parts.skills is None or not plan.skills:
                return None
            return skill_tool.skill_tool(self._parts.skills, plan.skills)
        allowed = plan.tools is None or name in plan.tools
        built_in = self._parts.tools.get(name) if allowed else None
        return built_in or self._remote.get(name)

    def _own(self) -> list[Message]:
        """What this run has said so far."""
        return [
            m for m in self._messages if m.run_id == self.run_id and m.role in ("assistant", "tool")
        ]

    def _pending(self) -> list[dict[str, Any]]:
        """Tool calls that the model has asked for and that have no result yet."""
        own = self._own()
        answered = {m.tool_call_id for m in own if m.role == "tool"}
        return [call for m in own for call in m.tool_calls or () if call["id"] not in answered]

    def _next_stride(self) -> Stride:
        own = self._own()
        types = {m.type for m in own}
        plan = self._plan
        if plan.deep_thinking and plan.mode == "default" and "thinking" not in types:
            return "think"
        if self._pending():
            return "tools"
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
        return sum(m.type == "tool_call" for m in self._own())

    # --- model calls ----------------------------------------------------------------------------

    async def _call_model(self, stride: Stride) -> Next:
        plan = self._plan
        last = stride == "model" and self._rounds + 1 >= plan.max_loop_count
        try:
            call = await self._model_call(stride, offers=stride == "model" and not last)
        except ModelError as error:
            _, step, writer = await self._begin("model", [self._resolved.name])
            return await self._after_failure(stride, writer, step, Said(), error)
        run, step, writer = await self._begin("model", [self._resolved.name])
        if not self._rounds and not self._own():
            self._tell_skipped(writer)
        said = Said()
        try:
            await self._listen(stride, call, writer, said)
        except ModelError as error:
            return await self._after_failure(stride, writer, step, said, error)
        final: list[Telling] = []
        if said.usage is not None:
            usage = said.usage
            final.append(
                Tokens(
                    uuid7(),
                    self._resolved.name,
                    usage.input_tokens,
                    usage.output_tokens,
                    usage.estimated,
                )
            )
        if last and said.calls:
            final.append(Noted(uuid7(), "loop_limit"))
            said.calls = []
        fresh = self._kept(stride, said, final)
        self._remember(fresh)
        ended = self._next_stride() == "end"
        await self._commit(
            writer,
            lambda: self._finish(run, [(step, "ok", said.usage)], fresh, ends=ended),
            [*final, Ended("completed")] if ended else final,
        )
        return "done" if ended else "more"

    async def _model_call(self, stride: Stride, *, offers: bool) -> models.ModelCall:
        resolved, plan = self._resolved, self._plan
        capable = resolved.model.capabilities
        functions: list[dict[str, Any]] = []
        workflows = offers and capable.tools and plan.mode == "default" and bool(plan.workflows)
        if offers and capable.tools:
            functions = self._parts.tools.functions(plan.tools)
            if (knowledge := self._tool(knowledge_tool.NAME)) is not None:
                functions = [*functions, knowledge.function()]
            if (skill := self._tool(skill_tool.NAME)) is not None:
                functions = [*functions, skill.function()]
            functions = [*functions, *(tool.function() for tool in self._remote.values())]
            if workflows:
                functions += workflow_tools.functions(plan.workflows)
        images = resolved.supports_multimodal
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
        thinking = "\n".join(m.text or "" for m in self._own() if m.type == "thinking")
        system = system_message(
            plan,
            workflows=workflows,
            skills=any(one["function"]["name"] == skill_tool.NAME for one in functions),
            recollections=self._recollections,
            thinking=thinking,
        )
        if images:
            messages = await self._with_images(messages)
        asked = {"think": THINK, "summary": SUMMARISE, "suggest": SUGGEST}.get(stride)
        if asked:
            messages = [*messages, {"role": "user", "content": asked}]
        return models.ModelCall(
            messages=[system, *messages],
            tools=functions,
            temperature=resolved.temperature,
            max_tokens=resolved.max_tokens,
            top_p=resolved.top_p,
            presence_penalty=resolved.presence_penalty,
        )

    def _split(self) -> tuple[list[Message], list[Message]]:
        """Earlier turns, and the present one."""
        asked = set(self._plan.asked)
        earlier: list[Message] = []
        present: list[Message] = []
        for message in self._messages:
            here = message.run_id == self.run_id or message.message_id in asked
            (present if here else earlier).append(message)
        return earlier, present

    async def _with_images(self, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The messages with images in place of their addresses: the latest IMAGES_MAX of them, for
        earlier ones the model has seen. Raises ModelRefused."""
        shown: list[dict[str, Any]] = []
        left, room = IMAGES_MAX, IMAGE_CHARACTERS_MAX
        for message in reversed(messages):
            content = message["content"]
            if not isinstance(content, list):
                shown.append(message)
                continue
            parts = []
            for part in reversed(content):
                if part.get("type") == "image_url":
                    if left == 0:
                        parts.append({"type": "text", "text": "[an earlier image]"})
                        continue
                    url = await self._image(part)
                    left, room = left - 1, room - len(url)
                    if room < 0:
                        raise ModelRefused(400, "the images are too large together")
                    part = {"type": "image_url", "image_url": {"url": url}}
                parts.append(part)
            shown.append({**message, "content": parts[::-1]})
        return shown[::-1]

    async def _image(self, part: dict[str, Any]) -> str:
        url: str = part["image_url"]["url"]
        if url.startswith("data:"):
            return url
        assert self._run is not None
        try:
            return await self._parts.load_image(self._run.owner_id, url)
        except GatewayError as error:
            raise ModelRefused(400, f"an image could not be read: {error}") from None

    async def _listen(
        self, stride: Stride, call: models.ModelCall, writer: Writer, said: Said
    ) -> None:
        """Hear the model out, and tell what it says as it comes."""
        kinds: dict[Stride, TextKind] = {"think": "thinking", "summary": "summary"}
        kind = kinds.get(stride, "answer")
        quiet = stride == "suggest"
        pieces: list[str] = []
        reasons: list[str] = []
        said.text_id, said.reasoning_id = uuid7(), uuid7()
        push, drain = writer.push, writer.drain
        room = ANSWER_MAX
        try:
            async with (
                asyncio.timeout(ANSWER_S),
                aclosing(self._resolved.model.stream(call)) as deltas,
            ):
                async for delta in deltas:
                    if isinstance(delta, models.Text | models.Reasoning):
                        room -= len(delta.text)
                        if room < 0:
                            raise ModelMalformed(f"an answer of over {ANSWER_MAX} characters")
                    match delta:
                        case models.Text(text=text, stamp=stamp):
                            pieces.append(text)
                            if not quiet:
                                push(event(Text(said.text_id, kind, text, stamp)))
                                await drain()
                        case models.Reasoning(text=text, stamp=stamp):
                            reasons.append(text)
                            if not quiet:
                                push(event(Text(said.reasoning_id, "reasoning", text, stamp)))
                                await drain()
                        case models.ToolCall():
                            if stride == "model" and len(said.calls) < CALLS_MAX:
                                said.calls = [*said.calls, delta]
                        case models.Ask(question=question):
                            if stride == "model":
                                said.ask = delta
                                pieces.append(question)
                                at = event(Text(said.text_id, kind, question, 0.0)).at
                                push(event(Text(said.text_id, kind, question, at)))
                        case models.Usage():
                            said.usage = delta
                        case models.Finish():
                            pass
        except TimeoutError:
            raise ModelTimeout(f"an answer that took over {ANSWER_S:g} s") from None
        finally:
            said.text = "".join(pieces)
            said.reasoning = "".join(reasons)

    def _kept(self, stride: Stride, said: Said, final: list[Telling]) -> list[NewMessage]:
        """The messages that a model call leaves, and in `final` what is told of them."""
        fresh: list[NewMessage] = []
        if said.reasoning and stride != "suggest":
            fresh.append(self._assistant(said.reasoning_id, "reasoning_content", said.reasoning))
        if stride == "suggest":
            suggestions = suggested(said.text)
            final += [Suggested(uuid7(), question) for question in suggestions]
            fresh.append(self._assistant(said.text_id, "query_suggest", "\n".join(suggestions)))
            return fresh
        if said.ask is not None:
            details = {"ask": said.ask.id, "question": said.ask.question}
            fresh.append(
                self._assistant(said.text_id, "assistant_text", said.text, details=details)
            )
            return fresh
        if said.text or not said.calls:
            kinds = {"think": "thinking", "summary": "summary"}
            type_ = MESSAGE_TYPES[kinds.get(stride, "answer")]
            fresh.append(self._assistant(said.text_id, type_, said.text))
        if said.calls:
            tool_calls = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                }
                for call in said.calls
            ]
            message_id = uuid7()
            final.append(Called(message_id, tool_calls))
            fresh.append(self._assistant(message_id, "tool_call", None, tool_calls=tool_calls))
        return fresh

    async def _after_failure(
        self, stride: Stride, writer: Writer, step: int, said: Said, error: ModelError
    ) -> Next:
        """A model call that failed ends the run, unless the answer stood already."""
        run = self._held()
        reason = REASONS.get(type(error), "model_failed")
        detail = str(error)
        if stride in ("summary", "suggest"):
            type_ = "stage_summary" if stride == "summary" else "query_suggest"
            fresh = [self._assistant(said.text_id or uuid7(), type_, said.text)]
            self._remember(fresh)
            ended = self._next_stride() == "end"
            final: list[Telling] = [Noted(uuid7(), reason, text=detail)]
            await self._commit(
                writer,
                lambda: self._finish(run, [(step, "error", None)], fresh, ends=ended),
                [*final, Ended("completed")] if ended else final,
            )
            return "done" if ended else "more"
        fresh = self._unfinished(stride, said)
        await self._commit(
            writer,
            lambda: self._finish(run, [(step, "error", None)], fresh, ends=True, reason=reason),
            [Failed(uuid7(), reason, detail), Ended("failed", reason)],
        )
        return "done"

    def _unfinished(self, stride: Stride, said: Said) -> list[NewMessage]:
        fresh = []
        cut = {"unfinished": True}
        if said.reasoning:
            fresh.append(
                self._assistant(said.reasoning_id, "reasoning_content", said.reasoning, details=cut)
            )
        if said.text:
            type_ = "thinking" if stride == "think" else "assistant_text"
            fresh.append(self._assistant(said.text_id, type_, said.text, details=cut))
        return fresh

    # --- tools ----------------------------------------------------------------------------------

    async def _call_tools(self) -> None:
        """Make every call that the model has asked for, side by side."""
        pending = self._pending()
        names = [call["function"]["name"] for call in pending]
        run, first, writer = await self._begin("tool", names)
        tasks = list(run.tasks or ())
        fresh: list[NewMessage | None] = [None] * len(pending)
        outcomes: list[tuple[int, Outcome, models.Usage | None]] = []

        async def call(place: int, asked: dict[str, Any]) -> None:
            nonlocal tasks
            name, arguments = asked["function"]["name"], asked["function"]["arguments"]
            if name in workflow_tools.NAMES and self._plan.workflows:
                text, after, fits = workflow_tools.follow(
                    name, arguments, self._plan.workflows, tasks
                )
                tasks = after or tasks
            else:
                text, fits = await self._use(name, arguments)
            message_id = uuid7()
            writer.push(event(Returned(message_id, asked["id"], name, text, not fits)))
            outcomes.append((first + place, "ok" if fits else "error", None))
            fresh[place] = NewMessage(
                id=uuid7(),
                message_id=message_id,
                role="tool",
                type="tool_call_result",
                text=text,
                tool_call_id=asked["id"],
                agent_name=self._plan.agent_name or None,
                run_id=run.id,
                details={"name": name},
            )

        async with asyncio.TaskGroup() as group:
            for place, asked in enumerate(pending):
                group.create_task(call(place, asked))
        kept = [message for message in fresh if message is not None]
        moved = tasks if tasks != list(run.tasks or ()) else None
        await self._commit(
            writer, lambda: self._finish(run, outcomes, kept, tasks=moved, ends=False), []
        )
        self._remember(kept)
        if moved is not None:
            self._run = msgspec.structs.replace(run, tasks=moved)

    async def _use(self, name: str, arguments: str) -> tuple[str, bool]:
        """A tool's result, or why there is none."""
        tool = self._tool(name)
        if tool is None:
            return f"There is no tool {name!r}.", False
        try:
            return await tool.call(arguments), True
        except (ToolFailed, GatewayError) as error:
            return f"{name} failed: {error}", False

    # --- rows and events ------------------------------------------------------------------------

    def _held(self) -> Run:
        if self._run is None:
            raise RuntimeError("the turn was not opened")
        return self._run

    async def _begin(
        self, kind: Literal["model", "tool"], names: Sequence[str]
    ) -> tuple[Run, int, Writer]:
        """Note calls that are about to go out; the first time, claim the run for this attempt.
        Returns the run, the first call's step, and the writer of what they bring."""
        run, parts, step = self._held(), self._parts, self._step
        if not self._claimed:
            run = await parts.database.write(lambda: self._claim(kind, step, list(names)))
            self._run, self._claimed = run, True
            if run.attempt > 1:
                self._line = await parts.log.last_line(stream_of(run.id))
        else:
            await parts.database.write(lambda: self._note(run, kind, step, list(names)))
        self._step += len(names)
        return run, step, parts.log.writer(stream_of(run.id), head=self._head, line=self._line)

    def _claim(self, kind: Literal["model", "tool"], step: int, names: list[str]) -> Unit[Run]:
        runs = self._parts.runs
        run = yield from runs.claim(self.run_id, self._parts.process_id)
        self._head = yield from self._parts.log.append(
            stream_of(run.id), [event(Begun(run.attempt))]
        )
        yield from runs.begin_calls(run, step, kind, names)
        return run

    def _note(
        self, run: Run, kind: Literal["model", "tool"], step: int, names: list[str]
    ) -> Unit[None]:
        yield from self._parts.runs.hold(run.id, run.attempt)
        yield from self._parts.runs.begin_calls(run, step, kind, names)

    def _finish(
        self,
        run: Run,
        outcomes: Sequence[tuple[int, Outcome, models.Usage | None]],
        fresh: Sequence[NewMessage],
        *,
        ends: bool,
        reason: str = "",
        tasks: list[dict[str, Any]] | None = None,
    ) -> Unit[None]:
        """The rows of a stride that is over, and of the run where it ends with it."""
        parts = self._parts
        if fresh:
            yield from parts.conversations.add_messages(run.conversation_id, fresh)
        elif ends:
            yield from parts.conversations.lock(run.conversation_id)
        yield from parts.runs.hold(run.id, run.attempt)
        for step, outcome, usage in outcomes:
            yield from parts.runs.end_call(
                run,
                step,
                outcome,
                usage.input_tokens if usage else None,
                usage.output_tokens if usage else None,
            )
        if tasks is not None:
            yield from parts.runs.set_tasks(run.id, run.attempt, tasks)
        if ends:
            if run.attempt > 1:
                yield from parts.runs.end_open_calls(run.id)
            state: State = "failed" if reason else "completed"
            yield from parts.runs.settle(run.id, state, reason or None, self._lines)
            yield from parts.log.append(f"user:{run.owner_id}", [changed(run.id, state)])

    async def _commit(
        self, writer: Writer, unit: Callable[[], Unit[None]], final: Sequence[Telling]
    ) -> None:
        """Commit a stride's rows with everything it told."""
        told: list[Event] = [event(telling) for telling in final]
        await writer.flush()
        self._lines = writer.line + sum(one.shown for one in told)
        await writer.close_with(unit, told)
        self._head, self._line = writer.head, writer.line

    async def _end_now(self) -> None:
        """End a run whose last stride was recorded and whose end was not."""
        run = self._held()
        if not self._claimed:
            run = await self._parts.database.write(lambda: self._claim("model", self._step, []))
            self._run, self._claimed = run, True
            self._line = await self._parts.log.last_line(stream_of(run.id))
        writer = self._parts.log.writer(stream_of(run.id), head=self._head, line=self._line)
        await self._commit(
            writer, lambda: self._finish(run, [], [], ends=True), [Ended("completed")]
        )

    def _tell_skipped(self, writer: Writer) -> None:
        skipped = dict(self._plan.skipped)
        wanted = [*(self._plan.tools or ()), *self._plan.mcp_tools]
        if wanted and not self._resolved.model.capabilities.tools:
            skipped["tools"] = [*skipped.get("tools", []), *wanted]
        names = [name for named in skipped.values() for name in named]
        if names:
            writer.push(event(Noted(uuid7(), "skipped", names)))

    def _assistant(
        self,
        message_id: str,
        type_: str,
        text: str | None,
        *,
        tool_calls: list[dict[str, Any]] | None = None,
        details: dict[str, Any] | None = None,
    ) -> NewMessage:
        return NewMessage(
            id=uuid7(),
            message_id=message_id,
            role="assistant",
            type=type_,
            text=text,
            tool_calls=tool_calls,
            agent_name=self._plan.agent_name or None,
            run_id=self.run_id,
            details=details,
        )

    def _remember(self, fresh: Sequence[NewMessage]) -> None:
        """Keep the rows at hand as they will read back."""
        run = self._held()
        self._messages += [
            Message(
                conversation_id=run.conversation_id,
                position=0,
                created_at=0.0,
                **msgspec.structs.asdict(message),
            )
            for message in fresh
        ]


def suggested(text: str) -> list[str]:
    """The questions in a model's answer: its first lines, without bullets and numbers."""
    lines = (line.strip().lstrip("-*•0123456789.) ").strip() for line in text.splitlines())
    return [line[:200] for line in lines if line][:SUGGESTIONS]

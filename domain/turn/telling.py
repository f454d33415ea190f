"""What a run tells as it goes: the payloads of its stream, neutral to every wire.

Types of events and their payloads:

    run.begun     Begun       an attempt took the run up; nothing to show
    run.noted     Noted       something the user should know about the run (shown)
    text          Text        a piece of a message; pieces of one message_id make it up (shown)
    tool.called   Called      the model asks for tools (shown)
    tool.returned Returned    what one of them gave (shown)
    tokens        Tokens      what a model call cost (shown)
    suggestion    Suggested   what the user may ask next (shown)
    failed        Failed      why the run failed (shown)
    run.ended     Ended       the last event of a run (shown)

and, for those who follow a session and not its lines:

    text.whole    Whole       a message is finished; this is all of it
    titled        Titled      the session has another title
    plan          Planned     what the run is going to do
    step          Stepped     a step of it has begun or ended
    waiting       Waiting     the run waits for an answer
    answered      Answered    and goes on with it

What a sub-agent does is told by the same types, with `by` saying who it is.
"""

from typing import Any, Literal

import msgspec

from storage.records import Event

TextKind = Literal["answer", "reasoning", "thinking", "summary"]
_encode = msgspec.json.Encoder().encode


class Delegated(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The task in which a sub-agent does something. `call_id` is the tool call that handed the
    task out, `within` the task of the agent that made it, "" for the run's own agent; `agent_id`
    is "" for a sub-agent that is not stored."""

    task_id: str
    agent_name: str
    call_id: str
    agent_id: str = ""
    within: str = ""

    def shown(self) -> dict[str, str]:
        """As lines and messages say it, under `task` in their metadata."""
        return {
            "task_id": self.task_id,
            "agent_id": self.agent_id,
            "tool_call_id": self.call_id,
            "parent_task_id": self.within,
        }


class Begun(msgspec.Struct, frozen=True, gc=False):
    attempt: int


class Noted(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """`what` is a key (skipped, loop_limit, interrupted, …); `names` what it is about; `text` is
    a caller's own words and stands for both."""

    message_id: str
    what: str
    names: list[str] = []
    text: str = ""
    by: Delegated | None = None


class Text(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """`at` is when the model produced it, in seconds since the epoch."""

    message_id: str
    kind: TextKind
    text: str
    at: float
    by: Delegated | None = None


class Whole(msgspec.Struct, frozen=True, gc=False):
    message_id: str
    kind: TextKind
    text: str


class Called(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """`tool_calls` have the shape of OpenAI's chat completions; `toolboxes` say of each what kind
    of tool it names."""

    message_id: str
    tool_calls: list[dict[str, Any]]
    toolboxes: list[str] = []
    by: Delegated | None = None


class Returned(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """`text` is what the model reads; `content` what else there is to show, by the toolbox."""

    message_id: str
    tool_call_id: str
    name: str
    text: str
    failed: bool = False
    toolbox: str = ""
    arguments: str = ""
    content: dict[str, Any] | None = None
    by: Delegated | None = None


class Tokens(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    message_id: str
    model: str
    input_tokens: int
    output_tokens: int
    estimated: bool = False
    by: Delegated | None = None


class Suggested(msgspec.Struct, frozen=True, gc=False):
    """A question that the user may ask next."""

    message_id: str
    question: str


class Failed(msgspec.Struct, frozen=True, gc=False):
    """`reason` is a run's reason; `detail` says more in the words of what failed."""

    message_id: str
    reason: str
    detail: str = ""


class Ended(msgspec.Struct, frozen=True, gc=False):
    """`state` is the run's final state, `reason` why, if it is not `completed`."""

    state: str
    reason: str = ""


class Titled(msgspec.Struct, frozen=True, gc=False):
    title: str


class Planned(msgspec.Struct, frozen=True, gc=False):
    """`steps` are a run's tasks."""

    steps: list[dict[str, Any]]


class Stepped(msgspec.Struct, frozen=True, gc=False):
    id: str
    description: str
    status: str


class Waiting(msgspec.Struct, frozen=True, gc=False):
    """`message_id` is the question's."""

    message_id: str


class Answered(msgspec.Struct, frozen=True, gc=False):
    """`attachments` are files as a run's plan keeps them."""

    message_id: str
    text: str
    attachments: list[dict[str, Any]] = []


Shown = Begun | Noted | Text | Called | Returned | Tokens | Suggested | Failed | Ended
Followed = Whole | Titled | Planned | Stepped | Waiting | Answered
Telling = Shown | Followed

TYPES: dict[type, str] = {
    Begun: "run.begun",
    Noted: "run.noted",
    Text: "text",
    Called: "tool.called",
    Returned: "tool.returned",
    Tokens: "tokens",
    Suggested: "suggestion",
    Failed: "failed",
    Ended: "run.ended",
    Whole: "text.whole",
    Titled: "titled",
    Planned: "plan",
    Stepped: "step",
    Waiting: "waiting",
    Answered: "answered",
}
ENDED = TYPES[Ended]
WAITING = TYPES[Waiting]
HIDDEN = frozenset({Begun, Whole, Titled, Planned, Stepped, Waiting, Answered})
"""What shows no line."""
DECODERS: dict[str, msgspec.json.Decoder[Any]] = {
    type_: msgspec.json.Decoder(payload) for payload, type_ in TYPES.items()
}
"""By event type: what reads its payload."""


def event(telling: Telling) -> Event:
    """The event that tells it."""
    payload = type(telling)
    return Event(TYPES[payload], _encode(telling), shown=payload not in HIDDEN)


def stream_of(run_id: str) -> str:
    """The stream of a run."""
    return f"run:{run_id}"

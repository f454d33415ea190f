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
"""

from typing import Any, Literal

import msgspec

from storage.records import Event

TextKind = Literal["answer", "reasoning", "thinking", "summary"]
_encode = msgspec.json.Encoder().encode


class Begun(msgspec.Struct, frozen=True, gc=False):
    attempt: int


class Noted(msgspec.Struct, frozen=True, gc=False):
    """`what` is a key (skipped, loop_limit, interrupted, …); `names` what it is about; `text` is
    a caller's own words and stands for both."""

    message_id: str
    what: str
    names: list[str] = []
    text: str = ""


class Text(msgspec.Struct, frozen=True, gc=False):
    """`at` is when the model produced it, in seconds since the epoch."""

    message_id: str
    kind: TextKind
    text: str
    at: float


class Called(msgspec.Struct, frozen=True, gc=False):
    """`tool_calls` have the shape of OpenAI's chat completions."""

    message_id: str
    tool_calls: list[dict[str, Any]]


class Returned(msgspec.Struct, frozen=True, gc=False):
    message_id: str
    tool_call_id: str
    name: str
    text: str
    failed: bool = False


class Tokens(msgspec.Struct, frozen=True, gc=False):
    message_id: str
    model: str
    input_tokens: int
    output_tokens: int
    estimated: bool = False


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


Telling = Begun | Noted | Text | Called | Returned | Tokens | Suggested | Failed | Ended

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
}
ENDED = TYPES[Ended]
DECODERS: dict[str, msgspec.json.Decoder[Any]] = {
    type_: msgspec.json.Decoder(payload) for payload, type_ in TYPES.items()
}
"""By event type: what reads its payload."""


def event(telling: Telling) -> Event:
    """The event that tells it."""
    payload = type(telling)
    return Event(TYPES[payload], _encode(telling), shown=payload is not Begun)


def stream_of(run_id: str) -> str:
    """The stream of a run."""
    return f"run:{run_id}"

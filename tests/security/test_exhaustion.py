"""A model at an address of the user's own asks for more than it gets."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from domain.turn import images, listening
from tests.gateways.peer import Peer, Request, plain
from tests.security.place import Place, opened, unique


def completion(**message: Any) -> bytes:
    body = {
        "id": "1",
        "object": "chat.completion",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", **message},
                "finish_reason": "tool_calls" if message.get("tool_calls") else "stop",
            }
        ],
    }
    return plain(body=json.dumps(body), media_type="application/json")


class Model(Peer):
    """Answers what it is told to, once; then says that it is done."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[bytes] = []
        self.asked: list[Any] = []
        self.routes["/v1/chat/completions"] = self.complete

    async def complete(self, request: Request, writer: Any) -> None:
        self.asked.append(json.loads(request.body))
        writer.write(self.answers.pop(0) if self.answers else completion(content="done"))


@pytest.fixture
async def model() -> AsyncIterator[Model]:
    peer = Model()
    await peer.start()
    yield peer
    await peer.stop()


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with opened(tmp_path / "data", outbound_allow=("127.0.0.1",)) as made:
        yield await made.populate()


def chat(model: Model, content: Any) -> dict[str, Any]:
    return {
        "messages": [{"role": "user", "content": content}],
        "session_id": unique("greedy"),
        "llm_model_config": {
            "base_url": f"{model.url}/v1",
            "model": "m",
            "supports_multimodal": True,
        },
    }


async def test_a_hundred_calls_of_one_answer_are_not_all_made(place: Place, model: Model) -> None:
    calls = [
        {
            "id": f"call-{number}",
            "type": "function",
            "function": {"name": "web_fetch", "arguments": f'{{"url":"{model.url}/{number}"}}'},
        }
        for number in range(100)
    ]
    model.answers.append(completion(content=None, tool_calls=calls))
    reply = await place.owner.ask("POST", "/api/stream", chat(model, "fetch"))
    assert b'"content":"done"' in reply.body, reply.body[-500:]
    fetched = [request.target for request in model.requests if "/v1/" not in request.target]
    assert 0 < len(fetched) <= listening.CALLS_MAX
    results = [one for one in model.asked[-1]["messages"] if one["role"] == "tool"]
    assert len(results) == listening.CALLS_MAX


async def test_the_latest_images_are_read_and_no_more(place: Place, model: Model) -> None:
    for number in range(40):
        model.routes[f"/{number}.png"] = plain(body=b"\x89PNG", media_type="image/png")
    parts = [
        {"type": "image_url", "image_url": {"url": f"{model.url}/{number}.png"}}
        for number in range(40)
    ]
    body = chat(model, [*parts, {"type": "text", "text": "look"}])
    reply = await place.owner.ask("POST", "/api/stream", body)
    assert b'"content":"done"' in reply.body, reply.body[-500:]
    read = {request.target for request in model.requests if request.target.endswith(".png")}
    assert read == {f"/{number}.png" for number in range(40 - images.IMAGES_MAX, 40)}
    shown = model.asked[-1]["messages"][-1]["content"]
    assert [part["type"] for part in shown[-17:]] == ["image_url"] * 16 + ["text"]


async def test_images_that_are_too_large_together_end_the_run(
    place: Place, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "CHARACTERS_MAX", 10_000)
    model.routes["/large.png"] = plain(body=b"\x89PNG" * 1000, media_type="image/png")
    part = {"type": "image_url", "image_url": {"url": f"{model.url}/large.png"}}
    reply = await place.owner.ask("POST", "/api/stream", chat(model, [part] * 4))
    lines = [json.loads(line) for line in reply.body.splitlines()]
    assert [line["type"] for line in lines][-2:] == ["error", "stream_end"]
    assert "too large" in lines[-2]["content"]
    assert model.asked == []

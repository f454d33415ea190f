"""Drafts written by real models."""

import json
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import jsonschema_rs
import msgspec
import pytest

from domain.drafting import Drafting, draft_schema
from domain.errors import Unusable
from domain.providers import ProviderFields
from domain.sense import is_about, is_language
from gateways.models.model import Delta, ModelCall, Text
from gateways.models.script import ScriptModel
from storage.opening import open_database
from tests.providers.parts import ANN, Parts, endpoint, parts

DRAFT = {
    "name": "Comparer",
    "description": "Compares products.",
    "systemPrefix": "You compare products.",
    "systemContext": {"region": "EU"},
    "availableWorkflows": {"compare": ["Find", "Compare"]},
    "availableTools": ["web_search"],
}


@pytest.fixture
async def here(data: Path) -> AsyncIterator[Parts]:
    database = await open_database("", data)
    async with parts(database) as made:
        yield made
    await database.close()


def script(*steps: object) -> str:
    return "script:" + json.dumps(steps)


async def test_a_draft_is_what_the_model_wrote(here: Parts) -> None:
    draft = await here.drafting.draft(ANN, script({"json": DRAFT}), ["web_search"])
    assert msgspec.to_builtins(draft) == DRAFT


async def test_json_is_found_in_what_surrounds_it(here: Parts) -> None:
    wrapped = f"Here you are:\n```json\n{json.dumps(DRAFT)}\n```"
    draft = await here.drafting.draft(ANN, script({"say": wrapped}))
    assert draft.name == "Comparer"


@pytest.mark.parametrize(
    "answer",
    [
        {"json": {**DRAFT, "availableTools": ["format_disk"]}},
        {"json": {**DRAFT, "owner": "root"}},
        {"json": {**DRAFT, "name": ""}},
        {"json": {key: DRAFT[key] for key in list(DRAFT)[1:]}},
        {"say": "no JSON"},
        {"say": "} {"},
        {"say": "[" * 3000 + "{" + "}"},
        {"tokens": 0},
    ],
)
async def test_what_is_not_of_the_schema_is_refused(here: Parts, answer: object) -> None:
    with pytest.raises(Unusable) as caught:
        await here.drafting.draft(ANN, script(answer), ["web_search"])
    assert caught.value.key == "model.bad_json"


async def test_a_failing_model_is_named_and_not_asked_again(here: Parts, data: Path) -> None:
    with pytest.raises(Unusable) as caught:
        await here.drafting.draft(ANN, script({"fail": "out of order", "status": 503}))
    assert caught.value.key == "model.failed"
    assert "out of order" in caught.value.details["reason"]


async def test_an_answer_off_the_schema_is_asked_for_once_more(data: Path) -> None:
    database = await open_database("", data)
    async with endpoint("sk-draft-key") as (base_url, server):
        port = base_url.split(":")[2].split("/")[0]
        async with parts(database, allow=(f"model=127.0.0.1:{port}",)) as here:
            provider = await here.providers.create(
                ANN,
                ProviderFields(
                    base_url=base_url,
                    api_key="sk-draft-key",
                    model="m",
                    supports_structured_output=True,
                ),
            )
            await here.providers.update(ANN, provider, ProviderFields(is_default=True))
            with pytest.raises(Unusable):
                await here.drafting.draft(ANN, script({"say": "no"}))
            assert server.calls == 2
            with pytest.raises(Unusable):
                await here.drafting.draft(ANN, script({"fail": "no", "status": 500}))
            assert server.calls == 3
            draft = await here.drafting.draft(ANN, "something plain", ["web_search"])
            assert server.calls == 4
            assert draft.name == "something plain"
            sent = server.last["messages"]
            assert sent[-1] == {"role": "user", "content": "something plain"}
            assert "web_search" in sent[0]["content"]
    await database.close()


async def test_a_prompt_is_optimized(here: Parts) -> None:
    prompt = script({"json": {"optimized_prompt": " Better. "}})
    assert await here.drafting.optimize(ANN, prompt, "brevity") == "Better."
    with pytest.raises(Unusable) as caught:
        await here.drafting.optimize(ANN, script({"json": {"other": "x"}}))
    assert caught.value.key == "model.bad_json"


@pytest.mark.timeout(300)
async def test_the_embedded_model_drafts_and_optimizes(data: Path) -> None:
    database = await open_database("", data)
    described = "An assistant that compares products and cites its sources."
    prompt = "You are a careful research assistant."
    async with parts(database, default="embedded/smollm2") as here:
        draft = await here.drafting.draft(ANN, described, ["web_search"])
        found = msgspec.to_builtins(draft)
        jsonschema_rs.validator_for(draft_schema(["web_search"])).validate(found)
        for words in (draft.description, draft.systemPrefix):
            assert is_language(words)
            assert is_about(words, described)
        try:
            written = await here.drafting.optimize(ANN, prompt)
        except Unusable as refusal:
            written = refusal.key
        assert written == "model.no_sense" or is_about(written, prompt)
    await database.close()


NOISE = {
    "name": ",#1234567890ABCDDEFGHIJKLMNOPQRS",
    "description": "abcddefghijklmnopqrstuvwxyzABCDEFHGCMDSCJSNABZBBCCDDDLLCSHSQRTVWXYHRUFHAJCALMD",
    "systemPrefix": "Systems Pref 1028956743 - A-D-E,",
    "systemContext": {},
    "availableWorkflows": {},
    "availableTools": ["calculator"],
}
ELSEWHERE = "The Federal Government has been working on new ideas since last summer."


class Says(ScriptModel):
    """A model that answers with one object, whatever it is asked."""

    def __init__(self, answer: dict[str, object]) -> None:
        self.answer = answer

    async def stream(self, call: ModelCall) -> AsyncGenerator[Delta, None]:
        yield Text(json.dumps(self.answer), 0.0)


@pytest.mark.parametrize("noise", ["name", "description", "systemPrefix"])
async def test_a_draft_of_noise_is_made_of_the_description(here: Parts, noise: str) -> None:
    """Letters that fitted the schema were passed on as a success."""
    described = "An assistant that compares products, and cites its sources."
    here.choices._embedded["embedded/script"] = Says({**DRAFT, noise: NOISE[noise]})
    draft = await here.drafting.draft(ANN, described, ["web_search", "web_search"])
    assert draft.description == described
    assert draft.name == "An assistant that compares products, and cites it…"[: len(draft.name)]
    assert draft.systemPrefix.startswith(Drafting.default_prompt("en"))
    assert draft.systemPrefix.endswith(described)
    assert (draft.availableTools, draft.systemContext) == (["web_search"], {})
    here.choices._embedded["embedded/script"] = Says(DRAFT)
    assert msgspec.to_builtins(await here.drafting.draft(ANN, described, ["web_search"])) == DRAFT


async def test_a_draft_about_something_else_is_made_of_the_description(here: Parts) -> None:
    here.choices._embedded["embedded/script"] = Says({**DRAFT, "systemPrefix": ELSEWHERE})
    draft = await here.drafting.draft(ANN, "帮我写一个可以翻译合同的助手。")
    assert draft.name == "帮我写一个可以翻译合同的助手"
    assert draft.systemPrefix.startswith(Drafting.default_prompt("zh"))
    assert draft.availableTools == []


@pytest.mark.parametrize("written", [NOISE["description"], ELSEWHERE, "{{{#1}}, {{}}},", " "])
async def test_a_prompt_is_not_improved_by_noise(here: Parts, written: str) -> None:
    here.choices._embedded["embedded/script"] = Says({"optimized_prompt": written})
    with pytest.raises(Unusable) as caught:
        await here.drafting.optimize(ANN, "You research carefully.", "Ask for sources.")
    assert caught.value.key == "model.no_sense"
    for better in ("Research with care.", "Name your sources, always."):
        here.choices._embedded["embedded/script"] = Says({"optimized_prompt": better})
        written = await here.drafting.optimize(ANN, "You research carefully.", "Ask for sources.")
        assert written == better


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("Compares products.", True),
        ("Donaudampfschifffahrtsgesellschaften!", True),
        ("你是一个法律助手，回答用户的问题。", True),
        ("Отвечай кратко.", True),
        ("no " * 30, False),
        ("1234 5678", False),
        ("x" * 41, False),
        ("<>{}[]a", False),
        (" ", False),
    ],
)
def test_what_looks_like_language(text: str, fits: bool) -> None:
    assert is_language(text) is fits


@pytest.mark.parametrize(
    ("text", "subject", "fits"),
    [
        ("You handle refund requests.", "A bot for refunds", True),
        ("你翻译合同。", "帮我写一个可以翻译合同的助手", True),
        ("You translate contracts.", "帮我写一个可以翻译合同的助手", False),
        ("You are an assistant.", "An assistant for refunds", False),
        ("Anything.", "You are a helpful assistant.", True),
        ("Anything.", "AI?", True),
    ],
)
def test_what_a_text_is_about(text: str, subject: str, fits: bool) -> None:
    assert is_about(text, subject) is fits


def test_the_default_prompts_are_whole() -> None:
    zh, en = (Drafting.default_prompt(language) for language in ("zh", "en"))
    assert zh.startswith("你是")
    assert en.startswith("You are")
    for heading in ("# 工作方式", "# 回答方式", "# 边界"):
        assert heading in zh
    assert en.count("\n# ") == zh.count("\n# ") == 3

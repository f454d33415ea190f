"""Drafts written by real models."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import jsonschema_rs
import msgspec
import pytest

from domain.drafting import Drafting, draft_schema
from domain.errors import Unusable
from domain.providers import ProviderFields
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
            assert draft.name == "x"
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
    async with parts(database, default="embedded/smollm2") as here:
        draft = await here.drafting.draft(
            ANN, "An assistant that compares products and cites its sources.", ["web_search"]
        )
        found = msgspec.to_builtins(draft)
        jsonschema_rs.validator_for(draft_schema(["web_search"], brief=True)).validate(found)
        assert draft.name.strip()
        assert draft.systemPrefix.strip()
        assert await here.drafting.optimize(ANN, "You are a careful research assistant.")
    await database.close()


def test_the_default_prompts_are_whole() -> None:
    zh, en = (Drafting.default_prompt(language) for language in ("zh", "en"))
    assert zh.startswith("你是")
    assert en.startswith("You are")
    for heading in ("# 工作方式", "# 回答方式", "# 边界"):
        assert heading in zh
    assert en.count("\n# ") == zh.count("\n# ") == 3

"""The model of sessions, and the limits of their agent."""

import asyncio

import msgspec
import pytest
from sqlalchemy import select

from domain.errors import PreconditionFailed, Unusable
from domain.model_choice import Choice
from domain.platform.config import AgentSettings, LlmSettings
from gateways.secretbox import SecretBox
from server.administration.keys import rewrap
from storage.database import Statement
from storage.schema import settings
from storage.stored_settings import StoredSettings
from tests.app_config.conftest import ANN, ROOT, Here

KEY = "sk-canary-2f8e4c11"
ENDPOINT = LlmSettings(
    base_url="http://127.0.0.1:9/v1", model_name="m", temperature=0.5, max_tokens=100
)


async def test_until_somebody_sets_it_the_servers_default_serves(here: Here) -> None:
    config = here.platform.config
    found = await config.llm()
    assert (found.base_url, found.model_name) == ("", "embedded/script")
    choice = await here.choices.choose(ANN, config=await config.model())
    assert choice == Choice(provider_id="embedded/script"), "with the model's own limits"
    assert (await here.choices.open(choice)).name == "embedded/script"
    assert await config.set_llm(ROOT, found) == msgspec.convert(
        msgspec.to_builtins(await config.llm()), type(await config.llm())
    ), "what is read can be sent back"


async def test_sessions_talk_to_what_is_set(here: Here) -> None:
    """Whoever they belong to, and whatever provider that account has as its own."""
    config = here.platform.config
    shown = await config.set_llm(ROOT, ENDPOINT, KEY)
    assert msgspec.structs.replace(shown, api_key_sealed="") == await cleared(here)
    told = await config.model()
    assert told == {
        "base_url": ENDPOINT.base_url,
        "model": "m",
        "api_key": KEY,
        "temperature": 0.5,
        "max_tokens": 100,
    }
    choice = await here.choices.choose(ANN, config=told)
    assert (choice.base_url, choice.model, choice.max_tokens) == (ENDPOINT.base_url, "m", 100)
    assert KEY not in repr(choice), "the plan of a run holds it sealed"
    await config.set_llm(ROOT, msgspec.structs.replace(ENDPOINT, max_tokens=0))
    assert (await config.model())["max_tokens"] is None


async def cleared(here: Here) -> LlmSettings:
    """The stored model without its key."""
    return msgspec.structs.replace(await here.platform.config.llm(), api_key_sealed="")


async def test_a_blank_key_keeps_the_stored_one_for_its_host_alone(here: Here) -> None:
    config = here.platform.config
    await config.set_llm(ROOT, ENDPOINT, KEY)
    moved = msgspec.structs.replace(ENDPOINT, base_url="http://127.0.0.1:9/v2/", model_name="n")
    await config.set_llm(ROOT, moved)
    assert (await config.model())["api_key"] == KEY
    elsewhere = msgspec.structs.replace(ENDPOINT, base_url="http://127.0.0.1:10/v1")
    with pytest.raises(Unusable) as refused:
        await config.set_llm(ROOT, elsewhere)
    assert refused.value.key == "provider.key_needed"
    assert (await config.llm()).model_name == "n", "nothing was changed"
    await config.set_llm(ROOT, elsewhere, "another-key")
    assert (await config.model())["api_key"] == "another-key"
    inside = LlmSettings(base_url="", model_name="embedded/script")
    await config.set_llm(ROOT, inside)
    assert "api_key" not in await config.model()
    await config.set_llm(ROOT, elsewhere)
    assert "api_key" not in await config.model(), "the key went with its endpoint"


@pytest.mark.parametrize(
    ("fields", "key", "why"),
    [
        ({"base_url": "http://10.0.0.1/v1"}, "", "provider.address_refused"),
        ({"base_url": "http://169.254.169.254/v1"}, "", "provider.address_refused"),
        ({"base_url": "http://127.1/v1"}, "", "provider.address_invalid"),
        ({"base_url": "file:///etc/passwd"}, "", "provider.address_invalid"),
        ({"base_url": "http://127.0.0.1:9/v1?x=1"}, "", "provider.address_invalid"),
        ({"model_name": "  "}, "", "platform.model_missing"),
        ({"base_url": "", "model_name": "gpt"}, "", "platform.model_unknown"),
        ({}, "****4c11", "provider.key_masked"),
        ({"base_url": "", "model_name": "embedded/script"}, KEY, "platform.key_needless"),
        ({"base_url": "", "model_name": ""}, KEY, "platform.key_needless"),
    ],
)
async def test_what_cannot_be_set(here: Here, fields: dict[str, str], key: str, why: str) -> None:
    with pytest.raises(Unusable) as refused:
        await here.platform.config.set_llm(ROOT, msgspec.structs.replace(ENDPOINT, **fields), key)
    assert refused.value.key == why
    assert (await here.platform.config.llm()).base_url == ""


async def test_the_key_is_sealed(here: Here) -> None:
    await here.platform.config.set_llm(ROOT, ENDPOINT, KEY)
    stored = await StoredSettings(here.database).find("sandbox.llm", None)
    assert KEY not in repr(stored)
    assert here.box.open(stored["api_key_sealed"], "deployment:sandbox.llm") == KEY


async def test_the_limits_of_the_agent(here: Here) -> None:
    config = here.platform.config
    assert await config.agent() == AgentSettings(
        max_iterations=100, max_retries=3, max_search_results=10
    )
    wanted = AgentSettings(max_iterations=999, max_retries=2, max_search_results=29)
    stored = msgspec.structs.replace(wanted, version=2)
    assert await config.set_agent(ROOT, wanted) == stored == await config.agent()


async def test_the_operators_cap_binds_strangers(here: Here) -> None:
    """Where the operator lets anybody set the limits (SANDBOX_OPEN_CONFIG)."""
    config = here.platform.config
    for asked, stored in ((999, 50), (51, 50), (50, 50), (7, 7)):
        wanted = AgentSettings(max_iterations=asked, max_retries=2)
        assert (await config.set_agent(ANN, wanted)).max_iterations == stored
        assert (await config.agent()).max_iterations == stored
        assert (await config.set_agent(ROOT, wanted)).max_iterations == asked


async def test_a_change_meant_for_another_version(here: Here) -> None:
    config = here.platform.config
    first = await config.set_llm(ROOT, ENDPOINT, KEY, if_match=0)
    assert first.version == 1
    agent = await config.agent()
    assert (await config.set_agent(ROOT, agent, if_match=agent.version)).version == 2
    for outdated in (config.set_llm(ROOT, ENDPOINT, "x", 0), config.set_agent(ROOT, agent, 1)):
        with pytest.raises(PreconditionFailed):
            await outdated
    assert (await config.model())["api_key"] == KEY
    assert (await config.agent()).version == 2


@pytest.mark.parametrize("noun", ["llm", "agent"])
async def test_of_many_changes_of_one_version_one_is_made(here: Here, noun: str) -> None:
    """From the first one on, which finds no row."""
    config = here.platform.config

    async def change(number: int, version: int) -> None:
        if noun == "llm":
            inside = LlmSettings(base_url="", model_name="embedded/script", max_tokens=number)
            await config.set_llm(ROOT, inside, if_match=version)
        else:
            await config.set_agent(ROOT, AgentSettings(max_iterations=number), version)

    for version in (0, 1, 2) if noun == "llm" else (1, 2, 3):
        done = await asyncio.gather(
            *(change(number, version) for number in range(1, 9)), return_exceptions=True
        )
        assert (
            sorted(type(one).__name__ for one in done) == ["NoneType"] + ["PreconditionFailed"] * 7
        )
        found = await (config.llm() if noun == "llm" else config.agent())
        assert found.version == version + 1


async def test_a_refused_first_change_leaves_nothing(here: Here) -> None:
    config = here.platform.config
    before = (await config.llm(), await config.agent())
    for outdated in (config.set_llm(ROOT, ENDPOINT, KEY, 7), config.set_agent(ROOT, before[1], 7)):
        with pytest.raises(PreconditionFailed):
            await outdated
    assert (await config.llm(), await config.agent()) == before
    assert await here.database.read(Statement(select(settings))()) == []


async def test_a_new_secrets_key_wraps_them_anew(here: Here) -> None:
    await here.platform.config.set_llm(ROOT, ENDPOINT, KEY)
    config = {"transport": "stdio", "command": "x", "env": {"A": KEY}}
    await here.platform.mcp.merge(ROOT, {"a": {**config, "enabled": False}})
    new = bytes(range(32, 64))
    changed = await rewrap(here.database, SecretBox([new, bytes(range(32))]))
    assert changed["the key of the platform's model"] == 1
    assert changed["configurations of MCP servers"] == 1
    stored = await StoredSettings(here.database).find("sandbox.llm", None)
    assert SecretBox([new]).open(stored["api_key_sealed"], "deployment:sandbox.llm") == KEY
    [kept] = await here.platform.mcp.list()
    opened = SecretBox([new]).open(kept.server.config_sealed, f"mcp:{kept.server.id}")
    assert KEY in opened

"""What commands of a session reach, and who lets them."""

from pathlib import Path

import pytest

from tests.sessions.talking import Place, script, served

OPEN = {"SANDBOX_NETWORK": "true"}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "Couldn't connect"),
        (OPEN, "127.0.0.1 is not a public address"),
        (OPEN | {"OUTBOUND_ALLOW": "fetch=127.0.0.1"}, "127.0.0.1 is not a public address"),
        (OPEN | {"OUTBOUND_ALLOW": "sandbox=127.0.0.1"}, "HTTP/1.1 200 OK"),
    ],
)
async def test_what_the_operator_opens_is_reached(
    tmp_path: Path, given: dict[str, str], told: str
) -> None:
    with served(tmp_path / "data", "sqlite", given) as server:
        here = Place(server)
        ann = await here.account()
        session = await ann.create()
        command = f"curl -sSi --noproxy '' {server.url}/ready 2>&1"
        await ann.chat(session, script({"call": "shell_execute", "args": {"command": command}}))
        console = await ann.ask(
            "POST", f"/sandbox/api/sessions/{session}/shell", {"session_id": "main"}
        )
        assert told in console["output"]
        await here.close()

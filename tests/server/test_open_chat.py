"""`SAGE_OPEN_CHAT`: strangers may chat, and may do nothing else."""

import json
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.server.http import Answer, ask, bearer
from tests.serving import serving

SCRIPT = 'script:[{"call":"calculator","args":{"expression":"1+1"}},{"say":"done"}]'


def said(answer: Answer) -> list[dict[str, Any]]:
    return [json.loads(line) for line in answer.body.decode().splitlines() if line]


def asked(text: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **more}


def test_open_chat_lets_strangers_talk_and_nothing_more(tmp_path: Path) -> None:
    given = {
        "SAGE_OPEN_CHAT": "true",
        "OPEN_CHAT_RATE": "4/minute",
        "ADMIN_PASSWORD": "correct horse",
        "DEFAULT_PROVIDER": "embedded/script",
    }
    with serving(tmp_path / "data", given=given) as server:
        stream = f"{server.url}/api/stream"
        first = ask(stream, "POST", asked("a secret of mine", session_id="shared"))
        assert first.status == 200
        lines = said(first)
        assert lines[-1]["type"] == "stream_end"
        own = lines[-1]["session_id"]
        assert own != "shared"

        second = ask(stream, "POST", asked("hello", session_id="shared"))
        assert said(second)[-1]["session_id"] not in (own, "shared")
        assert b"secret of mine" not in second.body

        tools = said(ask(stream, "POST", asked(SCRIPT)))
        results = [line["content"] for line in tools if line["type"] == "tool_call_result"]
        assert results == ["There is no tool 'calculator'."]

        for path in ("/api/web-stream", "/api/agent/create"):
            assert ask(f"{server.url}{path}", "POST", asked("x")).status == 401
        assert ask(f"{server.url}/api/conversations").status == 401
        assert ask(f"{server.url}/api/conversations/{own}/messages").status == 401
        forged = ask(stream, "POST", asked("x"), {"Authorization": "Bearer nonsense"})
        assert forged.status == 401

        admin = bearer(server.url, "admin", "correct horse")
        made = ask(f"{server.url}/api/agent/create", "POST", {"name": "Front desk"}, admin)
        agent = made.json()["data"]["agent_id"]
        chat = asked("hi", agent_id=agent)
        assert ask(f"{server.url}/api/chat", "POST", chat).status == 404
        grant = {"user_ids": ["open-chat"]}
        assert ask(f"{server.url}/api/agent/{agent}/auth", "POST", grant, admin).status == 200

        throttled = ask(f"{server.url}/api/chat", "POST", chat)
        assert throttled.status == 429
        assert ask(f"{server.url}/api/chat", "POST", chat, admin).status == 200


def test_a_banned_account_shuts_what_it_opened(tmp_path: Path) -> None:
    """At once, over a restart, and until it is active again."""
    given = {
        "SAGE_OPEN_CHAT": "true",
        "ADMIN_PASSWORD": "correct horse",
        "DEFAULT_PROVIDER": "embedded/script",
    }
    with serving(tmp_path / "data", given=given) as server:
        admin = bearer(server.url, "admin", "correct horse")
        banned = f"{server.url}/sandbox/api/admin/users/open-chat/status"
        assert ask(banned, "PUT", {"status": "banned"}, admin).status == 200
        assert ask(f"{server.url}/api/stream", "POST", asked("x")).status == 401
    with serving(tmp_path / "data", given=given) as server:
        stream = f"{server.url}/api/stream"
        assert ask(stream, "POST", asked("x")).status == 401
        admin = bearer(server.url, "admin", "correct horse")
        status = f"{server.url}/sandbox/api/admin/users/open-chat/status"
        assert ask(status, "PUT", {"status": "active"}, admin).status == 200
        assert ask(stream, "POST", asked("x")).status == 200


def test_strangers_have_keys_of_their_own(tmp_path: Path) -> None:
    """An `Idempotency-Key` repeats an answer to the address that it was given to."""
    given = {
        "SAGE_OPEN_CHAT": "true",
        "DEFAULT_PROVIDER": "embedded/script",
        "TRUSTED_PROXIES": "127.0.0.1",
    }
    with serving(tmp_path / "data", given=given) as server:

        def sessions(address: str) -> set[str]:
            headers = {"Idempotency-Key": "1", "X-Forwarded-For": address}
            answer = ask(f"{server.url}/api/stream", "POST", asked("my secret"), headers)
            return {line["session_id"] for line in said(answer)}

        first = sessions("198.51.100.1")
        assert len(first) == 1
        assert sessions("198.51.100.1") == first
        assert not sessions("198.51.100.2") & first


def test_a_page_of_another_site_is_no_stranger(tmp_path: Path) -> None:
    given = {"SAGE_OPEN_CHAT": "true", "DEFAULT_PROVIDER": "embedded/script"}
    with serving(tmp_path / "data", given=given) as server:
        for elsewhere in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
            refused = ask(f"{server.url}/api/stream", "POST", asked("x"), elsewhere)
            assert refused.status == 403
        ours = {"Origin": server.url, "Sec-Fetch-Site": "same-origin"}
        assert ask(f"{server.url}/api/stream", "POST", asked("x"), ours).status == 200


def test_strangers_have_the_server_connect_to_nothing(tmp_path: Path) -> None:
    """Nor does it look an address up: it was asked for whatever the allow-list opens."""
    with socket.create_server(("127.0.0.1", 0)) as inside:
        inside.settimeout(0)
        port = inside.getsockname()[1]
        url = f"http://127.0.0.1:{port}/"
        given = {
            "SAGE_OPEN_CHAT": "true",
            "OPEN_CHAT_RATE": "100/minute",
            "ADMIN_PASSWORD": "correct horse",
            "DEFAULT_PROVIDER": "embedded/script",
            "OUTBOUND_ALLOW": f"127.0.0.1:{port}",
        }

        def image(of: str) -> dict[str, Any]:
            part = {"type": "image_url", "image_url": {"url": of}}
            return {"messages": [{"role": "user", "content": [part]}]}

        ways = {
            "llm_model_config.base_url": asked(
                "x", llm_model_config={"base_url": f"{url}v1", "model": "m", "api_key": "k"}
            ),
            "extra_mcp_config": asked("x", extra_mcp_config={"docs": {"url": url}}),
            "image_url": image(url),
        }
        with serving(tmp_path / "data", given=given) as server:
            stream = f"{server.url}/api/stream"
            for what, body in ways.items():
                refused = ask(stream, "POST", body, {"Accept-Language": "en"})
                assert (refused.status, refused.json()["code"]) == (403, 403)
                assert refused.json()["message"] == f"An address in {what} needs a login."
            with pytest.raises(BlockingIOError):
                inside.accept()

            own = asked("hi", llm_model_config={"llm_provider_id": "embedded/script"})
            for body in (own, asked("hi", extra_mcp_config={}), image("data:image/png;base64,AA")):
                assert said(ask(stream, "POST", body))[-1]["type"] == "stream_end"
            admin = bearer(server.url, "admin", "correct horse")
            inside.settimeout(20)
            reached = threading.Thread(target=lambda: inside.accept()[0].close())
            reached.start()
            assert said(ask(stream, "POST", ways["image_url"], admin))[-2]["type"] == "error"
            reached.join(20)
            assert not reached.is_alive()


def test_chat_needs_a_login_as_shipped(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as server:
        for path in ("/api/chat", "/api/stream"):
            assert ask(f"{server.url}{path}", "POST", asked("x")).status == 401

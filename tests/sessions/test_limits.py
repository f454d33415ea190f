"""What administrators set for the agent of sessions binds it."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.sessions.talking import Place, names, plan, said, script, served

CALCULATE = {"call": "calculator", "args": {"expression": "6 * 7"}}


async def test_an_agent_has_as_many_rounds_as_are_set(dialect: str, tmp_path: Path) -> None:
    """Fewer than it wants, and more than MAX_LOOP_CAP lets requests ask for. What it could not do
    has failed."""
    with served(tmp_path / "data", dialect) as server:
        here = Place(server)
        admin, ann = await here.admin(), await here.account()
        step = script(*[CALCULATE] * 55, {"say": "All 55 are done."})
        told = {}
        for rounds in (3, 56, 57):
            limits = {"max_iterations": rounds, "max_retries": 3, "max_search_results": 10}
            await admin.ask("POST", "/sandbox/api/app-config/agent", limits)
            session = await ann.create()
            said_so = script(plan(step, "And this is step two."))
            told[rounds] = await ann.chat(session, said_so, headers={"accept-language": "en"})
            assert (await ann.detail(session))["status"] == "completed"
        # The last round is for the answer.
        assert [len(results(told[rounds])) for rounds in (3, 56, 57)] == [2, 55, 55]
        assert [data["content"] for data in results(told[3])] == [{"result": "42"}] * 2
        assert steps(told[3]) == [("1", "running"), ("1", "failed")]
        assert (told[3][-1][0], said(told[3])) == ("error", [])
        assert "rounds" in told[3][-1][1]["error"]
        assert "done" not in names(told[3])
        for rounds in (56, 57):
            assert said(told[rounds]) == [
                "All 55 are done.",
                "And this is step two.",
                "All is done.",
            ]
            assert steps(told[rounds])[-1] == ("2", "completed")
            assert told[rounds][-1][0] == "done"
        await here.close()


async def test_tools_without_a_plan_have_their_rounds_too(tmp_path: Path) -> None:
    with served(tmp_path / "data", "sqlite") as server:
        here = Place(server)
        admin, ann = await here.admin(), await here.account()
        limits = {"max_iterations": 1, "max_retries": 3, "max_search_results": 10}
        await admin.ask("POST", "/sandbox/api/app-config/agent", limits)
        told = await ann.chat(await ann.create(), script(CALCULATE, CALCULATE, {"say": "Done."}))
        assert (told[-1][0], len(results(told)), said(told)) == ("error", 1, [])
        told = await ann.chat(await ann.create(), "words need no tools")
        assert (told[-1][0], said(told)) == ("done", ["words need no tools"])
        await here.close()


def results(told: list[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """The calls of tools that have come back."""
    return [data for name, data in told if name == "tool" and data["status"] == "called"]


def steps(told: list[tuple[str, dict[str, Any]]]) -> list[tuple[str, str]]:
    return [(data["id"], data["status"]) for name, data in told if name == "step"]


class Engine(BaseHTTPRequestHandler):
    """A search provider that has forty results for everything."""

    def do_GET(self) -> None:
        found = [{"title": str(n), "url": f"https://{n}.example/"} for n in range(40)]
        body = json.dumps({"results": found}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nobody reads it."""


async def test_a_search_gives_as_many_results_as_are_set(dialect: str, tmp_path: Path) -> None:
    """By itself; a model may ask for fewer, and not for more."""
    engine = ThreadingHTTPServer(("127.0.0.1", 0), Engine)
    threading.Thread(target=engine.serve_forever, daemon=True).start()
    given = {
        "WEB_SEARCH_URL": f"http://127.0.0.1:{engine.server_port}/?q={{query}}",
        "OUTBOUND_ALLOW": "search=127.0.0.1/32",
    }
    with served(tmp_path / "data", dialect, given) as server:
        here = Place(server)
        admin, ann = await here.admin(), await here.account()
        session = await ann.create()
        for most in (2, 29):
            limits = {"max_iterations": 100, "max_retries": 3, "max_search_results": most}
            await admin.ask("POST", "/sandbox/api/app-config/agent", limits)
            asks = [{}, {"count": 1}, {"count": most + 1}]
            calls = [{"call": "web_search", "args": {"query": "x", **each}} for each in asks]
            told = results(await ann.chat(session, script(*calls)))
            contents = [each["content"] for each in told]
            assert [len(each["results"]) for each in contents] == [most, 1, 0]
            assert "fit" in contents[2]["error"]
        await here.close()
    engine.shutdown()
    engine.server_close()


async def test_a_model_without_tools_answers_and_makes_no_plan(tmp_path: Path) -> None:
    given = {"DEFAULT_PROVIDER": "embedded/smollm2"}
    with served(tmp_path / "data", "sqlite", given) as server:
        here = Place(server)
        ann = await here.account()
        told = await ann.chat(await ann.create(), "What is the sun?")
        assert {"message", "done"} <= set(names(told))
        assert not {"plan", "step", "error"} & set(names(told))
        assert said(told)[-1].strip()
        await here.close()

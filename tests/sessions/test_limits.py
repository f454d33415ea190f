"""What administrators set for the agent of sessions binds it."""

from pathlib import Path

from tests.sessions.talking import Place, plan, said, script, served

CALCULATE = {"call": "calculator", "args": {"expression": "6 * 7"}}


async def test_an_agent_has_as_many_rounds_as_are_set(tmp_path: Path) -> None:
    """Fewer than it wants, and more than MAX_LOOP_CAP lets requests ask for."""
    with served(tmp_path / "data", "sqlite") as server:
        here = Place(server)
        admin, ann = await here.admin(), await here.account()
        step = script(*[CALCULATE] * 55, {"say": "All 55 are done."})
        for rounds, calls in ((3, 3), (100, 55)):
            limits = {"max_iterations": rounds, "max_retries": 3, "max_search_results": 10}
            await admin.ask("POST", "/sandbox/api/app-config/agent", limits)
            told = await ann.chat(await ann.create(), script(plan(step)))
            called = [data for name, data in told if name == "tool" and data["status"] == "called"]
            assert len(called) <= calls
            assert ("All 55 are done." in said(told)) == (rounds > 55)
            assert told[-1][0] in ("done", "error")
        await here.close()


async def test_a_model_without_tools_answers_and_makes_no_plan(tmp_path: Path) -> None:
    given = {"DEFAULT_PROVIDER": "embedded/smollm2"}
    with served(tmp_path / "data", "sqlite", given) as server:
        here = Place(server)
        ann = await here.account()
        told = await ann.chat(await ann.create(), "What is the sun?")
        names = {name for name, _ in told}
        assert {"message", "done"} <= names
        assert not {"plan", "step", "error"} & names
        assert said(told)[-1].strip()
        await here.close()

"""Skills in the prompt."""

from domain.skills import Chosen
from domain.turn.plan import Plan
from domain.turn.prompt import system_message

PLAN = Plan(asked=[], model=None, skills=[Chosen("id-7", "market-research", "Asks people.")])  # type: ignore[arg-type]


def test_names_and_descriptions_stand_in_the_prompt() -> None:
    shown = system_message(PLAN, workflows=False, skills=True)["content"]
    assert "# Skills" in shown
    assert "- market-research: Asks people." in shown
    assert "id-7" not in shown


def test_a_model_that_cannot_load_them_is_not_told() -> None:
    assert "market-research" not in system_message(PLAN, workflows=False)["content"]

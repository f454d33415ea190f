"""Questions that wait for a yes, and what of them a model is shown."""

from typing import Any

import pytest

from domain.tools import Consent
from domain.turn import consent
from domain.turn.prompt import conversation_messages
from storage.conversations import Message

CALLS = [
    {"id": each, "type": "function", "function": {"name": "skill_run", "arguments": "{}"}}
    for each in ("a", "b", "c")
]


def message(role: str, text: str | None, **fields: Any) -> Message:
    given = {
        "id": "x",
        "message_id": "x",
        "conversation_id": "c",
        "position": 0,
        "type": "assistant_text" if role == "assistant" else "user_input",
        "run_id": "r",
        "created_at": 0.0,
        **fields,
    }
    given = {name: given.get(name) for name in Message.__struct_fields__} | {
        "role": role,
        "text": text,
    }
    return Message(**given)


ASKED = message("assistant", "May this be run?", details={consent.KEY: {"a": "1", "b": "2"}})


def test_an_answer_is_for_all_that_was_asked_and_for_nothing_else() -> None:
    calling = message("assistant", None, tool_calls=CALLS)
    course = [message("user", "Do it."), calling, ASKED]
    assert consent.answers(course) == {}
    again = message("assistant", "And this?", details={consent.KEY: {"c": "3"}})
    course += [message("user", "yes"), message("assistant", "So."), again, message("user", "no")]
    assert consent.answers([*course, message("user", "yes")]) == {
        "a": consent.Answer("1", True, "yes"),
        "b": consent.Answer("2", True, "yes"),
        "c": consent.Answer("3", False, "no"),
    }


@pytest.mark.parametrize("words", ["yes", "Yes.", " OK ", "go ahead!", "同意", "好的。", "是的，"])
def test_a_plain_yes(words: str) -> None:
    assert consent.agreed(words)


@pytest.mark.parametrize(
    "words",
    ["", "no", "不同意", "yes, but not now", "why?", "同意吗？", "yesterday", "是不是", "ok no"],
)
def test_everything_else_is_a_no(words: str) -> None:
    assert not consent.agreed(words)


def test_a_question_names_every_call_in_the_users_language() -> None:
    wanted = [Consent("one: echo 1", "1"), Consent("two: echo 2", "2")]
    told = consent.question("en", wanted)
    assert told.startswith("May this be run?")
    assert "one: echo 1" in told
    assert "two: echo 2" in told
    assert consent.question("zh", wanted).startswith("是否")


def test_a_model_is_shown_neither_question_nor_answer() -> None:
    calling = message("assistant", None, tool_calls=CALLS[:1])
    result = message("tool", "ran", tool_call_id="a")
    course = [message("user", "Do it."), calling, ASKED, message("user", "yes"), result]
    shown = [prompt for _, prompt in conversation_messages(course, images=False)]
    assert [prompt["role"] for prompt in shown] == ["user", "assistant", "tool"]
    later = conversation_messages([*course, message("user", "Thanks.")], images=False)
    assert later[-1][1] == {"role": "user", "content": "Thanks."}

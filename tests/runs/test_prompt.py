"""What a model is shown of a conversation."""

from typing import Any

from domain.model_choice import Choice
from domain.turn.plan import Budget, Plan
from domain.turn.prompt import CUT, conversation_messages, estimate, system_message, within
from storage.conversations import Message


def message(role: str, text: str | None, **fields: Any) -> Message:
    values: dict[str, Any] = dict.fromkeys(Message.__struct_fields__)
    values |= {"id": "i", "conversation_id": "c", "position": 0, "message_id": "m", "type": "x"}
    return Message(**(values | {"created_at": 0.0, "role": role, "text": text} | fields))


def said(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": text}


def test_sections_stand_in_a_fixed_order() -> None:
    plan = Plan(
        asked=[],
        model=Choice(),
        agent_name="Ada",
        system_context={"z": 1, "a": {"b": "ü"}},
        workflows={"w": ["one", "two"]},
    )
    content = system_message(plan, workflows=True, recollections=["r\n r"], thinking="t")["content"]
    places = [
        content.index(part)
        for part in ("You are Ada", '- a: {"b":"ü"}', "- z: 1", "- w: one; two", "- r r", "\nt")
    ]
    assert places == sorted(places)
    assert "Workflows" not in system_message(plan, workflows=False)["content"]


def test_text_and_tool_calls_become_one_message() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "time", "arguments": "{}"}}
    shown = conversation_messages(
        [
            message("user", "hi"),
            message("assistant", "thinking", type="thinking", run_id="r"),
            message("assistant", "let me see", run_id="r"),
            message("assistant", None, tool_calls=[call], run_id="r"),
            message("tool", "noon", tool_call_id="c1", run_id="r"),
            message("assistant", "it is noon", run_id="r"),
        ],
        images=False,
    )
    assert [prompt for _, prompt in shown] == [
        said("user", "hi"),
        {"role": "assistant", "content": "let me see", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "noon"},
        said("assistant", "it is noon"),
    ]


def test_images_are_named_to_models_that_take_none() -> None:
    parts = [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": "data:"}}]
    [(_, shown)] = conversation_messages([message("user", "see", content=parts)], images=False)
    assert shown["content"] == "see\n[image]"
    [(_, shown)] = conversation_messages([message("user", "see", content=parts)], images=True)
    assert shown["content"] == parts


def test_whole_turns_go_oldest_first_and_the_present_one_stays() -> None:
    earlier = [said(role, f"{i} " + "x" * 290) for i in range(4) for role in ("user", "assistant")]
    present = [said("user", "y" * 10_000)]
    assert estimate(earlier[0]) == 102
    kept = within(Budget(), 2100, earlier, present)
    assert kept == [*earlier[-4:], *present]
    assert within(Budget(recent_turns=1), None, earlier, present) == [*earlier[-2:], *present]
    assert within(Budget(history_ratio=0), 2100, earlier, present) == present
    assert within(Budget(max_model_len=10_000), 2100, earlier, present) == [*earlier, *present]


def test_tool_results_are_cut_before_anything_else_of_the_present_turn() -> None:
    results = [{"role": "tool", "tool_call_id": f"c{i}", "content": "ü" * 3000} for i in range(2)]
    present = [said("user", "u"), *results]
    kept = within(Budget(max_model_len=2000, max_new_message_ratio=0.4), None, [], present)
    assert kept[0] == present[0]
    assert all(one["content"].endswith(CUT) for one in kept[1:])
    assert sum(map(estimate, kept)) <= 700
    assert estimate(kept[1]) < estimate(kept[2])

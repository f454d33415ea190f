"""Whole turns on the scripted model."""

from tests.runs.world import ADA, World, text, types


async def test_a_turn_streams_and_ends(here: World) -> None:
    run = await here.start("hello there world")
    lines = await here.lines(run)
    assert types(lines) == ["assistant_text", "token_usage", "stream_end"]
    assert text(lines) == "hello there world"
    assert len({line["message_id"] for line in lines if line["type"] == "assistant_text"}) == 1
    assert lines[-1]["total_stream_count"] == len(lines)
    ended = await here.run(run.id)
    assert (ended.state, ended.lines, ended.attempt) == ("completed", len(lines), 2)
    kept = await here.messages()
    assert [(m.role, m.type, m.text) for m in kept] == [
        ("user", "user_input", "hello there world"),
        ("assistant", "assistant_text", "hello there world"),
    ]
    tokens = await here.usage.tokens(ADA.user_id, 1)
    assert (tokens.calls, tokens.output_tokens) == (1, 3)

"""A session that is read while its run is under way, and then followed, as by a page that is
opened again."""

import threading
import time

import requests

from contracts.client import Client
from contracts.sage import World, unique
from contracts.test_sub_agents import script


def begun(client: Client, session_id: str) -> threading.Thread:
    """A run on the session that goes on for a while; the thread reads its stream."""
    operation = client.contract.operations["chat_stream_web"]
    steps = ({"say": "Once "}, {"call": "time"}, {"tokens": 100, "every_ms": 40})
    body = {"messages": script(*steps), "session_id": session_id}
    headers = {"Authorization": f"Bearer {client.token}"}
    reading = threading.Thread(
        target=requests.post,
        args=(client.url(operation, None, None),),
        kwargs={"json": body, "headers": headers, "timeout": 90},
    )
    reading.start()
    return reading


def test_what_was_read_and_what_follows_are_the_whole(world: World) -> None:
    """What was streamed of a message is in it, up to the line that `next_stream_index` names."""
    client, session_id = world.owner.client, unique("sess")
    path = {"session_id": session_id}
    reading = begun(client, session_id)
    said: list[dict[str, str]] = []
    until = time.monotonic() + 60
    while time.monotonic() < until and not (said and "t5 " in said[-1]["content"]):
        read = client.call("conversation_list_messages", path=path)
        if read.success:
            kept = read.data["messages"]
            said = [one for one in kept if one["type"] == "assistant_text"]
            assert len(kept) == read.data["message_count"]
    assert said[-1]["metadata"] == {"unfinished": True}
    rest = client.call(
        "chat_resume", path=path, query={"last_index": read.data["next_stream_index"]}
    )
    reading.join()
    whole = client.call("conversation_list_messages", path=path).data["messages"][-1]
    assert whole["content"] == "".join(f"t{number} " for number in range(100))
    follows = [line for line in rest.lines if line["type"] == "assistant_text"]
    assert {line["message_id"] for line in follows} == {whole["message_id"]}
    joined = said[-1]["content"] + "".join(line["content"] for line in follows)
    assert joined == whole["content"]
    assert len(follows) < 95


def test_strangers_read_nothing_along(world: World) -> None:
    client, session_id = world.owner.client, unique("sess")
    reading = begun(client, session_id)
    path = {"session_id": session_id}
    assert world.stranger.client.call("conversation_list_messages", path=path).http == 404
    reading.join()
    assert world.stranger.client.call("conversation_list_messages", path=path).http == 404

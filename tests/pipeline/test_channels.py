"""Websockets: an AsyncAPI document, judged by its schema and by ours, bound like operations."""

import json
from typing import Any

import pytest

from scripts.pipeline import parity
from scripts.pipeline.__main__ import generate
from scripts.pipeline.channels import channels
from scripts.pipeline.handlers import fit_channel
from scripts.pipeline.routes import routes
from tests.pipeline.conftest import Tree

DOCUMENT = """
asyncapi: 3.0.0
info: {title: tiny, version: 1.0.0}
channels:
  big_note_open_feed:
    address: /notes/{note_id}/feed
    tags: [{name: Big note}]
    description: What happens to a note.
    x-role: user
    x-effect: read
    x-stream-limit: ws
    parameters:
      note_id: {description: The note.}
    messages:
      change: {payload: {type: string}}
    bindings:
      ws:
        query:
          type: object
          properties:
            token: {type: string}
            from: {type: string}
operations:
  big_note_send_feed:
    action: send
    channel: {$ref: '#/channels/big_note_open_feed'}
"""


@pytest.fixture
def fed(tree: Tree) -> Tree:
    tree.spec("asyncapi").write_text(DOCUMENT)
    return tree


def test_a_channel_is_generated_and_bound(fed: Tree) -> None:
    made = fed.bundle()
    files = generate([made])
    assert json.loads(files["tiny/asyncapi.json"]) == made.channels
    assert {"tiny/asyncapi.json.gz", "tiny/asyncapi.json.br"} <= set(files)
    source = routes("tiny", made.document, made.channels)
    assert '"big_note_open_feed": big_note.open_feed,' in source
    (channel,) = channels(made.channels)
    assert channel.arguments == {"note_id", "from_"}


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("action: send", "action: shout", "operations/big_note_send_feed"),
        ("asyncapi: 3.0.0", "asyncapi: 9.9.9", "asyncapi"),
        ("address: /notes/{note_id}/feed", "address: /notes/{id}/feed", "not those of its address"),
        ("x-role: user", "x-role: somebody", "x-role is 'somebody'"),
        ("    x-role: user\n", "", "no x-role"),
        ("x-effect: read", "x-effect: self", "x-effect is 'self'"),
        ("    x-effect: read\n", "", "no x-effect"),
        ("x-stream-limit: ws", "x-speed: 3", "x-speed is not known"),
        ("tags: [{name: Big note}]", "tags: [{name: Note}]", "not <first tag>_open"),
        ("description: What happens to a note.", "title: Feed", "no description"),
        ("x-role: user", "x-role: user\n    x-role: user", "stands twice"),
    ],
)
def test_what_is_wrong_is_said(fed: Tree, old: str, new: str, problem: str) -> None:
    fed.edit("asyncapi", old, new)
    assert any(problem in each for each in fed.problems())


def test_a_row_of_websockets_is_a_channel(fed: Tree) -> None:
    found = parity.check(fed.root / "contracts", [fed.bundle()])
    assert found == [
        "tiny: WS /notes/{note_id}/feed: a channel that no row of contracts/documented.tsv has"
    ]
    table = fed.root / "contracts" / "documented.tsv"
    table.write_text(f"{table.read_text()}tiny\tWS\t/notes/{{note_id}}/feed\tquery token\tfeed\n")
    assert parity.check(fed.root / "contracts", [fed.bundle()]) == []
    listed = fed.root / "contracts" / "not_built.tsv"
    listed.write_text(f"{listed.read_text()}tiny\tWS\t/notes/{{note_id}}/feed\tcomes later\n")
    (problem,) = parity.check(fed.root / "contracts", [fed.bundle()])
    assert "is built; take its line out" in problem


def test_its_handler_fits(fed: Tree) -> None:
    (channel,) = channels(fed.bundle().channels)

    async def good(quartet: Any, caller: Any, note_id: str, from_: str) -> None: ...
    async def deaf(note_id: str) -> None: ...
    async def curious(note_id: str, from_: str, body: Any) -> None: ...

    assert list(fit_channel(channel, "handlers.tiny.big_note", good)) == []
    assert "ignores from_" in "".join(fit_channel(channel, "m", deaf))
    assert "names body" in "".join(fit_channel(channel, "m", curious))
    assert "not a coroutine" in "".join(fit_channel(channel, "m", None))

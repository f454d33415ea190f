"""The documents' own curl lines, run by bash (rules, "Measuring and checking").

curl_lines.tsv says what each answers, and names the only substitutions: the address of the server,
ids, tokens, and in one row `-b cookies.txt`, without which the document's line is 401. `sess_123`
stays. Each line asks at the root of the server, which the contracts share.
"""

import csv
import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from contracts import curl_lines
from contracts.conftest import URL
from contracts.document import HERE, PAGES, load
from contracts.parts import PASSWORD, PNG, Account, unique
from contracts.running import VERIFIER
from contracts.sage import World
from contracts.sandbox import World as SandboxWorld

ALICE = "alice"
DEMO = "demo"
SERVER = re.compile(r"http://(127\.0\.0\.1|localhost):8000")
KEYS = {
    "sage": ["code", "message", "data", "timestamp"],
    "sandbox": ["code", "msg", "data"],
}
"""Contract → the keys of its envelope, in their order."""
GIVEN = {
    "{TOKEN}": ("tokens", "access_token"),
    "{SESSION}": ("session_id",),
    "{SKILL}": ("id",),
}
"""Names of substitutions whose value an earlier line answered, and where under `data`."""
DOCUMENTS = sorted(file.name for file in curl_lines.DOCUMENTS.glob("*.txt"))


class Expected(NamedTuple):
    """A row of curl_lines.tsv. `code` is the envelope's, "" where a stream answers; `fact` stands
    in the body once its blanks are taken out."""

    document: str
    line: int
    cookie: str
    substitute: str
    status: int
    code: str
    fact: str


def table(name: str) -> list[list[str]]:
    with (HERE / name).open(newline="") as file:
        return list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[1:]


EXPECTED = [
    Expected(document, int(line), cookie, substitute, int(status), code, fact)
    for document, line, cookie, substitute, status, code, fact in table("curl_lines.tsv")
]
NOT_BUILT = [(row[0], int(row[1]), row[2]) for row in table("curl_lines_not_built.tsv")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands run, so that cookies.txt goes from one to the next; the files that the
    document's lines send lie there."""
    folder = tmp_path_factory.mktemp("curl")
    (folder / "README.md").write_text("# Read me\n\nA login gives an access token.\n")
    (folder / "example.png").write_bytes(PNG)
    return folder


@pytest.fixture(scope="module")
def alice(world: World) -> Account:
    """The account of the document's lines."""
    body = {"username": ALICE, "password": PASSWORD}
    made = world.admin.client.call("user_create", body=body)
    assert made.success or made.status == 409
    return world.login(ALICE, PASSWORD)


@pytest.fixture(scope="module")
def names(world: World, alice: Account) -> Iterator[dict[str, str]]:
    """What sage's lines name."""
    yield {
        "{EMAIL}": f"{unique('user')}@example.com",
        "{AGENT}": world.agent(alice),
        "{SKILL_URL}": f"{world.started.skills_url}/market-research.zip",
        "{CODE}": world.exchange(alice)["code"],
        "{VERIFIER}": VERIFIER,
        "{KDB}": world.knowledge_base(alice),
    }
    for agent in alice.client.call("agent_list").data:
        alice.client.call("agent_delete", path={"agent_id": agent["id"]})


@pytest.fixture(scope="module")
def sandbox_names(world: World, sandbox: SandboxWorld) -> Iterator[dict[str, str]]:
    """What sandbox's lines name; their account is gone afterwards."""
    yield {
        "{ADMIN_TOKEN}": sandbox.admin.client.token,
        "{SKILL_FOLDER}": sandbox.started.skill_folder,
    }
    for user in world.admin.client.call("user_list", query={"page_size": 100}).data["items"]:
        if user["username"] == DEMO:
            world.admin.client.call("user_delete", body={"user_id": user["user_id"]})


@pytest.mark.xdist_group("curl")
def test_sages_lines_in_their_order(world: World, folder: Path, names: dict[str, str]) -> None:
    check("sage", world.started.url, folder, names)


@pytest.mark.xdist_group("curl")
def test_sandboxes_lines_in_their_order(
    sandbox: SandboxWorld, folder: Path, sandbox_names: dict[str, str]
) -> None:
    check("sandbox", sandbox.started.url, folder, sandbox_names)


def contract_of(document: str) -> str:
    return document.split("_")[1]


def check(contract: str, url: str, folder: Path, names: dict[str, str]) -> None:
    """Each line of a built operation, with status, code and one fact of its body."""
    for row in EXPECTED:
        if contract_of(row.document) != contract:
            continue
        command, found = SERVER.subn(url, curl_lines.lines(row.document)[row.line])
        assert found, row
        for pair in filter(None, row.substitute.split(" ")):
            old, _, new = pair.partition("=>")
            assert old in command, row
            command = command.replace(old, names[new])
        if row.cookie:
            command = command.replace("curl ", f"curl {row.cookie} ", 1)
        status, body = run(command, folder)
        assert (status, row.fact in body.replace(": ", ":").replace(", ", ",")) == (
            row.status,
            True,
        ), f"{row}\n{command}\n{body[:2000]}"
        if row.code:
            answer = json.loads(body)
            assert answer["code"] == int(row.code), row
            assert list(answer) == KEYS[contract]
            names.update(given(answer["data"]))


def given(data: Any) -> dict[str, str]:
    """The values in an answer that later lines name."""
    found = {}
    for name, way in GIVEN.items():
        value = data
        for key in way:
            value = value.get(key) if isinstance(value, dict) else None
        if isinstance(value, str):
            found[name] = value
    return found


def run(command: str, folder: Path) -> tuple[int, str]:
    """Run one command as a reader would; HTTP status and body."""
    asked = command.replace("curl ", "curl -sS --max-time 20 -w '\\n%{http_code}' ", 1)
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    done = subprocess.run(
        ["bash", "-c", asked], cwd=folder, env=kept, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, (command, done.stderr)
    body, _, status = done.stdout.rpartition("\n")
    if kept_in := re.search(r" -o (\S+)", command):
        body = (folder / kept_in[1]).read_text()
    return int(status), body


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_line_is_expected_or_not_built(document: str) -> None:
    """The list cleans itself: a line of an operation that is built stands in curl_lines.tsv."""
    contract = load(contract_of(document), URL)
    built = {operation.path for operation in contract.operations.values()} | PAGES
    expected = {row.line for row in EXPECTED if row.document == document}
    missing = {line: path for name, line, path in NOT_BUILT if name == document}
    found = curl_lines.lines(document)
    assert expected | missing.keys() == found.keys()
    assert not expected & missing.keys()
    for line, path in missing.items():
        assert curl_lines.path(found[line]) == path
        assert path not in built, f"{path} is built: its curl line belongs into curl_lines.tsv"

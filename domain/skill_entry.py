"""How a skill of the platform is run, as the front matter of its SKILL.md says it (document 002,
"Skill Ecosystem Module").

    version: 1.2.0
    runtime_type: native            # or mcp, a2a
    entry:
      command: python3 scripts/ask.py
    refs: [docs/how.md]

A native skill runs `command` in the session's sandbox, in `exec_dir`, for `timeout_s` seconds at
most; without a command it is instructions alone. A skill of MCP calls `tool` of the platform's MCP
server `server`; one of A2A sends messages to the platform's `agent`, an id, name or address. `refs`
are files that are read together with SKILL.md. A key without a value is not given, and a version
that YAML takes for a number is its text.
"""

import posixpath
import re
import unicodedata
from collections.abc import Mapping, Set
from typing import Annotated, Any, Literal

import msgspec

from domain.errors import Unusable
from domain.skill_commands import refusal
from domain.skill_manifest import FILE, said_by
from gateways.sandbox.confining import WORKSPACE

VERSION = "0.1.0"
"""The version of a skill that states none."""
COMMAND_MAX = 2000
REFS_MAX = 50
_Name = Annotated[str, msgspec.Meta(max_length=512)]


class Unfit(Exception):
    """The skill cannot be run as it says. `key` is the key of the front matter that is wrong."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(reason)
        self.key = key


class Entry(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    command: Annotated[str, msgspec.Meta(max_length=COMMAND_MAX)] = ""
    exec_dir: _Name = ""
    timeout_s: Annotated[int, msgspec.Meta(ge=1, le=600)] = 120
    server: _Name = ""
    tool: _Name = ""
    agent: _Name = ""


class Runnable(msgspec.Struct, frozen=True):
    """What front matter says of a skill, checked but for whether `refs` are there."""

    name: str
    description: str
    version: str
    runtime_type: Literal["native", "mcp", "a2a"]
    entry: Entry
    refs: list[str]


class _Front(msgspec.Struct, frozen=True):
    version: Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z][0-9A-Za-z.+_-]{0,63}$")] = VERSION
    runtime_type: Literal["native", "mcp", "a2a"] = "native"
    entry: Entry = Entry()
    refs: Annotated[list[str], msgspec.Meta(max_length=REFS_MAX)] = []


_NEEDED: Mapping[str, Set[str]] = {"native": set(), "mcp": {"server", "tool"}, "a2a": {"agent"}}
_TAKEN: Mapping[str, Set[str]] = {
    "native": {"command", "exec_dir", "timeout_s"},
    "mcp": {"server", "tool"},
    "a2a": {"agent"},
}


def runnable(front: Mapping[str, Any]) -> Runnable:
    """What front matter says of a skill. Raises Unfit."""
    try:
        said = said_by(front)
    except Unusable as unusable:
        raise Unfit("name", str(unusable.details["reason"])) from None
    if not _words_of(said.name):
        raise Unfit("name", "its name has no letter or digit")
    try:
        found = msgspec.convert(_given(front), _Front)
    except msgspec.ValidationError as error:
        key = re.search(r"`\$\.(\w+)", str(error))
        raise Unfit(key[1] if key else "entry", str(error)) from None
    given = set(msgspec.to_builtins(found.entry))
    if missing := _NEEDED[found.runtime_type] - given:
        raise Unfit("entry", f"a skill of {found.runtime_type} needs {', '.join(sorted(missing))}")
    if beyond := given - _TAKEN[found.runtime_type]:
        raise Unfit("entry", f"a skill of {found.runtime_type} has no {', '.join(sorted(beyond))}")
    _check_command(found.entry)
    return Runnable(
        said.name,
        said.description,
        found.version,
        found.runtime_type,
        found.entry,
        [path for path in dict.fromkeys(found.refs) if path != FILE],
    )


def _given(front: Mapping[str, Any]) -> dict[str, Any]:
    """What front matter gives of how a skill is run."""
    given = {key: front[key] for key in _Front.__struct_fields__ if front.get(key) is not None}
    if type(given.get("version")) in (int, float):
        given["version"] = str(given["version"])
    if isinstance(entry := given.get("entry"), dict):
        given["entry"] = {key: value for key, value in entry.items() if value is not None}
    return given


def _check_command(entry: Entry) -> None:
    """The policy on native commands: one line, none of those that no skill needs, and a directory
    of the workspace. Raises Unfit."""
    if any(unicodedata.category(each)[0] == "C" for each in entry.command + entry.exec_dir):
        raise Unfit("entry", "it holds control characters")
    if what := refusal(entry.command):
        raise Unfit("entry", f"the command is refused: {what}")
    place = entry.exec_dir
    if place and (
        posixpath.normpath(place) != place.rstrip("/")
        or not f"{place}/".startswith(f"{WORKSPACE}/")
    ):
        raise Unfit("entry", f"exec_dir lies below {WORKSPACE}")


def slug_of(name: str) -> str:
    """A skill's name as it stands in addresses: lower case, words joined by `-`; "skill" for one
    without a letter or digit, which is never installed, but may be uploaded through sage."""
    return "-".join(_words_of(name)) or "skill"


def _words_of(name: str) -> list[str]:
    return re.findall(r"[^\W_]+", unicodedata.normalize("NFKC", name).casefold())

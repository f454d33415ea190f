"""How a skill of the platform is run, as the front matter of its SKILL.md says it, and which
commands are refused (document 002, "Skill Ecosystem Module").

    version: 1.2.0
    runtime_type: native            # or mcp, a2a
    entry:
      command: python3 scripts/ask.py
    refs: [docs/how.md]

A native skill runs `command` in the session's sandbox, in `exec_dir`, for `timeout_s` seconds at
most; without a command it is instructions alone. A skill of MCP calls `tool` of the platform's MCP
server `server`; one of A2A sends messages to the platform's `agent`, an id, name or address. `refs`
are files that are read together with SKILL.md.
"""

import posixpath
import re
import unicodedata
from collections.abc import Mapping, Set
from typing import Annotated, Any, Literal

import msgspec

from domain.errors import Unusable
from domain.skill_manifest import FILE, said_by
from gateways.sandbox.confining import WORKSPACE

VERSION = "0.1.0"
"""The version of a skill that states none."""
COMMAND_MAX = 2000
REFS_MAX = 50
_Name = Annotated[str, msgspec.Meta(max_length=512)]
_START = r"(?:^|[;&|(]\s*)(?:\S*/)?"
_FETCH = r"\b(?:curl|wget)\b.*\|\s*(?:\S*/)?(?:env\s+)?"
_RISKY = (
    (r"\brm\s+(-\S+\s+)*(/|~|\$\{?HOME\}?)(\*|/\*)?(\s|;|&|\||$)", "it removes everything"),
    (r"--no-preserve-root", "it removes everything"),
    (_START + r"(mkfs(\.\w+)?|fdisk|parted|wipefs)\b", "it works on disks"),
    (r"\bdd\b[^|;&]*\bof=/dev/", "it works on disks"),
    (r">\s*/dev/(sd|hd|vd|xvd|nvme|mem|kmem)", "it works on devices"),
    (_FETCH + r"([a-z]{0,3}sh|python[\d.]*|perl|ruby|node|php)\b", "it runs what it downloads"),
    (r"sh\s+(-c\s+\S?)?[<$]\(\s*(curl|wget)\b", "it runs what it downloads"),
    (r"\bbase64\s+(-d|-D|--decode)\b.*\|\s*(\S*/)?[a-z]{0,3}sh\b", "it runs what it hides"),
    (r":\s*\(\s*\)\s*\{.*\|.*&\s*\}", "it forks without end"),
    (_START + r"(sudo|doas|su|pkexec)(\s|$)", "it wants another account"),
    (_START + r"(shutdown|reboot|halt|poweroff)(\s|$)", "it ends the machine"),
    (r"\bchmod\s+(-\S+\s+)*(u\+s|[0-7]*777\s+/(\s|$))", "it opens everything"),
    (r"/etc/(shadow|sudoers)\b", "it wants passwords"),
    (r"/dev/(tcp|udp)/", "it opens a connection by the shell"),
    (_START + r"(nc|ncat|netcat)\b.*\s-\w*[ec]\b", "it opens a shell to the network"),
    (r"\bauthorized_keys\b", "it opens the machine to others"),
)
"""Commands that no skill needs. What runs is confined whatever it does; these are refused so that
whoever installs a skill hears of them."""


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
    except Unusable as refusal:
        raise Unfit("name", str(refusal.details["reason"])) from None
    try:
        found = msgspec.convert({key: front[key] for key in _KEYS if key in front}, _Front)
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


_KEYS = _Front.__struct_fields__


def _check_command(entry: Entry) -> None:
    """The policy on native commands: one line, none of those that no skill needs, and a directory
    of the workspace. Raises Unfit."""
    if any(unicodedata.category(each)[0] == "C" for each in entry.command + entry.exec_dir):
        raise Unfit("entry", "it holds control characters")
    for pattern, what in _RISKY:
        if re.search(pattern, entry.command):
            raise Unfit("entry", f"the command is refused: {what}")
    place = entry.exec_dir
    if place and (
        posixpath.normpath(place) != place.rstrip("/")
        or not f"{place}/".startswith(f"{WORKSPACE}/")
    ):
        raise Unfit("entry", f"exec_dir lies below {WORKSPACE}")


def slug_of(name: str) -> str:
    """A skill's name as it stands in addresses: lower case, words joined by `-`."""
    words = re.findall(r"[^\W_]+", unicodedata.normalize("NFKC", name).casefold())
    return "-".join(words) or "skill"

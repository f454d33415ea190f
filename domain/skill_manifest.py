"""SKILL.md: front matter in YAML that names and describes a skill, then instructions in Markdown
(Agent Skills specification, agentskills.io, "SKILL.md format")."""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from domain.errors import Unusable

FILE = "SKILL.md"
CONTENT_MAX = 256 * 1024
"""Bytes of a SKILL.md."""
FRONT_MAX = 16 * 1024
DEPTH_MAX = 16
NAME_MAX = 64
DESCRIPTION_MAX = 1024
_FRONT = re.compile(r"---[ \t]*\n(.*?)^---[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)


class Manifest(msgspec.Struct, frozen=True):
    """What a SKILL.md says of its skill."""

    name: str
    description: str


def decoded(content: bytes) -> str:
    """The text of a SKILL.md. Raises Unusable("skill.manifest")."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise _unfit("it is not UTF-8") from None


def manifest_of(text: str) -> Manifest:
    """The name and description in a SKILL.md. Other keys of its front matter are for those who
    read the file, and for domain.skill_entry. Raises Unusable("skill.manifest", reason)."""
    return said_by(front_of(text))


def said_by(front: Mapping[str, Any]) -> Manifest:
    """The name and description in front matter. Raises Unusable("skill.manifest", reason)."""
    return Manifest(
        _line(front.get("name"), "name", NAME_MAX, barred='/\\"<>|:*?'),
        _line(front.get("description"), "description", DESCRIPTION_MAX),
    )


def front_of(text: str) -> dict[str, Any]:
    """The front matter of a SKILL.md. Raises Unusable("skill.manifest", reason)."""
    if len(text.encode("utf-8", "surrogatepass")) > CONTENT_MAX or "\x00" in text:
        raise _unfit(f"it is longer than {CONTENT_MAX} bytes, or holds a NUL")
    found = _FRONT.match(text.replace("\r\n", "\n"))
    if found is None or len(found[1]) > FRONT_MAX:
        raise _unfit("it does not begin with front matter between two lines of ---")
    front = _read(found[1])
    if not isinstance(front, dict):
        raise _unfit("its front matter is no mapping")
    return front


def _read(text: str) -> Any:
    import yaml

    # libyaml: PyYAML's own parser needs half a second for text of this size that is made for it.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        _check(yaml.parse(text, loader))
        return yaml.load(text, loader)  # noqa: S506 - both are safe loaders
    except (yaml.YAMLError, ValueError, TypeError, RecursionError, OverflowError):
        raise _unfit("its front matter is no YAML") from None


def _check(events: Iterable[Any]) -> None:
    """Refuse what lets a few lines stand for millions: aliases, with which a mapping can be merged
    with itself over and over, and deep nesting."""
    from yaml import AliasEvent, CollectionEndEvent, CollectionStartEvent

    depth = 0
    for event in events:
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        if depth > DEPTH_MAX or isinstance(event, AliasEvent):
            raise _unfit("its front matter has aliases, or is nested too deep")


def _line(value: Any, key: str, most: int, barred: str = "") -> str:
    """A text on one line, without control characters."""
    text = " ".join(value.split()) if isinstance(value, str) else ""
    if not text or len(text) > most:
        raise _unfit(f"its {key} is no text of 1 to {most} characters")
    if any(each in barred or unicodedata.category(each)[0] == "C" for each in text):
        raise _unfit(f"its {key} has characters that cannot be used")
    return text


def _unfit(reason: str) -> Unusable:
    return Unusable("skill.manifest", reason=reason)

"""sandbox: where skills were once (document 002, "Skill Ecosystem Module": "Note")."""

from typing import NoReturn

from domain.errors import Gone

MOVED = "SKILL_API_MOVED"
HOME = "/v2/skills"


async def refuse(rest: str) -> NoReturn:
    raise Gone("skill.moved", shown={"code": MOVED, "migrate_to": moved_to(rest)})


async def refuse_root() -> NoReturn:
    await refuse("")


def moved_to(rest: str) -> str:
    """Where an operation of the first version went: /install, /<id>/enabled and /<id>/delete had
    their places below it."""
    match rest.strip("/").split("/"):
        case ["install"]:
            return f"{HOME}/install"
        case [key, "enabled"] if key:
            return f"{HOME}/{key}/enabled"
        case [key, "delete"] if key:
            return f"{HOME}/{key}"
    return HOME

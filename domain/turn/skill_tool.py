"""The tool by which a turn takes up a skill: it reads the skill's SKILL.md, or a file beside it."""

from collections.abc import Sequence
from typing import Annotated

import msgspec

from domain.errors import NotFound
from domain.skill_manifest import FILE
from domain.skills import Chosen, Skills
from domain.tools import Tool, ToolFailed

NAME = "load_skill"


class LoadSkillArguments(msgspec.Struct, forbid_unknown_fields=True):
    name: Annotated[
        str, msgspec.Meta(min_length=1, max_length=64, description="The name of a skill.")
    ]
    file: Annotated[
        str,
        msgspec.Meta(
            min_length=1,
            max_length=1024,
            description="SKILL.md, or the path of a file that it tells of.",
        ),
    ] = FILE


def skill_tool(skills: Skills, chosen: Sequence[Chosen]) -> Tool:
    """The tool over these skills. It reads only, so it may run again after a crash."""
    ids = {skill.name: skill.id for skill in chosen}

    async def load(wanted: LoadSkillArguments) -> str:
        if wanted.name not in ids:
            raise ToolFailed(f"there is no such skill; there are: {', '.join(ids)}")
        try:
            text = await skills.read(ids[wanted.name], wanted.file)
        except NotFound as missing:
            beside = missing.details.get("paths")
            if beside is None:
                raise ToolFailed("the skill is gone") from None
            raise ToolFailed(f"the skill has no such file; beside SKILL.md: {beside}") from None
        return text

    return Tool(
        NAME,
        "Reads the instructions of a skill. Call it before you do what the skill is for.",
        LoadSkillArguments,
        load,
        True,
        "skill",
    )

"""Skills in the words of sage (document, "Tools, skills, MCP")."""

from typing import Any, cast

from msgspec import UNSET

from domain.caller import Caller
from domain.quartet import Quartet
from domain.skills import Available, Target
from generated.sage.models import (
    AvailableSkill,
    Skill,
    SkillContentUpdate,
    SkillImportRequest,
)
from storage.skills import Skill as Row


async def list_(
    quartet: Quartet, caller: Caller, agent_id: str | None, dimension: str
) -> dict[str, list[Skill]]:
    found = await quartet.skills.visible(caller, agent_id or "", cast(Any, dimension))
    return {"skills": [shown(skill, agent_name) for skill, agent_name in found]}


async def list_available(
    quartet: Quartet, caller: Caller, agent_id: str
) -> dict[str, list[AvailableSkill]]:
    found = await quartet.skills.available(caller, agent_id)
    return {"skills": [shown_available(one) for one in found]}


async def upload(quartet: Quartet, caller: Caller, body: dict[str, Any]) -> dict[str, str]:
    target = Target(
        is_system=body["is_system"], is_agent=body["is_agent"], agent_id=body["agent_id"]
    )
    return {"user_id": owner_of(await quartet.skills.add(caller, body["file"].file, target))}


async def import_(quartet: Quartet, caller: Caller, body: SkillImportRequest) -> dict[str, str]:
    target = Target(
        is_system=bool(body.is_system), is_agent=bool(body.is_agent), agent_id=body.agent_id or ""
    )
    return {"user_id": owner_of(await quartet.skills.add_from(caller, body.url, target))}


async def delete(
    quartet: Quartet, caller: Caller, name: str, agent_id: str | None
) -> dict[str, str]:
    await quartet.skills.delete(caller, name, agent_id or "")
    return {}


async def get_content(quartet: Quartet, caller: Caller, name: str) -> dict[str, str]:
    return {"content": await quartet.skills.content(caller, name)}


async def update_content(
    quartet: Quartet, caller: Caller, body: SkillContentUpdate
) -> dict[str, str]:
    await quartet.skills.rewrite(caller, body.name, body.content)
    return {}


def owner_of(row: Row) -> str:
    """Whose a skill is; "" where the account that added it to the system is gone."""
    return row.owner_id or ""


def shown(row: Row, agent_name: str) -> Skill:
    return Skill(
        name=row.name,
        description=row.description,
        user_id=owner_of(row),
        dimension=row.dimension,
        owner_user_id=None if row.dimension == "system" else row.owner_id,
        agent_id=row.agent_id,
        agent_name=agent_name or None,
        path=path_of(row),
    )


def shown_available(found: Available) -> AvailableSkill:
    counts = found.own or found.source
    outdated = found.is_outdated
    return AvailableSkill(
        name=counts.name,
        description=counts.description,
        source_dimension=found.source.dimension,
        source_path=path_of(found.source),
        agent_path=path_of(found.own) if found.own else UNSET,
        need_update=UNSET if outdated is None else outdated,
    )


def path_of(row: Row) -> str:
    """What tells one skill from another, and nothing of the disk."""
    return f"skills/{row.id}"

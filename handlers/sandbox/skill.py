"""sandbox: the platform's skills (document 002, "Skill Ecosystem Module")."""

from datetime import UTC, datetime
from typing import Any, cast

from msgspec import UNSET

from domain.caller import Caller
from domain.quartet import Quartet
from domain.skill_entry import slug_of
from generated.sandbox import models
from handlers.wire import Answer
from storage.skills import Skill


async def list_(quartet: Quartet) -> models.SkillListResponse:
    return models.SkillListResponse(
        skills=[shown(skill) for skill in await quartet.installed.list()]
    )


async def install(
    quartet: Quartet, caller: Caller, body: models.SkillInstallRequest
) -> models.SkillItem:
    made = await quartet.installed.install(
        caller,
        body.source_type,
        body.source_ref,
        manifest={} if body.manifest is UNSET else body.manifest,
        skill_md=body.skill_md or "",
    )
    return shown(made)


async def update_enabled(
    quartet: Quartet, caller: Caller, skill_key: str, body: models.SkillEnabledRequest
) -> None:
    await quartet.installed.set_enabled(caller, skill_key, enabled=body.enabled)


async def delete(quartet: Quartet, caller: Caller, skill_key: str) -> None:
    await quartet.installed.delete(caller, skill_key)


async def get_policy(quartet: Quartet) -> Answer:
    policy = await quartet.installed.policy()
    return Answer(models.SkillRiskPolicyItem(mode=policy.mode), version=policy.version)


async def update_policy(
    quartet: Quartet, caller: Caller, body: models.SkillRiskPolicyItem, if_match: int | None
) -> Answer:
    policy = await quartet.installed.set_policy(caller, body.mode, if_match)
    return Answer(version=policy.version)


def shown(skill: Skill) -> models.SkillItem:
    return models.SkillItem(
        id=skill.id,
        slug=slug_of(skill.name),
        name=skill.name,
        description=skill.description,
        version=skill.version,
        source_type=cast(Any, skill.source_type),
        source_ref=skill.source_ref,
        runtime_type=cast(Any, skill.runtime_type),
        enabled=skill.enabled,
        installed_by=skill.owner_id,
        created_at=_time(skill.created_at),
        updated_at=_time(skill.updated_at),
        bundle_file_count=len(skill.files) + 1,
        context_ref_count=len(skill.refs),
        last_sync_at=None if skill.last_sync_at is None else _time(skill.last_sync_at),
    )


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()

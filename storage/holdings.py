"""What an account keeps: the bytes of what it uploaded, as whatever it uploaded them."""

import msgspec
from sqlalchemy import BigInteger, BindParameter, bindparam, cast, func, select

from storage.database import Statement, Unit
from storage.schema import files, knowledge_bases, knowledge_documents, skills, users
from storage.skills import SYSTEM

_OWNER: BindParameter[str] = bindparam("owner")


class _Skill(msgspec.Struct, frozen=True):
    files: dict[str, int]


LOCK = Statement(select(users.c.id).where(users.c.id == _OWNER).with_for_update(key_share=True))
FILES_AND_DOCUMENTS = Statement(
    select(
        cast(func.coalesce(func.sum(files.c.size), 0), BigInteger)
        + select(cast(func.coalesce(func.sum(knowledge_documents.c.size), 0), BigInteger))
        .join(knowledge_bases, knowledge_bases.c.id == knowledge_documents.c.base_id)
        .where(knowledge_bases.c.owner_id == _OWNER)
        .scalar_subquery()
    ).where(files.c.owner_id == _OWNER, files.c.session_id.is_(None))
)
SKILLS = Statement(
    select(skills.c.files).where(skills.c.owner_id == _OWNER, skills.c.place != SYSTEM),
    into=_Skill,
)


def held_by(owner: str) -> Unit[int]:
    """Bytes of an account's files, of the documents in its knowledge bases and of its skills beside
    their SKILL.md. Whoever else asks for the same account waits until the unit ends. What a session
    makes in its workspace is not among them: each workspace has a size of its own."""
    yield LOCK(owner=owner)
    rows = yield FILES_AND_DOCUMENTS(owner=owner)
    bundles: list[_Skill] = yield SKILLS(owner=owner)
    uploaded: int = rows[0][0]
    return uploaded + sum(sum(skill.files.values()) for skill in bundles)

"""Knowledge bases in the words of sage (document, "Knowledge base")."""

from typing import Any

from msgspec import UNSET

from domain.caller import Caller
from domain.quartet import Quartet
from generated.sage.models import (
    KnowledgeBaseCreateRequest,
    KnowledgeBaseRequest,
    KnowledgeBaseUpdateRequest,
    RetrieveRequest,
)
from handlers.times import iso


async def create(
    quartet: Quartet, caller: Caller, body: KnowledgeBaseCreateRequest
) -> dict[str, str]:
    made = await quartet.knowledge.bases.create(
        caller,
        name=body.name,
        type_=body.type,
        intro=body.intro or "",
        language=body.language or "",
    )
    return {"kdb_id": made, "user_id": caller.user_id}


async def update(
    quartet: Quartet, caller: Caller, body: KnowledgeBaseUpdateRequest
) -> dict[str, Any]:
    setting = None if body.kdb_setting is UNSET else body.kdb_setting
    base = await quartet.knowledge.bases.update(
        caller, body.kdb_id, name=body.name or "", intro=body.intro or "", setting=setting
    )
    return {"success": True, "user_id": base.owner_id}


async def get(quartet: Quartet, caller: Caller, kdb_id: str) -> dict[str, Any]:
    base = await quartet.knowledge.bases.get(caller, kdb_id)
    return {
        "kdbId": base.id,
        "name": base.name,
        "intro": base.intro,
        "type": base.type,
        "createdAt": int(base.created_at),
        "updatedAt": int(base.updated_at),
        "kdbSetting": base.setting,
        "user_id": base.owner_id,
    }


async def retrieve(quartet: Quartet, caller: Caller, body: RetrieveRequest) -> dict[str, Any]:
    passages, base = await quartet.knowledge.retrieval.retrieve(
        caller, body.kdb_id, body.query, body.top_k or 10
    )
    return {
        "results": [
            {
                "doc_id": one.chunk.document_id,
                "doc_segment_id": one.segment_id,
                "score": one.score,
                "content": one.chunk.content,
                "source": {"document": one.chunk.document, "position": one.chunk.position},
            }
            for one in passages.found
        ],
        "user_id": base.owner_id,
    }


async def list_(
    quartet: Quartet, caller: Caller, query_name: str, type: str, page: int, page_size: int
) -> dict[str, Any]:
    rows, total = await quartet.knowledge.bases.page(
        caller, name=query_name, type_=type, page=page, size=page_size
    )
    shown = [
        {
            "id": row.base.id,
            "name": row.base.name,
            "index_name": row.base.id,
            "intro": row.base.intro,
            "createTime": iso(row.base.created_at),
            "dataSource": row.base.type,
            "docNum": row.documents,
            "cover": "",
            "defaultColor": True,
            "user_id": row.base.owner_id,
            "type": None,
        }
        for row in rows
    ]
    return {"list": shown, "total": total, "user_id": caller.user_id}


async def delete(quartet: Quartet, caller: Caller, kdb_id: str) -> dict[str, Any]:
    base = await quartet.knowledge.bases.delete(caller, kdb_id)
    return {"success": True, "user_id": base.owner_id}


async def clear(quartet: Quartet, caller: Caller, body: KnowledgeBaseRequest) -> dict[str, Any]:
    base = await quartet.knowledge.bases.clear(caller, body.kdb_id)
    return {"success": True, "user_id": base.owner_id}


async def redo(quartet: Quartet, caller: Caller, body: KnowledgeBaseRequest) -> dict[str, Any]:
    base = await quartet.knowledge.documents.redo_all(caller, body.kdb_id)
    return {"success": True, "user_id": base.owner_id}

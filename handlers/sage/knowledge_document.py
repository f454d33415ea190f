"""The documents of knowledge bases in the words of sage (document, "Knowledge base")."""

from typing import Any

from domain.caller import Caller
from domain.knowledge.documents import STATES, File
from domain.quartet import Quartet
from generated.sage.models import KnowledgeTaskRequest
from handlers.times import iso
from storage.knowledge import Document


async def list_(
    quartet: Quartet,
    caller: Caller,
    kdb_id: str,
    query_name: str,
    query_status: list[int] | None,
    task_id: str,
    page_no: int,
    page_size: int,
) -> dict[str, Any]:
    rows, total, base = await quartet.knowledge.documents.page(
        caller,
        kdb_id,
        name=query_name,
        states=[STATES[status] for status in query_status or ()],
        task_id=task_id,
        page=page_no,
        size=page_size,
    )
    shown = [
        {
            "id": row.id,
            "doc_name": row.name,
            "status": STATES.index(row.state),
            "create_time": iso(row.created_at),
            "metadata": metadata(row),
            "task_id": row.task_id,
        }
        for row in rows
    ]
    return {"list": shown, "total": total, "user_id": base.owner_id}


async def get(quartet: Quartet, caller: Caller, doc_id: str) -> dict[str, Any] | None:
    found = await quartet.knowledge.documents.get(caller, doc_id)
    if found is None:
        return None
    row, base = found
    return {
        "id": row.id,
        "type": row.kind,
        "dataName": row.name,
        "status": STATES.index(row.state),
        "createTime": iso(row.created_at),
        "metadata": metadata(row),
        "taskId": row.task_id,
        "user_id": base.owner_id,
    }


async def upload(quartet: Quartet, caller: Caller, body: dict[str, Any]) -> dict[str, str]:
    files = [File(one.filename, one.size, one.chunks) for one in body["files"]]
    task_id, base = await quartet.knowledge.documents.add(
        caller, body["kdb_id"], files, override=body["override"]
    )
    return {"taskId": task_id, "user_id": base.owner_id}


async def delete(quartet: Quartet, caller: Caller, doc_id: str) -> dict[str, Any]:
    base = await quartet.knowledge.documents.delete(caller, doc_id)
    return {"success": True, "user_id": base.owner_id}


async def redo(quartet: Quartet, caller: Caller, doc_id: str) -> dict[str, Any]:
    base = await quartet.knowledge.documents.redo(caller, doc_id)
    return {"success": True, "user_id": base.owner_id if base else ""}


async def check_task(quartet: Quartet, caller: Caller, kdb_id: str, task_id: str) -> dict[str, Any]:
    progress, base = await quartet.knowledge.documents.progress(caller, kdb_id, task_id)
    return {
        "success": progress.succeeded,
        "fail": progress.failed,
        "inProgress": progress.processing,
        "waiting": progress.waiting,
        "total": progress.total,
        "taskProcess": progress.percent,
        "user_id": base.owner_id,
    }


async def redo_task(quartet: Quartet, caller: Caller, body: KnowledgeTaskRequest) -> dict[str, Any]:
    base = await quartet.knowledge.documents.redo_task(caller, body.kdb_id, body.task_id)
    return {"success": True, "user_id": base.owner_id}


def metadata(row: Document) -> dict[str, Any]:
    """What is known of a document besides its name."""
    known: dict[str, Any] = {"size": row.size, "chunks": row.chunks, "attempt": row.attempt}
    if row.reason is not None:
        known["reason"] = row.reason
    return known

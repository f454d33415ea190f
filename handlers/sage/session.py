"""Sessions: stop one, and see how far its workflow and its sub-agents are (document 000,
"Conversations and history")."""

from msgspec import UNSET

from domain.caller import Caller
from domain.quartet import Quartet
from generated.sage.models import (
    InterruptRequest,
    SessionInterrupted,
    SessionTasks,
    Task,
    TasksStatus,
)


async def interrupt(
    quartet: Quartet, caller: Caller, session_id: str, body: InterruptRequest | None
) -> SessionInterrupted:
    await quartet.runs.interrupt(caller, session_id, (body and body.message) or "")
    return SessionInterrupted(session_id=session_id, user_id=caller.user_id)


async def check_tasks(quartet: Quartet, caller: Caller, session_id: str) -> SessionTasks:
    tasks = await quartet.runs.tasks(caller, session_id)
    shown = [
        Task(
            task_id=f"{task['of']}.{task['id']}" if task.get("of") else task["id"],
            description=task["description"],
            status=task["status"],
            workflow=task["workflow"],
            agent_name=task.get("agent_name") or UNSET,
        )
        for task in tasks
    ]
    return SessionTasks(
        session_id=session_id, tasks_status=TasksStatus(tasks=shown), user_id=caller.user_id
    )

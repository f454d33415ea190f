"""sage: the files that an agent works on (document, "file_workspace")."""

from domain.caller import Caller
from domain.quartet import Quartet
from generated.sage.models import Workspace, WorkspaceFile
from handlers.wire import File

ZIP = "application/zip"
BYTES = "application/octet-stream"


async def list_(quartet: Quartet, caller: Caller, agent_id: str, session_id: str) -> Workspace:
    owner, entries = await quartet.workspaces.list(caller, agent_id, session_id)
    files = [
        WorkspaceFile(
            name=each.name,
            path=each.path,
            size=each.size,
            modified_time=each.modified,
            is_directory=each.is_directory,
        )
        for each in entries
    ]
    return Workspace(agent_id=agent_id, files=files, message="success", user_id=owner)


async def download(
    quartet: Quartet, caller: Caller, agent_id: str, file_path: str, session_id: str
) -> File:
    found = await quartet.workspaces.open(caller, agent_id, session_id, file_path)
    return File(found.name, ZIP if found.size is None else BYTES, found.chunks, found.size)


async def delete(
    quartet: Quartet, caller: Caller, agent_id: str, file_path: str, session_id: str
) -> dict[str, str]:
    await quartet.workspaces.delete(caller, agent_id, session_id, file_path)
    return {}

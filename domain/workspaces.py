"""The files that an agent works on, for the account it works for.

Each account has its own workspace with an agent, and in it one for each session; an administrator
who asks for another's agent sees its owner's.
"""

from collections.abc import AsyncIterator, Sequence
from urllib.parse import parse_qs, unquote

import msgspec

from domain.agents import Agents
from domain.caller import Caller
from domain.errors import NotFound, Unusable
from domain.files import image_type
from domain.own_addresses import own_path
from storage.workspace_files import (
    BadPath,
    Entry,
    NoSuchFile,
    Place,
    Reading,
    WorkspaceFiles,
    segments,
)


class Download(msgspec.Struct, frozen=True):
    """A file, or a directory as a ZIP: then nobody knows its `size` beforehand."""

    name: str
    size: int | None
    chunks: AsyncIterator[bytes]


class Workspaces:
    """Every method raises NotFound("agent.not_found") for an agent that the caller may not use,
    and Unusable("workspace.path") for a session or a path that is none."""

    def __init__(self, agents: Agents, files: WorkspaceFiles, *, base_url: str) -> None:
        self._agents = agents
        self._files = files
        self._base_url = base_url

    async def list(
        self, caller: Caller, agent_id: str, session_id: str
    ) -> tuple[str, Sequence[Entry]]:
        """Whose workspace it is, and what is in it."""
        place = await self._place(caller, agent_id, session_id)
        try:
            return place.user_id, await self._files.list(place)
        except BadPath:
            raise Unusable("workspace.path") from None

    async def open(self, caller: Caller, agent_id: str, session_id: str, path: str) -> Download:
        """A file to be read, or a directory. Raises NotFound("workspace.not_found")."""
        place = await self._place(caller, agent_id, session_id)
        try:
            names = segments(path)
            opened = await self._files.open(place, names)
        except BadPath:
            raise Unusable("workspace.path") from None
        except NoSuchFile:
            raise NotFound("workspace.not_found") from None
        if isinstance(opened, Reading):
            return Download(names[-1], opened.size, opened)
        return Download(f"{names[-1]}.zip", None, opened)

    async def delete(self, caller: Caller, agent_id: str, session_id: str, path: str) -> None:
        """Remove a file, or a directory and all in it. Raises NotFound("workspace.not_found")."""
        place = await self._place(caller, agent_id, session_id)
        try:
            await self._files.delete(place, segments(path))
        except BadPath:
            raise Unusable("workspace.path") from None
        except NoSuchFile:
            raise NotFound("workspace.not_found") from None

    async def read_image(self, user_id: str, url: str, max_bytes: int) -> tuple[str, bytes] | None:
        """Media type and bytes of an image whose download address is given, with the account's
        rights; None for any other address. Raises NotFound, ValueError for more than
        `max_bytes`."""
        given = own_path(self._base_url, url)
        parts = given.path.split("/") if given else []
        if given is None or parts[:3] != ["", "api", "agent"]:
            return None
        if parts[4:] != ["file_workspace", "download"]:
            return None
        query = {name: values[-1] for name, values in parse_qs(given.query).items()}
        caller = Caller(user_id=user_id, role="operator")
        try:
            found = await self.open(
                caller, unquote(parts[3]), query.get("session_id", ""), query.get("file_path", "")
            )
        except Unusable:
            raise NotFound("workspace.not_found") from None
        try:
            if found.size is None or found.size > max_bytes:
                raise ValueError(f"a directory, or more than {max_bytes} bytes")
            body = b"".join([chunk async for chunk in found.chunks])
        finally:
            await found.chunks.aclose()  # type: ignore[attr-defined]
        return image_type(body) or "application/octet-stream", body

    async def erase_agent(self, agent_id: str) -> None:
        """Remove every account's workspace with an agent that is gone."""
        await self._files.erase_agent(agent_id)

    async def erase_user(self, user_id: str) -> None:
        """Remove every workspace of an account that is about to go."""
        await self._files.erase_user(user_id)

    async def _place(self, caller: Caller, agent_id: str, session_id: str) -> Place:
        agent = await self._agents.get(caller, agent_id)
        owner = agent.owner_id if caller.is_admin else caller.user_id
        return Place(agent.id, owner, session_id)

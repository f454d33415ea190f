"""What a session works with: its sandbox, the files of its workspace, and the tools over both.

A sandbox is made when it is first needed, and lives in this process; the workspace is kept for as
long as the session. In the sandbox the workspace is /home/ubuntu/workspace, and both that and a
path below it name a file.
"""

import mimetypes
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import PurePosixPath
from typing import Annotated, Any

import msgspec

from domain.caller import Caller
from domain.errors import NotFound, TooLarge, Unavailable, Unusable
from domain.file_names import numbered
from domain.files import SESSIONS, UNTOLD, Files
from domain.ids import uuid7
from domain.tools import Result, Tool, ToolFailed
from gateways.sandbox.confining import WORKSPACE
from gateways.sandbox.errors import (
    NoSuchShell,
    SandboxEnded,
    SandboxError,
    SandboxUnavailable,
)
from gateways.sandbox.sandboxes import Sandbox, Sandboxes
from gateways.sandbox.shells import ConsoleRecord, ShellResult
from storage.conversations import Conversation, ConversationStore
from storage.database import Database, NoSuchRow, Unit
from storage.files import File, FileStore
from storage.workspace_files import (
    BadPath,
    Entry,
    NoSuchFile,
    Place,
    Reading,
    WorkspaceFiles,
    segments,
)

READ_MAX = 1024 * 1024
"""Bytes of a file that is read as text."""
FOLDER_MAX = 1200
SEARCHED_MAX = 20 * 1024 * 1024
LINE_MAX = 500
UPLOADS = "upload"
"""The folder of a workspace that holds what the user attached."""
SAME_NAME_MAX = 1000
SHELL_S = 600
STOP_S = 2.0
"""How long a command may take to end after Ctrl-C."""
MAIN = "main"


class SessionWork:
    """The work of every session in this process."""

    def __init__(
        self,
        database: Database,
        conversations: ConversationStore,
        store: FileStore,
        files: Files,
        workspaces: WorkspaceFiles,
        sandboxes: Sandboxes,
    ) -> None:
        self._database = database
        self._conversations = conversations
        self._store = store
        self._files = files
        self._workspaces = workspaces
        self._sandboxes = sandboxes

    async def sandbox(self, owner_id: str, session_id: str) -> Sandbox:
        """The session's sandbox, made if there is none. Raises SandboxUnavailable."""
        return await self._sandboxes.open(
            session_id, _place(owner_id, session_id).names, holder=owner_id
        )

    async def stop(self, session_id: str) -> None:
        """End every command of the session, also those that take no Ctrl-C or run in the
        background; each may clean up for STOP_S."""
        sandbox = self._sandboxes.get(session_id)
        if sandbox is not None:
            with suppress(SandboxError):
                await sandbox.stop_shells(STOP_S)

    async def erase(self, owner_id: str, session_id: str) -> None:
        """End the sandbox of a session that is gone, and remove the workspace."""
        await self._sandboxes.erase(session_id, _place(owner_id, session_id).names)

    # --- files ----------------------------------------------------------------------------------

    async def files(self, session: Conversation) -> list[File]:
        """The files of the workspace, by path. Each has a row from then on, by whose id it can be
        downloaded."""
        listed = await self._workspaces.list(_place(session.owner_id, session.id))
        entries = {
            entry.path: entry
            for entry in listed
            if not entry.is_directory and len(entry.path) <= FOLDER_MAX
        }
        rows = await self._store.of_session(session.id)
        if not _agree(rows, entries):
            with suppress(NoSuchRow):
                rows = await self._database.write(lambda: self._note(session, entries))
        return sorted(rows, key=lambda row: row.path)

    def _note(self, session: Conversation, entries: dict[str, Entry]) -> Unit[list[File]]:
        yield from self._conversations.lock(session.id)
        known = {row.path: row for row in (yield from self._store.held_of_session(session.id))}
        for path in known.keys() - entries.keys():
            yield from self._store.delete(session.owner_id, known.pop(path).id)
        for path, entry in entries.items():
            row = known.get(path)
            if row is None:
                known[path] = row = _row(session, entry)
                yield from self._store.create(row)
            elif (row.size, row.created_at) != (entry.size, entry.modified):
                yield from self._store.changed(row.id, entry.size, entry.modified)
                known[path] = msgspec.structs.replace(
                    row, size=entry.size, created_at=entry.modified
                )
        return list(known.values())

    async def read(self, owner_id: str, session_id: str, path: str) -> str:
        """A file as text: of the workspace, or of the sandbox that runs, where the path begins
        elsewhere. Raises Unusable("workspace.path"), NotFound("workspace.not_found"),
        TooLarge("session.file_too_large"), Unavailable("session.no_answer")."""
        if path.startswith("/") and not path.startswith(f"{WORKSPACE}/"):
            return await self._read_inside(session_id, path)
        try:
            opened = await self._workspaces.open(
                _place(owner_id, session_id), segments(relative(path))
            )
        except BadPath:
            raise Unusable("workspace.path") from None
        except NoSuchFile:
            raise NotFound("workspace.not_found") from None
        try:
            if not isinstance(opened, Reading):
                raise NotFound("workspace.not_found")
            if opened.size > READ_MAX:
                raise TooLarge("session.file_too_large", limit=READ_MAX)
            return b"".join([chunk async for chunk in opened]).decode(errors="replace")
        finally:
            await opened.aclose()

    async def _read_inside(self, session_id: str, path: str) -> str:
        """A file that is no part of the workspace is there as long as the sandbox runs, and for
        its programs alone."""
        sandbox = self._sandboxes.get(session_id)
        data = None
        if sandbox is not None:
            try:
                data = await sandbox.read_file(path, READ_MAX + 1)
            except SandboxEnded:
                pass
            except SandboxError as error:
                raise Unavailable("session.no_answer", reason=str(error)) from error
        if data is None:
            raise NotFound("workspace.not_found")
        if len(data) > READ_MAX:
            raise TooLarge("session.file_too_large", limit=READ_MAX)
        return data.decode(errors="replace")

    async def write(
        self, owner_id: str, session_id: str, path: str, text: str, *, append: bool
    ) -> None:
        """Write a file of the workspace. Raises ToolFailed, SandboxUnavailable."""

        async def chunks() -> AsyncIterator[bytes]:
            yield text.encode()

        await self._write(owner_id, session_id, path, chunks(), append=append)

    async def _write(
        self,
        owner_id: str,
        session_id: str,
        path: str,
        chunks: AsyncIterator[bytes],
        *,
        append: bool = False,
        fresh: bool = False,
    ) -> None:
        await self.sandbox(owner_id, session_id)
        try:
            await self._workspaces.write(
                _place(owner_id, session_id),
                segments(relative(path)),
                chunks,
                append=append,
                fresh=fresh,
                owner=self._sandboxes.owner(session_id),
            )
        except FileExistsError:
            raise
        except (BadPath, NoSuchFile, OSError) as error:
            raise ToolFailed(f"the file cannot be written: {error or path}") from None

    async def attachments(
        self, caller: Caller, session: Conversation, file_ids: Sequence[str]
    ) -> "Attachments":
        """Uploaded files for the workspace, not placed yet. Raises as Files.find."""
        return Attachments(self, caller, session, await self._files.find_all(caller, file_ids))

    async def attach(self, caller: Caller, session: Conversation, file: File) -> str:
        """Put an uploaded file into the workspace, under a name that nothing has there; its path in
        the sandbox, "" where no sandbox can be had."""
        reading = await self._files.read(caller, file.id)
        for number in range(1, SAME_NAME_MAX):
            path = f"{UPLOADS}/{numbered(file.name, number)}"
            with suppress(FileExistsError):
                try:
                    await self._write(
                        session.owner_id, session.id, path, reading.chunks, fresh=True
                    )
                except (SandboxUnavailable, ToolFailed):
                    break
                return f"{WORKSPACE}/{path}"
        return ""

    async def detach(self, session: Conversation, path: str) -> None:
        """Take a file out of the workspace again."""
        with suppress(NoSuchFile, BadPath, OSError):
            await self._workspaces.delete(
                _place(session.owner_id, session.id), segments(relative(path))
            )

    # --- shells ---------------------------------------------------------------------------------

    def console(self, session_id: str, shell_id: str) -> tuple[str, list[ConsoleRecord]]:
        """The last output of a shell, and what its console shows. Raises
        NotFound: session.no_sandbox, session.no_shell."""
        sandbox = self._sandboxes.get(session_id)
        if sandbox is None:
            raise NotFound("session.no_sandbox")
        try:
            return sandbox.view_shell(shell_id).output, sandbox.records(shell_id)
        except NoSuchShell:
            raise NotFound("session.no_shell") from None

    # --- tools ----------------------------------------------------------------------------------

    def tools(self, owner_id: str, session_id: str, max_results: int) -> list[Tool]:
        """The tools by which an agent works in a session's sandbox."""
        hands = _Hands(self, self._workspaces, owner_id, session_id, max_results)
        return [
            Tool(
                "shell_execute",
                "Runs a command in a shell of the sandbox and gives its output. A shell keeps its"
                " directory and variables; a command that takes longer than timeout_s goes on, and"
                " shell_wait, shell_write and shell_kill reach it.",
                Execute,
                hands.execute,
                False,
                "shell",
            ),
            Tool(
                "shell_wait",
                "Waits for the last command of a shell and gives its output.",
                Wait,
                hands.wait,
                True,
                "shell",
            ),
            Tool(
                "shell_write",
                "Types text into the program that runs in a shell, a line break included.",
                Write,
                hands.type_in,
                False,
                "shell",
            ),
            Tool(
                "shell_kill",
                "Ends a shell with everything that was started in it.",
                Shell,
                hands.kill,
                True,
                "shell",
            ),
            Tool(
                "file_read",
                "Reads a text file: of the workspace, or any of the sandbox by its absolute path.",
                ReadFile,
                hands.read,
                True,
                "file",
            ),
            Tool(
                "file_write",
                f"Writes a text file of the workspace, {WORKSPACE}, or appends to it.",
                WriteFile,
                hands.write,
                False,
                "file",
            ),
            Tool(
                "file_find",
                "Lists the files of the workspace whose path matches a pattern such as *.py.",
                FindFiles,
                hands.find,
                True,
                "file",
            ),
            Tool(
                "file_search",
                "Finds lines in the text files of the workspace that hold some words.",
                SearchFiles,
                hands.search,
                True,
                "search",
            ),
        ]


class Attachments:
    """Files that a message brings along: they go into the workspace when they are asked for, once,
    and come out again where the message was not taken."""

    def __init__(
        self, work: SessionWork, caller: Caller, session: Conversation, files: Sequence[File]
    ) -> None:
        self._work = work
        self._caller = caller
        self._session = session
        self._files = files
        self._placed: list[dict[str, Any]] = []

    def __bool__(self) -> bool:
        return bool(self._files)

    async def place(self) -> list[dict[str, Any]]:
        """The files as events describe them, in the workspace."""
        for file in self._files[len(self._placed) :]:
            path = await self._work.attach(self._caller, self._session, file)
            self._placed.append(described(file, path))
        return list(self._placed)

    async def take_back(self) -> None:
        """Leave none of them in the workspace."""
        while self._placed:
            if path := self._placed.pop()["filepath"]:
                await self._work.detach(self._session, path)


_Shell = Annotated[
    str,
    msgspec.Meta(
        min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_-]+$", description="The shell's name."
    ),
]
_Seconds = Annotated[
    int, msgspec.Meta(ge=0, le=SHELL_S, description="Seconds to wait for its end.")
]
_Path = Annotated[
    str, msgspec.Meta(min_length=1, max_length=4096, description="A path in the workspace.")
]


class Execute(msgspec.Struct, forbid_unknown_fields=True):
    command: Annotated[str, msgspec.Meta(min_length=1, max_length=32_000)]
    shell: _Shell = MAIN
    timeout_s: _Seconds = 60


class Wait(msgspec.Struct, forbid_unknown_fields=True):
    shell: _Shell = MAIN
    timeout_s: _Seconds = 60


class Write(msgspec.Struct, forbid_unknown_fields=True):
    text: Annotated[str, msgspec.Meta(max_length=32_000)]
    shell: _Shell = MAIN


class Shell(msgspec.Struct, forbid_unknown_fields=True):
    shell: _Shell = MAIN


class ReadFile(msgspec.Struct, forbid_unknown_fields=True):
    path: Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]


class WriteFile(msgspec.Struct, forbid_unknown_fields=True):
    path: _Path
    content: Annotated[str, msgspec.Meta(max_length=READ_MAX)]
    append: bool = False


class FindFiles(msgspec.Struct, forbid_unknown_fields=True):
    pattern: Annotated[str, msgspec.Meta(min_length=1, max_length=256)] = "*"


class SearchFiles(msgspec.Struct, forbid_unknown_fields=True):
    query: Annotated[str, msgspec.Meta(min_length=1, max_length=500)]


class _Hands:
    """What the tools of one session do."""

    def __init__(
        self,
        work: SessionWork,
        workspaces: WorkspaceFiles,
        owner_id: str,
        session_id: str,
        max_results: int,
    ) -> None:
        self._work = work
        self._workspaces = workspaces
        self._owner_id = owner_id
        self._session_id = session_id
        self._max_results = max_results

    async def execute(self, wanted: Execute) -> Result:
        sandbox = await self._sandbox()
        told = await sandbox.shell(wanted.shell, wanted.command, timeout_s=wanted.timeout_s)
        return _shown(sandbox, wanted.shell, told)

    async def wait(self, wanted: Wait) -> Result:
        sandbox = await self._sandbox()
        told = await sandbox.wait_shell(wanted.shell, timeout_s=wanted.timeout_s)
        return _shown(sandbox, wanted.shell, told)

    async def type_in(self, wanted: Write) -> Result:
        sandbox = await self._sandbox()
        await sandbox.write_shell(wanted.shell, wanted.text)
        return _shown(sandbox, wanted.shell, await sandbox.wait_shell(wanted.shell, timeout_s=1.0))

    async def kill(self, wanted: Shell) -> Result:
        sandbox = await self._sandbox()
        await sandbox.kill_shell(wanted.shell)
        return Result("The shell has ended.", {"console": _console(sandbox, wanted.shell)})

    async def read(self, wanted: ReadFile) -> Result:
        text = await self._text(wanted.path)
        return Result(text, {"content": text})

    async def write(self, wanted: WriteFile) -> Result:
        await self._work.write(
            self._owner_id, self._session_id, wanted.path, wanted.content, append=wanted.append
        )
        path = f"{WORKSPACE}/{relative(wanted.path)}"
        return Result(f"{path} is written.", {"content": wanted.content})

    async def find(self, wanted: FindFiles) -> Result:
        paths = [entry.path for entry in await self._entries(wanted.pattern)]
        text = "\n".join(f"{WORKSPACE}/{path}" for path in paths)
        return Result(text or "No file matches.", {"content": text})

    async def search(self, wanted: SearchFiles) -> Result:
        entries = await self._entries("*")
        return await searched(entries, self._text, wanted.query, self._max_results, f"{WORKSPACE}/")

    async def _sandbox(self) -> Sandbox:
        return await self._work.sandbox(self._owner_id, self._session_id)

    async def _entries(self, pattern: str) -> list[Entry]:
        listed = await self._workspaces.list(_place(self._owner_id, self._session_id))
        return [one for one in listed if not one.is_directory and fnmatch(one.path, pattern)]

    async def _text(self, path: str) -> str:
        try:
            return await self._work.read(self._owner_id, self._session_id, path)
        except (Unusable, NotFound):
            raise ToolFailed(f"there is no file {path}") from None
        except TooLarge:
            raise ToolFailed(f"{path} has more than {READ_MAX} bytes") from None
        except Unavailable as error:
            raise ToolFailed(f"{path} cannot be read: {error.details['reason']}") from None


def relative(path: str) -> str:
    """A path below the workspace, however it was written."""
    return path.removeprefix(f"{WORKSPACE}/").removeprefix("./")


def _place(owner_id: str, session_id: str) -> Place:
    return Place(SESSIONS, owner_id, session_id)


def _agree(rows: Sequence[File], entries: dict[str, Entry]) -> bool:
    return len(rows) == len(entries) and all(
        (entry := entries.get(row.path)) is not None
        and (row.size, row.created_at) == (entry.size, entry.modified)
        for row in rows
    )


def _row(session: Conversation, entry: Entry) -> File:
    return File(
        id=uuid7(),
        owner_id=session.owner_id,
        link=None,
        folder=entry.path.rpartition("/")[0],
        name=entry.name,
        media_type=mimetypes.guess_type(entry.name)[0] or UNTOLD,
        size=entry.size,
        created_at=entry.modified,
        session_id=session.id,
    )


def _shown(sandbox: Sandbox, shell: str, told: ShellResult) -> Result:
    state = "still running" if told.exit_code is None else f"exit code {told.exit_code}"
    return Result(f"{told.output}\n[{state}]", {"console": _console(sandbox, shell)})


def _console(sandbox: Sandbox, shell: str) -> list[dict[str, Any]]:
    """The last record of a console, as its events show it."""
    return [msgspec.to_builtins(record) for record in sandbox.records(shell)[-1:]]


def described(file: File, filepath: str = "") -> dict[str, Any]:
    """A file as the events of a session describe it."""
    suffix = PurePosixPath(file.name).suffix.lower()
    return {
        "id": file.id,
        "filename": file.name,
        "filepath": filepath,
        "key": file.key,
        "extension": suffix if suffix[1:].isalnum() else "",
        "mime_type": file.media_type,
        "size": file.size,
    }


async def searched(
    entries: Sequence[Entry],
    text_of: Callable[[str], Awaitable[str]],
    query: str,
    most: int,
    root: str = "",
) -> Result:
    """At most so many lines of files that hold a text, whatever its case; of the files so many as
    have SEARCHED_MAX bytes together. `text_of` raises ToolFailed for a file that is left out."""
    words, room = query.lower(), SEARCHED_MAX
    results: list[dict[str, str]] = []
    for entry in entries:
        room -= entry.size
        if room < 0 or len(results) >= most:
            break
        with suppress(ToolFailed):
            lines = (await text_of(entry.path)).splitlines()
            results += [
                {
                    "title": entry.path,
                    "link": f"{root}{entry.path}:{number}",
                    "snippet": line.strip()[:LINE_MAX],
                }
                for number, line in enumerate(lines, 1)
                if words in line.lower()
            ][: most - len(results)]
    text = "\n".join(f"{one['link']}: {one['snippet']}" for one in results)
    return Result(text or "Nothing was found.", {"results": results})

"""Files that people send, keep and fetch: attacks by names, links, kinds and sizes (checklist 30,
31, 34, 35, 37)."""

import contextlib
import json
import os
import re
import secrets
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import quote, unquote

import python_multipart.multipart
from starlette.formparsers import MultiPartParser

from contracts.document import Operation
from domain.errors import NotFound
from domain.tools import ToolFailed
from domain.turn.file_tools import file_tools
from server.lane import forms
from storage import workspace_files
from storage.database import StorageError
from storage.skill_files import SkillFiles
from tests.security import asgi
from tests.security.defences import lane, without
from tests.security.place import CONTRACTS, NOWHERE, OPERATIONS, Place, path_of, unique
from tests.security.web_defences import unchecked
from tests.skills.packing import packed_skill
from tests.storage.test_objects import HOSTILE
from tests.storage.test_workspace_files import TRAVERSAL

FILES = "storage.workspace_files"
FORMS = "server.lane.forms"
CANARY = b"canary of the data directory"
UNSAFE = frozenset('/\\:*?"<>|\r\n\0')
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>'
HTML = b"<!doctype html><script>alert(document.cookie)</script>"
UPLOADS = [operation for operation in OPERATIONS if operation.form]


class Work:
    """The owner's workspace, with a file in it and one outside that nobody may reach."""

    def __init__(self, place: Place) -> None:
        self.owner = place.owner
        self.base = f"/api/agent/{place.agent}/file_workspace"
        self.folder = place.data / "workspaces" / place.agent / place.owner.id / "sess"
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "inside.txt").write_bytes(b"inside")
        self.canary = place.data / "canary.txt"
        self.canary.write_bytes(CANARY)

    async def read(self, path: str, session: str = "sess") -> Any:
        return await self._ask("GET", "download", path, session)

    async def delete(self, path: str, session: str = "sess") -> Any:
        return await self._ask("DELETE", "delete", path, session)

    async def list(self, session: str) -> Any:
        return await self.owner.ask("POST", f"{self.base}?session_id={quoted(session)}")

    def unharmed(self) -> bool:
        """Whether what nobody may remove is there."""
        return self.canary.is_file() and (self.folder / "inside.txt").is_file()

    async def _ask(self, method: str, what: str, path: str, session: str) -> Any:
        query = f"file_path={quoted(path)}&session_id={quoted(session)}"
        return await self.owner.ask(method, f"{self.base}/{what}?{query}")


def quoted(text: str) -> str:
    return quote(text.encode("utf-8", "surrogatepass"), safe="")


@contextlib.contextmanager
def placed(path: Path) -> Iterator[Path]:
    """A name that a check gives to something; gone afterwards, whatever the name is then of."""
    try:
        yield path
    finally:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


# --- paths --------------------------------------------------------------------------------------


def outward(place: Place) -> list[str]:
    """Spellings of the path to the canary, from wherever below the data directory one may stand."""
    found = [str(place.data / "canary.txt"), f"file://{place.data}/canary.txt"]
    for depth in range(1, 6):
        plain = "../" * depth + "canary.txt"
        found += [plain, quote(plain, safe=""), quoted(quote(plain, safe=""))]
        found += [plain.replace("/", "\\"), plain.replace("../", "....//"), f"sess/{plain}"]
        found += [plain[:-11], plain + "\0.png", plain.replace("..", "\uff0e\uff0e"), f"./{plain}."]
    return found


def _any_name(name: str) -> None:
    """Every name is as good as another."""


@without(30, names={f"{FILES}:_check": _any_name})
async def no_parameter_leads_to_a_file(place: Place) -> None:
    """Every text in every path and query of the contract, whatever it is called."""
    work = Work(place)
    known = {"agent_id": place.agent, "session_id": "sess"}
    for operation in OPERATIONS:
        texts = [
            parameter
            for parameter in operation.parameters
            if parameter.place in ("path", "query") and parameter.schema.get("type") == "string"
        ]
        for aimed in texts:
            others = {p.name: known.get(p.name, "canary.txt") for p in texts if p.place == "query"}
            for form in outward(place):
                given = {**others, aimed.name: form}
                query = "&".join(f"{n}={quoted(v)}" for n, v in given.items() if n in others)
                path = path_of(operation, **{**known, aimed.name: quoted(form)})
                reply = await place.owner.ask(operation.method, f"{path}?{query}")
                assert reply.http != 500, (operation.id, aimed.name, form)
                assert CANARY not in reply.body, (operation.id, aimed.name, form)
                assert work.unharmed(), (operation.id, aimed.name, form)


@without(
    30,
    names={f"{FILES}:_check": _any_name},
    paths={"domain.workspaces:segments": lambda path: tuple(path.split("/"))},
    sessions={
        f"{FILES}:Place.names": property(lambda self: self.session_id.split("/")),
        "server.lane.parameters:Parameter.value": unchecked,
    },
)
async def no_path_leads_out_of_a_workspace(place: Place) -> None:
    work = Work(place)
    for acting in (work.read, work.delete):
        for path in [*TRAVERSAL, *outward(place)]:
            assert (await acting(path)).http in (400, 422), path
        for session in ("..", ".", "../..", "a/b", "a\\b", "%2e%2e", "a.", "x" * 129, "a\0"):
            assert (await work.list(session)).http in (400, 422), session
            assert (await acting("inside.txt", session)).http in (400, 422), session
    assert work.unharmed()


@without(
    30,
    names={f"{FILES}:_check": _any_name},
    paths={"domain.turn.file_tools:segments": lambda path: tuple(path.split("/"))},
)
async def no_tool_of_an_agent_leads_out_of_its_workspace(place: Place) -> None:
    work = Work(place)
    files = workspace_files.WorkspaceFiles(place.data / "workspaces")
    own = workspace_files.Place(place.agent, place.owner.id, "sess")
    tools = {tool.name: tool for tool in file_tools(files, own)}
    for path in [*TRAVERSAL, *outward(place)]:
        for name, more in (("file_read", {}), ("file_write", {"content": "overwritten"})):
            try:
                given = await tools[name].call(json.dumps({"path": path, **more}))
            except ToolFailed:
                continue
            # `./x` is x, for a model that writes it so.
            assert path == "./a", path
            assert name == "file_write", given
    assert work.canary.read_bytes() == CANARY
    assert work.unharmed()


@without(30, own={"storage.skill_files:_ID": re.compile(".*", re.DOTALL)})
async def a_skills_folder_is_its_id(place: Place) -> None:
    kept = SkillFiles(place.data / "skills")
    victim = place.data / "victim"
    for name in ("../victim", str(victim), "..", "", f"{NOWHERE}\n", f"{NOWHERE}/../../victim"):
        victim.mkdir(exist_ok=True)
        (victim / "0").write_bytes(CANARY)
        for acting in (partial(kept.erase, name), partial(kept.read, name, 0, 100)):
            try:
                acting()
            except ValueError:
                continue
            raise AssertionError(name)
        assert (victim / "0").exists()


async def _by_path(self: Any, skill_id: str, path: str = "SKILL.md") -> str:
    """As one does who thinks of a skill as a folder."""
    return (self._files._folder / skill_id / path).read_text()  # type: ignore[no-any-return]


@without(30, listed={"domain.skills:Skills.read": _by_path})
async def a_skill_gives_its_own_files_alone(place: Place) -> None:
    name = unique("own-files")
    Work(place)
    await place.owner.ask(
        "POST", "/api/skills/upload", **asgi.form(("file", "a.zip", packed_skill(name)))
    )
    found = await place.quartet.skills.visible(place.owner.caller())
    skill_id = next(skill.id for skill, _ in found if skill.name == name)
    for path in [*TRAVERSAL, *outward(place), "0", "ask.py"]:
        try:
            said = await place.quartet.skills.read(skill_id, path)
        except (NotFound, OSError, ValueError):
            continue
        raise AssertionError((path, said))


@without(30, keys={"storage.objects:_checked": lambda key: key})
async def an_object_key_is_no_path(place: Place) -> None:
    objects = place.quartet.files._objects()
    for key in HOSTILE:
        for acting in (partial(objects.put, content=b"x"), objects.get, objects.stat):
            try:
                await acting(key)
            except ValueError:
                continue
            except StorageError as error:
                raise AssertionError(key) from error
            raise AssertionError(key)


NAMES = ("../../x.png", "a/b\\c.png", "..", "\u202egnp.exe", "a:b|c.png", "x" * 500, "%2e%2e%2fx")


async def published(place: Place, name: str, content: bytes) -> str:
    reply = await place.owner.ask("POST", "/api/oss/upload", **asgi.form(("file", name, content)))
    url: str = reply.data["url"]
    return url[url.index("/oss/") :]


@without(30, name={"domain.files:safe_name": lambda name: name})
async def a_published_name_is_one_safe_segment(place: Place) -> None:
    for name in NAMES:
        shown = unquote((await published(place, name, b"x")).split("/", 3)[3])
        assert not {*UNSAFE, "\u202e", "%"} & set(shown), name
        assert 0 < len(shown) <= 150, name


@without(30, name={"domain.knowledge.documents:_plain": lambda name: name})
async def a_documents_name_is_one_segment(place: Place) -> None:
    made = await place.owner.ask(
        "POST", "/api/knowledge-base/add", {"name": unique("base"), "type": "rag"}
    )
    base = made.data["kdb_id"]
    for name in ("../../etc/x.md", "..\\x.md", "/etc/x.md", "a\u202ex.md", "%2e%2e/x.md"):
        parts = ("kdb_id", None, base.encode()), ("files", name, b"x")
        reply = await place.owner.ask(
            "POST", "/api/knowledge-base/doc/add_by_files", **asgi.form(*parts)
        )
        assert reply.status == 200, name
    listed = await place.owner.ask("GET", f"/api/knowledge-base/doc/list?kdb_id={base}")
    shown = {row["doc_name"] for row in listed.data["list"]}
    assert shown <= {"x.md", "ax.md"}, shown


# --- links and devices --------------------------------------------------------------------------

_LOOSE = os.O_RDONLY | os.O_CLOEXEC


def _any_file(name: str, parent: int) -> Any:
    """Whatever stands under the name, and has as many names as it likes."""
    file = os.fdopen(os.open(name, _LOOSE | os.O_NONBLOCK, dir_fd=parent), "rb", buffering=0)
    return file, os.fstat(file.fileno())


@without(
    31,
    on_the_way={f"{FILES}:_DIRECTORY": _LOOSE | os.O_DIRECTORY},
    at_the_end={f"{FILES}:_usable": lambda told: True, f"{FILES}:_FILE": _LOOSE},
)
async def no_link_is_followed(place: Place) -> None:
    work = Work(place)
    with placed(work.folder / "file") as file, placed(work.folder / "folder") as folder:
        file.symlink_to(work.canary)
        folder.symlink_to(work.canary.parent)
        for path in ("file", "folder", "folder/canary.txt"):
            for acting in (work.read, work.delete):
                assert (await acting(path)).http == 404, path
            assert work.unharmed(), path


@without(31, kinds={f"{FILES}:_usable": lambda told: True, f"{FILES}:_open_file": _any_file})
async def only_plain_files_are_there(place: Place) -> None:
    """No file with a second name elsewhere, and no pipe, is read, removed or packed."""
    work = Work(place)
    with placed(work.folder / "second") as second, placed(work.folder / "pipe") as pipe:
        os.link(work.canary, second)
        os.mkfifo(pipe)
        for path in ("second", "pipe"):
            for acting in (work.read, work.delete):
                assert (await acting(path)).http == 404, path
        packed = await work.read("sess", "")
        assert b"inside.txt" in packed.body
        assert b"second" not in packed.body
        assert b"pipe" not in packed.body


@without(31, race={f"{FILES}:_FILE": _LOOSE | os.O_NONBLOCK})
async def what_was_checked_is_what_is_opened(place: Place) -> None:
    """A file that becomes a link between the look at it and its opening."""
    work = Work(place)
    look = workspace_files._stat
    with placed(work.folder / "moving") as moving:
        moving.write_bytes(b"plain")

        def swap(name: str, parent: int) -> os.stat_result:
            told = look(name, parent)
            if name == moving.name:
                moving.unlink()
                moving.symlink_to(work.canary)
            return told

        with mock.patch.object(workspace_files, "_stat", swap):
            reply = await work.read(moving.name)
    assert CANARY not in reply.body
    assert reply.http == 404


# --- uploads ------------------------------------------------------------------------------------


def fields_of(operation: Operation) -> tuple[str, str]:
    """The form's file, and another field of it."""
    contract = CONTRACTS[operation.contract]
    schema = contract.followed(
        operation.raw["requestBody"]["content"]["multipart/form-data"]["schema"]
    )
    properties = {name: contract.followed(each) for name, each in schema["properties"].items()}
    file = next(n for n, each in properties.items() if "binary" in str(each))
    return file, next((name for name in properties if name != file), "note")


@contextlib.contextmanager
def limited(place: Place, operation: Operation, limits: forms.Limits) -> Iterator[None]:
    compiled = lane(place, operation.contract)[operation.id]
    with mock.patch.object(compiled, "_around", compiled._around._replace(forms=limits)):
        yield


class _Countless(forms._Parser):
    """As Starlette's parser is where nobody sets it a limit."""

    def __init__(self, *args: Any, **options: Any) -> None:
        endless = {"max_files": 10**6, "max_fields": 10**6, "max_part_size": 1 << 40}
        super().__init__(*args, **{**options, **endless})


@without(
    34,
    size={f"{FORMS}:_Parser.on_part_data": MultiPartParser.on_part_data},
    counts={f"{FORMS}:_Parser": _Countless},
)
async def an_upload_is_so_many_parts_of_so_many_bytes(place: Place) -> None:
    assert len(UPLOADS) >= 3
    for operation in UPLOADS:
        file, text = fields_of(operation)
        send = partial(place.admin.ask, operation.method, path_of(operation))
        with limited(place, operation, forms.Limits(file=1_000, files=20)):
            large = await send(**asgi.form((file, "a.md", b"x" * 1_001)))
        assert large.http == 413, operation.id
        many = [(file, f"{number}.md", b"x") for number in range(21)]
        assert (await send(**asgi.form(*many))).http == 400, operation.id
        texts = [(f"{text}{number}", None, b"x") for number in range(101)]
        assert (await send(**asgi.form(*texts))).http == 400, operation.id
        long = (text, None, b"x" * (1024 * 1024 + 1))
        assert (await send(**asgi.form(long))).http == 400, operation.id


_PARSER = python_multipart.multipart.MultipartParser
_BOUNDED = _PARSER.__init__


def _unbounded(self: Any, *args: Any, **options: Any) -> None:
    _BOUNDED(self, *args, **options, max_header_size=1 << 30, max_header_count=1 << 30)


@without(34, heads={"python_multipart.multipart:MultipartParser.__init__": _unbounded})
async def a_part_has_a_short_head(place: Place) -> None:
    for operation in UPLOADS:
        file, _ = fields_of(operation)
        long = f'a.md"\r\nX-Long: "{"x" * 10_000}'
        many = 'a.md"' + "".join(f"\r\nX-{n}: y" for n in range(100)) + '\r\nX: "'
        for head in (long, many):
            parts = asgi.form((file, head, b"x"))
            reply = await place.admin.ask(operation.method, path_of(operation), **parts)
            assert reply.http == 400, operation.id
            assert b"multipart" in reply.body.lower(), reply


# --- downloads ----------------------------------------------------------------------------------


async def kept(place: Place, name: str, content: bytes) -> asgi.Reply:
    """A file of the sandbox contract, uploaded and fetched again."""
    reply = await place.owner.ask(
        "POST", "/sandbox/api/files", **asgi.form(("file", name, content))
    )
    return await place.owner.ask("GET", f"/sandbox/api/files/{reply.data['id']}/download")


async def stored(place: Place, name: str, content: bytes) -> asgi.Reply:
    """An object of the sandbox contract's status page, by its presigned URL."""
    form = asgi.form(("file", name, content))
    reply = await place.admin.ask("POST", "/sandbox/api/status/minio/upload", **form)
    url: str = reply.data["presigned_get_url"]
    return await place.ask("GET", url[url.index("/sandbox/") :])


async def downloads(place: Place, name: str, content: bytes) -> dict[str, Any]:
    """A file of that name and content, by every operation that sends files."""
    work = Work(place)
    (work.folder / name).write_bytes(content)
    found = {
        "oss_download": await place.ask("GET", await published(place, name, content)),
        "workspace_download": await work.read(name),
        "status_download_object": await stored(place, name, content),
        "file_download": await kept(place, name, content),
    }
    sending = {
        operation.id
        for operation in OPERATIONS
        if "binary" in str(operation.statuses[operation.success].get("content"))
    }
    assert set(found) == sending, "an operation that sends files is not tried here"
    return found


def _inline(name: str, *, inline: bool) -> bytes:
    return b"inline"


@without(
    35,
    attachment={"server.lane.files:disposition": _inline},
    sandbox={"server.lane.files:SANDBOX": (b"x-nothing", b"")},
    nosniff={"server.lane.replies:STREAM_HEADERS": ()},
    kinds={
        "domain.files:image_type": lambda beginning: "image/svg+xml",
        "server.lane.files:INLINE": frozenset({"image/svg+xml"}),
    },
    word={"domain.files:image_type": lambda beginning: "text/html"},
)
async def no_download_is_a_page_of_ours(place: Place) -> None:
    """Whatever its name and its content say that it is."""
    for name in ("a.html", "a.svg", "a.png", "a.xhtml", "a.js"):
        for content in (HTML, SVG):
            for operation, sent in (await downloads(place, name, content)).items():
                assert sent.http == 200
                assert sent.headers["content-disposition"].startswith("attachment; "), name
                if operation != "file_download":  # whose type is its uploader's word (document 002)
                    assert sent.headers["content-type"] == "application/octet-stream", name
                assert sent.headers.get("x-content-type-options") == "nosniff"
                policy = sent.headers.get("content-security-policy", "")
                assert policy.startswith("sandbox; default-src 'none'")


_DISPOSITION = re.compile(r"attachment; filename=\"([\w. -]+)\"; filename\*=utf-8''(.+)")


@without(35, name={"server.lane.files:safe_name": lambda name: name})
async def a_download_is_saved_under_a_safe_name(place: Place) -> None:
    for name in ('q"; filename="evil.exe', "a<b>|c:d*?.txt", "\u202egpj.exe", "半角 .html"):
        for sent in (await downloads(place, name, b"x")).values():
            said = sent.headers["content-disposition"]
            told = _DISPOSITION.fullmatch(said)
            assert told, said
            assert not {*UNSAFE, "\u202e"} & set(unquote(told[2])), said


# --- addresses ----------------------------------------------------------------------------------


async def _newest(self: Any, link: str) -> Any:
    """Whoever asks gets something."""
    return await self._database.read_one(_ANY())


def _any_statement() -> Any:
    from sqlalchemy import select

    from storage.database import Statement
    from storage.files import File
    from storage.schema import files

    return Statement(select(files).order_by(files.c.id.desc()).limit(1), into=File)


_ANY = _any_statement()


@without(
    37,
    bits={"secrets:token_hex": lambda size: f"{next(_COUNT):0{2 * size}x}"},
    bound={"storage.files:FileStore.get_linked": _newest},
)
async def a_public_address_is_not_guessed(place: Place) -> None:
    """What sage gives out in the place of presigned URLs: one object, and 128 bits to know."""
    first, second = [await published(place, "a.txt", b"x") for _ in range(2)]
    link = second.split("/")[2]
    assert re.fullmatch(r"[0-9a-f]{32}", link)
    assert first.split("/")[2][:24] != link[:24], "the next one can be told from this one"
    for guess in ("0" * 32, link[:-1], link + "0", "%"):
        assert (await place.ask("GET", f"/oss/{quoted(guess)}/a.txt")).http == 404, guess
    assert (await place.ask("GET", second)).http == 200
    assert secrets.token_hex(16) != secrets.token_hex(16)


_COUNT = iter(range(1, 1 << 30))


@without(37, expiry={"storage.objects:PRESIGNED_MAX_S": 10**9})
async def a_presigned_url_lives_an_hour_at_most(place: Place) -> None:
    objects = place.quartet.files._objects()
    for seconds in (3601, 86_400, 10**8):
        try:
            await objects.presign("GET", "a", seconds)
        except ValueError:
            continue
        raise AssertionError(seconds)

"""Backup and restore: rows, jobs and files, each as of one moment, with a manifest that names them.

A backup may be made beside a running server. Jobs are copied before rows and files after them: what
a restored row refers to is there, unless it was deleted meanwhile, which is said, and a run without
its job is settled by the server's reconciler. The secrets key is not in a backup unless it is asked
for; the manifest names it by its id, which tells nothing about it.
"""

import os
import re
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy.dialects import postgresql, sqlite

from gateways.secretbox import ENVIRONMENT, key_id, load_keys
from server.administration.copying import Copying, File, LeftOut, printable
from server.administration.opening import Refused, alone, present
from server.administration.stored import SELECTS, folders, named
from server.settings import Settings
from storage.migrating import HEAD, version
from storage.objects import DIRECTORY, PARTIAL
from storage.postgres import driver_url

MANIFEST = "manifest.json"
FORMAT = 2
ROWS = {True: "quartet.sqlite", False: "quartet.dump"}
JOBS = "jobs.sqlite"
KEY = "secrets.key"
_NO_CLIENT = "{} is not installed (Debian: apt install postgresql-client)"
_SHOWN = 20


class Manifest(msgspec.Struct, frozen=True):
    """What a backup holds. `keys` are ids of the keys that seal what is in it; `folders` and
    `files` are all that stands in it but this. `left_out` is what stood in the copied folders and
    is not in the backup, `missing` what its rows name and was not there to be copied."""

    format: int
    made_at: float
    schema: str
    dialect: str
    keys: list[str]
    objects: str
    files: list[File]
    folders: list[str] = []
    left_out: list[LeftOut] = []
    missing: list[str] = []


def back_up(
    settings: Settings, target: Path, say: Callable[[str], None], *, with_key: bool = False
) -> Manifest:
    """Write a backup into a directory that does not exist yet.

    What is no regular file, or cannot be read, is left out and said. Raises Refused; OSError, with
    nothing left at `target`.
    """
    present(settings)
    copied = folders(settings)
    if settings.object_store_url:
        del copied[DIRECTORY]
        say(f"Files are in {_place(settings)}: back them up with its own means.")
    _refuse_target(target, copied.values())
    keys = load_keys(settings.data, settings.secrets_key_file, os.environ)
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    draft.mkdir(mode=0o700, parents=True)
    try:
        schema = version(settings.database_url, settings.data) or ""
        if settings.embedded:
            if (settings.data / JOBS).exists():
                _copy_sqlite(settings.data / JOBS, draft / JOBS)
            _copy_sqlite(settings.data / ROWS[True], draft / ROWS[True])
            names = _named_in_sqlite(draft / ROWS[True]) if schema == HEAD else {}
        else:
            names = _dump(settings, draft / ROWS[False], look=schema == HEAD)
        if with_key:
            own = settings.secrets_key_file or settings.data / KEY
            if not own.exists():
                raise Refused("the secrets key is in the environment, not in a file")
            shutil.copy(own, draft / KEY)
        for path in draft.iterdir():
            path.chmod(0o600)
        taken = Copying(ignored=re.compile(f"{DIRECTORY}/{PARTIAL.pattern}"))
        taken.folder(draft, None)
        for name, source in copied.items():
            if source.exists():
                (draft / name).mkdir(mode=0o700)
                taken.folders.append(name)
                taken.folder(source, draft / name, name)
        there = {file.path for file in taken.files}
        missing = sorted(path for path in names if _top(path) in copied and path not in there)
        manifest = Manifest(
            format=FORMAT,
            made_at=round(time.time(), 3),
            schema=schema,
            dialect="sqlite" if settings.embedded else "postgresql",
            keys=[key_id(key) for key in keys],
            objects=_place(settings),
            files=sorted(taken.files, key=_path),
            folders=sorted(taken.folders),
            left_out=taken.left_out,
            missing=missing,
        )
        encoded = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
        (draft / MANIFEST).write_bytes(encoded + b"\n")
        (draft / MANIFEST).chmod(0o600)
        draft.rename(target)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    say(f"{len(manifest.files)} files, {sum(file.size for file in manifest.files):,} bytes")
    _list(say, "left out", [f"{each.path}: {each.reason}" for each in manifest.left_out])
    _list(say, "not there any more", [f"{path} ({printable(names[path])})" for path in missing])
    if not with_key:
        say(f"Keep the secrets key {', '.join(manifest.keys)} elsewhere: without it a restored")
        say("server cannot open its secrets (--with-key puts it into the backup).")
    return manifest


def restore(settings: Settings, source: Path, say: Callable[[str], None]) -> Manifest:
    """Put a backup where nothing is yet. Raises Refused before anything is written."""
    manifest = read_manifest(source)
    if (manifest.dialect == "sqlite") != settings.embedded:
        raise Refused(f"the backup is of {manifest.dialect}; DATABASE_URL names another database")
    if settings.embedded:
        settings.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    with alone(settings):
        _refuse_occupied(settings)
        key = _key_to_restore(settings, source)
        if key is not None:
            settings.data.mkdir(mode=0o700, parents=True, exist_ok=True)
            _copy(key, settings.data / KEY)
        copying = Copying(executables={file.path for file in manifest.files if file.executable})
        for name, target in folders(settings).items():
            if name in manifest.folders:
                target.mkdir(mode=0o700, parents=True, exist_ok=True)
                copying.folder(source / name, target, name)
        if set(copying.files) != {file for file in manifest.files if "/" in file.path}:
            raise Refused(f"{source} changed while it was restored: begin anew elsewhere")
        if settings.embedded:
            for name in (JOBS, ROWS[True]):
                if (source / name).exists():
                    _copy(source / name, settings.data / name)
        else:
            _load(settings, source / ROWS[False])
    say(f"Restored what was backed up at {_moment(manifest.made_at)}.")
    _list(say, "missing from the backup", manifest.missing)
    held = _held(settings)
    if not held & set(manifest.keys):
        say(f"Before the server starts, give it the secrets key {', '.join(manifest.keys)}.")
    if manifest.objects.startswith("s3://"):
        say(f"Files are not in the backup; they were in {manifest.objects}.")
    elif settings.object_store_url and DIRECTORY in manifest.folders:
        say(f"Files are in {settings.data / DIRECTORY}: put them into {_place(settings)}.")
    return manifest


def read_manifest(source: Path) -> Manifest:
    """The manifest of a backup that holds what was written into it, and nothing else: no link, and
    no name that the manifest does not know. Raises Refused."""
    try:
        manifest = msgspec.json.decode((source / MANIFEST).read_bytes(), type=Manifest)
    except (OSError, msgspec.DecodeError) as error:
        raise Refused(f"{source} is no backup: {error}") from None
    if manifest.format != FORMAT:
        raise Refused(f"{source} has format {manifest.format}, this release reads {FORMAT}")
    found = Copying(executables={file.path for file in manifest.files if file.executable})
    found.folder(source, None)
    for strange in found.left_out:
        raise Refused(f"{source} is damaged: {strange.path} is {strange.reason}")
    files = sorted((file for file in found.files if file.path != MANIFEST), key=_path)
    if files != manifest.files or sorted(found.folders) != manifest.folders:
        raise Refused(f"{source} is damaged: its files are not those of its manifest")
    return manifest


def _refuse_target(target: Path, copied: Iterable[Path]) -> None:
    if target.exists():
        raise Refused(f"{target} exists; a backup is made into a new directory")
    for folder in copied:
        if target.resolve().is_relative_to(folder.resolve()):
            raise Refused(f"{target} is in {folder}, which is backed up itself")


def _refuse_occupied(settings: Settings) -> None:
    kept = {"lock", KEY}
    if settings.embedded and settings.data.exists():
        found = sorted(path.name for path in settings.data.iterdir() if path.name not in kept)
        if found:
            raise Refused(f"{settings.data} is not empty ({', '.join(found[:5])})")
    for folder in folders(settings).values():
        if folder.exists() and any(folder.iterdir()):
            raise Refused(f"{folder} is not empty")
    if not settings.embedded and version(settings.database_url, settings.data) is not None:
        raise Refused("the database is not empty; restore into a new one")


def _key_to_restore(settings: Settings, source: Path) -> Path | None:
    """The key file of a backup, where it has to be written. Raises Refused where another key
    stands in its place."""
    key, own = source / KEY, settings.data / KEY
    if settings.secrets_key_file is not None or not key.exists():
        return None
    if not own.exists():
        return key
    if load_keys(settings.data, own) != load_keys(settings.data, key):
        raise Refused(f"{own} is another key than the backup's; set it aside, or restore elsewhere")
    return None


def _held(settings: Settings) -> set[str]:
    """Ids of the keys at hand; none is made."""
    own = settings.data / KEY
    if settings.secrets_key_file is None and not own.exists() and ENVIRONMENT not in os.environ:
        return set()
    return {key_id(key) for key in load_keys(settings.data, settings.secrets_key_file, os.environ)}


def _place(settings: Settings) -> str:
    """Where files are, without what may be secret in a URL."""
    return settings.object_store_url.partition("?")[0] or DIRECTORY


def _path(file: File) -> str:
    return file.path


def _top(path: str) -> str:
    return path.partition("/")[0]


def _list(say: Callable[[str], None], what: str, lines: Sequence[str]) -> None:
    for line in lines[:_SHOWN]:
        say(f"{what}: {line}")
    if len(lines) > _SHOWN:
        say(f"{what}: {len(lines) - _SHOWN:,} more, named in {MANIFEST}")


def read_only(path: Path) -> sqlite3.Connection:
    """A connection that changes no row. (`mode=ro` would leave the WAL's files behind.)"""
    connection = sqlite3.connect(f"file:{path}?mode=rw", uri=True)
    connection.execute("PRAGMA query_only=ON")
    return connection


def _copy_sqlite(source: Path, target: Path) -> None:
    """SQLite's online backup: one moment of the file, whatever is written meanwhile."""
    with (
        closing(read_only(source)) as reader,
        closing(sqlite3.connect(target)) as writer,
    ):
        reader.backup(writer)
        writer.execute("PRAGMA journal_mode=DELETE")
        (checked,) = writer.execute("PRAGMA quick_check").fetchone()
    if checked != "ok":
        raise Refused(f"{source} is damaged: {checked}")


def _copy(source: Path, target: Path) -> None:
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.copy(source, draft)
    draft.chmod(0o600)
    with draft.open("rb") as file:
        os.fsync(file.fileno())
    draft.rename(target)


def _named_in_sqlite(path: Path) -> dict[str, str]:
    with closing(read_only(path)) as reader:
        return named(*(reader.execute(_text(each, sqlite)) for each in SELECTS))


def _dump(settings: Settings, target: Path, *, look: bool) -> dict[str, str]:
    """Dump the rows, and `look` for what they name, in the same moment of the database."""
    import psycopg

    try:
        with psycopg.connect(driver_url(settings.database_url)) as connection:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.read_only = True
            ((snapshot,),) = connection.execute("SELECT pg_export_snapshot()").fetchall()
            arguments = ("--format=custom", "--no-owner", f"--snapshot={snapshot}")
            _run("pg_dump", settings, *arguments, f"--file={target}")
            if not look:
                return {}
            texts = [_text(each, postgresql).encode() for each in SELECTS]
            return named(*(connection.execute(text).fetchall() for text in texts))
    except psycopg.Error as error:
        raise Refused(f"the database cannot be read: {error}") from None


def _text(statement: Any, dialect: Any) -> str:
    return str(statement.compile(dialect=dialect.dialect()))


def _load(settings: Settings, source: Path) -> None:
    _run(
        "pg_restore",
        settings,
        *("--exit-on-error", "--single-transaction", "--no-owner"),
        *("--dbname", _libpq(settings)["PGDATABASE"], str(source)),
    )


def _run(program: str, settings: Settings, *arguments: str) -> None:
    """Run a PostgreSQL client; the password goes by its environment, where no list shows it."""
    found = shutil.which(program)
    if found is None:
        raise Refused(_NO_CLIENT.format(program))
    done = subprocess.run(  # noqa: S603 - our own arguments, no shell
        [found, *arguments],
        env={"PATH": os.environ.get("PATH", ""), **_libpq(settings)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Refused(f"{program} failed: {done.stderr.strip()}")


def _libpq(settings: Settings) -> dict[str, str]:
    from psycopg.conninfo import conninfo_to_dict

    names = {"dbname": "PGDATABASE", "sslrootcert": "PGSSLROOTCERT", "sslmode": "PGSSLMODE"}
    given = conninfo_to_dict(driver_url(settings.database_url))
    return {
        names.get(name, f"PG{name.upper()}"): str(value)
        for name, value in given.items()
        if value is not None
    }


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))

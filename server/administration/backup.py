"""Backup and restore: rows, jobs and files, each as of one moment, with a manifest that names them.

A backup may be made beside a running server. Jobs are copied before rows and files after them: what
a restored row refers to is there, and a run without its job is settled by the server's reconciler.
The secrets key is not in a backup unless it is asked for; the manifest names it by its id, which
tells nothing about it.
"""

import hashlib
import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import msgspec

from gateways.secretbox import ENVIRONMENT, key_id, load_keys
from server.administration.opening import Refused, alone, present
from server.settings import Settings
from storage.migrating import version
from storage.postgres import driver_url

MANIFEST = "manifest.json"
FORMAT = 1
ROWS = {True: "quartet.sqlite", False: "quartet.dump"}
JOBS = "jobs.sqlite"
FOLDERS = ("skills", "workspaces")
"""What the data directory holds beside objects and rows and cannot be made again."""
_NO_CLIENT = "{} is not installed (Debian: apt install postgresql-client)"


class File(msgspec.Struct, frozen=True):
    """A file of a backup, by its path inside; `size` in bytes."""

    path: str
    size: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True):
    """What a backup holds. `keys` are ids of the keys that seal what is in it."""

    format: int
    made_at: float
    schema: str
    dialect: str
    keys: list[str]
    objects: str
    files: list[File]


def back_up(
    settings: Settings, target: Path, say: Callable[[str], None], *, with_key: bool = False
) -> Manifest:
    """Write a backup into a directory that does not exist yet.

    Raises Refused; OSError, with nothing left at `target`.
    """
    present(settings)
    if target.exists():
        raise Refused(f"{target} exists; a backup is made into a new directory")
    keys = load_keys(settings.data, settings.secrets_key_file, os.environ)
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    draft.mkdir(mode=0o700, parents=True)
    try:
        if settings.embedded:
            if (settings.data / JOBS).exists():
                _copy_sqlite(settings.data / JOBS, draft / JOBS)
            _copy_sqlite(settings.data / ROWS[True], draft / ROWS[True])
        else:
            _dump(settings, draft / ROWS[False])
        if settings.object_store_url:
            say(f"Files are in {_place(settings)}: back them up with its own means.")
        elif (settings.data / "objects").exists():
            shutil.copytree(settings.data / "objects", draft / "objects")
        for name in FOLDERS:
            if (settings.data / name).exists():
                shutil.copytree(settings.data / name, draft / name, symlinks=True)
        if with_key:
            own = settings.secrets_key_file or settings.data / "secrets.key"
            if not own.exists():
                raise Refused("the secrets key is in the environment, not in a file")
            shutil.copy(own, draft / "secrets.key")
        manifest = Manifest(
            format=FORMAT,
            made_at=round(time.time(), 3),
            schema=version(settings.database_url, settings.data) or "",
            dialect="sqlite" if settings.embedded else "postgresql",
            keys=[key_id(key) for key in keys],
            objects=_place(settings),
            files=list(_files(draft)),
        )
        encoded = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
        (draft / MANIFEST).write_bytes(encoded + b"\n")
        for path in draft.rglob("*"):
            if not path.is_symlink():
                path.chmod(0o700 if path.is_dir() else 0o600)
        draft.rename(target)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    say(f"{len(manifest.files)} files, {sum(file.size for file in manifest.files):,} bytes")
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
        key = source / "secrets.key"
        if key.exists() and settings.secrets_key_file is None:
            settings.data.mkdir(mode=0o700, parents=True, exist_ok=True)
            _copy(key, settings.data / "secrets.key")
        for name in ("objects", *FOLDERS):
            if (source / name).exists():
                shutil.copytree(
                    source / name, settings.data / name, symlinks=True, dirs_exist_ok=True
                )
        if settings.embedded:
            for name in (JOBS, ROWS[True]):
                if (source / name).exists():
                    _copy(source / name, settings.data / name)
        else:
            _load(settings, source / ROWS[False])
    say(f"Restored what was backed up at {_moment(manifest.made_at)}.")
    held = _held(settings)
    if not held & set(manifest.keys):
        say(f"Before the server starts, give it the secrets key {', '.join(manifest.keys)}.")
    if manifest.objects.startswith("s3://"):
        say(f"Files are not in the backup; they were in {manifest.objects}.")
    return manifest


def read_manifest(source: Path) -> Manifest:
    """The manifest of a backup whose files are all as they were written. Raises Refused."""
    try:
        manifest = msgspec.json.decode((source / MANIFEST).read_bytes(), type=Manifest)
    except (OSError, msgspec.DecodeError) as error:
        raise Refused(f"{source} is no backup: {error}") from None
    if manifest.format != FORMAT:
        raise Refused(f"{source} has format {manifest.format}, this release reads {FORMAT}")
    if list(_files(source)) != manifest.files:
        raise Refused(f"{source} is damaged: its files are not those of its manifest")
    return manifest


def _refuse_occupied(settings: Settings) -> None:
    kept = {"lock", "secrets.key"}
    if settings.data.exists():
        found = sorted(path.name for path in settings.data.iterdir() if path.name not in kept)
        if settings.embedded and found:
            raise Refused(f"{settings.data} is not empty ({', '.join(found[:5])})")
    if not settings.embedded and version(settings.database_url, settings.data) is not None:
        raise Refused("the database is not empty; restore into a new one")


def _held(settings: Settings) -> set[str]:
    """Ids of the keys at hand; none is made."""
    own = settings.data / "secrets.key"
    if settings.secrets_key_file is None and not own.exists() and ENVIRONMENT not in os.environ:
        return set()
    return {key_id(key) for key in load_keys(settings.data, settings.secrets_key_file, os.environ)}


def _place(settings: Settings) -> str:
    """Where files are, without what may be secret in a URL."""
    return settings.object_store_url.partition("?")[0] or "objects"


def _files(root: Path) -> Iterator[File]:
    for path in sorted(root.rglob("*")):
        if path.is_file() and not path.is_symlink() and path != root / MANIFEST:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            yield File(path.relative_to(root).as_posix(), path.stat().st_size, digest)


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


def _dump(settings: Settings, target: Path) -> None:
    _run("pg_dump", settings, "--format=custom", "--no-owner", f"--file={target}")


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

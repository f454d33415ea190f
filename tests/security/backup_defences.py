"""Backups of what accounts may change while they are made, and of what was changed afterwards:
attacks by links (checklist 31).

Imported, it adds its checks to those of defences.py.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

from server.administration import copying
from server.administration.backup import back_up, restore
from server.administration.opening import Refused
from server.settings import Settings
from tests.security.defences import DEFENCES as DEFENCES
from tests.security.defences import without
from tests.security.place import Place

COPYING = "server.administration.copying"
_LOOSE = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC


def _anything(told: os.stat_result) -> None:
    """One kind is as good as another."""


def settings_of(place: Place) -> Settings:
    return Settings(_env_file=None, data=place.data)


@contextmanager
def working(place: Place) -> Iterator[Path]:
    """A folder of a workspace, gone afterwards."""
    below = place.data / "workspaces" / "sessions"
    below.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=below) as folder:
        yield Path(folder)


def keys_in_a_backup(place: Place) -> list[Path]:
    """Files of a backup, made now, that hold the secrets key or lie where only it does."""
    key = (place.data / "secrets.key").read_bytes()
    with TemporaryDirectory() as folder:
        target = Path(folder) / "backup"
        back_up(settings_of(place), target, lambda line: None)
        return [path for path in target.rglob("*") if path.is_file() and key == path.read_bytes()]


@contextmanager
def swapping(path: Path, swap: Callable[[], Any]) -> Iterator[list[str]]:
    """Once a backup has looked at `path`, and before it opens it, `swap` is called."""
    look, swapped = copying._stat, []

    def looked(name: str, parent: int) -> os.stat_result:
        told = look(name, parent)
        if name == path.name:
            swap()
            swapped.append(name)
        return told

    with mock.patch.object(copying, "_stat", looked):
        yield swapped


@without(31, file={f"{COPYING}:_FILE": _LOOSE})
async def a_backup_opens_the_file_that_it_looked_at(place: Place) -> None:
    with working(place) as folder:
        file = folder / "file-that-is-swapped"
        file.write_bytes(b"plain")

        def swap() -> None:
            file.unlink()
            file.symlink_to(place.data / "secrets.key")

        with swapping(file, swap) as swapped:
            assert keys_in_a_backup(place) == []
        assert swapped


@without(31, folder={f"{COPYING}:_DIRECTORY": _LOOSE | os.O_DIRECTORY})
async def a_backup_opens_the_folder_that_it_looked_at(place: Place) -> None:
    with working(place) as folder, TemporaryDirectory(dir=place.data) as secret:
        (Path(secret) / "key").write_bytes((place.data / "secrets.key").read_bytes())
        below = folder / "folder-that-is-swapped"
        below.mkdir()

        def swap() -> None:
            below.rmdir()
            below.symlink_to(secret)

        with swapping(below, swap) as swapped:
            assert keys_in_a_backup(place) == []
        assert swapped


@without(31, kinds={f"{COPYING}:_check_kind": _anything})
async def a_backup_takes_no_file_that_has_a_second_name(place: Place) -> None:
    with working(place) as folder:
        os.link(place.data / "secrets.key", folder / "second")
        assert keys_in_a_backup(place) == []


@without(31, links={f"{COPYING}:_check_kind": _anything, f"{COPYING}:_FILE": _LOOSE})
async def no_link_in_a_backup_is_restored(place: Place) -> None:
    """Not even one that leads to what was there before it."""
    with TemporaryDirectory() as folder, working(place) as work:
        (work / "kept.txt").write_bytes(b"kept")
        target, elsewhere = Path(folder) / "backup", Path(folder) / "elsewhere"
        back_up(settings_of(place), target, lambda line: None)
        kept = target / work.relative_to(place.data) / "kept.txt"
        kept.rename(Path(folder) / "aside")
        kept.symlink_to(Path(folder) / "aside")
        refused = False
        try:
            restore(Settings(_env_file=None, data=elsewhere), target, lambda line: None)
        except Refused as refusal:
            refused = "kept.txt is a link" in str(refusal)
        assert refused
        assert not elsewhere.exists()

"""The files of skills on the disk: `<folder>/<skill id>/<number>`. No name that anybody chose
becomes part of a path; which number is which file says the skill's row."""

import errno
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from storage.database import StorageFull

_FULL = {errno.EFBIG, errno.ENOSPC, errno.EDQUOT}
_ID = re.compile(r"[0-9a-f-]{36}", re.ASCII)


class SkillFiles:
    """Files of skills below a folder. Every method blocks. Raises OSError."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, skill_id: str, files: Iterable[Iterator[bytes]]) -> None:
        """Keep the files of a new skill, numbered from 0; all of them, or, where one raises, none.
        Of a skill without files nothing is kept. Raises StorageFull."""
        place = self._place(skill_id)
        try:
            for number, chunks in enumerate(files):
                place.mkdir(parents=True, exist_ok=True, mode=0o700)
                with (place / str(number)).open("xb") as file:
                    for chunk in chunks:
                        file.write(chunk)
        except BaseException as error:
            self.erase(skill_id)
            if isinstance(error, OSError) and error.errno in _FULL:
                raise StorageFull("the disk is full") from error
            raise

    def read(self, skill_id: str, number: int, most: int) -> bytes:
        """At most so many bytes of a file. Raises FileNotFoundError."""
        with (self._place(skill_id) / str(number)).open("rb") as file:
            return file.read(most)

    def erase(self, skill_id: str) -> None:
        """Remove the files of a skill, if there are any."""
        with suppress(FileNotFoundError):
            shutil.rmtree(self._place(skill_id))

    def strays(self, known: Iterable[str], older_s: float) -> list[str]:
        """Ids under which files lie, older than so many seconds, and that are not known: what a
        process that was killed left, or a skill whose agent is gone."""
        if not self._folder.is_dir():
            return []
        kept, until = set(known), time.time() - older_s
        return [
            place.name
            for place in self._folder.iterdir()
            if _ID.fullmatch(place.name)
            and place.name not in kept
            and place.stat().st_mtime < until
        ]

    def _place(self, skill_id: str) -> Path:
        if not _ID.fullmatch(skill_id):
            raise ValueError(f"no id of a skill: {skill_id!r}")
        return self._folder / skill_id

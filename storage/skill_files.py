"""The files of skills on the disk: `<folder>/<bundle>/<number>`. No name that anybody chose becomes
part of a path; which number is which file says the skill's row. A new edition of a skill is another
bundle."""

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

    def write(self, bundle: str, files: Iterable[Iterator[bytes]]) -> None:
        """Keep the files of a bundle, numbered from 0; all of them, or, where one raises, none.
        Of one without files nothing is kept. Raises StorageFull."""
        place = self._place(bundle)
        try:
            for number, chunks in enumerate(files):
                place.mkdir(parents=True, exist_ok=True, mode=0o700)
                with (place / str(number)).open("xb") as file:
                    for chunk in chunks:
                        file.write(chunk)
        except BaseException as error:
            self.erase(bundle)
            if isinstance(error, OSError) and error.errno in _FULL:
                raise StorageFull("the disk is full") from error
            raise

    def read(self, bundle: str, number: int, most: int) -> bytes:
        """At most so many bytes of a file. Raises FileNotFoundError."""
        with (self._place(bundle) / str(number)).open("rb") as file:
            return file.read(most)

    def erase(self, bundle: str) -> None:
        """Remove a bundle, if there is one."""
        with suppress(FileNotFoundError):
            shutil.rmtree(self._place(bundle))

    def strays(self, known: Iterable[str], older_s: float) -> list[str]:
        """Bundles that lie there, older than so many seconds, and that are not known: what a
        process that was killed left, or those of an agent that is gone."""
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

    def _place(self, bundle: str) -> Path:
        if not _ID.fullmatch(bundle):
            raise ValueError(f"no bundle: {bundle!r}")
        return self._folder / bundle

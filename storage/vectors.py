"""Exact search over the vectors of a knowledge base.

The rows hold the vectors. A base's are also one float32 file, mapped into memory and searched with
numpy: appended to when chunks were added, made anew from the rows when chunks went away, when
another embedder makes the vectors, or when the file is not what its label says. The label
(`<base>.json`) is replaced after the file's bytes are on the disk, so a file and a label that
agree are whole.
"""

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from storage.knowledge import KnowledgeStore

if TYPE_CHECKING:
    import numpy

BATCH = 2000
"""Rows read at once."""
MAPPED = 64
"""Bases kept mapped; the one that was searched longest ago goes."""


class _Label(msgspec.Struct):
    embedder: str
    edition: int
    numbers: list[int]


class _Mapped:
    """One base's vectors, row i being that of chunk `numbers[i]`."""

    __slots__ = ("edition", "numbers", "vectors")

    def __init__(self, edition: int, numbers: "numpy.ndarray", vectors: "numpy.ndarray") -> None:
        self.edition = edition
        self.numbers = numbers
        self.vectors = vectors

    def nearest(self, wanted: bytes, limit: int) -> list[tuple[int, float]]:
        import numpy

        if not len(self.numbers):
            return []
        scores = self.vectors @ numpy.frombuffer(wanted, dtype=numpy.float32)
        limit = min(limit, len(scores))
        best = numpy.argpartition(scores, -limit)[-limit:]
        best = best[numpy.lexsort((self.numbers[best], -scores[best]))]
        return [(int(self.numbers[i]), float(scores[i])) for i in best]


class Vectors:
    """The vectors of one embedder in every base, over files in a directory that this process has
    to itself. Those of other processes stand beside it."""

    def __init__(
        self, directory: Path, store: KnowledgeStore, *, embedder: str, dimensions: int
    ) -> None:
        self._directory = directory
        self._store = store
        self._embedder = embedder
        self._dimensions = dimensions
        self._width = 4 * dimensions
        self._mapped: dict[str, _Mapped] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def nearest(self, base_id: str, wanted: bytes, limit: int) -> list[tuple[int, float]]:
        """Chunks and their cosine similarity to `wanted` (float32, of length 1), the most similar
        first."""
        mapped = await self._current(base_id)
        if mapped is None:
            return []
        return await asyncio.to_thread(mapped.nearest, wanted, limit)

    def forget(self, base_id: str) -> None:
        """Remove the files of a base that is gone."""
        self._mapped.pop(base_id, None)
        _remove(self._file(base_id))

    async def sweep(self) -> None:
        """Remove the files of bases that are gone: deleted by another process, or while their
        vectors were being read; also those that processes which have ended left. Raises OSError."""
        files = await asyncio.to_thread(self._all_files)
        names = sorted({path.stem for path in files})
        known: set[str] = set()
        for first in range(0, len(names), BATCH):
            found = await self._store.find_many(names[first : first + BATCH])
            known.update(base.id for base in found)
        for path in files:
            if path.stem not in known:
                self._mapped.pop(path.stem, None)
                await asyncio.to_thread(_remove, path)

    def _all_files(self) -> list[Path]:
        return list(self._directory.parent.glob("*/*.f32"))

    async def _current(self, base_id: str) -> _Mapped | None:
        """The base's vectors as of now; None for a base that is gone."""
        lock = self._locks.setdefault(base_id, asyncio.Lock())
        try:
            async with lock:
                found = await self._store.edition(base_id)
                if found is None:
                    self.forget(base_id)
                    return None
                edition, erased = found
                mapped = self._mapped.pop(base_id, None)
                if mapped is None:
                    mapped = await asyncio.to_thread(self._open, base_id)
                if mapped is None or mapped.edition < erased or mapped.edition > edition:
                    mapped = await self._extended(base_id, edition, None)
                elif mapped.edition < edition:
                    mapped = await self._extended(base_id, edition, mapped)
                if mapped is None:
                    self.forget(base_id)
                    return None
                self._mapped[base_id] = mapped
                while len(self._mapped) > MAPPED:
                    del self._mapped[next(iter(self._mapped))]
                return mapped
        finally:
            if not lock.locked():
                self._locks.pop(base_id, None)

    async def _extended(self, base_id: str, edition: int, old: _Mapped | None) -> _Mapped | None:
        """The file with the rows behind those that `old` has, or with all of them; None where the
        base was deleted meanwhile, and the file with it."""
        numbers = [] if old is None else old.numbers.tolist()
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._file(base_id)
        if old is None:
            with suppress(FileNotFoundError):
                path.unlink()
        after = numbers[-1] if numbers else 0
        with path.open("r+b" if numbers else "wb") as file:
            file.truncate(len(numbers) * self._width)
            file.seek(0, os.SEEK_END)
            while rows := await self._store.vectors(base_id, self._embedder, after, BATCH):
                await asyncio.to_thread(file.write, b"".join(row[1] for row in rows))
                numbers += [row[0] for row in rows]
                after = numbers[-1]
            await asyncio.to_thread(_flush, file.fileno, file.flush)
        label = msgspec.json.encode(_Label(self._embedder, edition, numbers))
        await asyncio.to_thread(_replace, self._label(base_id), label)
        return await asyncio.to_thread(self._open, base_id)

    def _open(self, base_id: str) -> _Mapped | None:
        """The file as its label describes it; None when there is none, or they do not agree."""
        import numpy

        path = self._file(base_id)
        try:
            label = msgspec.json.decode(self._label(base_id).read_bytes(), type=_Label)
            size = path.stat().st_size
        except (OSError, msgspec.DecodeError):
            return None
        count = len(label.numbers)
        if label.embedder != self._embedder or size < count * self._width:
            return None
        numbers = numpy.array(label.numbers, dtype=numpy.int64)
        shape = (count, self._dimensions)
        if not count:
            return _Mapped(label.edition, numbers, numpy.zeros(shape, numpy.float32))
        vectors = numpy.memmap(path, dtype=numpy.float32, mode="r", shape=shape)
        return _Mapped(label.edition, numbers, vectors)

    def _file(self, base_id: str) -> Path:
        return self._directory / f"{base_id}.f32"

    def _label(self, base_id: str) -> Path:
        return self._directory / f"{base_id}.json"


def _remove(file: Path) -> None:
    """Remove a base's file, and its label before it."""
    for path in (file.with_suffix(".json"), file):
        path.unlink(missing_ok=True)


def _flush(descriptor: Callable[[], int], flush: Callable[[], None]) -> None:
    flush()
    os.fsync(descriptor())


def _replace(path: Path, content: bytes) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_bytes(content)
    fresh.replace(path)

"""Routing by dictionary lookups per path segment (rules, "Routing").

A static segment beats a parameter *per method*: a static path that lacks the method yields to the
parameter path. Segments are split before they are decoded, so `%2F` stays inside a segment. A path
answers with and without a trailing slash. A tail parameter takes the rest of the path.
"""

from typing import Generic, TypeVar
from urllib.parse import unquote_to_bytes

T = TypeVar("T")


class Undecodable(ValueError):
    """A segment does not decode to UTF-8 text, or holds NUL."""


class _Node(Generic[T]):
    __slots__ = ("leaves", "parameter", "static", "tail")

    def __init__(self) -> None:
        self.static: dict[str, _Node[T]] = {}
        self.parameter: _Node[T] | None = None
        self.leaves: dict[str, T] = {}
        self.tail: dict[str, T] = {}


def segment_text(raw: bytes) -> str:
    """One path segment, percent-decoded. Raises Undecodable."""
    try:
        text = (unquote_to_bytes(raw) if b"%" in raw else raw).decode()
    except UnicodeDecodeError as error:
        raise Undecodable from error
    if "\0" in text:
        raise Undecodable
    return text


class Router(Generic[T]):
    """Maps (method, raw path) to a target and the values of its path parameters."""

    def __init__(self) -> None:
        self._exact: dict[bytes, dict[str, T]] = {}
        self._root: _Node[T] = _Node()

    def add(self, method: str, path: str, target: T, *, tail: str = "") -> None:
        """Register a templated path; `tail` names its last parameter if that takes the rest.

        Raises ValueError when the same method and path are registered twice.
        """
        segments = path.strip("/").split("/") if path.strip("/") else []
        node = self._root
        for segment in segments:
            if tail and segment == f"{{{tail}}}":
                self._put(node.tail, method, path, target)
                return
            if segment.startswith("{"):
                node.parameter = node = node.parameter or _Node()
            else:
                node = node.static.setdefault(segment, _Node())
        self._put(node.leaves, method, path, target)
        if "{" not in path:
            raw = b"/" + "/".join(segments).encode()
            self._exact.setdefault(raw, node.leaves)
            self._exact.setdefault(raw + b"/" if raw != b"/" else raw, node.leaves)

    @staticmethod
    def _put(leaves: dict[str, T], method: str, path: str, target: T) -> None:
        if method in leaves:
            raise ValueError(f"{method} {path} is registered twice")
        leaves[method] = target

    def find(self, method: str, raw_path: bytes) -> tuple[T, tuple[str, ...]] | None:
        """The target and its path values in order, or None. Raises Undecodable."""
        leaves = self._exact.get(raw_path)
        if leaves is not None and (target := leaves.get(method)) is not None:
            return target, ()
        segments = raw_path.split(b"/")[1:]
        if segments and segments[-1] == b"":
            segments.pop()
        return self._descend(self._root, method, [segment_text(s) for s in segments], 0, ())

    def _descend(
        self,
        node: _Node[T],
        method: str,
        segments: list[str],
        depth: int,
        values: tuple[str, ...],
    ) -> tuple[T, tuple[str, ...]] | None:
        if depth == len(segments):
            target = node.leaves.get(method)
            if target is not None:
                return target, values
            target = node.tail.get(method)
            return None if target is None else (target, (*values, ""))
        segment = segments[depth]
        child = node.static.get(segment)
        if child is not None:
            found = self._descend(child, method, segments, depth + 1, values)
            if found is not None:
                return found
        if node.parameter is not None and segment:
            found = self._descend(node.parameter, method, segments, depth + 1, (*values, segment))
            if found is not None:
                return found
        target = node.tail.get(method)
        return None if target is None else (target, (*values, "/".join(segments[depth:])))

    def methods(self, raw_path: bytes) -> set[str]:
        """Every method that some route answers at this path: empty means no such path."""
        try:
            segments = [segment_text(s) for s in raw_path.split(b"/")[1:]]
        except Undecodable:
            return set()
        if segments and segments[-1] == "":
            segments.pop()
        found: set[str] = set()
        pending: list[tuple[_Node[T], int]] = [(self._root, 0)]
        while pending:
            node, depth = pending.pop()
            found.update(node.tail)
            if depth == len(segments):
                found.update(node.leaves)
                continue
            if (child := node.static.get(segments[depth])) is not None:
                pending.append((child, depth + 1))
            if node.parameter is not None and segments[depth]:
                pending.append((node.parameter, depth + 1))
        return found

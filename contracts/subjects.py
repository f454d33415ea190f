"""The contracts that the suite runs over, and what it knows of each."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from contracts import parts, sage, sage_ways, sandbox
from contracts.client import Reply
from contracts.ways import GENERAL, Way


class Subject(NamedTuple):
    """A contract under test. `message` is the key of an envelope that holds a text, `nothing` what
    a refusal with a status of its own has under `data`; a soft one (HTTP 200) has null.

    `particular` are ways to a status, `soft` ways to codes that come with HTTP 200; None where an
    operation has a code in one way or the other, so that either counts. `groups` and `names` steer
    generated requests.
    `own_server` names operations whose success only a server of the suite's own can show.
    """

    name: str
    world: type[parts.World]
    message: str
    nothing: Any
    particular: Mapping[tuple[str, int], Way]
    soft: Mapping[tuple[str, int], Way] | None
    groups: Mapping[str, tuple[str, ...]]
    names: Mapping[str, tuple[str, ...]]
    own_server: frozenset[str] = frozenset()

    def way(self, operation_id: str, status: int, soft: bool) -> Way:
        """How to get a status. Raises KeyError where nothing is known."""
        key = operation_id, status
        found = (self.soft or {} if soft else {}).get(key) or self.particular.get(key)
        return found or GENERAL[status]

    def assert_refused(self, reply: Reply, soft: bool = False) -> None:
        """An envelope that refuses: a text, and nothing else."""
        assert reply.body[self.message]
        if reply.http == 422:
            assert {error["loc"][0] for error in reply.body["data"]["errors"]}
        else:
            assert soft or reply.body["data"] == self.nothing  # its schema says what a soft one has


SUBJECTS: Mapping[str, Subject] = {
    "sage": Subject(
        "sage",
        sage.World,
        "message",
        None,
        sage_ways.PARTICULAR,
        None,
        sage.GROUPS,
        sage.NAMES,
        frozenset(
            f"{name}{path}"
            for name in ("auth_register", "auth_finish_upstream")
            for path in ("", "_compat")
        ),
    ),
    "sandbox": Subject(
        "sandbox",
        sandbox.World,
        "msg",
        {},
        sandbox.PARTICULAR,
        sandbox.SOFT,
        sandbox.GROUPS,
        sandbox.NAMES,
    ),
}

"""Owner against stranger in the sandbox contract, whose document promises 403 for what is somebody
else's and 404 for what is not there (rules, "Errors"). sandbox.FOREIGN says which ids are meant."""

import copy
from typing import Any

import pytest

from contracts.parts import Request, send
from contracts.sandbox import FOREIGN, SUCCEEDING, Foreign, World
from contracts.subjects import SUBJECTS

NOWHERE = "01a20630-0000-7000-8000-00000000dead"
SANDBOX = SUBJECTS["sandbox"]
GIVEN = pytest.mark.parametrize(
    "foreign", FOREIGN, ids=lambda f: f"sandbox.{f.operation_id}-{f.place}-{f.name}"
)


def owners(foreign: Foreign, world: World) -> Request:
    """The owner's request, which names a thing of theirs."""
    return (foreign.make or SUCCEEDING[foreign.operation_id])(world, world.owner)


def nobodys(foreign: Foreign, request: Request) -> Request:
    """The same with the id of nothing."""
    changed = copy.deepcopy(getattr(request, foreign.place))
    *way, last = foreign.name.split("/")
    holder: Any = changed
    for step in way:
        holder = holder[int(step) if isinstance(holder, list) else step]
    holder[int(last) if isinstance(holder, list) else last] = NOWHERE
    return request._replace(**{foreign.place: changed})


@GIVEN
def test_a_strangers_id_is_forbidden_and_nobodys_is_missing(
    foreign: Foreign, sandbox: World
) -> None:
    request = owners(foreign, sandbox)
    for sent, status in ((request, 403), (nobodys(foreign, request), 404)):
        reply = send(sandbox.stranger.client, sent)
        assert (reply.status, reply.http) == (status, status), reply
        SANDBOX.assert_refused(reply)
    assert send(sandbox.owner.client, request).success, "the stranger's attempt changed it"


@GIVEN
def test_an_administrator_reaches_it_where_the_document_says_so(
    foreign: Foreign, sandbox: World
) -> None:
    reply = send(sandbox.admin.client, owners(foreign, sandbox))
    assert reply.success if foreign.administrator else reply.status == 403

"""Generated requests to every operation, as a user and as an administrator: examples of the
document, the bounds of each schema, and data that fits it or does not. That a credential is asked
for is test_credentials.py's."""

import pytest
from schemathesis import Case

from contracts.conftest import EXAMPLES, URL
from contracts.document import Contract, load
from contracts.fuzzing import Fuzzing, schema_of
from contracts.judging import Judge
from contracts.reach import Reach
from contracts.sage import World

USER = schema_of(load("sage", URL), EXAMPLES)
ADMIN = schema_of(load("sage", URL), max(1, EXAMPLES // 4))


@pytest.fixture(scope="session")
def fuzzing(contract: Contract, world: World, judge: Judge, reach: Reach) -> Fuzzing:
    return Fuzzing(contract, world, judge, reach)


@USER.parametrize()
def test_as_user(case: Case, fuzzing: Fuzzing, world: World) -> None:
    fuzzing.run(case, world.owner)


@ADMIN.parametrize()
def test_as_admin(case: Case, fuzzing: Fuzzing, world: World) -> None:
    fuzzing.run(case, world.admin)

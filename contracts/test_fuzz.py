"""Generated requests to every operation, as a user and as an administrator: examples of the
document, the bounds of each schema, and data that fits it or does not. That a credential is asked
for is test_credentials.py's."""

from collections.abc import Callable
from functools import cache

import pytest
from schemathesis import Case

from contracts.conftest import EXAMPLES, URL, Worlds, judge_of
from contracts.document import load
from contracts.fuzzing import Fuzzing, schema_of
from contracts.reach import Reach

FEWER = max(1, EXAMPLES // 4)
SAGE = load("sage", URL)
SANDBOX = load("sandbox", URL)
Fuzzings = Callable[[str], Fuzzing]


@pytest.fixture(scope="session")
def fuzzings(worlds: Worlds, reach: Reach) -> Fuzzings:
    return cache(lambda name: Fuzzing(load(name, URL), worlds(name), judge_of(name), reach))


# a test each: schemathesis parametrizes over one document


@schema_of(SAGE, EXAMPLES).parametrize()
def test_sage_as_user(case: Case, fuzzings: Fuzzings) -> None:
    fuzzings("sage").as_user(case)


@schema_of(SAGE, FEWER).parametrize()
def test_sage_as_admin(case: Case, fuzzings: Fuzzings) -> None:
    fuzzings("sage").as_admin(case)


@schema_of(SANDBOX, EXAMPLES).parametrize()
def test_sandbox_as_user(case: Case, fuzzings: Fuzzings) -> None:
    fuzzings("sandbox").as_user(case)


@schema_of(SANDBOX, FEWER).parametrize()
def test_sandbox_as_admin(case: Case, fuzzings: Fuzzings) -> None:
    fuzzings("sandbox").as_admin(case)

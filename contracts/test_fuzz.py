"""Generated requests to every operation, as a user and as an administrator: examples of the
document, the bounds of each schema, and data that fits it or does not.

Checks of the wire see HTTP's own status; checks of meaning see the effective one (rules,
"Measuring and checking"). That a credential is asked for is test_credentials.py's.
"""

import copy
import os
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import schemathesis
from schemathesis import Case, Response, checks
from schemathesis.config import SchemathesisConfig
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.specs.openapi import checks as openapi_checks

from contracts import exceptions
from contracts.client import Session
from contracts.conftest import URL
from contracts.document import Operation, load
from contracts.judging import Judge
from contracts.reach import Reach
from contracts.sage import Account, World, address, unique

EXAMPLES = int(os.environ.get("CONTRACTS_EXAMPLES", "20"))
SPENT = frozenset({"auth_logout", "auth_logout_compat", "user_change_password"})
WIRE = [
    checks.not_a_server_error,
    openapi_checks.content_type_conformance,
    openapi_checks.response_headers_conformance,
    openapi_checks.response_schema_conformance,
]
MEANING = [
    openapi_checks.status_code_conformance,
    openapi_checks.negative_data_rejection,
    openapi_checks.positive_data_acceptance,
    openapi_checks.missing_required_header,
    openapi_checks.unsupported_method,
    openapi_checks.allow_header_conformance,
]
CONTRACT = load("sage", URL)


def _schema(examples: int) -> Any:
    config = SchemathesisConfig.from_dict(
        {
            "seed": 1,
            "generation": {
                "deterministic": True,
                "max-examples": examples,
                "no-shrink": True,
                "with-security-parameters": False,
            },
        }
    )
    return schemathesis.openapi.from_dict(CONTRACT.document, config=config)


USER = _schema(EXAMPLES)
ADMIN = _schema(max(1, EXAMPLES // 4))
BY_LABEL = {each.label: each for each in CONTRACT.operations.values()}


class Fuzzing:
    """Sends generated cases as the accounts of one world."""

    def __init__(self, world: World, judge: Judge, reach: Reach) -> None:
        self._world = world
        self._judge = judge
        self._reach = reach
        self._session = Session()
        self._spent: dict[str, Account] = {}
        self._things = Things(world)

    def account(self, operation: Operation, account: Account) -> Account:
        """Who sends: an account of its own where the operation ends the login."""
        if operation.id not in SPENT:
            return account
        if operation.id not in self._spent:
            self._spent[operation.id] = self._world.account("spent")
        return self._spent[operation.id]

    def send(self, case: Case, account: Account) -> None:
        """Send one case and check the answer. Raises FailureGroup, BrokenContract."""
        operation = BY_LABEL[case.operation.label]
        account = self.account(operation, account)
        self._things.put_into(case, account)
        headers = address()
        if not operation.public:
            headers["authorization"] = f"Bearer {account.client.token}"
        response = case.call(
            base_url=f"{self._world.started.url}/sage", session=self._session, headers=headers
        )
        self._session.cookies.clear()
        self.check(operation, case, response)

    def check(self, operation: Operation, case: Case, response: Response) -> None:
        """The suite's own judgement, then the checks of schemathesis, less what is excepted."""
        answer = {name: ", ".join(values) for name, values in response.headers.items()}
        body = response.content or b""
        status = response.status_code
        if case.method.upper() == operation.method:
            verdict = self._judge.judge(operation, status, answer, body)
            self._reach.saw(operation.id, verdict.status, status, verdict.success)
            status = verdict.status
        meant = copy.copy(response)
        meant.status_code = status
        failures = [*_failures(case, response, WIRE), *_failures(case, meant, MEANING)]
        kept = []
        for failure in failures:
            if (operation.id, failure.checks[0]) in exceptions.listed():
                self._reach.excuse(operation.id, failure.checks[0])
            else:
                kept.append(failure)
        if kept:
            raise FailureGroup(kept, f"{operation.id}: {case.as_curl_command()}")


def _failures(
    case: Case, response: Response, chosen: list[Callable[..., Any]]
) -> Iterator[Failure]:
    try:
        case.validate_response(response, checks=chosen)
    except FailureGroup as group:
        yield from group.exceptions


class Things:
    """Real ids for generated requests: most of the time an id in a path or body is replaced by
    that of a thing which the sender owns. A deleted thing is replaced by a new one."""

    def __init__(self, world: World) -> None:
        self._made: dict[tuple[str, str], str] = {}
        self._world = world
        self._makers: Mapping[str, Callable[[Account], str]] = {
            "agent_id": world.agent,
            "provider_id": world.provider,
            "llm_provider_id": world.provider,
            "session_id": world.conversation,
        }

    def put_into(self, case: Case, account: Account) -> None:
        """Change what may be changed without changing whether the case fits its schema."""
        meta = case.meta
        seed = zlib.crc32(repr((case.path_parameters, case.body)).encode())
        if meta is not None and meta.phase.name.value == "stateful":
            seed = 0
        for name, value in case.path_parameters.items():
            if name in self._makers and isinstance(value, str) and seed % 4:
                case.path_parameters[name] = self._thing(name, account, case)
        key = case.headers.get("Idempotency-Key") if case.headers else None
        if isinstance(key, str) and re.fullmatch(r"[!-~]{1,255}", key):
            case.headers["Idempotency-Key"] = unique("key")
        if isinstance(case.body, dict | list):
            case.body = self._body(case.body, account, case, seed)

    def _body(self, value: Any, account: Account, case: Case, seed: int) -> Any:
        if isinstance(value, list):
            return [self._body(each, account, case, seed) for each in value]
        if isinstance(value, str) and re.match(r"https?://", value, re.IGNORECASE):
            return self._world.started.model_url if seed % 4 else "http://127.0.0.1:9/v1"
        if not isinstance(value, dict):
            return value
        return {
            name: self._thing(name, account, case)
            if name in ("agent_id", "llm_provider_id")
            and isinstance(each, str)
            and each
            and seed % 4
            else account.user_id
            if name == "user_id" and "messages" in value and isinstance(each, str) and seed % 4
            else self._body(each, account, case, seed)
            for name, each in value.items()
        }

    def _thing(self, name: str, account: Account, case: Case) -> str:
        key = (name, account.user_id)
        if case.method.upper() == "DELETE" and "share" not in case.path:
            return self._makers[name](account)
        if key not in self._made:
            self._made[key] = self._makers[name](account)
        return self._made[key]


@pytest.fixture(scope="session")
def fuzzing(world: World, judge: Judge, reach: Reach) -> Fuzzing:
    return Fuzzing(world, judge, reach)


@USER.parametrize()
def test_as_user(case: Case, fuzzing: Fuzzing, world: World) -> None:
    fuzzing.send(case, world.owner)


@ADMIN.parametrize()
def test_as_admin(case: Case, fuzzing: Fuzzing, world: World) -> None:
    fuzzing.send(case, world.admin)

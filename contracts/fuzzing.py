"""Sending generated requests: real ids put into them, answers checked twice.

Checks of the wire see HTTP's own status; checks of meaning see the effective one (rules,
"Measuring and checking").
"""

import copy
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import schemathesis
from schemathesis import Case, Response, checks
from schemathesis.config import SchemathesisConfig
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.specs.openapi import checks as openapi_checks

from contracts import exceptions
from contracts.client import Session
from contracts.document import Contract, Operation
from contracts.judging import Judge, Verdict
from contracts.parts import PASSWORD, Account, World, address, unique
from contracts.reach import Reach
from contracts.running import PROVIDER
from contracts.subjects import SUBJECTS

WIRE = [
    checks.not_a_server_error,
    openapi_checks.status_code_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_headers_conformance,
    openapi_checks.response_schema_conformance,
]
MEANING = [
    openapi_checks.negative_data_rejection,
    openapi_checks.positive_data_acceptance,
    openapi_checks.missing_required_header,
    openapi_checks.unsupported_method,
    openapi_checks.allow_header_conformance,
]


REJECTED = [400, 401, 403, 404, 405, 406, 409, 412, 413, 415, 422, 428, 429, "5xx"]
"""Statuses of a request that breaks its schema; some generated ones are too large beside."""


def schema_of(contract: Contract, examples: int) -> Any:
    """The contract for schemathesis, deterministic, with so many examples per kind of data."""
    config = SchemathesisConfig.from_dict(
        {
            "seed": 1,
            "checks": {"negative_data_rejection": {"expected-statuses": REJECTED}},
            "phases": {"stateful": {"inference": {"algorithms": []}}},
            "generation": {
                "deterministic": True,
                "max-examples": examples,
                "no-shrink": True,
                "with-security-parameters": False,
                "allow-x00": False,
            },
        }
    )
    return schemathesis.openapi.from_dict(copy.deepcopy(contract.document), config=config)


class Fuzzing:
    """Sends generated cases as the accounts of one world."""

    def __init__(self, contract: Contract, world: World, judge: Judge, reach: Reach) -> None:
        self._contract = contract
        self._operations = {each.label: each for each in contract.operations.values()}
        self._world = world
        self._judge = judge
        self._reach = reach
        self._session = Session()
        self._spent: dict[str, Account] = {}
        self._granted: dict[str, str] = {}
        self._things = Things(world)

    def account(self, operation: Operation, account: Account) -> Account:
        """Who sends: an account of its own where the operation ends the login."""
        if operation.id not in self._world.spent:
            return account
        if operation.id not in self._spent:
            self._spent[operation.id] = self._world.account("spent")
        return self._spent[operation.id]

    def as_user(self, case: Case) -> None:
        """Send one case as its owner and check the answer. Raises FailureGroup, BrokenContract."""
        self.check(case, self.send(case, self._world.owner))

    def as_admin(self, case: Case) -> None:
        """The same as the administrator."""
        self.check(case, self.send(case, self._world.admin))

    def send(self, case: Case, account: Account, *, ids: bool = True) -> Response:
        """Send one case, with real ids put into it unless they are there already."""
        operation = self.operation(case)
        account = self.account(operation, account)
        self._things.put_into(case, account, ids=ids)
        headers = address()
        if not operation.public:
            headers["authorization"] = f"Bearer {self._token(operation, account)}"
        response: Response = case.call(
            base_url=f"{self._world.started.url}/{self._contract.name}",
            session=self._session,
            headers=headers,
        )
        self._session.cookies.clear()
        return response

    def _token(self, operation: Operation, account: Account) -> str:
        if operation.role != "oauth2":
            return account.client.token
        if account.user_id not in self._granted:
            self._granted[account.user_id] = self._world.granted(account).token
        return self._granted[account.user_id]

    def operation(self, case: Case) -> Operation:
        """The operation that a case is meant for."""
        return self._operations[case.operation.label]

    def check(self, case: Case, response: Response) -> Verdict | None:
        """The suite's own judgement, then the checks of schemathesis, less what is excepted.

        None for a request by a method of its own, which is no request of the operation.
        """
        operation, verdict = self.operation(case), None
        answer = {name: ", ".join(values) for name, values in response.headers.items()}
        body = response.content or b""
        status = response.status_code
        if case.method.upper() == operation.method:
            verdict = self._judge.judge(operation, status, answer, body)
            self._reach.saw(operation, verdict.status, response.status_code, verdict.success)
            status = verdict.status
        meant = copy.copy(response)
        meant.status_code = status
        failures = [*_failures(case, response, WIRE), *_failures(case, meant, MEANING)]
        kept = []
        for failure in failures:
            if (operation.key, failure.checks[0]) in exceptions.listed():
                self._reach.excuse(operation, failure.checks[0])
            else:
                kept.append(failure)
        if kept:
            raise FailureGroup(
                kept,
                f"{operation.key}: {body[:300].decode(errors='replace')} {case.as_curl_command()}",
            )
        return verdict


def _failures(
    case: Case, response: Response, chosen: list[Callable[..., Any]]
) -> Iterator[Failure]:
    try:
        case.validate_response(response, checks=chosen)
    except FailureGroup as group:
        yield from group.exceptions


def make_unique(operation: Operation, case: Case) -> None:
    """Give the case names that nothing else has (Subject.names). In a sequence, what a request
    answers must not depend on the sequences before, or hypothesis cannot tell what it has tried."""
    for name in SUBJECTS[operation.contract].names.get(operation.id, ()):
        if isinstance(case.body, dict) and isinstance(case.body.get(name), str):
            made = unique(name)
            case.body[name] = f"{made}@example.com" if "@" in case.body[name] else made


ID_MAX = 128
CHOSEN = frozenset({"session_id", "server_name"})
"""Ids that a body may choose itself."""


class Things:
    """Real ids for generated requests: most of the time an id in a path or body is replaced by
    that of a thing which the sender owns. A deleted thing is replaced by a new one."""

    def __init__(self, world: World) -> None:
        self._made: dict[tuple[str, str], str] = {}
        self._world = world
        self._makers = world.makers()

    def put_into(self, case: Case, account: Account, *, ids: bool) -> None:
        """Change what may be changed without changing whether the case fits its schema."""
        seed = zlib.crc32(repr((case.path_parameters, case.body)).encode()) if ids else 0
        for name, value in case.path_parameters.items():
            usable = isinstance(value, str) and 0 < len(value) <= ID_MAX
            if re.match(r"/api/(auth/upstream|user/oauth)/", case.path):
                if usable and len(value) <= 64 and seed % 4:
                    case.path_parameters[name] = PROVIDER
                continue
            if name in self._makers and usable and seed % 4:
                case.path_parameters[name] = self._thing(name, account, case)
        if isinstance(case.query, dict) and case.query.get("kdb_id") and seed % 4:
            case.query["kdb_id"] = self._thing("kdb_id", account, case)
        key = case.headers.get("Idempotency-Key") if case.headers else None
        if isinstance(key, str) and re.fullmatch(r"[!-~]{1,255}", key):
            case.headers["Idempotency-Key"] = unique("key")
        if isinstance(case.body, dict | list):
            case.body = self._body(case.body, account, case, seed)
        if isinstance(case.body, dict) and case.body.get("protocol") == "streamable_http":
            field = "streamable_http_url"
            if seed % 4 and isinstance(case.body.get(field) or "", str):
                case.body[field] = self._world.started.mcp_url
                case.body.pop("sse_url", None)

    def _body(self, value: Any, account: Account, case: Case, seed: int) -> Any:
        if isinstance(value, list):
            return [self._body(each, account, case, seed) for each in value]
        if isinstance(value, str) and re.match(r"https?://", value, re.IGNORECASE):
            if case.path.endswith("/import-url") and seed % 4:
                return f"{self._world.started.skills_url}/fetched.zip"
            return self._world.started.model_url if seed % 4 else "http://127.0.0.1:9/v1"
        if not isinstance(value, dict):
            return value
        return {
            name: self._usable(name, each, value, account, case)
            if seed % 4
            else self._body(each, account, case, seed)
            for name, each in value.items()
        }

    def _usable(
        self, name: str, value: Any, body: Mapping[str, Any], account: Account, case: Case
    ) -> Any:
        """In place of a value of the right form, one that the server can do something with."""
        if isinstance(value, str) and value:
            if name in self._makers and name not in CHOSEN:
                return self._thing(name, account, case)
            if name == "user_id" and "messages" in body:
                return account.user_id
            if name in ("password", "new_password") and not 8 <= len(value) <= 128:
                return PASSWORD
            if name == "email":
                return f"{unique('mail')}@example.com"
        if isinstance(value, list) and all(isinstance(each, str) for each in value):
            if name == "user_ids":
                return [self._world.stranger.user_id]
            if name in ("availableSubAgentIds", "available_sub_agent_ids"):
                return []
        return self._body(value, account, case, 1)

    def _thing(self, name: str, account: Account, case: Case) -> str:
        key = (name, account.user_id)
        if case.method.upper() == "DELETE" and "share" not in case.path:
            return self._makers[name](account)
        if key not in self._made:
            self._made[key] = self._makers[name](account)
        return self._made[key]

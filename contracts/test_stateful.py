"""Sequences of requests along the document's links, one resource group at a time: what was made
is there until it is deleted, and then it is not."""

import contextlib
from typing import Any

import hypothesis
import pytest
from schemathesis import Case, Response
from schemathesis.core.failures import Failure

from contracts.conftest import EXAMPLES, URL, Worlds, judge_of
from contracts.document import Contract, Operation, load
from contracts.fuzzing import Fuzzing, make_unique, schema_of
from contracts.judging import Verdict
from contracts.parts import Account
from contracts.reach import Reach
from contracts.subjects import SUBJECTS

GROUPS = [
    pytest.param(name, group, id=f"{name}.{group}")
    for name, subject in SUBJECTS.items()
    for group in subject.groups
]
BY_ADMINISTRATORS = frozenset({"sage.accounts", "sage.versions"})
ROUNDS = 4
"""Runs with a seed each."""


class Made:
    """What a create made: the links it offers, each with the values of its parameters."""

    def __init__(self, links: dict[str, dict[str, Any]]) -> None:
        self.links = links
        self.gone = False


class Lives:
    """Watches a sequence. Raises Failure when something is used after it was deleted, or is
    missing before."""

    def __init__(self) -> None:
        self._made: list[Made] = []
        self.followed = 0

    def saw(self, case: Case, operation: Operation, verdict: Verdict) -> None:
        operation_id = operation.id
        named = {**case.path_parameters, **(case.body if isinstance(case.body, dict) else {})}
        for made in self._made:
            values = made.links.get(operation_id)
            if values is None or not values.items() <= named.items():
                continue
            self.followed += 1
            deletes = operation_id.endswith("_delete")
            if made.gone and verdict.success and not deletes:
                raise Failure(operation=operation_id, message=f"used after deletion: {values}")
            if not made.gone and verdict.status == 404:
                raise Failure(operation=operation_id, message=f"missing after creation: {values}")
            if verdict.success and deletes:
                made.gone = True
        if verdict.success and (links := self._links(case, operation, verdict.value)):
            self._made.append(Made(links))

    def _links(self, case: Case, operation: Operation, body: Any) -> dict[str, dict[str, Any]]:
        return {
            link["operationId"]: {
                name: _evaluated(expression, case, body)
                for name, expression in (
                    link.get("parameters") or link.get("requestBody") or {}
                ).items()
            }
            for link in operation.statuses[operation.success].get("links", {}).values()
            if link.get("parameters") or isinstance(link.get("requestBody"), dict)
        }


def _evaluated(expression: str, case: Case, body: Any) -> Any:
    """A runtime expression (OpenAPI 3.0.3, "Runtime Expressions"), as far as links use them."""
    if expression.startswith("$response.body#/"):
        for part in expression.removeprefix("$response.body#/").split("/"):
            body = body[part]
        return body
    if expression.startswith("$request.path."):
        return case.path_parameters[expression.removeprefix("$request.path.")]
    raise AssertionError(f"a link's expression that is not known here: {expression}")


@pytest.mark.parametrize(("name", "group"), GROUPS)
def test_sequences(name: str, group: str, worlds: Worlds, reach: Reach) -> None:
    contract: Contract = load(name, URL)
    schema = schema_of(contract, EXAMPLES).include(tag=list(SUBJECTS[name].groups[group]))
    world = worlds(name)
    fuzzing = Fuzzing(contract, world, judge_of(name), reach)
    account: Account = (
        world.admin if f"{name}.{group}" in BY_ADMINISTRATORS else world.account(group)
    )
    followed = [0]

    class Machine(schema.as_state_machine()):  # type: ignore[misc]
        def setup(self) -> None:
            self.lives = Lives()

        def teardown(self) -> None:
            followed[0] += self.lives.followed

        def step(self, input: Any) -> Any:
            self.linked = input.transition is not None and input.is_applied
            return super().step(input)

        def call(self, case: Case, **_: Any) -> Response:
            make_unique(fuzzing.operation(case), case)
            return fuzzing.send(case, account, ids=not self.linked)

        def validate_response(self, response: Response, case: Case, **_: Any) -> None:
            verdict = fuzzing.check(case, response)
            if verdict is not None:
                self.lives.saw(case, fuzzing.operation(case), verdict)

    for seed in range(ROUNDS):
        Machine._hypothesis_internal_use_seed = seed
        with contextlib.suppress(hypothesis.errors.FlakyStrategyDefinition):
            # a server under load may answer otherwise than before; the next round begins afresh
            Machine.run(
                settings=hypothesis.settings(
                    max_examples=-(-EXAMPLES // ROUNDS),
                    stateful_step_count=8,
                    database=None,
                    deadline=None,
                    phases=[hypothesis.Phase.generate],
                    suppress_health_check=list(hypothesis.HealthCheck),
                )
            )
    assert followed[0], "no sequence followed a link"

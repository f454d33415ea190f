"""What runs: attacks on child processes and expressions (checklist 42, 43)."""

from typing import Any
from unittest import mock

from domain import arithmetic
from tests.security.defences import answering, without
from tests.security.place import Place


@without(42, environment={"asyncio:create_subprocess_exec": answering(None)})
async def a_child_inherits_no_secret(place: Place) -> None:
    del place
    import asyncio

    from gateways import html_text

    given: dict[str, Any] = {}
    real = asyncio.create_subprocess_exec

    async def spawn(*command: Any, **options: Any) -> Any:
        given.update(options)
        return await real(*command, **options)

    with mock.patch.object(asyncio, "create_subprocess_exec", spawn):
        try:
            _, text = await html_text.read(b"<p>a</p>" * 4000)
        except AttributeError:
            raise AssertionError("no child read the page") from None
    assert given["env"] == {}
    assert text.startswith("a")


@without(43, grammar={"domain.arithmetic:evaluate": lambda text: eval(text)})
async def an_expression_is_numbers_alone(place: Place) -> None:
    del place
    for text in ("().__class__", "__import__('os').getpid()", "'a' * 3", "[1]", "(lambda: 1)()"):
        try:
            arithmetic.evaluate(text)
        except arithmetic.Unfit:
            continue
        raise AssertionError(text)

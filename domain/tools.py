"""The tools that every server has: time, calculator, web_fetch and web_search.

A tool takes one JSON object and gives text. What it cannot do it says by ToolFailed; the model
reads that and goes on. A `repeatable` tool changes nothing outside and costs nobody anything, so
it may run again after a crash; every other call is made at most once.
"""

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Annotated, Any, Protocol, runtime_checkable
from zoneinfo import ZoneInfo

import msgspec

from domain.arithmetic import Unfit, evaluate
from gateways.search import WebSearch
from gateways.webpage import WebPages

RESULT_MAX = 32_000
"""Characters of a result that reach the model; the rest is cut, and the text says so."""


class Result(msgspec.Struct, frozen=True):
    """What a tool gives: `text` for the model, and `content`, in the shape of its toolbox, for
    whoever watches (domain.turn.telling.Returned)."""

    text: str
    content: dict[str, Any] | None = None


Run = Callable[[Any], Awaitable[str | Result]]


class ToolFailed(Exception):
    """The tool could not do what was asked; the text is for the model and the user."""


class TurnTool(Protocol):
    """A tool as a turn uses it, wherever it comes from."""

    @property
    def toolbox(self) -> str: ...

    @property
    def repeatable(self) -> bool: ...

    def function(self) -> dict[str, Any]:
        """As a model is told of it: OpenAI's chat completions, `tools[]`."""

    async def call(self, arguments: str) -> str | Result:
        """The result of a call, `arguments` being JSON text. Raises ToolFailed, GatewayError."""


class Consent(msgspec.Struct, frozen=True):
    """What a person has to agree to before a call: `question` is shown, `digest` tells this call
    from every other."""

    question: str
    digest: str


@runtime_checkable
class Asking(Protocol):
    """A TurnTool that may want a person's consent to a call."""

    async def consent(self, arguments: str) -> Consent | None:
        """What has to be agreed to; None where nothing, or where the call fails anyhow."""

    async def call(self, arguments: str, agreed: str = "") -> str | Result:
        """As TurnTool's, with the digest that was agreed to; another one's is worth nothing."""


class Tool(msgspec.Struct, frozen=True):
    """A tool and the shape of its arguments."""

    name: str
    description: str
    arguments: type[msgspec.Struct]
    run: Run
    repeatable: bool = False
    toolbox: str = "tool"

    def parameters(self) -> dict[str, Any]:
        """JSON Schema of the arguments."""
        schema = msgspec.json.schema(self.arguments)
        found: dict[str, Any] = dict(schema["$defs"][self.arguments.__name__])
        found.pop("title", None)
        return found

    def function(self) -> dict[str, Any]:
        """As a model is told of it: OpenAI's chat completions, `tools[]`."""
        return {
            "type": "function",
            "function": {
                "name": self.name,
                "description": self.description,
                "parameters": self.parameters(),
            },
        }

    async def call(self, arguments: str) -> str | Result:
        """The result of a call, `arguments` being JSON text. Raises ToolFailed."""
        try:
            wanted = msgspec.json.decode(arguments or "{}", type=self.arguments)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise ToolFailed(f"the arguments do not fit: {error}") from None
        result = await self.run(wanted)
        if isinstance(result, Result):
            return msgspec.structs.replace(result, text=shortened(result.text))
        return shortened(result)


def shortened(result: str) -> str:
    """A result within RESULT_MAX characters."""
    if len(result) > RESULT_MAX:
        return f"{result[:RESULT_MAX]}\n[cut: {len(result) - RESULT_MAX} more characters]"
    return result


class Tools:
    """Tools by name."""

    def __init__(self, tools: Sequence[Tool]) -> None:
        self._tools = {tool.name: tool for tool in tools}
        self._functions = {tool.name: tool.function() for tool in tools}
        self.names = frozenset(self._tools)
        self.listed = tuple(self._tools)

    def get(self, name: str) -> Tool | None:
        return self._tools.get(name)

    def with_more(self, tools: Sequence[Tool]) -> "Tools":
        """These and others."""
        return Tools([*self._tools.values(), *tools])

    def functions(self, names: Sequence[str] | None) -> list[dict[str, Any]]:
        """Those of the names that exist, as a model is told of them, in the registry's order;
        None means all."""
        return [
            function for name, function in self._functions.items() if names is None or name in names
        ]


class TimeArguments(msgspec.Struct, forbid_unknown_fields=True):
    timezone: Annotated[
        str, msgspec.Meta(max_length=64, description="An IANA name such as Asia/Shanghai.")
    ] = "UTC"


class CalculatorArguments(msgspec.Struct, forbid_unknown_fields=True):
    expression: Annotated[
        str,
        msgspec.Meta(
            min_length=1,
            max_length=500,
            description="Arithmetic such as (2 + 3) * 4 ** 2, sqrt(2), round(pi, 3).",
        ),
    ]


class WebFetchArguments(msgspec.Struct, forbid_unknown_fields=True):
    url: Annotated[
        str, msgspec.Meta(min_length=1, max_length=2048, description="An http or https URL.")
    ]


_Query = Annotated[str, msgspec.Meta(min_length=1, max_length=500, description="What to look for.")]


@cache
def _search_arguments(most: int, usual: int) -> type[msgspec.Struct]:
    """`query`, and how many results (`count`), at most and where nothing is said."""
    count = Annotated[int, msgspec.Meta(ge=1, le=most, description="How many results.")]
    return msgspec.defstruct(
        "WebSearchArguments",
        [("query", _Query), ("count", count, usual)],
        forbid_unknown_fields=True,
    )


async def tell_time(wanted: TimeArguments) -> str:
    """The time in a zone: ISO 8601 with offset, the weekday and the zone's name."""
    try:
        zone = UTC if wanted.timezone == "UTC" else ZoneInfo(wanted.timezone)
    except (OSError, ValueError, KeyError):
        raise ToolFailed(f"no such time zone: {wanted.timezone}") from None
    now = datetime.now(zone)
    return f"{now.isoformat(timespec='seconds')} ({now:%A}, {wanted.timezone})"


async def calculate(wanted: CalculatorArguments) -> str:
    """The value of an arithmetic expression."""
    try:
        return str(evaluate(wanted.expression))
    except Unfit as error:
        raise ToolFailed(str(error)) from None


def web_search(web: WebSearch, *, most: int = 10, usual: int = 5) -> Tool:
    """The tool that searches the web and gives `most` results at most."""

    async def search(wanted: Any) -> Result:
        found = await web.search(wanted.query, wanted.count)
        text = "\n\n".join(
            f"{number}. {one.title}\n{one.url}\n{one.content}"
            for number, one in enumerate(found, 1)
        )
        results = [
            {"title": each.title, "link": each.url, "snippet": each.content} for each in found
        ]
        return Result(text or "Nothing was found.", {"results": results})

    arguments = _search_arguments(most, usual)
    return Tool("web_search", "Searches the web.", arguments, search, False, "search")


def built_in(pages: WebPages, web: WebSearch) -> Tools:
    """The tools that every server has."""

    async def fetch(wanted: WebFetchArguments) -> str:
        page = await pages.read(wanted.url)
        return f"{page.title}\n{page.url}\n\n{page.text}" if page.title else page.text

    return Tools(
        [
            Tool("time", "Tells the current date and time.", TimeArguments, tell_time, True),
            Tool(
                "calculator",
                "Evaluates an arithmetic expression exactly.",
                CalculatorArguments,
                calculate,
                True,
            ),
            Tool(
                "web_fetch", "Reads a web page as text.", WebFetchArguments, fetch, False, "browser"
            ),
            web_search(web),
        ]
    )

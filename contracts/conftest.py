"""The server under test, the accounts on it, and what the run as a whole must have reached.

CONTRACTS_URL        a running server, e.g. http://127.0.0.1:8000; without it one is started
CONTRACTS_ADMIN      its administrator, user:password
CONTRACTS_VIEWER     an account of the role viewer, user:password
CONTRACTS_MODEL_URL  an OpenAI-compatible endpoint that the server can reach
                     (and one whose GITHUB_API_URL and GITHUB_REPOSITORY lead to a release)
CONTRACTS_MCP_URL    an MCP server that it can reach, over streamable HTTP
CONTRACTS_SKILLS_URL where it can fetch `/<name>.zip`, a skill of that name
CONTRACTS_EXAMPLES   generated requests per operation and kind of data; 20
"""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from contracts import exceptions, running
from contracts.client import Client
from contracts.document import load
from contracts.judging import Judge
from contracts.parts import World as AnyWorld
from contracts.reach import HEADING, Reach
from contracts.sage import World
from contracts.sandbox import World as SandboxWorld
from contracts.subjects import SUBJECTS

URL = os.environ.get("CONTRACTS_URL", "").rstrip("/")
HERE = Path(__file__).parent
REPORTS = HERE.parent / "reports"
REACH = Reach()
OPERATIONS = [each for name in SUBJECTS for each in load(name, URL).operations.values()]
"""Every operation of every contract."""
EXAMPLES = int(os.environ.get("CONTRACTS_EXAMPLES", "20"))


@pytest.fixture(scope="session")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[running.Started]:
    """The server under test; one for each process of the run."""
    folder = tmp_path_factory.mktemp("contracts")
    with contextlib.ExitStack() as stack:
        model_url = os.environ.get("CONTRACTS_MODEL_URL", "") or stack.enter_context(
            running.model(folder / "model.log")
        )
        mcp_url = os.environ.get("CONTRACTS_MCP_URL", "") or stack.enter_context(
            running.mcp(folder / "mcp.log")
        )
        skills_url = os.environ.get("CONTRACTS_SKILLS_URL", "") or stack.enter_context(
            running.skills()
        )
        if URL:
            admin, viewer = _login("CONTRACTS_ADMIN"), _login("CONTRACTS_VIEWER")
            yield running.Started(URL, admin, model_url, None, 0, mcp_url, skills_url, viewer)
        else:
            github = stack.enter_context(running.releases())
            search = stack.enter_context(running.search())
            login = stack.enter_context(running.login_provider(folder / "login.log"))
            made = stack.enter_context(
                running.server(folder / "data", model_url, **github, **search, **login)
            )
            yield made._replace(mcp_url=mcp_url, skills_url=skills_url)


def _login(variable: str) -> tuple[str, str]:
    """user:password of the environment."""
    username, colon, password = os.environ.get(variable, "").partition(":")
    if not colon:
        pytest.exit(f"CONTRACTS_URL needs {variable}=user:password (contracts/README.md)", 4)
    return username, password


@pytest.fixture(scope="session")
def reach() -> Reach:
    return REACH


@cache
def judge_of(name: str) -> Judge:
    return Judge(load(name, URL))


Worlds = Callable[[str], Any]
"""Name of a contract → its world (of the contract's own class)."""


@pytest.fixture(scope="session")
def worlds(started: running.Started, reach: Reach) -> Worlds:
    """Each contract's world at the server, made when it is first asked for."""

    @cache
    def world(name: str) -> AnyWorld:
        anonymous = Client(started.url, load(name, URL), judge_of(name), reach)
        return SUBJECTS[name].world(started, anonymous)

    return world


@pytest.fixture(scope="session")
def world(worlds: Worlds) -> World:
    """sage's."""
    made: World = worlds("sage")
    return made


@pytest.fixture(scope="session")
def sandbox(worlds: Worlds) -> SandboxWorld:
    made: SandboxWorld = worlds("sandbox")
    return made


# --- the run as a whole -----------------------------------------------------------------------


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "own_server: reaches behind a server that the suite started")
    if not hasattr(config, "workerinput"):
        shutil.rmtree(REPORTS / ".contracts", ignore_errors=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Against a URL, leave out what only a server of the suite's own can show."""
    if not URL:
        return
    out = [item for item in items if item.get_closest_marker("own_server")]
    config.hook.pytest_deselected(items=out)
    items[:] = [item for item in items if item not in out]


def pytest_sessionfinish(session: pytest.Session) -> None:
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    if worker:
        REACH.save(REPORTS / ".contracts" / f"{worker}.json")
        return
    for file in sorted((REPORTS / ".contracts").glob("*.json")):
        REACH.add(file)
    if not REACH.seen or session.config.option.collectonly:
        return
    unmet, sections = exceptions.unneeded(REACH, EXAMPLES), [HEADING]
    for name in SUBJECTS:
        contract = load(name, URL)
        missed = REACH.unmet(contract)
        sections.append(REACH.report(contract, missed))
        unmet += missed
    REPORTS.mkdir(exist_ok=True)
    (REPORTS / "contracts.md").write_text("\n".join(sections))
    session.config.stash[UNMET] = unmet
    if unmet and _whole(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


UNMET = pytest.StashKey[list[str]]()


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    unmet = config.stash.get(UNMET, None)
    if unmet is None:
        return
    terminalreporter.section("contracts")
    terminalreporter.line(f"reports/contracts.md: {len(unmet)} unmet")
    if _whole(config):
        for each in unmet:
            terminalreporter.line(f"FAILED {each}", red=True)


def _whole(config: pytest.Config) -> bool:
    """Whether the run was of the whole suite, so that what it missed was missed.

    Against a URL it never is: what needs a server of the suite's own was left out.
    """
    option = config.option
    named = ("keyword", "markexpr", "deselect", "lf", "maxfail")
    narrowed = any(getattr(option, name, None) for name in named)
    folders = {(config.invocation_params.dir / arg).resolve() for arg in config.args}
    return (
        not URL and not narrowed and any(each == HERE or each in HERE.parents for each in folders)
    )

"""A server over each database that installs skills, shared by the tests of a process."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import postgres_answers
from tests.serving import Server
from tests.sessions.talking import Place, served
from tests.skills.installing import GitHub, github


class Shop(NamedTuple):
    """A server, the directory below which it installs, and its GitHub."""

    server: Server
    roots: Path
    github: GitHub


@pytest.fixture(scope="session", params=["sqlite", *(["postgresql"] if postgres_answers() else [])])
def shop(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shop]:
    place = tmp_path_factory.mktemp("skills")
    (place / "roots").mkdir()
    with github() as hub:
        given = {
            "SKILL_SOURCE_ROOTS": str(place / "roots"),
            "SKILLS_ROOT_DIR": str(place / "kept"),
            "GITHUB_API_URL": hub.url,
            "OUTBOUND_ALLOW": "skill=127.0.0.1/32,mcp=127.0.0.1/32,a2a=127.0.0.1/32",
        }
        with served(place / "data", request.param, given) as server:
            yield Shop(server, place / "roots", hub)


@pytest.fixture
async def there(shop: Shop) -> AsyncIterator[Place]:
    place = Place(shop.server)
    yield place
    await place.close()

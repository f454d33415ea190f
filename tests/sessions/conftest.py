"""A server over each database, shared by the tests of a process."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.conftest import postgres_answers
from tests.serving import Server
from tests.sessions.talking import Place, served


@pytest.fixture(scope="session", params=["sqlite", *(["postgresql"] if postgres_answers() else [])])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    with served(tmp_path_factory.mktemp("sessions") / "data", request.param) as running:
        yield running


@pytest.fixture
async def here(server: Server) -> AsyncIterator[Place]:
    place = Place(server)
    yield place
    await place.close()

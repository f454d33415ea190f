"""One composed server for all tests of a module."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.security.place import Place, opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    async with opened(tmp_path_factory.mktemp("place") / "data") as made:
        yield await made.populate()

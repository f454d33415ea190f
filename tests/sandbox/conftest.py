"""Sandboxes of small size; whatever a test leaves running in them ends with it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateways.sandbox.confining import SandboxLimits
from gateways.sandbox.sandboxes import Sandbox, Sandboxes

SMALL = SandboxLimits(
    memory_bytes=256 << 20,
    processes=48,
    file_bytes=8 << 20,
    disk_bytes=16 << 20,
    files=500,
    scratch_bytes=8 << 20,
    shells=4,
    records=5,
    output_bytes=10_000,
)


@pytest.fixture
async def sandboxes(tmp_path: Path) -> AsyncIterator[Sandboxes]:
    made = Sandboxes(tmp_path / "workspaces", SMALL)
    yield made
    await made.close_all()


@pytest.fixture
async def sandbox(sandboxes: Sandboxes) -> Sandbox:
    return await sandboxes.open("session")

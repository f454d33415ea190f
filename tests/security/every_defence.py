"""The checks of every module: each registers its own when it is imported."""

from tests.security import (
    archive_defences,
    authentication_defences,
    authorisation_defences,
    availability_defences,
    execution_defences,
    file_defences,
    mcp_defences,
    mcp_stdio_defences,
    oauth2_defences,
    outbound_defences,
    sandbox_defences,
    secrets_defences,
    session_defences,
    skill_defences,
    socket_defences,
    upstream_defences,
    web_defences,
)
from tests.security.defences import DEFENCES

__all__ = [
    "DEFENCES",
    "archive_defences",
    "authentication_defences",
    "authorisation_defences",
    "availability_defences",
    "execution_defences",
    "file_defences",
    "mcp_defences",
    "mcp_stdio_defences",
    "oauth2_defences",
    "outbound_defences",
    "sandbox_defences",
    "secrets_defences",
    "session_defences",
    "skill_defences",
    "socket_defences",
    "upstream_defences",
    "web_defences",
]

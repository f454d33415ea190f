"""MCP servers in the words of sage (document, "MCPServerRequest")."""

from typing import Any

from domain.caller import Caller
from domain.mcp import ServerFields, masked
from domain.quartet import Quartet
from generated.sage.models import MCPServer, MCPServerRequest
from storage.mcp import McpServer


async def create(quartet: Quartet, caller: Caller, body: MCPServerRequest) -> dict[str, Any]:
    made = await quartet.mcp.add(caller, fields_of(body))
    return {"server_name": made.name, "status": "success"}


async def list_(quartet: Quartet, caller: Caller) -> dict[str, list[MCPServer]]:
    return {"servers": [shown(server) for server in await quartet.mcp.visible(caller)]}


async def delete(quartet: Quartet, caller: Caller, server_name: str) -> dict[str, Any]:
    return {"server_name": (await quartet.mcp.delete(caller, server_name)).name}


async def refresh(quartet: Quartet, caller: Caller, server_name: str) -> dict[str, Any]:
    asked = await quartet.mcp.refresh(caller, server_name)
    return {"server_name": asked.name, "status": "disabled" if asked.disabled else "refreshed"}


def fields_of(body: MCPServerRequest) -> ServerFields:
    """The body's fields; what is null or left out is empty."""
    return ServerFields(
        name=body.name,
        protocol=body.protocol,
        streamable_http_url=body.streamable_http_url or "",
        sse_url=body.sse_url or "",
        api_key=body.api_key or "",
    )


def shown(server: McpServer) -> MCPServer:
    """A server with its key masked. `command`, `args` and `env` are those of a protocol that this
    contract does not offer."""
    streams = server.protocol == "streamable_http"
    return MCPServer(
        name=server.name,
        protocol=server.protocol,
        disabled=server.disabled,
        streamable_http_url=server.url if streams else None,
        sse_url=None if streams else server.url,
        api_key=masked(server),
        command=None,
        args=None,
        env=None,
        user_id=server.owner_id,
    )

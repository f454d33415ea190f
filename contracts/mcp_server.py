"""The MCP server beside the server under test: `python -m contracts.mcp_server` prints its
address. It answers to anyone."""

import asyncio
import socket

import uvicorn
from mcp.server.mcpserver import MCPServer

server = MCPServer("contracts", log_level="ERROR")


@server.tool(structured_output=False)
def greet() -> str:
    """Says hello."""
    return "Hello."


@server.tool()
def double(number: int) -> dict[str, int]:
    """Doubles a number."""
    return {"doubled": number * 2}


def main() -> None:
    """Serve on a free port until ended."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=64)
    print(f"http://127.0.0.1:{listening.getsockname()[1]}/mcp", flush=True)
    config = uvicorn.Config(server.streamable_http_app(), log_level="error")
    asyncio.run(uvicorn.Server(config).serve(sockets=[listening]))


main()

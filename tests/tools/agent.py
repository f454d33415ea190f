"""A real A2A agent, run as a process: `python agent.py streaming|plain|legacy HOST:PORT PORT`. It
listens on PORT, 0 for any, and prints its address. Its card names HOST:PORT in place of that,
unless it is empty."""

import asyncio
import socket
import sys

import uvicorn
from a2a.helpers.proto_helpers import new_text_message, new_text_part
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes.agent_card_routes import create_agent_card_routes
from a2a.server.routes.jsonrpc_routes import create_jsonrpc_routes
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types import (
    AgentCapabilities,
    AgentCard,
    AgentInterface,
    AgentSkill,
    Task,
    TaskState,
    TaskStatus,
)
from starlette.applications import Starlette


class Executor(AgentExecutor):
    """Does what its message says: `fail …`, `wait`, `ask …`, `message …`; else it echoes in a
    task of two artifacts."""

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        said = context.get_user_input()
        word, _, rest = said.partition(" ")
        if word == "message":
            await event_queue.enqueue_event(new_text_message(f"heard {rest}"))
            return
        if context.current_task is None:
            await event_queue.enqueue_event(
                Task(
                    id=context.task_id,
                    context_id=context.context_id,
                    status=TaskStatus(state=TaskState.TASK_STATE_SUBMITTED),
                    history=[context.message],
                )
            )
        updater = TaskUpdater(event_queue, context.task_id, context.context_id)
        await updater.start_work()
        if word == "wait":
            await asyncio.sleep(60)
        elif word == "fail":
            await updater.failed(new_text_message(rest))
            return
        elif word == "ask":
            await updater.requires_input(new_text_message(rest))
            return
        await updater.add_artifact([new_text_part(f"echo: {said}")])
        await updater.add_artifact([new_text_part("done")])
        await updater.complete()

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        raise NotImplementedError


def main() -> None:
    kind, named, wanted = sys.argv[1:]
    listening = socket.create_server(("127.0.0.1", int(wanted)), backlog=64)
    port = listening.getsockname()[1]
    named = named or f"127.0.0.1:{port}"
    card = AgentCard(
        name="Echo agent",
        description="Says again what it hears.",
        version="1.0.0",
        supported_interfaces=[
            AgentInterface(
                url=f"http://{named}/rpc",
                protocol_binding="JSONRPC",
                protocol_version="0.3" if kind == "legacy" else "1.0",
            )
        ],
        capabilities=AgentCapabilities(streaming=kind != "plain", push_notifications=False),
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain", "application/json"],
        skills=[AgentSkill(id="echo", name="echo", description="Echoes.", tags=["test"])],
    )
    handler = DefaultRequestHandler(
        agent_executor=Executor(), task_store=InMemoryTaskStore(), agent_card=card
    )
    app = Starlette(
        routes=[
            *create_agent_card_routes(card),
            *create_jsonrpc_routes(handler, "/rpc", enable_v0_3_compat=True),
        ]
    )
    print(f"http://127.0.0.1:{port}", flush=True)
    config = uvicorn.Config(app, log_level="error")
    asyncio.run(uvicorn.Server(config).serve(sockets=[listening]))


main()

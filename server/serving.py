"""`scripts/serve`: flags, sockets, start and end of the process."""

import argparse
import contextlib
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import uvicorn

from server import listening, observing
from server.composition import Started, start
from server.protocol import Sockets, limited
from server.settings import Settings, read_settings
from storage.lock import Locked

logger = logging.getLogger("quartet.server")


def parser() -> argparse.ArgumentParser:
    """The flags; each outranks the environment variable of its name."""
    made = argparse.ArgumentParser(
        prog="scripts/serve",
        description="Run Quartet. Without settings: SQLite and embedded models, in one process.",
        epilog="Every other setting is an environment variable: see .env.example.",
    )
    made.add_argument("--port", type=int, help="main port (default 8000; 0 takes a free one)")
    made.add_argument("--assistant-port", type=int, help="the assistant contract's port (3005)")
    made.add_argument("--host", help="address to listen on (default 127.0.0.1)")
    made.add_argument("--data", type=Path, help="data directory (default ./data)")
    return made


def main(arguments: Sequence[str]) -> None:
    """Run the server until it is told to stop. Exits 1 with a reason when it cannot start."""
    given = {k: v for k, v in vars(parser().parse_args(arguments)).items() if v is not None}
    try:
        settings = read_settings(**given)
    except ValueError as error:
        listening.fail(str(error))
    observing.configure_logs(settings)
    with listening.uvloop_runner() as runner:
        runner.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    sockets = []
    for port in (settings.port, settings.assistant_port):
        try:
            sockets.append(listening.listen(settings.host, port))
        except OSError as error:
            listening.fail(f"cannot listen on {settings.host}:{port}: {error.strerror}")
    (host, port), (_, assistant_port) = listening.addresses(sockets)
    settings = settings.model_copy(
        update={"host": host, "port": port, "assistant_port": assistant_port}
    )
    try:
        started = await start(settings)
    except Locked as error:
        listening.fail(str(error))
    except Exception as error:
        logger.error("the server could not start", exc_info=error)
        listening.fail(f"could not start: {error}")
    logged = observing.access_logged if settings.access_log else lambda application: application
    config = uvicorn.Config(
        logged(started.application),
        http=limited(settings.headers_max),
        ws=Sockets,
        ws_max_size=settings.ws_message_max,
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=int(settings.drain_s) + 10,
    )
    listening.quiet_cuts()
    server = listening.Server(
        config,
        drain=started.drain,
        drain_s=settings.drain_s,
        stopping=started.stopping,
        ended=started.close,
    )
    _announce(settings, started)
    await server.serve(sockets=sockets)


def _announce(settings: Settings, started: Started) -> None:
    """The URLs, and the generated password the one time there is one."""
    lines = [
        "",
        f"  Quartet is at       http://{settings.host}:{settings.port}",
        f"  assistant's port    http://{settings.host}:{settings.assistant_port}",
        f"  data                {settings.data.resolve()}",
    ]
    if started.admin_password:
        lines += [
            f"  administrator       {settings.admin_username}",
            f"  password            {started.admin_password}   (shown this once)",
        ]
    with contextlib.suppress(OSError):
        sys.stdout.write("\n".join([*lines, "", ""]))
        sys.stdout.flush()
    logger.info("serving", extra={"pid": os.getpid()})

"""The commands of `scripts/admin`."""

import asyncio
import getpass
import secrets
import sqlite3
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from domain.caller import Caller
from domain.errors import DomainError
from gateways.errors import SealBroken, WrongKey
from server import observing
from server.administration import backup as backups
from server.administration import keys
from server.administration.integrity import findings
from server.administration.opening import Refused, reading, writing
from server.messages import text
from server.settings import Settings, read_settings
from storage.database import StorageError
from storage.lock import Locked
from storage.users import UserStore

application = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Administer Quartet's data, by the settings of scripts/serve (environment, .env).",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Data = Annotated[Path | None, typer.Option("--data", help="data directory (default ./data)")]
PasswordStdin = Annotated[
    bool, typer.Option("--password-stdin", help="read the password from standard input")
]

COMMAND_LINE = Caller(user_id="", role="admin")


@application.command()
def create_admin(
    username: str, email: str = "", data: Data = None, password_stdin: PasswordStdin = False
) -> None:
    """Make an administrator's account."""

    async def act(settings: Settings) -> None:
        password, made = _password(password_stdin)
        async with writing(settings) as parts:
            await parts.accounts.users.add(
                COMMAND_LINE,
                username=username,
                password=password,
                email=email or None,
                role="admin",
            )
        _say(f"{username} is an administrator.")
        if made:
            _say(f"Password: {password}")

    _run(act, data)


@application.command()
def reset_password(username: str, data: Data = None, password_stdin: PasswordStdin = False) -> None:
    """Give an account another password; its login sessions end."""

    async def act(settings: Settings) -> None:
        password, made = _password(password_stdin)
        async with writing(settings) as parts:
            user = await UserStore(parts.database).find_by_username(username)
            if user is None:
                raise Refused(f"there is no account {username}")
            await parts.accounts.users.reset_password(user.id, password)
        _say(f"{user.username} has another password.")
        if made:
            _say(f"Password: {password}")

    _run(act, data)


@application.command()
def list_users(data: Data = None) -> None:
    """Every account, the newest first: id, name, e-mail, role, status, since when."""

    async def act(settings: Settings) -> None:
        async with reading(settings) as database:
            users, offset, total = UserStore(database), 0, 1
            while offset < total:
                page, total = await users.page(offset=offset, limit=500)
                offset += 500
                for user in page:
                    since = time.strftime("%Y-%m-%d", time.gmtime(user.created_at))
                    fields = (user.id, user.username, user.email or "-", user.role, user.status)
                    _say("\t".join((*fields, since)))

    _run(act, data)


@application.command()
def rotate_key(data: Data = None) -> None:
    """Seal every stored secret by a new secrets key."""
    _run(lambda settings: keys.rotate(settings, _say), data)


@application.command()
def check(data: Data = None) -> None:
    """Check the database, the event log, the secrets and the files. Exits 1 when something is
    wrong; changes nothing."""

    async def act(settings: Settings) -> None:
        count = 0
        async with reading(settings) as database:
            async for line in findings(settings, database):
                count += 1
                _say(line)
        if count:
            raise typer.Exit(1)
        _say("All is well.")

    _run(act, data)


@application.command()
def backup(
    target: Path,
    data: Data = None,
    with_key: Annotated[
        bool, typer.Option("--with-key", help="put the secrets key into the backup too")
    ] = False,
) -> None:
    """Write everything into a new directory, beside a running server or not."""

    async def act(settings: Settings) -> None:
        await asyncio.to_thread(backups.back_up, settings, target, _say, with_key=with_key)

    _run(act, data)


@application.command()
def restore(source: Path, data: Data = None) -> None:
    """Put a backup where there is nothing yet: an empty data directory, or a new database."""

    async def act(settings: Settings) -> None:
        await asyncio.to_thread(backups.restore, settings, source, _say)

    _run(act, data)


def _run(act: Callable[[Settings], Coroutine[Any, Any, None]], data: Path | None) -> None:
    given: dict[str, Any] = {} if data is None else {"data": data}
    try:
        settings = read_settings(**given)
        observing.configure_logs(settings)
        asyncio.run(act(settings))
    except DomainError as error:
        _fail(text(error.key, "en", error.details))
    except Locked as error:
        _fail(f"{error}; stop the server first")
    except (
        *(Refused, StorageError, WrongKey, SealBroken),
        *(OSError, ValueError, sqlite3.Error),
    ) as error:
        _fail(str(error))


def _password(from_stdin: bool) -> tuple[str, bool]:
    """A password, and whether it was made here and so has to be shown."""
    if from_stdin:
        return sys.stdin.readline().rstrip("\n"), False
    if not sys.stdin.isatty():
        return secrets.token_urlsafe(15), True
    given = getpass.getpass("Password (empty: make one): ")
    if not given:
        return secrets.token_urlsafe(15), True
    if given != getpass.getpass("Again: "):
        raise Refused("the two differ")
    return given, False


def _say(line: str) -> None:
    typer.echo(line)


def _fail(message: str) -> NoReturn:
    typer.echo(f"admin: {message}", err=True)
    raise typer.Exit(1)

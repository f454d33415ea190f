"""Everything about accounts, put together over one database and one event log."""

from collections.abc import Mapping

import msgspec

from domain.identity.clock import Clock
from domain.identity.failures import FailedLogins
from domain.identity.identity import Identity
from domain.identity.known import Known
from domain.identity.lockout import Lockout
from domain.identity.passwords import Passwords
from domain.identity.policy import IdentityPolicy
from domain.identity.proxied import Proxied
from domain.identity.registration import Registration, Send
from domain.identity.revocations import Revocations
from domain.identity.tokens import Tokens
from domain.identity.trail import Trail
from domain.oauth2.clients import Client
from domain.oauth2.server import AuthorizationServer, OAuth2Policy
from domain.system import System
from domain.users import Users
from storage.database import Database
from storage.email_codes import EmailCodeStore
from storage.events import EventLog
from storage.login_sessions import LoginSessionStore
from storage.oauth_grants import OAuthGrantStore
from storage.stored_settings import StoredSettings
from storage.users import UserStore


class Accounts(msgspec.Struct, frozen=True):
    """The parts by noun. `identity.start()` and `identity.close()` begin and end them all."""

    identity: Identity
    registration: Registration
    users: Users
    system: System
    oauth2: AuthorizationServer


def accounts(
    database: Database,
    log: EventLog,
    *,
    key: bytes,
    issuer: str,
    policy: IdentityPolicy,
    send: Send,
    redis_url: str = "",
    passwords: Passwords | None = None,
    clock: Clock | None = None,
    clients: Mapping[str, Client] | None = None,
    oauth2: OAuth2Policy | None = None,
) -> Accounts:
    """`key` signs tokens and codes (identity/keys.py), `issuer` is PUBLIC_URL, `send` a mailer,
    `clients` are those of OAuth2."""
    oauth2 = oauth2 or OAuth2Policy(issuer=f"{issuer}/oauth2")
    clock = clock or Clock()
    known = Known(clock)
    trail = Trail(log.append, known)
    users = UserStore(database)
    sessions = LoginSessionStore(database)
    passwords = passwords or Passwords(shortest=policy.password_min, longest=policy.password_max)
    lockout = Lockout(
        failures=policy.lockout_failures,
        address_failures=policy.address_failures,
        window_s=policy.lockout_s,
        redis_url=redis_url,
    )
    system = System(
        database, stored=StoredSettings(database), trail=trail, policy=policy, clock=clock
    )
    return Accounts(
        identity=Identity(
            database,
            users=users,
            sessions=sessions,
            trail=trail,
            known=known,
            revocations=Revocations(log, known),
            tokens=Tokens(key, issuer, clock),
            passwords=passwords,
            lockout=lockout,
            failures=FailedLogins(database, log.append),
            proxied=Proxied(database, users, trail, clock),
            policy=policy,
            clock=clock,
        ),
        registration=Registration(
            database,
            users=users,
            codes=EmailCodeStore(),
            trail=trail,
            passwords=passwords,
            system=system,
            send=send,
            key=key,
            policy=policy,
            clock=clock,
        ),
        users=Users(
            database,
            users=users,
            sessions=sessions,
            trail=trail,
            passwords=passwords,
            lockout=lockout,
            clock=clock,
        ),
        system=system,
        oauth2=AuthorizationServer(
            database,
            grants=OAuthGrantStore(database),
            users=users,
            clients=clients or {},
            tokens=Tokens(key, oauth2.issuer, clock),
            trail=trail,
            policy=oauth2,
            clock=clock,
        ),
    )

"""Everything about accounts, put together over one database and one event log."""

from collections.abc import Mapping

import msgspec

from domain.identity.clock import Clock
from domain.identity.destinations import Destinations
from domain.identity.failures import FailedLogins
from domain.identity.identity import Identity
from domain.identity.known import Known
from domain.identity.lockout import Lockout
from domain.identity.passwords import Passwords
from domain.identity.policy import IdentityPolicy
from domain.identity.proxied import Proxied
from domain.identity.registration import Registration, Send
from domain.identity.revocations import Revocations
from domain.identity.subjects import Subjects
from domain.identity.tokens import Tokens
from domain.identity.trail import Trail
from domain.identity.upstream import Upstream, UpstreamPolicy
from domain.identity.upstream_providers import Provider
from domain.identity.wechat import WeChat, WeChatPolicy
from domain.oauth2.clients import Client
from domain.oauth2.server import AuthorizationServer, OAuth2Policy
from domain.system import AuthProvider, System
from domain.users import Users
from gateways.outbound import Outbound
from gateways.upstream import UpstreamClient
from gateways.wechat import WeChatClient
from storage.database import Database
from storage.email_codes import EmailCodeStore
from storage.events import EventLog
from storage.login_sessions import LoginSessionStore
from storage.oauth_grants import OAuthGrantStore
from storage.stored_settings import StoredSettings
from storage.upstream import UpstreamStore
from storage.users import UserStore


class Accounts(msgspec.Struct, frozen=True):
    """The parts by noun. `identity.start()` and `identity.close()` begin and end them all."""

    identity: Identity
    registration: Registration
    users: Users
    system: System
    oauth2: AuthorizationServer
    upstream: Upstream
    wechat: WeChat


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
    providers: Mapping[str, Provider] | None = None,
    upstream: UpstreamPolicy | None = None,
    wechat: WeChatPolicy | None = None,
    destinations: Destinations | None = None,
    outbound: Outbound | None = None,
) -> Accounts:
    """`key` signs tokens and codes (identity/keys.py), `issuer` is PUBLIC_URL, `send` a mailer,
    `clients` are those of OAuth2, `providers` those that people log in at."""
    providers = providers or {}
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
        database,
        stored=StoredSettings(database),
        trail=trail,
        policy=policy,
        clock=clock,
        upstream=tuple(
            AuthProvider(each.id, "oidc", each.shown, each.icon) for each in providers.values()
        ),
    )
    identity = Identity(
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
    )
    logins = UpstreamStore(database)
    subjects = Subjects(
        database, store=logins, users=users, system=system, trail=trail, clock=clock
    )
    return Accounts(
        identity=identity,
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
        wechat=WeChat(
            database,
            store=logins,
            subjects=subjects,
            identity=identity,
            client=WeChatClient(outbound or Outbound()),
            policy=wechat or WeChatPolicy(),
            clock=clock,
        ),
        upstream=Upstream(
            database,
            store=logins,
            subjects=subjects,
            identity=identity,
            system=system,
            client=UpstreamClient(outbound or Outbound()),
            providers=providers,
            destinations=destinations or Destinations(),
            policy=upstream or UpstreamPolicy(),
            clock=clock,
        ),
    )

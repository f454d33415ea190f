"""What the deployment offers, and what administrators change of it while it runs."""

import asyncio
from collections.abc import Callable
from typing import Literal

import msgspec

from domain.caller import Caller
from domain.errors import Unavailable
from domain.identity.policy import IdentityPolicy
from domain.identity.trail import Trail
from storage.database import Database, StorageUnavailable, Unit
from storage.stored_settings import StoredSettings

ALLOW_REGISTRATION = "allow_registration"
CHECK_S = 2.0


class AuthProvider(msgspec.Struct, frozen=True):
    """One way to log in. `name` and `icon` are an upstream provider's; the texts of passwords
    depend on the language and belong to the contract."""

    id: str
    type: Literal["native", "oidc"]
    name: str = ""
    icon: str = ""


NATIVE = AuthProvider("native", "native")


class SystemInfo(msgspec.Struct, frozen=True):
    """What anybody may know before logging in. `admin_only` says that passwords log in
    administrators alone."""

    mode: Literal["native", "trusted_proxy", "oauth"]
    allow_registration: bool
    providers: tuple[AuthProvider, ...]
    admin_only: bool

    @property
    def has_local_auth(self) -> bool:
        return any(provider.type == "native" for provider in self.providers)

    @property
    def upstream(self) -> tuple[AuthProvider, ...]:
        return tuple(provider for provider in self.providers if provider.type != "native")


class System:
    """Settings that outrank the environment once an administrator has stored them."""

    def __init__(
        self,
        database: Database,
        *,
        stored: StoredSettings,
        trail: Trail,
        policy: IdentityPolicy,
        clock: Callable[[], float],
        upstream: tuple[AuthProvider, ...] = (),
    ) -> None:
        self._database = database
        self._stored = stored
        self._trail = trail
        self._policy = policy
        self._clock = clock
        self._upstream = upstream

    async def info(self) -> SystemInfo:
        return SystemInfo(
            mode=self._policy.mode,
            allow_registration=await self.allows_registration(),
            providers=self.providers(),
            admin_only=self._policy.mode == "trusted_proxy",
        )

    def providers(self) -> tuple[AuthProvider, ...]:
        """The ways to log in, the one to offer first in front."""
        return self.upstream() if self._policy.mode == "oauth" else (NATIVE, *self.upstream())

    def upstream(self) -> tuple[AuthProvider, ...]:
        """The upstream providers; none behind a proxy that says who people are."""
        return () if self._policy.mode == "trusted_proxy" else self._upstream

    async def allows_registration(self) -> bool:
        """Whether people may register themselves; never in another mode than `native`."""
        return self._policy.mode == "native" and await self.admits()

    async def admits(self) -> bool:
        """Whether anybody who has no account may get one, whatever the door."""
        default = self._policy.allow_registration
        return bool(await self._stored.find(ALLOW_REGISTRATION, default))

    async def update(self, actor: Caller, *, allow_registration: bool, address: str = "") -> None:
        """Open or close registration, in every process from the next request on."""
        now = self._clock()

        def unit() -> Unit[None]:
            yield from self._stored.put(ALLOW_REGISTRATION, allow_registration, now)
            yield from self._trail.tell(
                actor.user_id,
                "system.settings_changed",
                actor=actor.user_id,
                address=address,
                allow_registration=allow_registration,
            )

        await self._database.write(unit)

    async def check(self) -> float:
        """The time, once the database has answered. Raises Unavailable("system.database"), within
        2 s: whoever asks must not be left waiting for a connection."""
        try:
            async with asyncio.timeout(CHECK_S):
                await self._stored.find(ALLOW_REGISTRATION, None)
        except (StorageUnavailable, TimeoutError) as error:
            raise Unavailable("system.database") from error
        return self._clock()

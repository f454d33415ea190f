"""Logging in with an account that people have elsewhere (RFC 6749, RFC 9700, OpenID Connect)."""

import base64
import hashlib
import hmac
import logging
import secrets
from collections.abc import Callable, Mapping
from urllib.parse import urlencode

import msgspec

from domain.errors import DomainError, NotFound, Unauthenticated, Unusable
from domain.identity.destinations import Destinations
from domain.identity.identity import Identity, Login
from domain.identity.subjects import Subjects
from domain.identity.upstream_providers import Person, Provider
from domain.system import System
from gateways.errors import UpstreamUnavailable, UpstreamUntrusted
from gateways.upstream import Proof, UpstreamClient
from storage.database import Database
from storage.upstream import Began, UpstreamLogin, UpstreamStore

LOGIN_S = 600
"""How long a login may take at the provider."""

logger = logging.getLogger("quartet.upstream")


class UpstreamPolicy(msgspec.Struct, frozen=True):
    """`base` is where browsers reach this server, `root` the path of that ("" or "/ai")."""

    base: str = ""
    root: str = ""


class Begun(msgspec.Struct, frozen=True):
    """A login that was begun: where the browser goes, and the secret that it keeps; "" where the
    provider could not be asked."""

    location: str
    browser: str = ""


class Finished(msgspec.Struct, frozen=True):
    """Where the browser goes, with the login session if there is one."""

    location: str
    login: Login | None = None


class Upstream:
    """Sends browsers to a provider and takes them back.

    A login belongs to the browser that began it: its state is good once, within ten minutes, and
    only together with a cookie. The PKCE verifier and the nonce are made of both secrets, so
    neither has to be kept. Whoever fails goes back to the login page with an error's name; the
    reason is in the log.

    Whose account it is, Subjects says.
    """

    def __init__(
        self,
        database: Database,
        *,
        store: UpstreamStore,
        subjects: Subjects,
        identity: Identity,
        system: System,
        client: UpstreamClient,
        providers: Mapping[str, Provider],
        destinations: Destinations,
        policy: UpstreamPolicy,
        clock: Callable[[], float],
    ) -> None:
        self._database = database
        self._store = store
        self._subjects = subjects
        self._identity = identity
        self._system = system
        self._client = client
        self._providers = providers
        self._destinations = destinations
        self._policy = policy
        self._clock = clock

    async def begin(
        self, provider_id: str | None, *, next: str | None, redirect_uri: str | None
    ) -> Begun:
        """Send a browser to a provider, the first of the list if None is named.

        Raises NotFound("upstream.none" | "upstream.not_found"),
        Unusable("upstream.redirect_uri") for an address that is not one of the callback's.
        """
        provider = self._provider(provider_id)
        callback = self._callback(provider, redirect_uri)
        wanted = self._destinations.safe(next)
        state, browser = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        try:
            location = await self._client.authorization_url(
                provider,
                redirect_uri=callback,
                state=state,
                nonce=_made("nonce", browser, state),
                challenge=_challenge(_made("verifier", browser, state)),
            )
        except UpstreamUnavailable as error:
            logger.warning("the login provider %s cannot be asked: %s", provider.id, error)
            return Begun(self._refused("unavailable", wanted))
        login = UpstreamLogin(
            state=state,
            browser=browser,
            provider=provider.id,
            next=wanted,
            redirect_uri=callback,
            expires_at=self._clock() + LOGIN_S,
        )
        await self._database.write(lambda: self._store.begin(login))
        return Begun(location, browser)

    async def finish(
        self,
        provider_id: str,
        *,
        state: str,
        browser: str,
        code: str,
        error: str = "",
        issuer: str = "",
        address: str,
        user_agent: str = "",
    ) -> Finished:
        """Take a browser back: `browser` is its cookie, `error` and `issuer` what the provider
        said beside the code (RFC 9207). Raises NotFound("upstream.not_found")."""
        provider = self._provider(provider_id)
        now = self._clock()
        began = await self._database.write(
            lambda: self._store.take(state, browser=browser, provider=provider.id, now=now)
        )
        if began is None:
            return Finished(self._refused("expired", None))
        try:
            if error or not code:
                logger.info("the login provider %s said %r", provider.id, error[:200])
                raise Unauthenticated("upstream.refused")
            if issuer and provider.issuer and issuer != provider.issuer:
                raise Unauthenticated("upstream.untrusted")
            person = await self._person(provider, began, code, browser, state)
            user = await self._subjects.account(
                provider.key, provider.id, person, admits=provider.admits, address=address
            )
            login = await self._identity.open_session(
                user, via="upstream", address=address, user_agent=user_agent
            )
        except DomainError as failure:
            logger.info("a login with %s failed: %s", provider.id, failure.key)
            return Finished(self._refused(failure.key.rpartition(".")[2], began.next))
        return Finished(began.next, login)

    async def purge(self) -> int:
        """Forget logins that nobody came back from; how many."""
        before = self._clock()
        return await self._database.write(lambda: self._store.purge(before))

    # --- providers ----------------------------------------------------------------------------

    def _provider(self, provider_id: str | None) -> Provider:
        offered = self._system.upstream()
        if provider_id is None and not offered:
            raise NotFound("upstream.none")
        wanted = offered[0].id if provider_id is None else provider_id
        if wanted not in {each.id for each in offered}:
            raise NotFound("upstream.not_found")
        return self._providers[wanted]

    def _callback(self, provider: Provider, wanted: str | None) -> str:
        """An address of ours that a provider sends browsers back to; never what a request says
        that this server is called."""
        ours = [
            f"{self._policy.base}{prefix}/{path}/callback/{provider.id}"
            for path in ("api/auth/upstream", "api/user/oauth")
            for prefix in ("", "/sage")
        ]
        if not wanted:
            return ours[0]
        if wanted not in (*ours, *provider.redirect_uris):
            raise Unusable("upstream.redirect_uri")
        return wanted

    async def _person(
        self, provider: Provider, began: Began, code: str, browser: str, state: str
    ) -> Person:
        proof = Proof(
            code=code,
            redirect_uri=began.redirect_uri,
            verifier=_made("verifier", browser, state),
            nonce=_made("nonce", browser, state),
        )
        try:
            return provider.person(await self._client.claims(provider, proof))
        except UpstreamUnavailable as error:
            logger.warning("the login provider %s cannot be asked: %s", provider.id, error)
            raise Unauthenticated("upstream.unavailable") from error
        except UpstreamUntrusted as error:
            logger.warning("the login provider %s proved nobody: %s", provider.id, error)
            raise Unauthenticated("upstream.untrusted") from error

    def _refused(self, error: str, wanted: str | None) -> str:
        given = {"error": error, **({"next": wanted} if wanted else {})}
        return f"{self._policy.root}/login?{urlencode(given)}"


def _made(what: str, browser: str, state: str) -> str:
    """43 characters that only who has both secrets can make."""
    digest = hmac.digest(browser.encode(), f"quartet {what} {state}".encode(), "sha256")
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _challenge(verifier: str) -> str:
    """S256 of RFC 7636 §4.2."""
    digest = hashlib.sha256(verifier.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

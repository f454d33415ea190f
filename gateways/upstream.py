"""Login providers: OpenID Connect (Core 1.0, Discovery 1.0) and plain OAuth 2.0 (RFC 6749, 9700).

Everything goes through the outbound door, for the purpose `oauth`. Nothing is taken from a
redirect, and an id_token counts only with a signature by the provider's own keys.
"""

import base64
import time
from typing import Annotated, Any, Literal
from urllib.parse import quote_plus, urlencode, urlsplit

import msgspec

from gateways.errors import OutboundError, UpstreamUnavailable, UpstreamUntrusted
from gateways.outbound import Fetched, Outbound

PURPOSE = "oauth"
MAX_BYTES = 512 * 1024
TIMEOUT_S = 10.0
KEPT_S = 3600.0
"""How long a provider's metadata and keys are kept."""
LEEWAY_S = 60
ALGORITHMS = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA", "Ed25519"),
)
"""Signatures by a key that the provider alone has: never `none`, never a shared secret."""
_ODD = (AttributeError, KeyError, RecursionError, TypeError, ValueError)
"""What joserfc raises, beside its own errors, for JSON of an unexpected form."""
LOCAL = ("127.0.0.1", "::1", "localhost")


class RelyingParty(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a provider knows this server as, and where it is: by `issuer`, or by three URLs."""

    client_id: str
    client_secret: str = ""
    issuer: str = ""
    authorize_url: str = ""
    token_url: str = ""
    userinfo_url: str = ""
    scopes: tuple[str, ...] = ("openid", "profile", "email")
    client_auth: Literal["client_secret_basic", "client_secret_post"] = "client_secret_basic"


class Proof(msgspec.Struct, frozen=True):
    """What comes back from a provider, and what was asked for: the exchange fails unless they fit
    (RFC 7636, Core §3.1.3.7)."""

    code: str
    redirect_uri: str
    verifier: str
    nonce: str


class _Places(msgspec.Struct, frozen=True):
    """The metadata that is used (Discovery §3)."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str = ""
    userinfo_endpoint: str = ""


class _Tokens(msgspec.Struct, frozen=True):
    access_token: Annotated[str, msgspec.Meta(pattern=r"\A[!-~]+\Z")]
    id_token: str = ""


class _Kept(msgspec.Struct):
    """What is known of an issuer. `keys` is a joserfc KeySet, None until it is asked for."""

    places: _Places
    until: float
    keys: Any = None


class UpstreamClient:
    """Asks providers. Every method raises UpstreamUnavailable; `claims` UpstreamUntrusted, too."""

    def __init__(self, outbound: Outbound) -> None:
        self._outbound = outbound
        self._kept: dict[str, _Kept] = {}

    async def authorization_url(
        self, party: RelyingParty, *, redirect_uri: str, state: str, nonce: str, challenge: str
    ) -> str:
        """Where the browser asks for a login; `challenge` is S256."""
        asked = {
            "response_type": "code",
            "client_id": party.client_id,
            "redirect_uri": redirect_uri,
            "scope": " ".join(party.scopes),
            "state": state,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        if party.issuer:
            asked["nonce"] = nonce
        where = (await self._places(party)).authorization_endpoint
        return f"{where}{'&' if '?' in where else '?'}{urlencode(asked)}"

    async def claims(self, party: RelyingParty, proof: Proof) -> dict[str, Any]:
        """What the provider says of who logged in: those of the id_token outrank userinfo."""
        places = await self._places(party)
        tokens = await self._exchange(party, places, proof)
        if not party.issuer:
            return await self._userinfo(places.userinfo_endpoint, tokens.access_token)
        proved = await self._verified(party, places, tokens.id_token, proof.nonce)
        if not places.userinfo_endpoint:
            return proved
        told = await self._userinfo(places.userinfo_endpoint, tokens.access_token)
        if told.get("sub") != proved["sub"]:  # Core §5.3.2
            raise UpstreamUntrusted("userinfo tells of somebody else")
        return {**told, **proved}

    # --- the provider's places and keys -------------------------------------------------------

    async def _places(self, party: RelyingParty) -> _Places:
        if not party.issuer:
            return _Places("", party.authorize_url, party.token_url, "", party.userinfo_url)
        return (await self._known(party)).places

    async def _known(self, party: RelyingParty) -> _Kept:
        kept = self._kept.get(party.issuer)
        if kept is None or kept.until < time.monotonic():
            url = f"{party.issuer.rstrip('/')}/.well-known/openid-configuration"
            places = _decoded(await self._get(url), _Places)
            if places.issuer != party.issuer:  # Discovery §4.3
                raise UpstreamUnavailable("the metadata is another issuer's")
            local = is_local(party.issuer)
            for place in (places.authorization_endpoint, places.token_endpoint, places.jwks_uri):
                if problem := bad_url(place, local=local):
                    raise UpstreamUnavailable(f"the metadata names a bad place: {problem}")
            if places.userinfo_endpoint and bad_url(places.userinfo_endpoint, local=local):
                raise UpstreamUnavailable("the metadata names a bad userinfo_endpoint")
            kept = self._kept[party.issuer] = _Kept(places, time.monotonic() + KEPT_S)
        return kept

    async def _keys(self, party: RelyingParty, *, anew: bool) -> Any:
        from joserfc.errors import JoseError
        from joserfc.jwk import KeySet

        kept = await self._known(party)
        if kept.keys is None or anew:
            read = _decoded(await self._get(kept.places.jwks_uri), dict[str, Any])
            try:
                kept.keys = KeySet.import_key_set(read)
            except (JoseError, *_ODD):
                raise UpstreamUnavailable("the provider's keys cannot be read") from None
        return kept.keys

    # --- what it says -------------------------------------------------------------------------

    async def _exchange(self, party: RelyingParty, places: _Places, proof: Proof) -> _Tokens:
        form = {
            "grant_type": "authorization_code",
            "code": proof.code,
            "redirect_uri": proof.redirect_uri,
            "code_verifier": proof.verifier,
        }
        headers = {
            "accept": "application/json",
            "content-type": "application/x-www-form-urlencoded",
        }
        if party.client_secret and party.client_auth == "client_secret_basic":
            # each part is form-encoded first (RFC 6749 §2.3.1)
            pair = f"{quote_plus(party.client_id)}:{quote_plus(party.client_secret)}"
            headers["authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        else:
            form["client_id"] = party.client_id
            if party.client_secret:
                form["client_secret"] = party.client_secret
        answer = await self._fetch(
            places.token_endpoint, method="POST", headers=headers, content=urlencode(form).encode()
        )
        if answer.status in (400, 401, 403):
            raise UpstreamUntrusted(f"the code was refused: {answer.status}")
        if answer.status != 200:
            raise UpstreamUnavailable(f"the token endpoint answered {answer.status}")
        try:
            return msgspec.json.decode(answer.body, type=_Tokens)
        except msgspec.DecodeError:  # GitHub refuses a code with status 200
            raise UpstreamUntrusted("the token endpoint gave no token") from None

    async def _verified(
        self, party: RelyingParty, places: _Places, token: str, nonce: str
    ) -> dict[str, Any]:
        """The claims of an id_token that is meant for this very login (Core §3.1.3.7)."""
        from joserfc import jwt
        from joserfc.errors import JoseError

        try:
            read = jwt.decode(token, await self._keys(party, anew=False), ALGORITHMS)
        except (JoseError, *_ODD):
            # the provider may have changed its keys
            keys = await self._keys(party, anew=True)
            try:
                read = jwt.decode(token, keys, ALGORITHMS)
            except (JoseError, *_ODD) as error:
                raise UpstreamUntrusted(f"id_token: {type(error).__name__}") from None
        expected = jwt.JWTClaimsRegistry(
            leeway=LEEWAY_S,
            iss={"essential": True, "value": places.issuer},
            aud={"essential": True, "value": party.client_id},
            nonce={"essential": True, "value": nonce},
            sub={"essential": True},
            exp={"essential": True},
            iat={"essential": True},
        )
        claims: dict[str, Any] = read.claims
        try:
            expected.validate(claims)
        except (JoseError, *_ODD) as error:
            raise UpstreamUntrusted(f"id_token: {error}") from None
        several = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
        if claims.get("azp", None if several else party.client_id) != party.client_id:
            raise UpstreamUntrusted("id_token: it was made for another client")
        return claims

    async def _userinfo(self, url: str, token: str) -> dict[str, Any]:
        answer = await self._get(url, {"authorization": f"Bearer {token}"})
        claims: dict[str, Any] = _decoded(answer, dict[str, Any])
        return claims

    async def _get(self, url: str, headers: dict[str, str] | None = None) -> Fetched:
        answer = await self._fetch(url, headers={"accept": "application/json", **(headers or {})})
        if answer.status != 200:
            raise UpstreamUnavailable(f"{_shown(url)} answered {answer.status}")
        if _origin(answer.url) != _origin(url):
            raise UpstreamUnavailable(f"{_shown(url)} leads to another host")
        return answer

    async def _fetch(self, url: str, **options: Any) -> Fetched:
        try:
            return await self._outbound.fetch(
                PURPOSE, url, max_bytes=MAX_BYTES, timeout=TIMEOUT_S, **options
            )
        except OutboundError as error:
            raise UpstreamUnavailable(f"{_shown(url)}: {error}") from None


def is_local(url: str) -> bool:
    """Whether a URL is one of this machine, where http is safe (RFC 8252 §8.3)."""
    try:
        return urlsplit(url).hostname in LOCAL
    except ValueError:
        return False


def bad_url(url: str, *, local: bool) -> str:
    """Why a URL cannot be a provider's, or "". `local` allows http to this machine."""
    if not url.isascii() or not url.isprintable() or " " in url or "#" in url:
        return "not an ASCII URL without a fragment"
    try:
        parts = urlsplit(url)
    except ValueError:
        return "not a URL"
    if not parts.hostname or "@" in parts.netloc:
        return "no plain host"
    if parts.scheme == "https" or (parts.scheme == "http" and local and is_local(url)):
        return ""
    return "https is needed, but to this machine"


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _shown(url: str) -> str:
    return url.partition("?")[0]


def _decoded(answer: Fetched, kind: Any) -> Any:
    try:
        return msgspec.json.decode(answer.body, type=kind)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise UpstreamUnavailable(f"{_shown(answer.url)} did not answer as expected") from None

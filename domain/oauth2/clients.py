"""The clients that an operator lists (`OAUTH_CLIENTS`)."""

import hashlib
import hmac
import re
from urllib.parse import urlsplit

import msgspec

SCOPES = ("openid", "profile", "email")
"""What a client may ask for: `sub` alone, names and picture, the e-mail address."""

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~-]{0,127}", re.ASCII)
_HASH = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_URI = re.compile(r"[!-~]+", re.ASCII)
_RESERVED = ("quartet",)
_LOCAL = ("127.0.0.1", "::1", "localhost")


class BadClients(ValueError):
    """The list of clients cannot be used; the message says which client and why."""


class Client(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One client. Without a `secret_hash` (`sha256:` and the hash in hex of a random secret) it is
    public and always proves a code by PKCE. `redirect_uris` are compared whole; the first is the
    default. `pkce: optional` lets a client with a secret leave PKCE out. The methods are those
    that authlib asks of a client.
    """

    client_id: str
    redirect_uris: tuple[str, ...]
    name: str = ""
    secret_hash: str = ""
    scopes: tuple[str, ...] = SCOPES
    skip_consent: bool = False
    pkce: str = "required"

    @property
    def is_public(self) -> bool:
        return not self.secret_hash

    @property
    def needs_pkce(self) -> bool:
        return self.is_public or self.pkce != "optional"

    @property
    def shown(self) -> str:
        """What people read it as."""
        return self.name or self.client_id

    def get_client_id(self) -> str:
        return self.client_id

    def get_default_redirect_uri(self) -> str:
        return self.redirect_uris[0]

    def get_allowed_scope(self, scope: str | None) -> str | None:
        """The scopes of a request in their usual order, all of the client's when it names none;
        None when one of them is not the client's."""
        asked = set(scope.split()) if scope else set(self.scopes)
        if not asked <= set(self.scopes):
            return None
        return " ".join(each for each in SCOPES if each in asked)

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        return redirect_uri in self.redirect_uris

    def check_client_secret(self, client_secret: str) -> bool:
        if self.is_public:
            return False
        given = hashlib.sha256(client_secret.encode("utf-8", "surrogatepass")).hexdigest()
        return hmac.compare_digest(f"sha256:{given}", self.secret_hash)

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return (method == "none") == self.is_public

    def check_response_type(self, response_type: str) -> bool:
        return response_type == "code"

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type in ("authorization_code", "refresh_token")


def read_clients(text: bytes) -> dict[str, Client]:
    """The clients of a JSON list, by client_id. Raises BadClients."""
    if not text.strip():
        return {}
    try:
        clients = msgspec.json.decode(text, type=list[Client])
    except msgspec.DecodeError as error:
        raise BadClients(f"OAUTH_CLIENTS: {error}") from None
    for client in clients:
        for problem in _problems(client):
            raise BadClients(f"OAUTH_CLIENTS: {client.client_id!r}: {problem}")
    found = {client.client_id: client for client in clients}
    if len(found) != len(clients):
        raise BadClients("OAUTH_CLIENTS: a client_id comes twice")
    return found


def _problems(client: Client) -> list[str]:
    problems = []
    if not _ID.fullmatch(client.client_id) or client.client_id in _RESERVED:
        problems.append("client_id is 1 to 128 of A-Z a-z 0-9 . _ ~ - and not 'quartet'")
    if client.secret_hash and not _HASH.fullmatch(client.secret_hash):
        problems.append("secret_hash is 'sha256:' and 64 hexadecimal digits")
    if not client.scopes or set(client.scopes) - set(SCOPES):
        problems.append(f"scopes are of {', '.join(SCOPES)}")
    if client.pkce not in ("required", "optional"):
        problems.append("pkce is required or optional")
    if client.pkce == "optional" and client.is_public:
        problems.append("a public client cannot do without PKCE")
    if not client.redirect_uris:
        problems.append("redirect_uris is empty")
    problems += [f"redirect_uri {uri}: {why}" for uri in client.redirect_uris if (why := _bad(uri))]
    return problems


def _bad(uri: str) -> str:
    """Why a redirect URI cannot be one; plain http goes to this machine alone (RFC 8252 §7.3,
    RFC 9700 §2.1), and an application's own scheme is a reversed domain name."""
    if not _URI.fullmatch(uri) or any(character in uri for character in '"<>\\^`{|}'):
        return "not an ASCII URI"
    parts = urlsplit(uri)
    if "#" in uri:
        return "it has a fragment"
    if parts.scheme == "https":
        return "" if parts.hostname and "@" not in parts.netloc else "no plain host"
    if parts.scheme == "http":
        return "" if parts.hostname in _LOCAL and "@" not in parts.netloc else "http is not safe"
    return "" if "." in parts.scheme else "the scheme is neither https nor an application's own"

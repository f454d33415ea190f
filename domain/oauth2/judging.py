"""authlib's judgement over rows that were read before, without a framework and without I/O.

authlib calls its storage in the middle of a request and cannot wait for it. So the rows that a
request names are read first, authlib judges, and what it would have stored is collected here, to
be committed at once by server.py, which imports this module at the first request.
"""

import base64
import binascii
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

import msgspec
from authlib.oauth2 import OAuth2Error, rfc6749
from authlib.oauth2.rfc6749 import grants
from authlib.oauth2.rfc6749.requests import BasicOAuth2Payload
from authlib.oauth2.rfc7636 import CodeChallenge

from domain.errors import DomainError
from domain.oauth2.clients import SCOPES, Client
from domain.oauth2.errors import refused
from storage.oauth_grants import Grant

AUTHENTICATION = ("client_secret_basic", "client_secret_post", "none")
_METHODS = list(AUTHENTICATION)


class Refusal(Exception):
    """An authorization request is refused by sending the browser back to the client."""

    def __init__(self, location: str) -> None:
        super().__init__(location)
        self.location = location


class Asked(msgspec.Struct, frozen=True):
    """An authorization request that holds. `scope` is in its usual order."""

    client: Client
    redirect_uri: str
    redirect_named: bool
    scope: str
    state: str | None
    code_challenge: str | None


class Judged(msgspec.Struct, frozen=True):
    """A token request that holds: what to issue, for which client, and to whom."""

    client: Client
    grant: Grant
    scope: str


class Known(msgspec.Struct, frozen=True):
    """The rows that a token request names. `usable` says whether the code or the refresh token may
    still be exchanged and whether the account is active."""

    grant: Grant | None = None
    usable: bool = False


class Request(rfc6749.OAuth2Request):
    """A request as authlib reads it; `known` are the rows that were read for it."""

    def __init__(
        self, method: str, form: Mapping[str, str], known: Known, authorization: str = ""
    ) -> None:
        # authlib refuses plain http; TLS ends before this server, where its operator says.
        headers = {"Authorization": authorization} if authorization else {}
        super().__init__(method, "https://localhost/", headers=headers)
        self.payload = BasicOAuth2Payload(dict(form))
        self.known = known

    @property
    def args(self) -> Mapping[str, str]:
        return self.payload.data  # type: ignore[no-any-return]

    @property
    def form(self) -> Mapping[str, str]:
        return self.payload.data  # type: ignore[no-any-return]


class _Row:
    """A grant as authlib asks about codes and refresh tokens."""

    code_challenge_method = "S256"

    def __init__(self, grant: Grant) -> None:
        self.grant = grant
        self.code_challenge = grant.code_challenge

    def get_redirect_uri(self) -> str:
        """What the token request has to repeat: "" when the authorization request left it out
        (RFC 6749 §4.1.3)."""
        return self.grant.redirect_uri if self.grant.redirect_named else ""

    def get_scope(self) -> str:
        return self.grant.scope

    def check_client(self, client: Client) -> bool:
        return client.client_id == self.grant.client_id


class _Pkce(CodeChallenge):
    """S256 alone, and of every client whose configuration does not make it optional (RFC 9700
    §2.1.1)."""

    SUPPORTED_CODE_CHALLENGE_METHOD = ("S256",)

    def validate_code_challenge(self, grant: Any, redirect_uri: str) -> None:
        data = grant.request.payload.data
        challenge = data.get("code_challenge")
        if challenge is None and grant.request.client.needs_pkce:
            raise rfc6749.InvalidRequestError("code_challenge is missing.")
        if challenge is not None and data.get("code_challenge_method") is None:
            raise rfc6749.InvalidRequestError("code_challenge_method has to be S256.")
        super().validate_code_challenge(grant, redirect_uri)


class _CodeGrant(grants.AuthorizationCodeGrant):
    TOKEN_ENDPOINT_AUTH_METHODS = _METHODS

    @classmethod
    def check_authorization_endpoint(cls, request: Request) -> bool:
        return True  # judged below, once it is known whether the client may be told

    @staticmethod
    def validate_authorization_redirect_uri(request: Request, client: Client) -> str:
        """Nothing is sent to an address that is not the client's (RFC 9700 §4.11)."""
        uri = request.payload.redirect_uri
        if uri is None:
            return client.get_default_redirect_uri()
        if not client.check_redirect_uri(uri):
            raise rfc6749.InvalidRequestError("The client has no such redirect_uri.")
        return str(uri)

    def query_authorization_code(self, code: str, client: Client) -> _Row | None:
        known = self.request.known
        if known.grant is None or not known.usable or known.grant.client_id != client.client_id:
            return None
        return _Row(known.grant)


class _RefreshGrant(grants.RefreshTokenGrant):
    TOKEN_ENDPOINT_AUTH_METHODS = _METHODS

    def authenticate_refresh_token(self, refresh_token: str) -> _Row | None:
        known = self.request.known
        return _Row(known.grant) if known.grant is not None and known.usable else None


class Judge:
    """authlib's authorization server over the configured clients."""

    def __init__(self, clients: Mapping[str, Client]) -> None:
        self._clients = clients
        server = rfc6749.AuthorizationServer(scopes_supported=list(SCOPES))
        server.query_client = clients.get
        server.send_signal = lambda *_, **__: None
        server.register_grant(_CodeGrant, [_Pkce(required=True)])
        server.register_grant(_RefreshGrant)
        self._server = server

    def authorization(self, form: Mapping[str, str]) -> Asked:
        """Judge an authorization request. Raises DomainError when nobody can be told but the
        browser, Refusal when the client is told."""
        request = Request("GET", form, Known())
        try:
            grant = self._server.get_authorization_grant(request)
            if form.get("response_type") != "code":
                client = self._client(form)
                uri = grant.validate_authorization_redirect_uri(request, client)
                raise rfc6749.UnsupportedResponseTypeError(
                    response_type=None,
                    description="response_type has to be code.",
                    redirect_uri=uri,
                )
            redirect_uri = grant.validate_authorization_request()
        except OAuth2Error as error:
            error.state = form.get("state")
            if error.redirect_uri:
                _, _, headers = error()
                raise Refusal(dict(headers)["Location"]) from None
            raise _raised(error) from None
        return Asked(
            client=request.client,
            redirect_uri=redirect_uri,
            redirect_named="redirect_uri" in form,
            scope=request.scope,
            state=form.get("state"),
            code_challenge=form.get("code_challenge"),
        )

    def token(self, form: Mapping[str, str], authorization: str, known: Known) -> Judged:
        """Judge a token request over the rows it names. Raises DomainError."""
        form = self._with_client(form, authorization, known)
        if not form.get("grant_type"):
            raise refused("invalid_request", "grant_type is missing.")
        request = Request("POST", form, known, authorization)
        try:
            grant = self._server.get_token_grant(request)
            grant.validate_token_request()
        except rfc6749.UnsupportedGrantTypeError:
            reason = "grant_type has to be authorization_code or refresh_token."
            raise refused("unsupported_grant_type", reason) from None
        except OAuth2Error as error:
            raise _raised(error) from None
        assert known.grant is not None
        scope = form.get("scope", "") if form["grant_type"] == "refresh_token" else ""
        narrowed = request.client.get_allowed_scope(scope) if scope.strip() else known.grant.scope
        return Judged(request.client, known.grant, narrowed)

    def _client(self, form: Mapping[str, str]) -> Client:
        client = self._clients.get(form.get("client_id", ""))
        if client is None:
            raise rfc6749.InvalidClientError(description="The client is not known.")
        return client

    def _with_client(
        self, form: Mapping[str, str], authorization: str, known: Known
    ) -> Mapping[str, str]:
        """The form, which one client sends in one way (RFC 6749 §2.3); a public client that names
        none is the one of its code, which the verifier proves."""
        if authorization[:6].lower() == "basic ":
            named = _basic(authorization)
            if "client_secret" in form or form.get("client_id", named) != named:
                raise refused("invalid_request", "The client authenticates in two ways.")
            return form
        if "client_id" in form or "client_secret" in form:
            return form
        if known.grant is None:
            raise refused("invalid_grant", "It is not known, was used, or has run out.")
        client = self._clients.get(known.grant.client_id)
        if client is None or not client.is_public:
            raise refused("invalid_client", "The client has to authenticate.")
        return {**form, "client_id": client.client_id}


def _basic(authorization: str) -> str:
    """The client_id of an Authorization header (RFC 6749 §2.3.1). Raises DomainError."""
    try:
        pair = base64.b64decode(authorization[6:].strip(), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        pair = ""
    if ":" not in pair:
        raise refused("invalid_client", "Authorization holds no client's id and secret.")
    return unquote(pair.partition(":")[0])


def _raised(error: OAuth2Error) -> DomainError:
    """The exception of ours; authlib's texts are its own constants and hold no input."""
    if error.error == "invalid_grant" and not error.description:
        return refused("invalid_grant", "It is not known, was used, or has run out.")
    if error.error == "invalid_scope":
        return refused("invalid_scope", "A scope is unknown, or more than was granted.")
    if error.error == "invalid_client":
        return refused("invalid_client", "The client is not known, or does not prove itself.")
    return refused(error.error, error.description or error.error)

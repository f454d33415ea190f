"""sage: the OAuth2 authorization server (document 000, "OAuth2 authorization server")."""

from domain.caller import Caller
from domain.oauth2.server import Metadata, Userinfo
from domain.quartet import Quartet
from handlers.wire import Answer, Origin, Redirect


async def get_metadata(quartet: Quartet) -> Metadata:
    return quartet.oauth2.metadata()


async def authorize(
    quartet: Quartet,
    caller: Caller,
    response_type: str | None,
    client_id: str | None,
    redirect_uri: str | None,
    scope: str | None,
    state: str | None,
    code_challenge: str | None,
    code_challenge_method: str | None,
) -> Redirect:
    query = {
        "response_type": response_type,
        "client_id": client_id,
        "redirect_uri": redirect_uri,
        "scope": scope,
        "state": state,
        "code_challenge": code_challenge,
        "code_challenge_method": code_challenge_method,
    }
    given = {name: value for name, value in query.items() if value is not None}
    return Redirect(await quartet.oauth2.authorize(caller, given))


async def issue_token(quartet: Quartet, body: dict[str, str], origin: Origin) -> Answer:
    issued = await quartet.oauth2.issue(
        body, authorization=origin.authorization, address=origin.address
    )
    return Answer(issued, headers=(("pragma", "no-cache"),))


async def get_userinfo(quartet: Quartet, caller: Caller) -> Userinfo:
    return await quartet.oauth2.userinfo(caller)


async def check_userinfo(quartet: Quartet, caller: Caller) -> Userinfo:
    return await quartet.oauth2.userinfo(caller)

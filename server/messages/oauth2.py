"""What is said of OAuth2 requests; RFC 6749 wants ASCII, so only the English text is sent."""

MESSAGES = {
    f"oauth2.{error}": ("{reason}", "{reason}")
    for error in (
        "invalid_request",
        "invalid_client",
        "invalid_grant",
        "invalid_scope",
        "invalid_token",
        "unauthorized_client",
        "unsupported_grant_type",
        "unsupported_response_type",
    )
}

"""sage: what the server offers, its settings and health (documents 000 and 001)."""

from typing import Any

from domain.caller import Caller
from domain.quartet import Quartet
from generated.sage import models
from handlers.sage.auth import described
from handlers.wire import Origin, Text


async def get_info(quartet: Quartet, origin: Origin) -> models.SystemInfo:
    info = await quartet.system.info()
    providers = [described(provider, origin.language) for provider in info.providers]
    return models.SystemInfo(
        allow_registration=info.allow_registration,
        auth_mode=info.mode,
        auth_providers=providers,
        default_auth_provider=providers[0].id if providers else None,
        has_local_auth=info.has_local_auth,
        has_oauth_auth=bool(info.upstream),
        oauth_enabled=info.mode == "oauth",
        oauth_provider_name=info.upstream[0].name if info.upstream else "",
        native_login_admin_only=info.admin_only,
    )


async def update_settings(
    quartet: Quartet, caller: Caller, body: models.SystemSettings, origin: Origin
) -> dict[str, Any]:
    await quartet.system.update(
        caller, allow_registration=body.allow_registration, address=origin.address
    )
    return {}


async def count_usage(quartet: Quartet, caller: Caller, body: models.UsageRequest) -> models.Usage:
    days = min(max(body.days, 1), 365)
    usage = await quartet.usage.tool_counts(caller.user_id, days, body.agent_id or None)
    return models.Usage(usage=usage)


async def check_health(quartet: Quartet) -> models.Health:
    now = await quartet.system.check()
    return models.Health(status="healthy", timestamp=now, service="SagePlatform")


async def check_active() -> Text:
    return Text("Service is available.")

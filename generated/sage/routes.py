"""Routes of the sage contract. Generated, do not edit: run `scripts/generate`."""

from generated.sage import models
from handlers.sage import (
    auth,
    system,
    user,
)

HANDLERS = {
    "auth_get_session": auth.get_session,
    "auth_list_providers": auth.list_providers,
    "auth_login": auth.login,
    "auth_logout": auth.logout,
    "auth_register": auth.register,
    "auth_send_code": auth.send_code,
    "system_check_active": system.check_active,
    "system_check_health": system.check_health,
    "system_count_usage": system.count_usage,
    "system_get_info": system.get_info,
    "system_update_settings": system.update_settings,
    "user_change_password": user.change_password,
    "user_create": user.create,
    "user_delete": user.delete,
    "user_get_config": user.get_config,
    "user_list": user.list_,
    "user_list_options": user.list_options,
    "user_update_config": user.update_config,
}
ALIASES = {
    "auth_get_session_compat": "auth_get_session",
    "auth_list_providers_compat": "auth_list_providers",
    "auth_login_compat": "auth_login",
    "auth_logout_compat": "auth_logout",
    "auth_register_compat": "auth_register",
    "auth_send_code_compat": "auth_send_code",
}
BODIES = {
    "auth_login": models.LoginRequest,
    "auth_login_compat": models.LoginRequest,
    "auth_register": models.RegisterRequest,
    "auth_register_compat": models.RegisterRequest,
    "auth_send_code": models.RegistrationCodeRequest,
    "auth_send_code_compat": models.RegistrationCodeRequest,
    "system_count_usage": models.UsageRequest,
    "system_update_settings": models.SystemSettings,
    "user_change_password": models.PasswordChange,
    "user_create": models.UserAddRequest,
    "user_delete": models.UserDeleteRequest,
    "user_update_config": models.UserConfig,
}
ENVELOPED = frozenset(
    (
        "auth_get_session",
        "auth_get_session_compat",
        "auth_list_providers",
        "auth_list_providers_compat",
        "auth_login",
        "auth_login_compat",
        "auth_logout",
        "auth_logout_compat",
        "auth_register",
        "auth_register_compat",
        "auth_send_code",
        "auth_send_code_compat",
        "system_check_health",
        "system_count_usage",
        "system_get_info",
        "system_update_settings",
        "user_change_password",
        "user_create",
        "user_delete",
        "user_get_config",
        "user_list",
        "user_list_options",
        "user_update_config",
    )
)

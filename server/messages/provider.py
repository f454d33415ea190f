"""Texts about model providers."""

MESSAGES = {
    "provider.not_found": ("Provider not found", "Provider not found"),
    "provider.default": ("Cannot delete default provider", "Cannot delete default provider"),
    "provider.system": (
        "Cannot modify system default provider",
        "Cannot modify system default provider",
    ),
    "provider.exists": (
        "已存在相同的 Provider",
        "A provider with this address, model and key exists already.",
    ),
    "provider.verify_failed": ("验证失败: {reason}", "Verification failed: {reason}"),
    "provider.address_refused": (
        "不允许访问该地址",
        "The server does not connect to this address.",
    ),
    "provider.address_invalid": ("base_url 无效", "The base_url is not valid."),
    "provider.incomplete": (
        "model 和 API Key 不能为空",
        "A provider needs a model and an API key.",
    ),
    "provider.key_needed": (
        "修改 base_url 时必须同时提供 API Key",
        "A new base_url needs its API key.",
    ),
    "provider.key_masked": (
        "API Key 是脱敏后的值，请重新填写",
        "The API key is a masked one; give it in full.",
    ),
    "provider.model_not_yours": (
        "只能更改自己的 Provider 的 model",
        "The model can be changed on a provider of your own only.",
    ),
    "provider.config_invalid": (
        "llm_model_config 无效: {reason}",
        "The llm_model_config is not valid: {reason}",
    ),
}

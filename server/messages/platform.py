"""Texts about what administrators set for everybody's sessions."""

MESSAGES = {
    "platform.address_invalid": ("地址无效", "The address is not valid."),
    "platform.address_refused": (
        "不允许访问该地址",
        "The server does not connect to this address.",
    ),
    "platform.model_unknown": (
        "没有 base_url 时, model_name 必须是 {models} 之一",
        "Without a base_url, the model_name is one of {models}.",
    ),
    "platform.key_needless": (
        "服务器内置模型不需要 api_key",
        "A model inside the server has no api_key.",
    ),
    "platform.model_missing": ("缺少 model_name", "The model_name is missing."),
}

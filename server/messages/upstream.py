"""What is said of logins at upstream providers."""

MESSAGES = {
    "upstream.closed": (
        "该账号未注册，且系统未开放注册",
        "You have no account here, and registration is closed.",
    ),
    "upstream.expired": (
        "登录未完成，请重试",
        "That login did not work, or took too long. Try again.",
    ),
    "upstream.none": ("OAuth Provider 不存在", "There is no provider to log in at."),
    "upstream.not_found": ("OAuth Provider 不存在", "There is no such provider to log in at."),
    "upstream.redirect_uri": (
        "redirect_uri 不在允许列表中",
        "The redirect_uri is not an address of the callback.",
    ),
    "upstream.refused": ("登录提供方拒绝了请求", "The provider did not let you log in."),
    "upstream.unavailable": (
        "登录提供方暂时不可用，请稍后再试",
        "The provider does not answer. Try again later.",
    ),
    "upstream.untrusted": (
        "登录提供方的应答无效",
        "What the provider said cannot be trusted. Tell the operator.",
    ),
    "wechat.not_configured": ("微信登录未配置", "Nobody logs in with WeChat here."),
}

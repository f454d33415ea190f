"""What is said of credentials, logins and registration."""

MESSAGES = {
    "account.inactive": ("账号已停用", "The account is not active."),
    "auth.expired": ("登录过期", "The login has expired."),
    "auth.invalid": ("Token非法", "The token is not valid."),
    "login.admin_only": (
        "仅管理员可以使用密码登录",
        "Only administrators log in with a password.",
    ),
    "login.busy": ("登录请求过多，请稍后再试", "Too many logins at once; try again in a moment."),
    "login.disabled": (
        "当前服务未启用本地账号密码登录",
        "This service does not log in with local passwords.",
    ),
    "login.failed": ("用户名或密码错误", "The username or the password is wrong."),
    "login.locked": ("登录失败次数过多，请稍后再试", "Too many failed logins; try again later."),
    "password.length": (
        "密码长度必须为 {minimum} 到 {maximum} 个字符",
        "A password has {minimum} to {maximum} characters.",
    ),
    "registration.closed": ("系统未开放注册", "Registration is closed."),
    "registration.code_wrong": ("验证码错误", "The verification code is wrong."),
    "registration.disabled": (
        "当前服务未启用本地账号注册",
        "This service does not register local accounts.",
    ),
    "registration.email_invalid": ("邮箱格式不正确", "The mail address is not valid."),
    "registration.email_missing": ("邮箱不能为空", "A mail address is needed."),
    "registration.mail_failed": (
        "验证码邮件发送失败，请稍后再试",
        "The mail with the code could not be sent; try again later.",
    ),
    "registration.needs_code": (
        "注册需要邮箱验证码",
        "Registering needs a code that is mailed to the address.",
    ),
    "registration.unnamed": (
        "用户名或邮箱至少填写一项",
        "A username or a mail address is needed.",
    ),
    "registration.too_soon": (
        "验证码发送过于频繁，请稍后再试",
        "A code was sent a moment ago; try again later.",
    ),
}

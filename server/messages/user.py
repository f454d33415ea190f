"""What is said of accounts."""

MESSAGES = {
    "user.admin_protected": (
        "不能删除或更改管理员账号",
        "An administrator's account is neither deleted nor changed here.",
    ),
    "user.config_too_large": (
        "用户配置超过 {limit} 字节",
        "The settings would be larger than {limit} bytes.",
    ),
    "user.email_exists": ("邮箱已被使用", "The mail address belongs to another account."),
    "user.exists": ("用户名已存在", "The username exists already."),
    "user.no_password": ("该账号未设置密码", "This account has no password."),
    "user.not_found": ("用户不存在", "There is no such user."),
    "user.own_protected": (
        "不能删除自己的账号或更改自己的状态",
        "One's own account is neither deleted nor given another status.",
    ),
    "user.password_wrong": ("旧密码错误", "The old password is wrong."),
    "user.status_unknown": ("状态必须是 {statuses} 之一", "A status is one of {statuses}."),
    "user.username_invalid": (
        "用户名不能为空且不能包含 @",
        "A username is not empty and holds no @ and no control characters.",
    ),
}

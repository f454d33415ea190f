"""What is said of the object store and of the services behind the server."""

MESSAGES = {
    "object.exists": ("对象已存在", "There is an object of this name already."),
    "object.link": ("链接无效或已过期", "The link is not valid, or has run out."),
    "object.no_bucket": ("bucket_not_exists", "bucket_not_exists"),
    "object.reserved": (
        "该对象名供服务器自用",
        "Objects of this name are the server's own; choose another.",
    ),
    "object.unavailable": ("对象存储不可用", "The object store does not answer."),
    "status.degraded": ("部分服务不可用", "Not every service answers."),
}

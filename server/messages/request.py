"""What the lane says of a request itself."""

MESSAGES = {
    "auth.cross_site": (
        "跨站请求被拒绝",
        "Requests of another site are not accepted with a cookie.",
    ),
    "auth.forbidden": ("权限不足", "Permission denied."),
    "auth.required": ("未登录", "Not logged in."),
    "auth.viewer": ("权限不足：只读账号", "Permission denied: this account only reads."),
    "request.bad_header": ("请求头重复或无效", "A header is repeated or not valid."),
    "request.bad_path": ("请求路径无法解码", "The path does not decode to text."),
    "request.bad_query": ("查询参数无法解码", "The query does not decode to text."),
    "request.conflict": ("资源已存在或正忙", "It exists already, or is busy."),
    "request.fault": ("内部服务器错误", "Internal server error."),
    "request.idempotency_busy": (
        "相同幂等键的请求仍在处理",
        "A request with this Idempotency-Key is still being processed.",
    ),
    "request.idempotency_lost": (
        "相同幂等键的请求已生效，但其响应已丢失",
        "A request with this Idempotency-Key took effect, and its answer was not kept.",
    ),
    "request.idempotency_mismatch": (
        "幂等键已用于另一个请求",
        "This Idempotency-Key was used for another request.",
    ),
    "request.idempotency_key": (
        "Idempotency-Key 必须是 1 到 255 个可见 ASCII 字符",
        "Idempotency-Key must be 1 to 255 visible ASCII characters.",
    ),
    "request.invalid": ("请求参数验证失败", "The request breaks its schema."),
    "request.method": ("不支持的请求方法", "This method is not allowed here."),
    "request.not_acceptable": (
        "无法提供所接受的媒体类型",
        "No accepted media type can be served.",
    ),
    "request.not_found": ("资源不存在", "Not found."),
    "request.not_json": (
        "请求体不是有效的 JSON：{reason}",
        "The body is not usable JSON: {reason}.",
    ),
    "request.not_multipart": (
        "请求体不是有效的表单：{reason}",
        "The body is not a usable form: {reason}.",
    ),
    "request.precondition": ("资源版本已变化", "The resource has changed."),
    "request.media_type": (
        "不支持的媒体类型，应为 {expected}",
        "Unsupported media type; send {expected}.",
    ),
    "request.throttled": ("请求过多，请稍后重试", "Too many requests; try again later."),
    "request.too_many_streams": (
        "同时打开的连接过多，请稍后重试",
        "Too many streams or sockets are open; close one, or try again later.",
    ),
    "request.too_large": (
        "请求体超过 {limit} 字节",
        "The body is larger than {limit} bytes.",
    ),
    "request.uncounted": (
        "限流服务暂不可用，请稍后再试",
        "The rate limit cannot be counted now; try again later.",
    ),
    "storage.full": ("存储空间不足", "Storage is full."),
    "storage.quota": (
        "账号最多保存 {limit} 字节，此次上传后将达 {held} 字节，请先删除一些内容",
        "An account may keep {limit} bytes, and with this it would keep {held}; delete something.",
    ),
    "storage.unavailable": ("数据库暂不可用", "The database does not answer."),
}

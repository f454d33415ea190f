"""Texts about chat requests."""

MESSAGES = {
    "chat.empty": ("消息列表不能为空", "The list of messages is empty."),
    "chat.nothing_to_answer": ("消息内容不能为空", "The messages hold nothing to answer."),
    "chat.message_repeated": (
        "message_id 重复: {message_id}",
        "The message_id stands twice: {message_id}.",
    ),
    "chat.foreign_user": ("user_id 不是当前用户", "The user_id is not the caller's."),
    "chat.login_needed": (
        "未登录时不能使用 {what} 中的地址",
        "An address in {what} needs a login.",
    ),
    "chat.too_many_runs": (
        "正在运行的会话过多，请稍后再试",
        "Too many runs are under way; try again later.",
    ),
    "chat.image_not_enabled": (
        "该 Agent 未启用多模态 (enableMultimodal)",
        "The agent does not take images (enableMultimodal).",
    ),
    "chat.image_refused": ("所选模型不支持图片", "The model does not take images."),
    "chat.mcp_config": (
        "extra_mcp_config 无效: {reason}",
        "The extra_mcp_config is not usable: {reason}.",
    ),
    "chat.context_budget": (
        "context_budget_config 无效: {reason}",
        "The context_budget_config is not usable: {reason}.",
    ),
    "chat.loop_count": ("max_loop_count 至少为 1", "max_loop_count is at least 1."),
    "chat.memory_type": ("memory_type 无效: {value}", "There is no memory_type {value}."),
}

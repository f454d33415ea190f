"""Texts about conversations."""

MESSAGES = {
    "conversation.not_found": ("会话不存在", "There is no such session."),
    "conversation.foreign_user": (
        "无权查看其他用户的会话",
        "Another account's sessions are not shown.",
    ),
    "conversation.title_blank": ("会话标题不能为空", "A session's title is not empty."),
    "conversation.message_exists": (
        "message_id 已属于另一条消息: {message_id}",
        "The message_id names another message already: {message_id}.",
    ),
}

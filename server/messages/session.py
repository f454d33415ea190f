"""Texts about sessions."""

MESSAGES = {
    "session.not_found": ("会话不存在", "There is no such session."),
    "session.forbidden": ("无权访问该会话", "The session is another user's."),
    "session.no_sandbox": ("会话沙箱不存在", "The session has no sandbox."),
    "session.no_shell": ("Shell 会话不存在", "There is no such shell in the session's sandbox."),
    "session.file_too_large": (
        "文件超过 {limit} 字节",
        "The file has more than {limit} bytes.",
    ),
    "session.event": ("event_id 无效", "The event_id names nothing in this session."),
    "session.no_answer": (
        "会话沙箱没有响应：{reason}",
        "The session's sandbox gave nothing: {reason}.",
    ),
    "session.no_display": (
        "无法打开会话屏幕：{reason}",
        "The session's screen cannot be shown: {reason}.",
    ),
    "session.busy": ("会话正在运行中", "A run is under way in this session."),
}

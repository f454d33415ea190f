"""Texts about sessions."""

MESSAGES = {
    "session.busy": ("会话正在运行中", "A run is under way in this session."),
}

"""What is said of workspaces."""

MESSAGES = {
    "workspace.not_found": ("文件不存在", "There is no such file in the workspace."),
    "workspace.path": (
        "文件路径或会话无效",
        "The path or the session names no place in a workspace.",
    ),
}

"""What is said of files."""

MESSAGES = {
    "file.forbidden": ("无权访问该文件", "The file is another user's."),
    "file.not_found": ("文件不存在", "There is no such file."),
}

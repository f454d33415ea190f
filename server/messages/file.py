"""What is said of files."""

MESSAGES = {
    "file.not_found": ("文件不存在", "There is no such file."),
}

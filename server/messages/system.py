"""What is said of the system."""

MESSAGES = {
    "system.database": ("数据库暂不可用", "The database does not answer."),
}

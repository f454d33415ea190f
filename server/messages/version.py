"""What is said of versions."""

MESSAGES = {
    "version.exists": ("版本已存在", "The version exists already."),
    "version.github_failed": (
        "无法读取 GitHub 发布",
        "The release could not be read from GitHub.",
    ),
    "version.github_unusable": (
        "GitHub 最新发布的标签或下载地址不可用",
        "The latest release's tag or a download address cannot be used.",
    ),
    "version.no_repository": (
        "未配置 GitHub 仓库",
        "No GitHub repository is configured.",
    ),
    "version.none": ("暂无可用版本", "No version has been published."),
    "version.not_found": ("版本不存在", "There is no such version."),
    "version.platform_twice": (
        "同一平台出现多次",
        "A platform is named more than once.",
    ),
}

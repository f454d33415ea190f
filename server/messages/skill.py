"""Texts about skills."""

MESSAGES = {
    "skill.not_found": ("技能不存在", "There is no such skill."),
    "skill.no_file": (
        "技能中没有该文件，已有：{paths}",
        "The skill has no such file. It has: {paths}",
    ),
    "skill.forbidden": ("无权修改该技能", "You may not change this skill."),
    "skill.system_forbidden": (
        "只有管理员可以添加系统技能",
        "Only administrators add skills of the system.",
    ),
    "skill.target": (
        "is_system 与 is_agent 不能同时使用，is_agent 需要 agent_id",
        "A skill is the system's or an agent's; is_agent needs an agent_id.",
    ),
    "skill.archive": ("压缩包无效: {reason}", "The archive is refused: {reason}."),
    "skill.manifest": ("SKILL.md 无效: {reason}", "SKILL.md cannot be used: {reason}."),
    "skill.manifest_missing": (
        "压缩包中没有 SKILL.md",
        "There is no SKILL.md at the top of the archive, nor in its one folder.",
    ),
    "skill.renamed": (
        "SKILL.md 中的 name 必须是 {name}",
        "The name in SKILL.md has to stay {name}.",
    ),
    "skill.too_many": ("技能最多 {most} 个", "There can be at most {most} skills."),
    "skill.busy": ("技能正在被修改", "The skill is being changed by another request."),
    "skill.slug_taken": (
        "{slug} 已是另一个技能的标识: {name}",
        "The slug {slug} is that of another skill: {name}.",
    ),
    "skill.ambiguous": (
        "有多个名为 {name} 的技能",
        "There are several skills of the name {name}.",
    ),
    "skill.address_refused": (
        "不允许访问该地址",
        "The server does not connect to this address.",
    ),
    "skill.import_failed": ("技能导入失败: {reason}", "The import failed: {reason}."),
    "skill.moved": ("SKILL_API_MOVED", "SKILL_API_MOVED"),
}

"""Texts about agents."""

MESSAGES = {
    "agent.not_found": ("Agent不存在", "There is no such agent."),
    "agent.exists": ("Agent 名称已存在", "An agent of that name exists already."),
    "agent.forbidden": ("权限不足", "Permission denied."),
    "agent.name_blank": ("Agent 名称不能为空", "An agent needs a name."),
    "agent.id_mismatch": (
        "请求体中的 id 与路径不一致",
        "The id in the body is not the path's.",
    ),
    "agent.sub_agent_unknown": (
        "子 Agent 不存在: {agent_id}",
        "There is no such sub-agent: {agent_id}.",
    ),
    "agent.sub_agent_self": (
        "Agent 不能以自身为子 Agent",
        "An agent is not its own sub-agent.",
    ),
    "agent.provider_unknown": (
        "Provider 不存在: {provider_id}",
        "There is no such provider: {provider_id}.",
    ),
    "agent.user_unknown": ("用户不存在: {user_id}", "There is no such user: {user_id}."),
}

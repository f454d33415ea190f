"""Texts about tools and MCP servers."""

MESSAGES = {
    "tool.not_found": ("工具不存在", "There is no such tool."),
    "tool.arguments": ("工具参数无效: {reason}", "The arguments do not fit: {reason}"),
    "tool.failed": ("工具 {name} 执行失败: {reason}", "The tool {name} failed: {reason}"),
    "mcp.not_found": ("MCP 服务器不存在", "There is no such MCP server."),
    "mcp.exists": (
        "MCP 服务器 {name} 已存在",
        "There is an MCP server of the name {name} already.",
    ),
    "mcp.ambiguous": (
        "多个用户拥有名为 {name} 的 MCP 服务器",
        "Several accounts have an MCP server of the name {name}.",
    ),
    "mcp.busy": (
        "其他 MCP 服务器正在更新，请重试",
        "Other MCP servers are being changed; try again.",
    ),
    "mcp.name_reserved": ("不能使用该名称: {name}", "This name cannot be used: {name}"),
    "mcp.too_many": ("MCP 服务器最多 {most} 个", "There can be at most {most} MCP servers."),
    "mcp.url_of_other": (
        "协议 {protocol} 不使用另一个协议的地址",
        "The protocol {protocol} has no use for the other protocol's address.",
    ),
    "mcp.url_missing": (
        "缺少所选协议的地址",
        "The address of the chosen protocol is missing.",
    ),
    "mcp.address_invalid": ("MCP 服务器地址无效", "The address is not valid."),
    "mcp.address_refused": (
        "不允许访问该地址",
        "The server does not connect to this address.",
    ),
    "mcp.key_masked": (
        "api_key 是脱敏后的值，请重新填写",
        "The api_key is a masked one; give it in full.",
    ),
    "mcp.stdio_forbidden": (
        "只有超级管理员可以保存或更改 stdio 服务器: {name}",
        "Only a super admin may save or change a server over stdio: {name}",
    ),
    "a2a.not_found": ("A2A 服务器不存在", "There is no such A2A agent."),
    "a2a.exists": ("该地址的 A2A 服务器已存在", "There is an A2A agent of this address already."),
    "a2a.too_many": ("A2A 服务器最多 {most} 个", "There can be at most {most} A2A agents."),
    "a2a.busy": (
        "其他 A2A 服务器正在更新，请重试",
        "Other A2A agents are being changed; try again.",
    ),
    "mcp.unreachable": (
        "MCP 服务器连接失败: {reason}",
        "The MCP server does not answer: {reason}",
    ),
}

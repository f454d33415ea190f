"""Why runs fail, in words."""

FAILURES = {
    "fault": ("内部错误", "an internal error"),
    "interrupted_by_restart": ("运行被服务重启中断", "the run was interrupted by a restart"),
    "loop_limit": ("已达到最大循环次数", "the agent used up its rounds before it was done"),
    "lost": ("运行已丢失", "the run was lost"),
    "model_dropped": ("模型连接中断", "the model's connection broke"),
    "model_failed": ("模型调用失败", "the model call failed"),
    "model_malformed": ("模型返回的内容无效", "the model's answer was malformed"),
    "model_refused": ("模型拒绝了请求", "the model refused the call"),
    "model_timeout": ("模型响应超时", "the model took too long"),
    "model_unreachable": ("无法连接模型", "the model could not be reached"),
    "outdated": ("服务升级后无法继续运行", "the run cannot go on after an upgrade"),
    "storage": ("存储错误", "the run could not be stored"),
}
"""By a run's reason: the text of its error line."""


def failure_text(reason: str, detail: str, language: str) -> str:
    """What sage's lines and messages say of a run that failed, in "zh" or "en"."""
    zh, en = FAILURES.get(reason, (reason, reason))
    text = f"The run failed: {en}" if language == "en" else f"处理失败: {zh}"
    return f"{text} ({detail})" if detail else text

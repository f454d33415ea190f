"""Texts about what a model answered."""

MESSAGES = {
    "model.failed": ("模型调用失败: {reason}", "The model does not answer: {reason}"),
    "model.no_sense": (
        "模型返回的内容没有意义，请添加更强的模型 (LLM provider) 并设为默认",
        "The model's words make no sense; add a provider of a larger model as your default.",
    ),
    "model.bad_json": (
        "模型返回的内容不符合要求",
        "The model did not answer with usable JSON.",
    ),
}

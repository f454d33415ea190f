"""Texts about what a model answered."""

MESSAGES = {
    "model.failed": ("模型调用失败: {reason}", "The model does not answer: {reason}"),
    "model.bad_json": (
        "模型返回的内容不符合要求",
        "The model did not answer with usable JSON.",
    ),
}

"""What is said of the gate before Jaeger."""

MESSAGES = {
    "jaeger.absent": ("未配置 Jaeger 或登录方式", "There is no Jaeger here, or no way to log in."),
}

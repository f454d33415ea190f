"""Texts about knowledge bases and their documents."""

MESSAGES = {
    "knowledge.not_found": ("知识库不存在", "There is no such knowledge base."),
    "knowledge.document_not_found": ("文档不存在", "There is no such document."),
    "knowledge.name_blank": ("知识库名称不能为空", "A knowledge base needs a name."),
    "knowledge.no_file": ("请选择文件", "There is no file."),
    "knowledge.file_name": ("文件名不能为空", "A file needs a name."),
    "knowledge.format": (
        "不支持的文件格式: {name}（支持 {known}）",
        "The format of {name} is not known here; these are: {known}.",
    ),
    "knowledge.questions": (
        "问答文件 {name} 无法使用: {reason}",
        "{name} is no table of questions and answers: {reason}.",
    ),
    "knowledge.repeated": ("文件名重复", "Two files have the same name."),
}

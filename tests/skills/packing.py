"""Archives for the tests, straight and crooked."""

import io
import zipfile
from collections.abc import Mapping

SKILL = "---\nname: {name}\ndescription: {description}\n---\n# How to\n\n{text}\n"


def skill_md(
    name: str = "market-research",
    description: str = "Researches markets.",
    text: str = "Ask three people.",
) -> str:
    """A SKILL.md that holds."""
    return SKILL.format(name=name, description=description, text=text)


def packed(files: Mapping[str, str | bytes], *, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A ZIP archive of files by their names."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return made.getvalue()


def packed_skill(name: str = "market-research", description: str = "Researches markets.") -> bytes:
    """A skill in a folder of its own, with a file beside its SKILL.md."""
    return packed(
        {
            f"{name}/SKILL.md": skill_md(name, description),
            f"{name}/scripts/ask.py": "print('Why?')\n",
        }
    )

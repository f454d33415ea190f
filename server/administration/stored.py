"""What rows say is stored beside them: uploaded files, documents, and the files of skills.

The files of workspaces are not among them: their agents and accounts may remove those at any time.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import select

from domain.knowledge.bases import key
from server.settings import Settings
from storage.objects import DIRECTORY
from storage.schema import files, knowledge_documents, skills

SKILLS, WORKSPACES = "skills", "workspaces"
UPLOADED = select(files.c.id, files.c.name).where(files.c.session_id.is_(None))
DOCUMENTS = select(
    knowledge_documents.c.base_id, knowledge_documents.c.id, knowledge_documents.c.name
)
BUNDLES = select(skills.c.bundle, skills.c.name, skills.c.files)
SELECTS = (UPLOADED, DOCUMENTS, BUNDLES)


def folders(settings: Settings) -> dict[str, Path]:
    """The folders that cannot be made again, by the names that they have in a backup."""
    return {
        DIRECTORY: settings.data / DIRECTORY,
        SKILLS: Path(settings.skills_root_dir or settings.data / SKILLS),
        WORKSPACES: settings.data / WORKSPACES,
    }


def named(
    uploaded: Iterable[Sequence[Any]],
    documents: Iterable[Sequence[Any]],
    bundles: Iterable[Sequence[Any]],
) -> dict[str, str]:
    """The paths that rows of SELECTS name, as they are in a backup, and what people call each."""
    found = {f"{DIRECTORY}/files/{file}": name for file, name in uploaded}
    found |= {f"{DIRECTORY}/{key(base, document)}": name for base, document, name in documents}
    for bundle, skill, held in bundles:
        paths = json.loads(held) if isinstance(held, str) else held
        for number, path in enumerate(paths):
            found[f"{SKILLS}/{bundle}/{number}"] = f"{skill}/{path}"
    return found

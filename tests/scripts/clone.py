"""A clone that is set up already: this one's files and packages, linked."""

import hashlib
import shutil
from pathlib import Path

from tests.serving import ROOT


def clone(target: Path, *, ready: tuple[str, ...] = ("runtime",)) -> Path:
    """The scripts as copies, everything else as links; no script has anything to install for the
    locks named in `ready`."""
    target.mkdir()
    shutil.copytree(ROOT / "scripts", target / "scripts", ignore=shutil.ignore_patterns("__pyc*"))
    for path in ROOT.iterdir():
        if not path.name.startswith(".") and path.name not in ("scripts", "data", "reports"):
            (target / path.name).symlink_to(path)
    environment = target / ".venv"
    environment.mkdir()
    for name in ("bin", "lib", "pyvenv.cfg"):
        (environment / name).symlink_to(ROOT / ".venv" / name)
    for lock in ready:
        (environment / f".quartet-{lock}-{stamp(lock)}").touch()
    return target


def stamp(lock: str) -> str:
    """What scripts/setup marks a finished setup with."""
    texts = (ROOT / "requirements" / f"{name}.txt" for name in (lock, "bootstrap"))
    return hashlib.sha256(b"".join(text.read_bytes() for text in texts)).hexdigest()[:16]

"""The curl lines of the documents, as they stand there."""

import re
from pathlib import Path

DOCUMENTS = Path(__file__).parent / "documents"
_HEADING = re.compile(r"^([0-9]+)\. \S")
_ADDRESS = re.compile(r"https?://[^\s'\"]+")


def lines(document: str) -> dict[int, str]:
    """Number → command, a command being the lines from `curl` to the last that belongs to it: one
    that ends in a backslash goes on, and so does one inside quotation marks. The number is that of
    the heading above it, or its place in a document that numbers no headings."""
    found: dict[int, str] = {}
    number, command = 0, ""
    for text in (DOCUMENTS / document).read_text().splitlines():
        if command:
            command += "\n" + text
        elif heading := _HEADING.match(text):
            number = int(heading[1])
            continue
        elif text.startswith("curl "):
            command = text
        if command and not command.endswith("\\") and command.count("'") % 2 == 0:
            place = number or len(found) + 1
            assert place not in found, f"{document}: two commands under {place}"
            found[place] = command
            command = ""
    return found


def path(command: str) -> str:
    """The path that a command asks for; `<name>` in it is a parameter."""
    address = _ADDRESS.search(command)
    assert address is not None
    asked = "/" + address[0].partition("//")[2].partition("/")[2].partition("?")[0]
    return asked.replace("<", "{").replace(">", "}")

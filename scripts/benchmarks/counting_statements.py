"""Our server with every statement counted: `python -m scripts.benchmarks.counting_statements serve
…` appends a byte for each to the file that STATEMENTS names. A patch of this process alone."""

import os
from collections.abc import Mapping
from typing import Any

from server.__main__ import main
from storage.database import Bound, Statement

_made = Statement.__call__
_made_of_many = Statement.many


def _counted(file: int) -> None:
    def one(self: Statement, **parameters: Any) -> Bound:
        os.write(file, b".")
        return _made(self, **parameters)

    def many(self: Statement, rows: list[Mapping[str, Any]]) -> Bound:
        os.write(file, b".")
        return _made_of_many(self, rows)

    Statement.__call__ = one  # type: ignore[method-assign]
    Statement.many = many  # type: ignore[method-assign]


if __name__ == "__main__":
    _counted(os.open(os.environ["STATEMENTS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600))
    main()

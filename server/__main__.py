"""`python -m server serve …` and `python -m server admin …`."""

import os
import sys


def main() -> None:
    """Choose the command before importing what only the other needs."""
    os.umask(0o077)  # what is written is private, whoever made the data directory
    command, arguments = (sys.argv[1] if len(sys.argv) > 1 else ""), sys.argv[2:]
    if command == "serve":
        from server.serving import main as serve

        serve(arguments)
    elif command == "admin":
        from server.administration import main as administer

        administer(arguments)
    else:
        sys.stderr.write("usage: python -m server {serve,admin} …\n")
        raise SystemExit(2)


if __name__ == "__main__":
    main()

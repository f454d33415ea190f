"""Sessions of the sandbox contract over HTTP, against real server processes."""

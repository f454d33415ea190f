"""Handlers of the sandbox contract."""

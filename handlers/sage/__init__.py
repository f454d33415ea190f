"""Handlers of the sage contract."""

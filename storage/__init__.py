"""Stores over SQLAlchemy Core, the event log, Redis wake-ups, object storage, migrations."""

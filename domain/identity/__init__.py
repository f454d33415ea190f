"""Who somebody is: passwords, tokens, login sessions, registration.

`identity.py` logs in, verifies and ends; every way to log in goes through its `open_session`.
`known.py` remembers what was verified so that a request needs no query, and forgets it when a
login session ends.
"""

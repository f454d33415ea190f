"""The OAuth2 authorization server (RFC 6749, RFC 7636, RFC 8414, RFC 9700).

`clients.py` reads the clients from configuration, `judging.py` lets authlib judge requests over
rows that were read before, `server.py` reads those rows and commits what follows.
"""

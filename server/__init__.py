"""Composition: settings, the ASGI application, dispatch, authentication, errors, ports."""

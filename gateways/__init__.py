"""The outside world: models, outbound HTTP, mail, search."""

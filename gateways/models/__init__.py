"""Models: everything that answers a conversation, behind one interface (gateways.models.model)."""

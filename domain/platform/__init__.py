"""What administrators set for everybody's sessions: the model, its limits, MCP servers and A2A
agents, and what each account wants of those."""

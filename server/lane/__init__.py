"""The request lane: one compiled path from bytes to handler to bytes (ARCHITECTURE.md).

Everything that the spec decides is decided when the application is built: the route, the plan for
parameters, the body's validator, who may call, how the answer is encoded. What is left for a
request is dictionary lookups, one pass over the body, the handler, one encoding.
"""

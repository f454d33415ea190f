"""One package per contract, one module per resource: typed input, one call, typed output."""

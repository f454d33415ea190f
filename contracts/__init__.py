"""The contract suite: whether a server keeps the published contracts, told from outside."""

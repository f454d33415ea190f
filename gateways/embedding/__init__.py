"""Texts as vectors, by a model in a process of its own."""

"""Tests of the contract suite itself, and of what needs the server in process."""

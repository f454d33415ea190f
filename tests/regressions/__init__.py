"""Faults that were found, each as a test named after what went wrong."""

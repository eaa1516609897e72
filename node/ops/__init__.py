"""Ops: logging and the other ways to watch the node."""

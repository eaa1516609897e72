"""Assemble: instances into series, and when a series is complete."""

"""Operators: pure functions over arrays, registered like anyone else's."""

"""Receive: the listener, associations, admission."""

"""Store: files that survive power loss, and the tables of what was done."""

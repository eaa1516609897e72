"""`pacsnode bench`: this installation measured beside its peers, with the same data, in one run on one machine."""

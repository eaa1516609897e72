"""The command line: verbs, no logic; each module holds the verbs of one purpose."""

from node.cli.frame import main

__all__ = ["main"]

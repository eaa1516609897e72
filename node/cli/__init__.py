"""The command line: verbs, no logic; each module holds the verbs of one purpose."""

from node.cli import acting, bench, files, listing, offer, peers, running, security, upkeep
from node.cli.frame import main

__all__ = ["acting", "bench", "files", "listing", "main", "offer", "peers", "running", "security", "upkeep"]

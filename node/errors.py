"""Every failure the node speaks of, sorted by who must act."""

from __future__ import annotations


class NodeError(Exception):
    """A failure with a sentence a user can act on."""


class Retryable(NodeError):
    """We act, later: a disk, a network or a peer that will come back."""


class Refused(NodeError):
    """Nobody acts: the data does not suit the rule, and the sentence says why."""


class Broken(NodeError):
    """A person acts: an operator, a product or a file is wrong."""


class Misconfigured(NodeError):
    """A person edits the site file or a rule.

    *mistakes* holds one sentence each, already with file and line where there is one.
    """

    def __init__(self, *mistakes: str) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes

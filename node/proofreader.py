"""The proofreader: `python -m node.proofreader`. A set of rule files in, the rules or every reason against them out.

Two hundred rules take seconds of one core to read and to try; here that delays no indexing, and a text made to
take more than it should ends this process and nothing else. What goes in and out are frozen values of this very
version, between a parent and its own child: that is why they may go as pickles.
"""

from __future__ import annotations

import argparse
import os
import pickle
import resource
import subprocess
import sys
from collections.abc import Mapping

from node.errors import Misconfigured
from node.model import OperatorSpec
from node.route.check import prove
from node.route.rules import RuleSet
from node.supervisor import follow

_PATIENCE = 120.0
"""Seconds; 200 rules with their cases take 3."""
_MEMORY = 1 << 30
_MODULE = "node.proofreader"


def proved(files: Mapping[str, str], specs: Mapping[str, OperatorSpec], peers: Mapping[str, bool]) -> RuleSet:
    """The rules, checked by a child. Raises Misconfigured with every reason against them; waits for the child."""
    asked = pickle.dumps((dict(files), dict(specs), peers))  # peers may know more than their names
    command = [sys.executable, "-m", _MODULE, "--parent", str(os.getpid())]
    try:
        done = subprocess.run(command, input=asked, stdout=subprocess.PIPE, check=False, timeout=_PATIENCE)
        found: RuleSet | tuple[str, ...] = pickle.loads(done.stdout)  # noqa: S301 - our own child wrote it
    except subprocess.TimeoutExpired:
        raise Misconfigured(
            f"the rule files are not checked after {_PATIENCE:g} s; is one far too long?"
        ) from None
    except (OSError, EOFError, pickle.UnpicklingError) as error:
        raise Misconfigured(
            f"the rule files could not be checked ({type(error).__name__}); is memory short?"
        ) from None
    if isinstance(found, RuleSet):
        return found
    raise Misconfigured(*found)


def main(arguments: list[str] | None = None) -> int:
    """One answer to one question; 0 also where the rules are wrong."""
    parser = argparse.ArgumentParser(prog=f"python -m {_MODULE}")
    parser.add_argument("--parent", type=int, default=os.getppid())
    follow(parser.parse_args(arguments).parent)
    os.nice(10)
    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
    files, specs, peers = pickle.loads(sys.stdin.buffer.read())  # noqa: S301 - our own parent wrote it
    try:
        found: RuleSet | tuple[str, ...] = prove(files, specs, peers)
    except Misconfigured as error:
        found = error.mistakes
    sys.stdout.buffer.write(pickle.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())

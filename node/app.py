"""The only wiring: builds the parts from Settings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from node import holding, rulebook
from node import settings as site
from node.errors import Misconfigured
from node.flow import Parts, securing
from node.flow.forms import SHOWN_AS
from node.model import Destinations, OperatorSpec
from node.ops import log as logging
from node.ops.health import where
from node.process import installed
from node.process.job import spec_from_json
from node.process.supervise import Limits
from node.proofreader import proved
from node.reindex import reindex
from node.route.rules import RuleSet, When, parse_rules, parse_when
from node.rulewatch import Looks, Outcome
from node.settings import SealPolicy, Settings
from node.shape import Shaper
from node.store import watch
from node.store.database import OF_A_NODE, Database, belongs, open_database
from node.supervisor import supervise_node

log = structlog.get_logger()


def settings_from_stdin(file: str) -> Settings:
    """The settings the node was started with, whatever has become of the file since. Raises Misconfigured."""
    return site.parse(sys.stdin.read(), file, os.environ)


def operators(data: Path | None = None) -> tuple[dict[str, OperatorSpec], list[str]]:
    """What every installed operator says of itself, and what is wrong with those that are left out.

    Read by a worker: plugin code is never loaded here. What it said is kept in *data*, where a node works or has
    worked, and holds until something else is installed. Raises Misconfigured where none can be started.
    """
    kept_in = data if data and (data / OF_A_NODE).exists() else None
    under = installed.fingerprint() if kept_in else ""
    told = installed.recall(kept_in, under) if kept_in else None
    if told is None:
        told = _asked_a_worker()
        if kept_in:
            installed.keep(kept_in, under, told)
    return {name: spec_from_json(spec) for name, spec in told["operators"].items()}, list(told["mistakes"])


def _asked_a_worker() -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "node.worker", "--specs"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise Misconfigured(f"the operators cannot be read: {last[0]}; is the installation complete?")
    return dict(json.loads(done.stdout))


def operator_specs(settings: Settings | None = None) -> dict[str, OperatorSpec]:
    """The operators that rules may use; a rule that names one left out is refused by name."""
    return operators(settings.node.data if settings else None)[0]


class _Anyone(dict[str, bool]):
    """Peers where no site file says which there are: every name is one, and can receive."""

    def __contains__(self, name: object) -> bool:
        return True

    def __missing__(self, name: str) -> bool:
        return True


def destinations(settings: Settings | None) -> Mapping[str, bool]:
    """Peer → whether something can be sent to it; without a site file every name is taken for a peer."""
    if settings is None:
        return _Anyone()
    peers = settings.peers.items()
    only = [name for name, peer in peers if peer.only == "deidentified"]
    return Destinations({name: peer.receives for name, peer in peers}, only, settings.deidentify.profiles)


def shown_kinds(settings: Settings | None) -> dict[str, list[str]]:
    """Peer → the kinds of results that its users see; who sees everything is not named."""
    peers = settings.peers if settings else {}
    return {
        name: [kind for kind, word in SHOWN_AS.items() if word in peer.shows]
        for name, peer in peers.items()
        if peer.shows is not None
    }


def limits_of(settings: Settings | None) -> Limits:
    """What one run may use."""
    if settings is None:
        return Limits()
    return Limits(settings.limits.run_time.total_seconds(), settings.limits.run_memory)


def rules_changed(settings: Settings) -> bool:
    """Whether the rule files differ from the set that is in use, or was when the node stopped."""
    return rulebook.differs(settings.node)


def seal_lines(settings: Settings) -> list[tuple[When | None, SealPolicy]]:
    """The site file's `seal` with its conditions compiled. Raises Misconfigured."""
    shaper = Shaper()
    lines = [(parse_when(line.when, shaper) if line.when else None, line.policy) for line in settings.seal]
    shaper.finish()
    return lines


def never_lines(settings: Settings | None) -> list[tuple[When, str]]:
    """The site file's `never_process` with its conditions compiled, and where each stands. Raises Misconfigured."""
    shaper, lines = Shaper(), []
    for node in settings.never_process if settings else ():
        when = parse_when(node, shaper)
        if node.is_mapping and not when.lines:
            shaper.wrong(node, "an empty block would bar every series; name what is not to be processed")
        lines.append((when, f"line {node.place.line} of the site file"))
    shaper.finish()
    return lines


def own_database(settings: Settings) -> Database:
    """The database of this data folder. Raises Misconfigured, also where it is another one than before."""
    database = open_database(settings.state, settings.node.data)
    if not belongs(database, settings.node.data):
        database.close()
        raise Misconfigured(
            f"the database is not the one that {settings.node.data} was written with, so what was done with "
            "the objects there is not known; restore the backup, or stop the node and run `pacsnode reindex`"
        )
    return database


def build(settings: Settings) -> Parts:
    """The conductor's parts. Raises Misconfigured; a broken rule file is no reason to (promise 8)."""
    lines, never = seal_lines(settings), never_lines(settings)
    database = own_database(settings)
    specs = operator_specs(settings)
    rules, problem = load_rules(settings, specs)
    rulebook.remember(database, problem, datetime.now(UTC))
    return replace(_parts(settings, database, rules, specs, lines), never=never)


def reindexed(settings: Settings, tell: Callable[[int], None]) -> tuple[int, int]:
    """Rows for received files that the database lacks: objects added, series held. Raises Misconfigured."""
    lock = holding.hold(settings.node.data)
    database = open_database(settings.state, settings.node.data)
    try:
        none = parse_rules({}, {}, {})
        return reindex(_parts(settings, database, none, {}, ()), tell)
    finally:
        database.close()
        os.close(lock)


def _parts(
    settings: Settings, database: Database, rules: RuleSet, specs: Mapping[str, OperatorSpec],
    lines: Sequence[tuple[When | None, SealPolicy]],
) -> Parts:  # fmt: skip
    return Parts(
        database=database, settings=settings, rules=rules, seal_lines=lines, specs=specs,
        now=lambda: datetime.now(UTC), monotonic=time.monotonic,
    )  # fmt: skip


def load_rules(settings: Settings, specs: Mapping[str, OperatorSpec]) -> tuple[RuleSet, str]:
    """The rules in use at a start, and what is wrong with the ones in the folder."""
    return rulebook.load(settings.node, specs, destinations(settings))


def rule_looks(parts: Parts) -> Looks:
    """Where the conductor looks for rules that changed, and how they are proved: by a child, beside the loop."""
    settings, specs = parts.settings, parts.specs
    peers = destinations(settings)
    problem = rules_problem(parts.database)
    return Looks(settings.node.rules, parts.rules, problem, lambda files: proved(files, specs, peers))


def use_rules(parts: Parts, outcome: Outcome) -> str:
    """Use the rules that passed, or say why those in the folder are not used; what is told of it.

    Called between two transactions: one sees the old rules, the next the new ones, and none a mixture.
    """
    if outcome.rules is None:
        rulebook.refuse(parts.database, outcome.problem, parts.now())
        return where(outcome.problem)
    rulebook.keep(parts.data, outcome.files)
    words = rulebook.difference(parts.rules, outcome.rules)
    rulebook.take(parts.database, words, parts.now())
    parts.rules = outcome.rules
    return words


def rules_problem(database: Database) -> str:
    """What is wrong with the rule files, so that older ones or none are in use; empty when all is well."""
    with database.read() as tx:
        return watch.rules_problem(tx)


def data_ready(data: Path) -> None:
    """Make the data folder. Raises Misconfigured where that cannot be done."""
    try:
        data.mkdir(parents=True, exist_ok=True)
        if not os.access(data, os.W_OK | os.X_OK):
            raise PermissionError(13, "not writable")
    except OSError as error:
        if data.is_file():
            raise Misconfigured(f"node.data: {data} is a file, not a folder; name a folder") from None
        raise Misconfigured(
            f"node.data: {data} cannot be used ({error.strerror}); create it for this user "
            "or name another folder"
        ) from None


def tls_ready(settings: Settings) -> None:
    """Raises Misconfigured where TLS files cannot be used: a site file that names such is wrong.

    A certificate that has ended does not keep the node from starting: those who come without TLS need it.
    """
    if mistakes := securing.unusable_files(settings):
        raise Misconfigured(*mistakes)


def run_node(settings: Settings) -> int:
    """Be the node until SIGTERM; the exit code. Raises Broken where the port or the data folder is taken."""
    logging.configure("supervisor", data=settings.node.data)
    now = datetime.now(UTC)
    for words in (*securing.untimely_files(settings, now), *securing.ending_files(settings, now)):
        log.warning("tls_certificate_ending", reason=words)
    return supervise_node(settings.source, settings.file, settings)

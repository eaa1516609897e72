"""Metrics in Prometheus' text format, out of the receivers' counter page and the tables. No patient data.

Every label has few values: peers and destinations are those of the site file (all others together are `other`),
and of rules, statuses and event names at most `MOST` are told apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from node.ops.health import Board
from node.store.watch import Queues, Totals

MOST = 200
OTHER = "other"
PAGE, BOARD, DISK, INDEX, TABLES = "receivers' page", "supervisor", "disk", "index", "whole tables"


@dataclass(frozen=True)
class Described:
    """One metric as the documentation lists it."""

    name: str
    kind: str
    """counter or gauge; a counter's name ends in `_total`."""
    labels: tuple[str, ...]
    source: str
    """Where it comes from, which says how fresh it is."""
    meaning: str


METRICS = tuple(
    Described(*line)
    for line in (
        ("pacsnode_build_info", "gauge", ("version",), BOARD, "1, with the version that runs"),
        ("pacsnode_received_objects_total", "counter", ("peer",), PAGE, "objects answered with success"),
        ("pacsnode_received_bytes_total", "counter", ("peer",), PAGE, "bytes of their datasets"),
        ("pacsnode_refused_objects_total", "counter", ("peer",), PAGE, "objects answered with another status"),
        ("pacsnode_associations_open", "gauge", (), PAGE, "associations that peers have open to us now"),
        ("pacsnode_associations_limit", "gauge", (), PAGE, "how many may be open: `limits.associations`"),
        ("pacsnode_associations_accepted_total", "counter", (), PAGE, "associations admitted"),
        ("pacsnode_associations_rejected_total", "counter", ("reason",), PAGE, "associations rejected"),
        ("pacsnode_associations_ended_total", "counter", ("reason",), PAGE,
         "associations aborted by us, and connections of some that never came to be"),
        ("pacsnode_associations_lost_total", "counter", ("reason",), PAGE,
         "associations that the peer ended without release"),
        ("pacsnode_connections_open", "gauge", (), PAGE, "connections that peers have open to us now"),
        ("pacsnode_connections_limit", "gauge", (), PAGE, "how many may be open: `limits.connections`"),
        ("pacsnode_connections_refused_total", "counter", ("reason",), PAGE, "connections closed unserved"),
        ("pacsnode_object_refusals_total", "counter", ("reason",), PAGE,
         "objects answered with another status than success, by why"),
        ("pacsnode_receivers_accepting", "gauge", (), PAGE, "receivers that accept connections"),
        ("pacsnode_process_up", "gauge", ("process",), BOARD, "1 while the process runs"),
        ("pacsnode_process_deaths", "gauge", ("process",), BOARD, "how often in a row it ended by itself"),
        ("pacsnode_conductor_beat_age_seconds", "gauge", (), BOARD, "since the conductor's loop turned"),
        ("pacsnode_disk_used_ratio", "gauge", (), DISK, "share of the disk of `node.data` in use"),
        ("pacsnode_disk_limit_ratio", "gauge", ("limit",), DISK, "the shares under `disk:` of the site file"),
        ("pacsnode_tls_certificate_ends_timestamp_seconds", "gauge", ("use",), DISK,
         "seconds since 1970 at which a certificate of ours ends: `tls` of the site file, or of a peer"),
        ("pacsnode_database_up", "gauge", (), INDEX, "1 while the database answers"),
        ("pacsnode_rules_refused", "gauge", (), INDEX, "1 while the rule files have mistakes and older are in use"),
        ("pacsnode_destination_up", "gauge", ("destination",), INDEX, "0 while a destination cannot be reached"),
        ("pacsnode_destination_waiting_bytes", "gauge", ("destination",), INDEX,
         "bytes of what waits for a destination, is parked or held, as upkeep counted every five minutes"),
        ("pacsnode_series_open", "gauge", ("state",), INDEX, "series that are receiving or wait for routing"),
        ("pacsnode_runs_queued", "gauge", ("rule", "state"), INDEX, "runs that wait or run"),
        ("pacsnode_studies_waiting", "gauge", ("rule",), INDEX, "studies of which a rule waits for an input"),
        ("pacsnode_deliveries_queued", "gauge", ("destination", "state"), INDEX, "objects to send: waiting, sending"),
        ("pacsnode_delivery_oldest_age_seconds", "gauge", ("destination",), INDEX, "age of the oldest of them"),
        ("pacsnode_instances", "gauge", ("peer", "state"), TABLES, "received objects by what became of them"),
        ("pacsnode_instance_bytes", "gauge", ("peer", "state"), TABLES, "their bytes"),
        ("pacsnode_series", "gauge", ("state",), TABLES, "series revisions"),
        ("pacsnode_runs", "gauge", ("rule", "state"), TABLES, "runs"),
        ("pacsnode_deliveries", "gauge", ("destination", "state", "status"), TABLES,
         "objects by destination, state and last C-STORE status (hexadecimal; `none` before the first answer)"),
        ("pacsnode_events", "gauge", ("name",), TABLES, "events in the database"),
        ("pacsnode_tables_age_seconds", "gauge", (), TABLES, "how old the counts of whole tables are"),
    )
)  # fmt: skip
"""Every metric there is, in the order it is shown."""


_BY_REASON = {
    "association_rejected": "associations_rejected_total",
    "association_ended": "associations_ended_total",
    "association_lost": "associations_lost_total",
    "connection_refused": "connections_refused_total",
    "object_refused": "object_refusals_total",
}


@dataclass(frozen=True)
class Received:
    """The receivers' counter page."""

    open: int
    ready: int
    connections: int
    accepted: int
    reasons: Mapping[str, Mapping[str, int]]
    """Event (`association_rejected` …) → why → how often."""
    peers: Mapping[str, tuple[int, int, int]]
    """Peer → objects, bytes, refused objects; `""` is everyone else."""


@dataclass(frozen=True)
class Sample:
    """All that is shown at one moment; None is what could not be had."""

    now: datetime
    version: str
    peers: Sequence[str]
    """Of the site file."""
    destinations: Sequence[str]
    """Those among them that things can be sent to."""
    limit: int
    """`limits.associations`."""
    connections: int
    """`limits.connections`."""
    disk: float
    shares: Mapping[str, float]
    """`disk:` of the site file."""
    board: Board | None = None
    beaten: float | None = None
    received: Received | None = None
    queues: Queues | None = None
    totals: Totals | None = None
    totals_age: float = 0.0
    down: Sequence[str] = field(default_factory=tuple)
    waiting: Mapping[str, int] = field(default_factory=dict)
    """Destination → bytes."""
    rules_refused: bool = False
    certificates: Mapping[str, float] = field(default_factory=dict)
    """What a certificate of ours is for → seconds since 1970 at which it ends."""


Value = tuple[tuple[str, ...], float]
"""Label values and the number."""


def text(sample: Sample) -> bytes:
    """The page that Prometheus reads (text format 0.0.4)."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Once(sample))
    return generate_latest(registry)


class _Once:
    """A collector for one sample."""

    def __init__(self, sample: Sample) -> None:
        self._sample = sample

    def collect(self) -> Iterator[Metric]:
        """Every metric that has values."""
        values = _values(self._sample)
        for described in METRICS:
            family = _family(described)
            for labels, number in _added(values.get(described.name, ())).items():
                family.add_metric(labels, number)
            if family.samples:
                yield family


def _family(described: Described) -> GaugeMetricFamily | CounterMetricFamily:
    made = CounterMetricFamily if described.kind == "counter" else GaugeMetricFamily
    return made(described.name, described.meaning, labels=described.labels)


def _added(values: Iterable[Value]) -> Mapping[tuple[str, ...], float]:
    """Values of the same labels added up: what was put together under `other`."""
    found: dict[tuple[str, ...], float] = {}
    for labels, number in values:
        found[labels] = found.get(labels, 0.0) + number
    return found


def _values(sample: Sample) -> dict[str, list[Value]]:
    found: dict[str, list[Value]] = {
        "build_info": [((sample.version,), 1)],
        "associations_limit": [((), sample.limit)],
        "connections_limit": [((), sample.connections)],
        "disk_used_ratio": [((), sample.disk)],
        "disk_limit_ratio": [((name,), share) for name, share in sample.shares.items()],
        "tls_certificate_ends_timestamp_seconds": [
            ((use,), ends) for use, ends in sample.certificates.items()
        ],
        "database_up": [((), float(sample.queues is not None))],
    }
    for part in (_received, _board, _queued, _counted):
        found |= part(sample)
    return {f"pacsnode_{name}": values for name, values in found.items()}


def _received(sample: Sample) -> dict[str, list[Value]]:
    page = sample.received
    if page is None:
        return {}
    named = [((peer or OTHER,), numbers) for peer, numbers in page.peers.items()]
    return {
        "received_objects_total": [(labels, numbers[0]) for labels, numbers in named],
        "received_bytes_total": [(labels, numbers[1]) for labels, numbers in named],
        "refused_objects_total": [(labels, numbers[2]) for labels, numbers in named],
        "associations_open": [((), page.open)],
        "associations_accepted_total": [((), page.accepted)],
        "connections_open": [((), page.connections)],
        "receivers_accepting": [((), page.ready)],
        **{
            metric: [((why,), number) for why, number in page.reasons.get(event, {}).items()]
            for event, metric in _BY_REASON.items()
        },
    }


def _board(sample: Sample) -> dict[str, list[Value]]:
    roles = sample.board.roles if sample.board else ()
    found: dict[str, list[Value]] = {
        "process_up": [((role.name,), float(role.pid is not None)) for role in roles],
        "process_deaths": [((role.name,), role.deaths) for role in roles],
    }
    if sample.beaten is not None:
        found["conductor_beat_age_seconds"] = [((), max(0.0, sample.now.timestamp() - sample.beaten))]
    return found


def _queued(sample: Sample) -> dict[str, list[Value]]:
    queues = sample.queues
    if queues is None:
        return {}
    of_rule, to = _first({rule for rule, _ in queues.runs}), frozenset(sample.destinations)
    of_study = _first(set(queues.studies))
    ages: dict[str, float] = {}
    for (name, _), (_, since) in queues.deliveries.items():
        label = _known(name, to)
        ages[label] = max(ages.get(label, 0.0), (sample.now - since).total_seconds())
    return {
        "rules_refused": [((), float(sample.rules_refused))],
        "destination_up": [((name,), float(name not in sample.down)) for name in sample.destinations],
        "destination_waiting_bytes": [((name,), sample.waiting.get(name, 0)) for name in sample.destinations],
        "series_open": [((state,), n) for state, n in queues.series.items()],
        "runs_queued": [((_known(rule, of_rule), state), n) for (rule, state), n in queues.runs.items()],
        "studies_waiting": [((_known(rule, of_study),), n) for rule, n in queues.studies.items()],
        "deliveries_queued": [
            ((_known(name, to), state), n) for (name, state), (n, _) in queues.deliveries.items()
        ],
        "delivery_oldest_age_seconds": [((name,), age) for name, age in ages.items()],
    }


def _counted(sample: Sample) -> dict[str, list[Value]]:
    totals = sample.totals
    if totals is None:
        return {}
    peers, to = frozenset(sample.peers), frozenset(sample.destinations)
    of_rule = _first({rule for rule, _ in totals.runs})
    of_status = _first({_status(status) for _, _, status in totals.deliveries})
    names = _first(set(totals.events))
    return {
        "instances": [((_known(p, peers), state), n) for (p, state), (n, _) in totals.instances.items()],
        "instance_bytes": [((_known(p, peers), state), n) for (p, state), (_, n) in totals.instances.items()],
        "series": [((state,), n) for state, n in totals.series.items()],
        "runs": [((_known(rule, of_rule), state), n) for (rule, state), n in totals.runs.items()],
        "deliveries": [
            ((_known(name, to), state, _known(_status(status), of_status)), n)
            for (name, state, status), n in totals.deliveries.items()
        ],
        "events": [((_known(name, names),), n) for name, n in totals.events.items()],
        "tables_age_seconds": [((), sample.totals_age)],
    }


def _status(status: int | None) -> str:
    return "none" if status is None else f"{status:04X}"


def _known(name: str, known: frozenset[str]) -> str:
    return name if name in known else OTHER


def _first(names: set[str]) -> frozenset[str]:
    """The names that are told apart."""
    return frozenset(sorted(names)[:MOST])


def markdown() -> str:
    """The table of all metrics for the documentation."""
    lines = ["| metric | type | labels | source | means |", "|---|---|---|---|---|"]
    for one in METRICS:
        labels = ", ".join(f"`{label}`" for label in one.labels)
        lines.append(f"| `{one.name}` | {one.kind} | {labels} | {one.source} | {one.meaning} |")
    return "\n".join(lines)

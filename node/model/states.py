"""The states of received objects, series, runs and deliveries, and how they follow each other."""

from __future__ import annotations

from enum import StrEnum


class InstanceState(StrEnum):
    """What became of one received object; its file is kept in each of them but *duplicate*."""

    KEPT = "kept"
    DUPLICATE = "duplicate"
    REPLACED = "replaced"  # a newer header or transfer syntax of the same object was kept
    CONFLICT = "conflict"  # same SOP Instance UID, other pixels or other series: shown, releasable
    UNREADABLE = "unreadable"
    REJECTED = "rejected"
    FETCHED = "fetched"  # asked for as a prior: an input only, and no arrival
    REMOVED = "removed"  # by retention; its file is gone


class SeriesState(StrEnum):
    """receiving → sealed → routed | unrouted | discarded | rejected."""

    RECEIVING = "receiving"
    SEALED = "sealed"
    ROUTED = "routed"
    UNROUTED = "unrouted"
    DISCARDED = "discarded"
    REJECTED = "rejected"


class RunState(StrEnum):
    """waiting → running → done | refused | quarantined | cancelled | superseded."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    REFUSED = "refused"
    QUARANTINED = "quarantined"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"


class DeliveryState(StrEnum):
    """waiting → sending → stored → committed | parked | held | cancelled."""

    WAITING = "waiting"
    SENDING = "sending"
    STORED = "stored"
    COMMITTED = "committed"
    PARKED = "parked"
    HELD = "held"
    CANCELLED = "cancelled"

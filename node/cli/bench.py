"""Measure this installation beside its peers: `bench send`, `bench turnaround`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from node.cli.frame import DONE, as_json, main, verb
from node.interrupts import stoppable


@main.group()
def bench() -> None:
    """Measure this installation, with peers side by side where they are installed."""


_rounds = click.option(
    "--rounds", default=3, show_default=True, type=click.IntRange(min=1), help="The median counts."
)


def _count(option: str, default: int, what: str) -> Callable[[Any], Any]:
    return click.option(option, default=default, show_default=True, type=click.IntRange(1, 5000), help=what)


@bench.command("send")
@_rounds
@_count("--ct", 200, "CT slices of 512 kB.")
@_count("--mr", 200, "MR slices of 33 kB.")
@as_json
@verb
def bench_send(rounds: int, ct: int, mr: int, as_json: bool) -> int:
    """Send the same objects to DCMTK's storescp as we do, and as DCMTK, Orthanc and pynetdicom do."""
    from node.bench import sending, tell  # noqa: PLC0415 - imports phantoms and peers that no other verb needs

    with stoppable(), tell.progress() as say:
        found = sending.measure(sending.Asked(rounds, ct, mr), say)
    tell.report(found, as_json)
    return DONE


@bench.command("turnaround")
@_rounds
@_count("--slices", 300, "CT slices of 512 kB that are received and forwarded.")
@as_json
@verb
def bench_turnaround(rounds: int, slices: int, as_json: bool) -> int:
    """Receive and forward a CT beside Orthanc, and a rule's result after the last image of an MR."""
    from node.bench import forwarding, tell  # noqa: PLC0415 - imports phantoms and peers that no other verb needs

    with stoppable(), tell.progress() as say:
        found = forwarding.measure(forwarding.Asked(rounds, slices), say)
    tell.report(found, as_json)
    return DONE

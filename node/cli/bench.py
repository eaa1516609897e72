"""Measure this installation, beside its peers: `bench receive`, `bench send`, `bench turnaround`, `bench rules`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
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


def _some(option: str, default: int, what: str) -> Callable[[Any], Any]:
    return click.option(option, default=default, show_default=True, type=click.IntRange(0, 5000), help=what)


_CASES = ("ct1", "mr1", "ct4", "mr4", "nagle", "each1", "each4")


@bench.command("receive")
@_rounds
@_count("--ct", 200, "CT slices of 512 kB in a burst.")
@_count("--mr", 2000, "MR slices of 33 kB in a burst.")
@click.option(
    "--only", multiple=True, type=click.Choice(_CASES), help="Measure this only; may be given several times."
)
@click.option(
    "--durability", multiple=True, type=click.Choice(("power", "process")), help="Only so; both by default."
)
@click.option(
    "--dir", "folder", type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder on the disk that is measured; else that of temporary files.",
)  # fmt: skip
@click.option(
    "--big", default=0.0, type=click.FloatRange(0, 4.29), metavar="GB", help="Also one object of that size."
)
@click.option(
    "--receivers", default=0, type=click.IntRange(0, 64), help="Of the node; else as many as it has."
)
@as_json
@verb
def bench_receive(
    rounds: int, ct: int, mr: int, only: tuple[str, ...], durability: tuple[str, ...], folder: Path | None,
    big: float, receivers: int, as_json: bool,
) -> int:  # fmt: skip
    """Send the same objects to a node of its own and to DCMTK, Orthanc and pynetdicom."""
    from node.bench import cases, receiving, tell  # noqa: PLC0415 - imports phantoms and peers that no other verb needs

    kinds = durability or ("power", "process")
    frames = -int(-big * 1e9 // (512 * 1024)) if big else 0
    chosen = only or (() if frames else _CASES)
    asked = cases.Asked(rounds, ct, mr, chosen, kinds, folder, frames, receivers)
    with stoppable(), tell.progress() as say:
        found = receiving.measure(asked, say)
    tell.report(found, as_json)
    return DONE


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
@_some("--ct", 500, "CT slices of 512 x 512 that operators work on; 0 is none.")
@_some("--pet", 300, "PET slices of 400 x 400 that operators work on; 0 is none.")
@_some("--mr", 180, "MR slices of 256 x 256 that operators work on; 0 is none.")
@click.option(
    "--only", multiple=True, metavar="NAME",
    help="The network, or an operator such as mip; may be given several times.",
)  # fmt: skip
@as_json
@verb
def bench_turnaround(
    rounds: int, slices: int, ct: int, pet: int, mr: int, only: tuple[str, ...], as_json: bool
) -> int:
    """Receive and forward beside Orthanc, a rule's result after the last image, operators beside bare calls."""
    from node.bench import forwarding, operating, tell  # noqa: PLC0415 - imports phantoms and peers

    known = (forwarding.NETWORK, *operating.NAMES)
    if unknown := [name for name in only if name not in known]:
        raise click.BadParameter(f"{unknown[0]} is not measured; known are {', '.join(known)}")
    with stoppable(), tell.progress() as say:
        found = forwarding.measure(forwarding.Asked(rounds, slices, ct, pet, mr, only), say)
    tell.report(found, as_json)
    return DONE


@bench.command("rules")
@_rounds
@_count("--rules", 200, "Rules, no two of which are the same.")
@_count("--images", 2000, "Images of the series.")
@as_json
@verb
def bench_rules(rounds: int, rules: int, images: int, as_json: bool) -> int:
    """Seal a large series, and match it against many rules; no network."""
    from node.bench import matching, tell  # noqa: PLC0415 - imports phantoms that no other verb needs

    with stoppable(), tell.progress() as say:
        found = matching.measure(matching.Asked(rounds, rules, images), say)
    tell.report(found, as_json)
    return DONE

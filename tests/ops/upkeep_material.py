"""A node with received series, results and deliveries, for the tests of retention, verify and backup."""

from __future__ import annotations

import hashlib
from pathlib import Path

from flow_material import House, done, product
from sqlalchemy import update

from node.model import Exit
from node.store import schema
from node.testing import Grid, Series, body_volume, write_ct_series

SMALL = body_volume(Grid(shape=(4, 8, 8), spacing=(5, 20, 20)))


def ct(house: House, name: str = "one") -> list[Path]:
    """Four small CT slices."""
    return write_ct_series(house.data / name, SMALL, series=Series(name))


def receive(house: House, files: list[Path]) -> None:
    """Receive, seal and route."""
    house.receive(files)
    for series_id in list(house.parts.assembly.series):
        house.seal(series_id)
    house.route()


def process(house: House, ended: Exit | None = None) -> Path:
    """One run with one result; its folder."""
    started = house.start()
    assert started is not None
    (started.folder / "soft").mkdir(parents=True)
    (started.folder / "soft" / "0001.dcm").write_bytes(b"made")
    digest = hashlib.sha256(b"made").hexdigest()
    house.finish(started, ended or done(product(started.run, sop_uid=f"2.25.{started.run}", digest=digest,
                                                path="soft/0001.dcm")))  # fmt: skip
    return started.folder


def deliver(house: House) -> None:
    """Everything that waits for the PACS is stored there."""
    while items := house.claim():
        house.answer(items)


def complete(house: House, name: str = "one") -> Path:
    """A series from reception to the last delivery; its run's folder."""
    receive(house, ct(house, name))
    folder = process(house)
    deliver(house)
    return folder


def objects(house: House) -> list[str]:
    """The received files there are."""
    return sorted(str(p.relative_to(house.parts.data)) for p in (house.parts.data / "objects").rglob("*.dcm"))


def expire(house: House) -> None:
    """Nobody delivered anything for so long that all of it is past its time."""
    with house.tx() as tx:
        tx.execute(update(schema.delivery).values(state="stored", finished_at=house.clock.at))
    house.clock.tick(days=400)

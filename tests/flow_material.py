"""A node's parts over a real database, with a clock that stands still until it is told to go on.

No sockets, no processes: received objects are `Header` values, as the reader would give them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Table, select

from node import app, flow
from node import settings as site
from node.model import Exit, Header, OperatorSpec, Parameter, Product, RunState, Trouble
from node.read.header import arrival_of_file, read_header
from node.route.rules import parse_rules
from node.send.protocol import Item, Kind, Result
from node.store import intake, work
from node.store.arrival import read_arrival
from node.store.database import Database, open_database, rows
from node.store.files import Disk, ObjectFolder
from node.store.schema import event, series

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
CT = "1.2.840.10008.5.1.4.1.1.2"
LITTLE = "1.2.840.10008.1.2.1"
JPEG = "1.2.840.10008.1.2.4.70"
VOLUME = Parameter("volume", "Volume")
SPECS = {
    spec.name: spec
    for spec in (
        OperatorSpec("smooth", "Smoother.", (VOLUME,), (), "Volume", "1", "acme"),
        OperatorSpec("outline", "The outline.", (VOLUME,), (), "Mask", "1", "acme"),
        OperatorSpec(
            "measure", "Numbers.", (VOLUME, Parameter("mask", "Mask")), (), "Measurements", "1", "acme"
        ),
    )
}
SITE = """
node: {ae_titles: [PACSNODE], listen: "127.0.0.1:11112", timezone: Europe/Berlin, data: data, rules: rules}
peers:
  CT01: {sends_as: [CT01]}
  MR01: {sends_as: [MR01], seal: {quiet_for: 5 s, on_release: yes}}
  PACS: {ae_title: PACS, address: "127.0.0.1:4242", redeliver_after: 10 min}
  ARCHIVE: {ae_title: ARCHIVE, address: "127.0.0.1:4243"}
  RESEARCH: {ae_title: XNAT, address: "127.0.0.1:4244", only: deidentified}
seal:
  - {when: {Modality: US}, quiet_for: 10 min}
  - {quiet_for: 60 s}
"""


def rule(name: str, rest: str, when: str = "{Modality: CT}") -> str:
    """The text of one rule."""
    return f"---\nrule: {name}\npurpose: p\nowner: o@h.example\nwhen: {when}\n{rest}\n"


ROUTE = rule("route", "send: [{what: received, to: PACS}]", "{}")
SMOOTH = rule("smooth", "do: [{smooth: {}, as: soft}]\nsend: [{what: soft, to: PACS}]")


def header(number: int = 1, **changes: Any) -> Header:
    """One readable CT object: *number* counts in its UID, its place and its digest."""
    own: dict[str, Any] = {
        "readable": True, "why": "", "sop_uid": f"1.2.3.{number}", "sop_class": CT,
        "transfer_syntax": LITTLE, "study_uid": "1.2.9", "series_uid": "1.2.9.1", "peer": "CT01",
        "calling": "CT01", "called": "PACSNODE", "association": "1-1", "received_at": NOON, "size": 1000,
        "digest": f"{number:064x}", "pixel_digest": f"{number + 1000:064x}", "frames": 1,
    }  # fmt: skip
    attributes: dict[str, Any] = {
        "Modality": "CT", "PatientID": "P1", "AccessionNumber": "A1", "SeriesNumber": "3",
        "ImageOrientationPatient": ("1", "0", "0", "0", "1", "0"),
        "ImagePositionPatient": ("0", "0", str(number)),
    }  # fmt: skip
    attributes.update(changes.pop("attributes", {}))
    own.update(changes)
    facts = {"from": own["peer"], "called": own["called"], "sop_class": own["sop_class"]}
    attributes = {**attributes, **facts, "transfer_syntax": own["transfer_syntax"]}
    own["attributes"] = {
        name: ((value,),) if isinstance(value, str) else (tuple(value),)
        for name, value in attributes.items()
        if value is not None
    }
    return Header(**own)


@dataclass
class Clock:
    """Both of the node's clocks."""

    at: datetime = NOON
    seconds: float = 100.0

    def tick(self, **span: float) -> None:
        """Let time pass."""
        self.at += timedelta(**span)
        self.seconds += timedelta(**span).total_seconds()


@dataclass
class House:
    """Parts, a clock, and the steps of flow as the conductor calls them."""

    data: Path
    rules: str = ROUTE
    state: str = "sqlite"
    specs: Mapping[str, OperatorSpec] = field(default_factory=lambda: SPECS)
    text: str = SITE
    clock: Clock = field(default_factory=Clock)
    sequence: int = 0

    def __post_init__(self) -> None:
        (self.data / "data").mkdir(exist_ok=True)
        settings = site.parse(self.text, str(self.data / "node.yaml"), {})
        self.parts = flow.Parts(
            database=open_database(self.state, settings.node.data), settings=settings,
            rules=parse_rules({"r.yaml": self.rules}, self.specs, app.destinations(settings)),
            seal_lines=app.seal_lines(settings), specs=self.specs,
            now=lambda: self.clock.at, monotonic=lambda: self.clock.seconds,
        )  # fmt: skip

    @property
    def database(self) -> Database:
        """Its tables."""
        return self.parts.database

    @contextmanager
    def tx(self) -> Iterator[Connection]:
        """One writing transaction."""
        with self.database.write() as tx:
            yield tx

    def take(self, *headers: Header) -> list[flow.Taken]:
        """Take in objects as one group, each under the next sequence number."""
        group = {(1, number): one for number, one in enumerate(headers, self.sequence + 1)}
        self.sequence += len(group)
        with self.tx() as tx:
            strangers = intake.strangers(tx, {record: one.sop_uid for record, one in group.items()})
            taken = [flow.take_in(tx, self.parts, record, one, strangers) for record, one in group.items()]
            flow.counted(tx, self.parts)
        return taken

    def receive(self, paths: Iterable[Path], peer: str = "CT01", *, index: bool = True) -> None:
        """Keep files as a receiver would, in a receiver run of their own, and take them in as the conductor would."""
        folder = ObjectFolder(self.parts.data, Disk("process"), lambda: None)
        for path in paths:
            arrival, offset = arrival_of_file(path)
            came = replace(
                arrival, peer=peer, calling=peer, called="PACSNODE", address="127.0.0.1:1",
                association=f"{folder.run}-1", received_at=self.clock.at,
            )  # fmt: skip
            part = folder.begin(came)
            part.write(path.read_bytes()[offset:])
            kept = folder.keep(part)
            if index:
                with self.tx() as tx:
                    record = (kept.receiver_run, kept.sequence)
                    flow.take_in(tx, self.parts, record, read_header(kept.path, *read_arrival(kept.path)))
                    flow.counted(tx, self.parts)
                    intake.set_cursor(tx, *record)
        folder.close()

    def seal(self, series_id: int = 1, reason: str = "quiet", missing: str = "") -> None:
        """Seal one revision."""
        with self.tx() as tx:
            flow.seal(tx, self.parts, series_id, reason, missing)

    def route(self) -> None:
        """Route what is sealed."""
        with self.tx() as tx:
            for row in intake.in_state(tx, intake.SeriesState.SEALED):
                flow.route(tx, self.parts, row)

    def complete(self, *headers: Header) -> None:
        """Take in, seal and route what is open."""
        self.take(*headers)
        for series_id in list(self.parts.assembly.series):
            self.seal(series_id)
        self.route()

    def start(self) -> flow.Started | None:
        """Start the run that has waited longest; None when none is due."""
        with self.tx() as tx:
            due = work.due_runs(tx, self.clock.at, 1)
            return flow.start_run(tx, self.parts, due[0]) if due else None

    def finish(self, started: flow.Started, ended: Exit) -> None:
        """A worker is done."""
        with self.tx() as tx:
            flow.finish_run(tx, self.parts, started, ended)

    def claim(self, to: str = "PACS", open_batches: int = 0) -> tuple[Item, ...]:
        """Claim the next batch for a destination."""
        with self.tx() as tx:
            found = flow.deliver(tx, self.parts, to, open_batches)
        return found.items if found else ()

    def asks(self, to: str = "PACS") -> bool:
        """Whether a destination is now to be asked whether it is there."""
        with self.tx() as tx:
            found = flow.deliver(tx, self.parts, to, 0)
        return found is not None and not found.items

    def probe(
        self, error: str | None = None, to: str = "PACS", trouble: Trouble = Trouble.UNREACHABLE
    ) -> None:
        """It answers C-ECHO, or does not."""
        with self.tx() as tx:
            flow.probed(tx, self.parts, to, error, trouble)

    def answer(
        self, items: tuple[Item, ...], kind: Kind = Kind.STORED, status: int | None = 0, to: str = "PACS"
    ) -> bool:
        """The destination says the same of each of them; whether one of them ended the association."""
        results = [Result(i.delivery, i.attempt, kind, status, "said") for i in items]
        with self.tx() as tx:
            return flow.delivered(tx, self.parts, to, results).blamed

    def over(
        self, error: str | None = None, to: str = "PACS", claimed: tuple[Item, ...] = (), *,
        trouble: Trouble = Trouble.UNREACHABLE, taken: bool = True,
    ) -> None:  # fmt: skip
        """A batch is over."""
        with self.tx() as tx:
            keys = [i.delivery for i in claimed]
            flow.batch_over(tx, self.parts, to, error, keys, trouble, taken=taken)

    def rows(self, table: Table) -> list[Mapping[str, Any]]:
        """All rows of a table, by id."""
        with self.database.read() as tx:
            return rows(tx, select(table).order_by(*table.primary_key.columns))

    def series(self) -> list[Mapping[str, Any]]:
        """All revisions."""
        return self.rows(series)

    def events(self, name: str = "") -> list[Mapping[str, Any]]:
        """All events of a name, oldest first."""
        return [row for row in self.rows(event) if name in ("", row["name"])]


def product(number: int = 1, output: str = "soft", kind: str = "image", **changes: Any) -> Product:
    """One derived object."""
    own: dict[str, Any] = {
        "output": output, "index": number, "kind": kind, "path": f"{output}/{number:04d}.dcm",
        "sop_uid": f"2.25.{number}", "sop_class": CT, "transfer_syntax": LITTLE, "series_uid": "2.25.99",
        "digest": f"{number + 5000:064x}", **changes,
    }  # fmt: skip
    return Product(**own)


def done(*products: Product, **more: Any) -> Exit:
    """A run that ended well."""
    return Exit(RunState.DONE, "", tuple(products), **more)

"""`explain` and the live node say the same of whatever comes, and neither fails: real files, and made-up ones."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydicom.data
import pytest
from flow_material import NOON, SPECS, House
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pydicom.dataset import FileMetaDataset
from pydicom.filewriter import write_file_meta_info

from node import dryrun
from node.dryrun import FoundSeries, find_series
from node.model import SeriesState
from node.read.dicomdir import is_dicomdir
from node.route.explain import lines
from node.sources import is_zip, opened
from node.store.schema import delivery

OWN = Path(pydicom.data.__file__).parent / "test_files"
SAMPLES = Path(os.environ.get("PACSNODE_SAMPLES", Path(__file__).parents[2] / "shared" / "samples"))
AT_ONCE = {
    "now-all": "{}",
    "now-ct": "{Modality: CT}",
    "now-thin": "{SliceThickness: {at_most: 2 mm}, ImageType: {has_all: [ORIGINAL]}}",
    "now-odd": "{none_of: [{Modality: {one_of: [CT, MR]}}, {PatientAge: {at_least: 200}}]}",
    "now-inside": "{'RequestAttributesSequence[0].ScheduledProcedureStepID': present}",
}
WHOLE = {
    "stack": "{slices: {at_least: 2}, has_tilt: no, orientation: {not: oblique}}",
    "mixed": "{Modality: {some: {one_of: [CT, MR, PT]}}, instances: {at_most: 5}}",
    "diffusion": "{b_value: {some: {at_least: 500}}, temporal_position: absent}",
    "private": "{'(0019,xx0C) SIEMENS MR HEADER': present}",
    "names": "{PatientName: {matches: '*^*'}, age: {between: [18, 120]}, StudyDate: {at_least: 1990-01-01}}",
    "clock": "{local_time: {between: ['06:00', '20:00']}, weekday: {one_of: [sat, sun]}}",
    "groups": "{any_of: [{ImageType: {excludes: DERIVED}}, {Rows: {at_most: 128}}], sop_class: {matches: '*Image*'}}",
    "frames": "{frames: {at_least: 2}, transfer_syntax: {matches: '*Little*'}, from: CT01}",
    "dated": "{ContentTime: {at_least: '08:00'}, AcquisitionDateTime: {at_most: '2030-01-01'}}",
    "spaced": "{PixelSpacing: {between: [0.1, 2]}, ImageOrientationPatient: {has_any: [1, -1]}}",
    "sequence": "{RequestAttributesSequence: present, RadiopharmaceuticalInformationSequence: absent}",
}
USES = ["", "use: {ImageType: {excludes: LOCALIZER}}\n", "use: {InstanceNumber: {at_least: 2}}\n"]


def rules() -> str:
    """Rules of every kind: at once to a destination each, over the whole series with and without steps, in groups."""
    head = "---\nrule: {name}\npurpose: p\nowner: o@h.example\nwhen: {when}\n"
    texts = [
        head.format(name=name, when=when) + f"send: [{{what: received, to: D{number}}}]\n"
        for number, (name, when) in enumerate(AT_ONCE.items())
    ]
    for number, (name, when) in enumerate(WHOLE.items()):
        steps = "do: [{smooth: {}, as: soft}]\nsend: [{what: soft, to: PACS}]\n"
        sends = "send: [{what: received, to: PACS, mode: sealed}]\n"
        more = ("incomplete: ok\n", "group: g\n", "group: g\nfallback: yes\n")[number % 3]
        texts.append(
            head.format(name=name, when=when) + USES[number % 3] + (steps if number % 2 else sends) + more
        )
    return "".join(texts)


SITE = """
node: {ae_titles: [PACSNODE], listen: "127.0.0.1:11112", timezone: Europe/Berlin, data: data, rules: rules}
peers:
  CT01: {sends_as: [CT01]}
  PACS: {ae_title: PACS, address: "127.0.0.1:4242"}
""" + "".join(f'  D{n}: {{ae_title: D{n}, address: "127.0.0.1:{5000 + n}"}}\n' for n in range(len(AT_ONCE)))


@dataclass
class Live:
    """A node without sockets, and the same rules over the same files beside it."""

    house: House
    sealed: int = 0
    seen: set[int] = field(default_factory=set)

    def received(self, found: FoundSeries) -> list[Mapping[str, Any]]:
        """What the live node recorded of every rule, after one series has come, was sealed and routed."""
        before = {row["id"] for row in self.house.series()}
        self.house.receive(found.paths)
        for series_id in list(self.house.parts.assembly.series):
            self.house.seal(series_id)
        self.house.route()
        self.sealed += 1
        (mine,) = [row for row in self.house.series() if row["id"] not in before]
        assert mine["state"] in (SeriesState.ROUTED, SeriesState.UNROUTED)
        (told,) = [e for e in self.house.events(f"series_{mine['state']}") if e["series_id"] == mine["id"]]
        return list(json.loads(told["detail"]))

    def sent_at_once(self) -> dict[str, int]:
        """Rule → objects that were queued since this was asked last."""
        counts: dict[str, int] = {}
        for row in self.house.rows(delivery):
            if row["id"] not in self.seen and row["rule"] in AT_ONCE:
                counts[row["rule"]] = counts.get(row["rule"], 0) + 1
            self.seen.add(row["id"])
        return counts

    def agrees(self, found: FoundSeries) -> None:
        """Fail where the two say different things of any rule."""
        self.sent_at_once()  # of what came before and belongs to no series
        recorded = {(one["rule"], one["runs"], one["because"]) for one in self.received(found)}
        judged = dryrun.explain(self.house.parts.rules.rules, found, "Europe/Berlin", NOON)
        assert {(j.rule.name, j.runs, j.because) for j in judged} == recorded
        assert all(lines(j) for j in judged)
        at_once = dryrun.routed_at_once(self.house.parts.rules.rules, found, "Europe/Berlin", NOON)
        assert {name: n for name, n in at_once.items() if n} == self.sent_at_once()


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """One node for all made-up objects."""
    with living(tmp_path_factory.mktemp("live")) as found:
        yield found


@contextmanager
def living(folder: Path) -> Iterator[Live]:
    """A node over an empty folder."""
    found = Live(House(folder, rules(), specs=SPECS, text=SITE))
    try:
        yield found
    finally:
        found.house.database.close()


def test_the_rules_are_of_every_kind() -> None:
    """Otherwise agreement would say little."""
    text = rules()
    assert all(
        word in text for word in ("do:", "mode: sealed", "fallback", "use:", "some:", "none_of", "to: D4")
    )


SAME = "the same SOP Instance UID as another file here"


def all_agree(live: Live, paths: Sequence[Path]) -> tuple[int, list[Path]]:
    """Every object that belongs to a series, and each that belongs to none; how many, and the files left out.

    Left out are files with the UID of another one: what becomes of those the node decides by other rules.
    """
    with opened() as sources:
        found = find_series(paths, sources, "CT01")
    for one in found.series:
        live.agrees(one)
    aside = [
        Path(path) for path, why in found.passed_over.items() if why != SAME and "not a DICOM" not in why
    ]
    for path in aside:
        before = len(live.house.series())
        live.house.receive([path])
        assert len(live.house.series()) == before, path
    count = sum(len(one.paths) for one in found.series) + len(aside)
    return count, [Path(path) for path, why in found.passed_over.items() if why == SAME]


def agreed_on_all(folder: Path, tmp_path: Path) -> int:
    """How many files below a folder the two agree on: files with the UID of another one have a node of their own."""
    left = sorted(path for path in folder.rglob("*") if path.is_file() and not is_zip(path))
    left = [path for path in left if not is_dicomdir(path)]
    count = 0
    for number in range(len(left)):
        (tmp_path / str(number)).mkdir()
        with living(tmp_path / str(number)) as live:
            more, left = all_agree(live, left)
        count += more
        if not left:
            return count
    raise AssertionError(left)


def test_on_every_file_of_pydicom(tmp_path: Path) -> None:
    """Each series of its test data, and each file that belongs to none."""
    assert agreed_on_all(OWN, tmp_path) > 120


@pytest.mark.parametrize("name", sorted(p.name for p in SAMPLES.glob("*/")) if SAMPLES.is_dir() else ["all"])
def test_on_every_sample(tmp_path: Path, name: str) -> None:
    """Each series of each modality's samples."""
    if not SAMPLES.is_dir():
        pytest.skip("the sample images are not here (set PACSNODE_SAMPLES)")
    agreed_on_all(SAMPLES / name, tmp_path)


# --- made-up objects

_LONG = ("OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV")
_SHORT = "AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US ZZ"
_VRS = (*_SHORT.split(), *_LONG)
_TAGS = {
    0x00080008: "CS", 0x00080020: "DA", 0x0008002A: "DT", 0x00080033: "TM", 0x00080060: "CS", 0x0008103E: "LO",
    0x00080005: "CS", 0x00100010: "PN", 0x00100020: "LO", 0x00101010: "AS", 0x00180050: "DS", 0x00180088: "DS",
    0x00181120: "DS", 0x00189087: "FD", 0x00190010: "LO", 0x0019100C: "IS", 0x00200013: "IS", 0x00200032: "DS",
    0x00200037: "DS", 0x00200100: "IS", 0x00280008: "IS", 0x00280010: "US", 0x00280011: "US", 0x00280030: "DS",
    0x00400275: "SQ", 0x00540016: "SQ", 0x52009229: "SQ", 0x52009230: "SQ", 0x7FE00010: "OW",
}  # fmt: skip
"""Tags that the rules ask for, with their right VR."""
_TEXTS = [
    b"", b" ", b"\0", b"CT", b"ORIGINAL\\PRIMARY\\AXIAL", b"1\\0\\0\\0\\1\\0", b"1\\2\\3", b"NaN", b"1e999",
    b"-0", b"9" * 400, b"20240230", b"240000", b"999Y", b"\xff\xfe", b"\x1b$B\x24\x22", b"\\\\\\\\", b"a^b=c^d=e",
    b"1\\" * 9000, b"0.5\\" * 3,
]  # fmt: skip
VALUE = st.sampled_from(_TEXTS) | st.binary(max_size=24) | st.text(max_size=16).map(lambda t: t.encode())


def element(tag: int, vr: str, value: bytes) -> bytes:
    """One element in explicit VR little endian (PS3.5 7.1.2), whatever stands in it."""
    value += b" " * (len(value) % 2)
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr.encode()
    if vr in _LONG:
        return head + b"\0\0" + struct.pack("<I", len(value)) + value
    return head + struct.pack("<H", min(len(value), 0xFFFE)) + value[:0xFFFE]


def sequence(items: list[bytes]) -> bytes:
    """The value of a sequence of these items."""
    return b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, len(item)) + item for item in items)


RIGHT_OR_WRONG = st.sampled_from([None, None, None, *_VRS])
FLAT = st.dictionaries(st.sampled_from(sorted(_TAGS)), st.tuples(RIGHT_OR_WRONG, VALUE), max_size=12)


def encoded(elements: Mapping[int, tuple[str | None, bytes]]) -> bytes:
    """Elements in order, each with its right VR unless another is asked for."""
    return b"".join(element(tag, vr or _TAGS[tag], value) for tag, (vr, value) in sorted(elements.items()))


@st.composite
def datasets(draw: st.DrawFn) -> bytes:
    """A dataset without the UIDs: odd values under odd VRs, sequences in sequences, sometimes cut off."""
    elements = draw(FLAT)
    for tag in draw(st.sets(st.sampled_from([t for t, vr in _TAGS.items() if vr == "SQ"]), max_size=2)):
        items = [encoded(inner) for inner in draw(st.lists(FLAT, max_size=3))]
        elements[tag] = (None, sequence(items))
    return encoded(elements)


def written(path: Path, sop_uid: str, series_uid: str, body: bytes, cut: int) -> Path:
    """A Part 10 file of such a dataset, with UIDs that put it into a series."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    meta.MediaStorageSOPInstanceUID = sop_uid
    meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    own = {0x00080016: ("UI", "1.2.840.10008.5.1.4.1.1.2"), 0x00080018: ("UI", sop_uid)}
    late = {0x0020000D: ("UI", "1.2.7"), 0x0020000E: ("UI", series_uid)}
    early = b"".join(element(tag, vr, value.encode()) for tag, (vr, value) in own.items())
    uids = b"".join(element(tag, vr, value.encode()) for tag, (vr, value) in late.items())
    with path.open("wb") as file:
        file.write(b"\0" * 128 + b"DICM")
        write_file_meta_info(file, meta)
        file.write(early + uids + body[: len(body) - cut])
    return path


@settings(
    max_examples=60,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(bodies=st.lists(st.tuples(datasets(), st.sampled_from([0, 0, 0, 1, 7])), min_size=1, max_size=4))
def test_on_made_up_objects(live: Live, tmp_path: Path, bodies: list[tuple[bytes, int]]) -> None:
    """Wrong VRs, empty values, 9 000 values, broken charsets, cut files: both judge, and both say the same."""
    number = live.sealed + 1
    series_uid = f"1.2.7.{number}.{len(list(tmp_path.iterdir()))}"
    folder = tmp_path / series_uid
    folder.mkdir()
    for i, (body, cut) in enumerate(bodies):
        written(folder / f"{i}.dcm", f"{series_uid}.{i}", series_uid, body, cut)
    all_agree(live, [folder])

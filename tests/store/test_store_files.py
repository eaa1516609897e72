"""Claims about keeping objects: acknowledged ones survive any crash, and nothing half-written shows.

The crash states are those POSIX allows: of names and data that were not synced, any subset may be lost.
"""

from __future__ import annotations

import errno
import itertools
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node import faults
from node.errors import Broken
from node.model import Arrival, AssociationEnd
from node.store import records
from node.store.files import (
    PRIVATE_CREATOR_UID,
    Disk,
    Folder,
    ObjectFolder,
    clean_dead_runs,
    is_alive,
    read_arrival,
    read_end,
    receiver_runs,
    records_after,
)

NOON = datetime(2026, 3, 1, 12, 0, 0, 5, tzinfo=UTC)


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder of the test's own on the disk, which objects are kept on, wherever other tests have theirs."""
    with tempfile.TemporaryDirectory(prefix="pacsnode-store-", ignore_cleanup_errors=True) as folder:
        yield Path(folder).resolve()


def arrival(uid: str = "1.2.3", **changes: str) -> Arrival:
    """One object's facts."""
    facts = {
        "sop_class": "1.2.840.10008.5.1.4.1.1.2",
        "sop_uid": uid,
        "transfer_syntax": "1.2.840.10008.1.2.1",
        "calling": "CT01",
        "called": "PACSNODE",
        "peer": "CT01",
        "address": "10.1.2.3:50000",
        "local_address": "10.1.2.9:11112",
        "association": "1-1",
        **changes,
    }
    return Arrival(**facts, received_at=NOON)  # type: ignore[arg-type]


def nothing() -> None:
    """Wake nobody."""


def put(keeper: ObjectFolder, uid: str, dataset: bytes) -> Path:
    """Keep one object."""
    part = keeper.begin(arrival(uid))
    part.write(dataset)
    return keeper.keep(part).path


# --- what a crash may leave -------------------------------------------------------------------------------


@dataclass
class Content:
    """What was written to one file, and how much of it is durable."""

    written: bytes = b""
    durable: int = 0


@dataclass
class Names:
    """One folder: what is durable in it, and what was done since the last sync."""

    durable: dict[str, Content | None] = field(default_factory=dict)  # None: a folder
    pending: list[tuple[str, str, Content | None, str]] = field(default_factory=list)


class RecordingDisk(Disk):
    """Does every step for real, and keeps what a power cut at any moment could leave."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.root = root
        self.folders: dict[Path, Names] = {root: Names()}
        self.open: dict[int, Content] = {}
        self.files: dict[Path, Content] = {}
        self.acknowledged: list[tuple[Path, bytes]] = []
        self.checks: dict[tuple[int, object], dict[Path, bytes | None]] = {}

    def create(self, path: str | Path) -> int:
        """Create, noting the name."""
        fd, path = super().create(path), Path(path)
        self.open[fd] = self.files[path] = Content()
        self._name(path, ("create", path.name, self.files[path], ""))
        return fd

    def write(self, fd: int, *data: bytes | bytearray | memoryview) -> None:
        """Write, noting the bytes."""
        super().write(fd, *data)
        self.open[fd].written += b"".join(data)
        self.snap()

    def sync(self, fd: int) -> None:
        """Sync, noting what is durable now."""
        super().sync(fd)
        self.open[fd].durable = len(self.open[fd].written)
        self.snap()

    def close(self, fd: int) -> None:
        """Close."""
        super().close(fd)
        del self.open[fd]

    def rename(self, source: str | Path, target: str | Path) -> None:
        """Rename, noting both names."""
        super().rename(source, target)
        source, target = Path(source), Path(target)
        content = self.files[target] = self.files.pop(source)
        if source.parent == target.parent:
            self._name(target, ("rename", target.name, content, source.name))
        else:  # two folders: either name may be durable before the other
            self.folders[source.parent].pending.append(("unlink", source.name, None, ""))
            self._name(target, ("create", target.name, content, ""))

    def unlink(self, path: str | Path) -> None:
        """Unlink, noting the name."""
        super().unlink(path)
        path = Path(path)
        self._name(path, ("unlink", path.name, None, ""))

    def mkdir(self, path: Path) -> None:
        """Make, noting the name."""
        super().mkdir(path)
        self.folders[path] = Names()
        self._name(path, ("create", path.name, None, ""))

    def sync_folder(self, folder: Folder) -> None:
        """Sync, noting the names that are durable now."""
        super().sync_folder(folder)
        names = self.folders[folder.path]
        for step in names.pending:
            apply(names.durable, step)
        names.pending.clear()
        self.snap()

    def _name(self, path: Path, step: tuple[str, str, Content | None, str]) -> None:
        self.folders[path.parent].pending.append(step)
        self.snap()

    def snap(self) -> None:
        """Note every state a power cut now could leave, with what was acknowledged before it."""
        acknowledged = len(self.acknowledged)
        for state in self._crashes(self.root):
            self.checks[acknowledged, frozenset(state.items())] = state

    def _crashes(self, folder: Path) -> list[dict[Path, bytes | None]]:
        names = self.folders[folder]
        found: list[dict[Path, bytes | None]] = []
        for size in range(len(names.pending) + 1):
            for chosen in itertools.combinations(names.pending, size):
                entries = dict(names.durable)
                for step in chosen:
                    apply(entries, step)
                found.extend(self._contents(folder, entries))
        return found

    def _contents(self, folder: Path, entries: dict[str, Content | None]) -> list[dict[Path, bytes | None]]:
        choices: list[list[dict[Path, bytes | None]]] = []
        for name, content in entries.items():
            path = folder / name
            if content is None:
                choices.append([{path: None, **state} for state in self._crashes(path)])
                continue
            sizes = {content.durable, len(content.written), (content.durable + len(content.written)) // 2}
            choices.append([{path: content.written[:size]} for size in sorted(sizes)])
        return [
            {path: data for state in combination for path, data in state.items()}
            for combination in itertools.product(*choices)
        ]


def apply(entries: dict[str, Content | None], step: tuple[str, str, Content | None, str]) -> None:
    """Do one naming step in a folder."""
    kind, name, content, before = step
    if kind == "unlink":
        entries.pop(name, None)
        return
    if before:
        entries.pop(before, None)
    entries[name] = content


def rebuild(state: dict[Path, bytes | None], source: Path, target: Path) -> None:
    """Make *target* look as *source* would after the crash."""
    for path in sorted(state):
        place = target / path.relative_to(source)
        data = state[path]
        if data is None:
            place.mkdir()
        else:
            place.write_bytes(data)


def check_end(path: Path) -> None:
    """The end of an association is not waited for: what a power cut left of it is the whole, or says that it is not."""
    try:
        assert read_end(path).objects == 4
    except Broken:
        assert len(path.read_bytes()) < len(records.encode_end(AssociationEnd("1-1", "CT01", 4, False, NOON)))


def test_every_legal_crash_state_holds_what_was_acknowledged_and_shows_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever of the unsynced data and names a power cut drops, acknowledged objects are whole and alone."""
    monkeypatch.setattr(records, "BUCKET", 3)
    monkeypatch.setattr("node.store.files.BUCKET", 3)  # so that the third object opens a new bucket
    source = tmp_path / "node"
    source.mkdir()
    disk = RecordingDisk(source)
    keeper = ObjectFolder(source, disk, nothing)
    sent = {f"1.2.{i}": bytes([i]) * 40 for i in range(1, 6)}
    early = keeper.begin(arrival("1.2.9"))  # stays unfinished in the first bucket
    early.write(b"unfinished")
    crossing = keeper.begin(arrival("1.2.5"))  # begun in the first bucket, kept in the second
    crossing.write(sent["1.2.5"])
    for uid in ("1.2.1", "1.2.2", "1.2.3"):
        disk.acknowledged.append((put(keeper, uid, sent[uid]), sent[uid]))
    disk.acknowledged.append((keeper.keep(crossing).path, sent["1.2.5"]))
    gone = keeper.begin(arrival("1.2.8"))
    gone.discard()
    keeper.end(AssociationEnd("1-1", "CT01", 4, False, NOON))
    disk.acknowledged.append((put(keeper, "1.2.4", sent["1.2.4"]), sent["1.2.4"]))

    assert len(disk.checks) > 100
    for number, ((acknowledged, _), state) in enumerate(disk.checks.items()):
        target = tmp_path / "after" / str(number)
        target.mkdir(parents=True)
        rebuild(state, source, target)
        clean_dead_runs(target)
        assert not list(target.rglob("*.part"))
        visible = {}
        for run in receiver_runs(target):
            for record in records_after(target, run, 0, catch_up=True):
                if not record.is_object:
                    check_end(record.path)
                    continue
                facts, offset = read_arrival(record.path)
                visible[record.path.relative_to(target)] = record.path.read_bytes()[offset:]
                assert visible[record.path.relative_to(target)] == sent[facts.sop_uid]
        for path, dataset in disk.acknowledged[:acknowledged]:
            assert visible[path.relative_to(source)] == dataset


def test_the_recording_disk_catches_a_keeper_that_forgets_to_sync_the_folder(tmp_path: Path) -> None:
    """The crash states are real: without the directory sync an acknowledged object can be gone."""

    class Forgetful(RecordingDisk):
        def sync_folder(self, folder: Folder) -> None:
            if len(folder.path.name) != 4:  # every folder but the bucket
                super().sync_folder(folder)

    disk = Forgetful(tmp_path)
    keeper = ObjectFolder(tmp_path, disk, nothing)
    path = put(keeper, "1.2.1", b"x" * 20)
    disk.checks.clear()
    disk.acknowledged.append((path, b"x" * 20))
    disk.snap()
    assert any(path not in state for state in disk.checks.values())


def test_the_recording_disk_catches_a_keeper_that_forgets_to_sync_the_data(tmp_path: Path) -> None:
    """The crash states are real: without fdatasync an acknowledged object can be cut short."""

    class Forgetful(RecordingDisk):
        def sync(self, fd: int) -> None:
            return

    disk = Forgetful(tmp_path)
    path = put(ObjectFolder(tmp_path, disk, nothing), "1.2.1", b"x" * 20)
    whole = path.read_bytes()
    disk.checks.clear()
    disk.acknowledged.append((path, b"x" * 20))
    disk.snap()
    assert any(state.get(path) not in (None, whole) for state in disk.checks.values())


# --- the keeper -------------------------------------------------------------------------------------------


def test_a_kept_object_is_a_part_10_file_that_pydicom_reads(tmp_path: Path) -> None:
    """An independent reader finds the file meta of PS3.10 7.1 and the dataset as sent."""
    dataset = b"\x10\x00\x20\x00LO\x04\x00P001"
    path = put(ObjectFolder(tmp_path, Disk(), nothing), "1.2.3.4", dataset)
    read = pydicom.dcmread(path)
    meta = read.file_meta
    assert read.PatientID == "P001"
    assert (meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID) == ("1.2.3.4", "1.2.840.10008.1.2.1")
    assert (meta.SourceApplicationEntityTitle, meta.SendingApplicationEntityTitle) == ("CT01", "CT01")
    assert meta.ReceivingApplicationEntityTitle == "PACSNODE"
    assert meta.SendingPresentationAddress == "dicom:10.1.2.3:50000"
    assert meta.ReceivingPresentationAddress == "dicom:10.1.2.9:11112"
    assert meta.PrivateInformationCreatorUID == PRIVATE_CREATOR_UID
    assert meta.FileMetaInformationGroupLength == read_arrival(path)[1] - 144
    assert path.read_bytes().endswith(dataset)


@settings(max_examples=60, deadline=None)
@given(
    uid=st.one_of(
        st.sampled_from(["", "..", "../../etc/passwd", "1." + "2" * 80, "1.2.3 ", "a\\b"]),
        st.text(st.characters(min_codepoint=33, max_codepoint=255), max_size=100),
    ),
    peer=st.text(max_size=20),
    dataset=st.binary(min_size=1, max_size=50),
)
def test_whatever_a_peer_sends_comes_back_from_the_file(
    tmp_path_factory: pytest.TempPathFactory, uid: str, peer: str, dataset: bytes
) -> None:
    """Arrival facts survive the file meta as sent, the dataset follows, and no name is made of them."""
    data = tmp_path_factory.mktemp("data")
    keeper = ObjectFolder(data, Disk("process"), nothing)
    part = keeper.begin(arrival(uid, peer=peer, calling="A B"))
    part.write(dataset)
    path = keeper.keep(part).path
    keeper.close()
    found, offset = read_arrival(path)
    assert found == arrival(uid.rstrip("\0 "), peer=peer, calling="A B")
    assert path.read_bytes()[offset:] == dataset
    assert path == data / "objects" / "00000001" / "0000" / "00000001.dcm"


def test_a_dataset_that_begins_with_group_two_is_not_taken_for_file_meta(tmp_path: Path) -> None:
    """The offset is where the file meta's own length says, even where the dataset holds group 0002."""
    dataset = b"\x02\x00\x10\x00UI\x04\x001.2\x00\x08\x00\x05\x00CS\x00\x00"
    path = put(ObjectFolder(tmp_path, Disk(), nothing), "1.2", dataset)
    facts, offset = read_arrival(path)
    assert path.read_bytes()[offset:] == dataset
    assert facts.transfer_syntax == "1.2.840.10008.1.2.1"


def test_a_file_of_another_writer_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    """Without our private information the rest is read and the file's time counts; no Part 10 is Broken."""
    path = tmp_path / "foreign.dcm"
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2"
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.9"
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)
    facts, offset = read_arrival(path)
    assert (facts.sop_uid, facts.peer, facts.received_at.tzinfo) == ("1.9", "", UTC)
    assert path.read_bytes()[offset : offset + 4] == b"\x08\x00\x16\x00"
    path.write_bytes(b"no preamble")
    with pytest.raises(Broken, match="not a DICOM Part 10 file"):
        read_arrival(path)


def test_sequences_are_dense_and_ordered_over_threads_and_buckets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight threads that keep at once leave numbers without gap or twin, over many buckets."""
    monkeypatch.setattr(records, "BUCKET", 16)
    monkeypatch.setattr("node.store.files.BUCKET", 16)
    woken = []
    keeper = ObjectFolder(tmp_path, Disk("process"), lambda: woken.append(1))

    def work(number: int) -> None:
        for i in range(20):
            put(keeper, f"1.{number}.{i}", b"data")
        keeper.end(AssociationEnd(f"1-{number}", "CT01", 20, False, NOON))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = list(records_after(tmp_path, keeper.run, 0))
    assert [record.sequence for record in found] == list(range(1, 169))
    assert sum(record.is_object for record in found) == 160
    assert len(woken) == 168
    assert [r.sequence for r in records_after(tmp_path, keeper.run, 165)] == [166, 167, 168]
    ends = {read_end(r.path).association: r.sequence for r in found if not r.is_object}
    for record in found:
        if record.is_object:
            facts, _ = read_arrival(record.path)
            assert record.sequence < ends[f"1-{facts.sop_uid.split('.')[1]}"]


def test_catch_up_passes_gaps_and_the_steady_look_does_not(tmp_path: Path) -> None:
    """After a power cut or retention a start finds what lies behind a gap."""
    keeper = ObjectFolder(tmp_path, Disk("process"), nothing)
    paths = [put(keeper, f"1.{i}", b"data") for i in range(5)]
    paths[2].unlink()
    assert [r.sequence for r in records_after(tmp_path, 1, 0)] == [1, 2]
    assert [r.sequence for r in records_after(tmp_path, 1, 1, catch_up=True)] == [2, 4, 5]


def test_durability_is_the_peers(tmp_path: Path) -> None:
    """What a peer is promised decides what is synced: its object and name, or nothing; an end is never waited for."""

    class Counting(Disk):
        synced: list[str]

        def sync(self, fd: int) -> None:
            """Count a file."""
            self.synced.append("file")
            super().sync(fd)

        def sync_folder(self, folder: Folder) -> None:
            """Count a bucket."""
            if folder.path.name == "0000":
                self.synced.append("bucket")
            super().sync_folder(folder)

    disk = Counting()
    disk.synced = []
    keeper = ObjectFolder(tmp_path, disk, nothing, durable=lambda peer: peer == "CT01")
    for peer, expected in (("CT01", ["file", "bucket"]), ("CAMERA", [])):
        disk.synced.clear()
        part = keeper.begin(arrival(peer=peer))
        part.write(b"data")
        assert keeper.keep(part).path.exists()
        assert disk.synced == expected
        keeper.end(AssociationEnd("1-1", peer, 1, False, NOON))
        assert disk.synced == expected


class FailingDisk(Disk):
    """Fails one kind of step with one errno, from its *after*-th call on, for *times* calls."""

    def __init__(self, step: str, number: int, after: int = 0, times: int = 1) -> None:
        super().__init__()
        self.step, self.number, self.after, self.times = step, number, after, times
        self.synced: list[int] = []

    def _fail(self, step: str) -> None:
        if step == self.step:
            self.after -= 1
            if self.after < 0 <= self.after + self.times:
                raise OSError(self.number, os.strerror(self.number))

    def write(self, fd: int, *data: bytes | bytearray | memoryview) -> None:
        """Fail or do it."""
        self._fail("write")
        super().write(fd, *data)

    def sync(self, fd: int) -> None:
        """Fail or do it."""
        self.synced.append(fd)
        self._fail("sync")
        super().sync(fd)

    def rename(self, source: str | Path, target: str | Path) -> None:
        """Fail or do it."""
        self._fail("rename")
        super().rename(source, target)

    def sync_folder(self, folder: Folder) -> None:
        """Fail or do it."""
        if folder.path.name == "0000":
            self._fail("sync_folder")
        super().sync_folder(folder)


@pytest.mark.parametrize(
    ("step", "number", "after"),
    [
        ("write", errno.ENOSPC, 0),
        ("write", errno.ENOSPC, 1),
        ("sync", errno.EIO, 0),
        ("rename", errno.EIO, 0),
    ],
)
def test_a_disk_error_leaves_nothing_and_the_next_object_is_kept(
    tmp_path: Path, step: str, number: int, after: int
) -> None:
    """EIO or ENOSPC raises OSError, no file stays, nothing is synced twice, and the sequence has no gap."""
    disk = FailingDisk(step, number, after)
    keeper = ObjectFolder(tmp_path, disk, nothing)
    with pytest.raises(OSError, match=os.strerror(number)):
        part = keeper.begin(arrival())
        try:
            part.write(b"da")
            part.write(b"ta")
            keeper.keep(part)
        except OSError:
            part.discard()
            raise
    assert not [p for p in tmp_path.rglob("*") if p.suffix]
    assert len(disk.synced) <= 1
    assert put(keeper, "1.2.4", b"data").name == "00000001.dcm"


def test_a_lost_directory_sync_closes_the_run(tmp_path: Path) -> None:
    """After a directory could not be synced nothing more is acknowledged by this run; the next run works."""
    keeper = ObjectFolder(tmp_path, FailingDisk("sync_folder", errno.EIO), nothing)
    with pytest.raises(OSError):
        put(keeper, "1.2", b"data")
    assert keeper.failed is not None
    with pytest.raises(OSError, match="closed"):
        keeper.begin(arrival())
    assert put(ObjectFolder(tmp_path, Disk(), nothing), "1.2", b"data").parent.parent.name == "00000002"


def test_parts_of_dead_runs_go_and_those_of_living_runs_stay(tmp_path: Path) -> None:
    """Only a run whose lock nobody holds is cleaned; its records stay."""
    dead, living = (ObjectFolder(tmp_path, Disk("process"), nothing) for _ in range(2))
    kept = put(dead, "1.1", b"data")
    stale, fresh = dead.begin(arrival()), living.begin(arrival())
    assert (dead.run, living.run) == (1, 2)
    dead.close()
    assert (is_alive(tmp_path, 1), is_alive(tmp_path, 2)) == (False, True)
    assert clean_dead_runs(tmp_path) == 1
    assert (Path(stale.path).exists(), Path(fresh.path).exists(), kept.exists()) == (False, True, True)
    assert clean_dead_runs(tmp_path) == 0
    assert is_alive(tmp_path, 1) is False


def test_replace_file_shows_the_old_or_the_new_content_in_every_crash_state(tmp_path: Path) -> None:
    """A small file is never half there, whatever a power cut drops."""
    disk = RecordingDisk(tmp_path)
    path = tmp_path / "rules.json"
    disk.replace_file(path, b"old content")
    disk.acknowledged.append((path, b"old content"))
    disk.checks.clear()
    disk.replace_file(path, b"the new content")
    assert {state.get(path) for state in disk.checks.values()} == {b"old content", b"the new content"}
    assert path.read_bytes() == b"the new content"
    disk.checks.clear()
    disk.snap()
    assert {state.get(path) for state in disk.checks.values()} <= {b"the new content"}


# --- killed, not cut off ----------------------------------------------------------------------------------

KEEP_FIVE = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_store_files import put, nothing
from node.store.files import Disk, ObjectFolder
keeper = ObjectFolder(Path(sys.argv[1]), Disk("process"), nothing)
for i in range(1, 6):
    put(keeper, f"1.2.{i}", bytes([i]) * 99)
    print(i, flush=True)
"""


@pytest.mark.parametrize("point", ["before-sync", "after-sync", "after-rename", "after-keep"])
def test_a_kill_at_each_fault_point_keeps_what_was_acknowledged(tmp_path: Path, point: str) -> None:
    """SIGKILL at the third passage: what was told as kept is whole, the rest is whole or absent."""
    done = subprocess.run(
        [sys.executable, "-c", KEEP_FIVE, str(tmp_path), str(Path(__file__).parent)],
        env={**os.environ, "PACSNODE_FAULT": f"{point}:3"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -9, done.stderr
    assert done.stdout.split() == ["1", "2"]
    assert clean_dead_runs(tmp_path) == (0 if point in ("after-rename", "after-keep") else 1)
    whole = {}
    for record in records_after(tmp_path, 1, 0):
        facts, offset = read_arrival(record.path)
        whole[facts.sop_uid] = record.path.read_bytes()[offset:]
    assert set(whole) >= {"1.2.1", "1.2.2"}
    assert all(data == bytes([int(uid[-1])]) * 99 for uid, data in whole.items())


def test_a_fault_fires_once_where_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With PACSNODE_FAULT_ONCE a point that was fatal before is passed, and other points never are."""
    once = tmp_path / "died"
    once.touch()
    monkeypatch.setenv("PACSNODE_FAULT", "after-keep")
    monkeypatch.setenv("PACSNODE_FAULT_ONCE", str(once))
    faults.reach("after-keep")
    once.unlink()
    faults.reach("before-sync")
    assert not once.exists()


def test_every_fault_point_in_the_code_is_listed_and_the_other_way_round() -> None:
    """A test that names a point cannot miss it by a typing error."""
    text = "\n".join(
        p.read_text() for p in Path(faults.__file__).parent.rglob("*.py") if p.name != "faults.py"
    )
    assert set(re.findall(r"faults\.reach\(\"([^\"]+)\"\)", text)) == set(faults.POINTS)

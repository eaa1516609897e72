"""Claims about conversations nobody would hold: whatever is said, `fuzz_house` finds nothing that must not be."""

from __future__ import annotations

import json
import os
import random
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peers import wait_for
from pynetdicom import _config
from pynetdicom.sop_class import CTImageStorage, Verification
from receive.conversations import ABORT, conversations, findings
from receive.fuzz_house import Arena, Size, arena, mutate, offered_objects
from receive.fuzz_receive import CUTS, ROOMS
from receive.scripted_peer import ECHO, EXPLICIT, FIND, RELEASE, STORE, associate_pdu, pdu, pdv, request

from node.receive.listener import configure

pytestmark = [
    pytest.mark.filterwarnings("ignore:Invalid value for VR UI:UserWarning"),  # meant: illegal UIDs
    pytest.mark.filterwarnings("ignore:The value length .* exceeds:UserWarning"),
]
SECONDS = float(os.environ.get("PACSNODE_FUZZ_SECONDS", "600"))


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    """Give a receiver that is told conversations, and says nothing itself."""
    before = (_config.LOG_HANDLER_LEVEL, _config.UNRESTRICTED_STORAGE_SERVICE, _config.VALIDATORS["UI"])
    configure()
    structlog.configure(processors=[_drop])
    with arena(tmp_path_factory.mktemp("arena")) as made:
        made.judge(b"", made.tell(b""))
        yield made
    structlog.reset_defaults()
    _config.LOG_HANDLER_LEVEL, _config.UNRESTRICTED_STORAGE_SERVICE, _config.VALIDATORS["UI"] = before


def _drop(*_: object) -> str:
    raise structlog.DropEvent


ALL = {**conversations(), **findings()}


@pytest.mark.parametrize("cuts", CUTS, ids=str)
def test_every_conversation_ends_well_however_it_is_cut(told: Arena, cuts: tuple[int, ...]) -> None:
    """The corpus, and what was once found, read in pieces of many sizes: byte by byte, and at once."""
    for name, stream in ALL.items():
        heard = told.tell(stream, cuts)
        try:
            told.judge(stream, heard)
        except AssertionError as error:
            pytest.fail(f"{name}: {error}")


def test_the_cut_changes_nothing(told: Arena) -> None:
    """What is answered and kept depends on the bytes alone."""
    for name, stream in ALL.items():
        whole = told.tell(stream)
        for cuts in CUTS[1:]:
            again = told.tell(stream, cuts)
            assert (again.answers, again.kept) == (whole.answers, whole.kept), name


WELL_SAID = {
    "one object": 1, "three objects": 3, "command in bytes": 1, "long object": 1, "no dataset": 1, "echo": 1,
    "move originator": 1, "private": 1, "cancel": 1, "small answers": 1, "no room for answers": 1, "many contexts": 1,
    "user identity": 1, "role selection": 1, "extended negotiation": 1, "common extended negotiation": 1,
    "asynchronous operations": 1, "long version": 1, "unknown item": 1, "too long an object": 1,
}  # fmt: skip


def test_what_is_well_said_is_kept(told: Arena) -> None:
    """Every object of a conversation that breaks no rule, or none that matters, is kept."""
    spoken = conversations()
    assert {name: len(told.tell(spoken[name]).kept) for name in WELL_SAID} == WELL_SAID


def test_a_disk_without_room_keeps_nothing_and_owes_no_end(told: Arena) -> None:
    """What does not fit is A700, and what fits is kept, whatever came before it."""
    spoken = conversations()["three objects"]
    assert [len(told.tell(spoken, room=room).kept) for room in (0, 1000, 1 << 40)] == [0, 1, 3]


def test_the_judge_sees_what_was_offered() -> None:
    """The second opinion finds each whole object of the corpus, so agreement with it says something."""
    found = {name: list(offered_objects(stream)) for name, stream in conversations().items()}
    assert found["three objects"] == [b"data"] * 3
    assert found["command in bytes"] == [b"data"]
    assert found["long object"] == [bytes(27_000)]
    assert found["object and silence"] == found["nothing"] == []


def test_mutated_conversations_break_nothing(told: Arena) -> None:
    """Five hundred of them, always the same: no error, no half object, no thread or descriptor left."""
    chance, pool = random.Random(5), list(ALL.values())
    before = Size.now()
    for _ in range(500):
        stream = mutate(chance.choice(pool), pool, chance)
        told.judge(stream, told.tell(stream, chance.choice(CUTS), chance.choice(ROOMS)))
    after = Size.now()
    assert (after.descriptors, after.threads) == (before.descriptors, before.threads)
    assert after.kilobytes - before.kilobytes < 64 * 1024


# --- conversations out of parts ---------------------------------------------------------------------------

CONTEXTS = ((1, CTImageStorage, (EXPLICIT,)), (3, Verification, (EXPLICIT,)), (5, "1.2.3.4.5", ("1.2.3",)))
numbers = st.sampled_from([1, 1, 1, 1, 3, 5, 7, 0])


@st.composite
def fragments(draw: st.DrawFn, content: bytes, kind: int, context: int) -> list[bytes]:
    """Cut *content* into fragments; the last says so, mostly."""
    places = sorted(draw(st.lists(st.integers(0, len(content)), max_size=4)))
    edges = [0, *places, len(content)]
    ends = 2 if draw(st.integers(0, 9)) else 0
    return [
        pdv(kind | (ends if i == len(edges) - 2 else 0), content[edges[i] : edges[i + 1]], context)
        for i in range(len(edges) - 1)
    ]


@st.composite
def messages(draw: st.DrawFn) -> list[bytes]:
    """Give the fragments of one message; its dataset may be missing, or come unasked."""
    context, field = draw(numbers), draw(st.sampled_from([STORE, STORE, STORE, ECHO, FIND, 0x8001, 0xFFFF]))
    has_dataset = field != ECHO if draw(st.integers(0, 9)) else field == ECHO
    command = request(field, draw(st.integers(0, 0xFFFF)), b"1.2.3\0", has_dataset)
    found: list[bytes] = draw(fragments(command, 1, context))
    if has_dataset or not draw(st.integers(0, 9)):
        found += draw(fragments(draw(st.binary(max_size=300)), 0, context))
    return found


@st.composite
def talk(draw: st.DrawFn) -> bytes:
    """Give a conversation: a request, messages packed into PDUs in any way, strange things, an end."""
    stream = associate_pdu(CONTEXTS, most=draw(st.sampled_from([0, 1, 6, 7, 40, 16384, 0xFFFFFFFF])))
    pending: list[bytes] = []
    for _ in range(draw(st.integers(0, 6))):
        pending += draw(messages())
        if draw(st.booleans()):
            stream, pending = stream + pdu(*pending), []
        elif pending:
            stream += b"".join(pdu(one) for one in pending)
            pending = []
        if not draw(st.integers(0, 7)):
            stream += draw(strange)
    return stream + draw(st.sampled_from([RELEASE, RELEASE, ABORT, b""]))


strange = st.one_of(
    st.binary(max_size=60),
    st.builds(
        lambda kind, length, data: struct.pack(">BBI", kind, 0, length) + data,
        st.integers(0, 9), st.sampled_from([0, 1, 4, 12, 131072, 131073, 0xFFFFFFFF]), st.binary(max_size=20),
    ),
    st.builds(
        lambda length, data: struct.pack(">BBIIBB", 4, 0, len(data) + 6, length, 1, 3) + data,
        st.sampled_from([0, 1, 2, 3, 0x7FFFFFFF, 0xFFFFFFFC]), st.binary(max_size=20),
    ),
)  # fmt: skip


@settings(
    max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(stream=talk(), cuts=st.lists(st.integers(1, 200), max_size=4), room=st.sampled_from(ROOMS))
def test_conversations_out_of_parts_break_nothing(
    told: Arena, stream: bytes, cuts: list[int], room: int
) -> None:
    """Messages cut and packed in every way, on a disk with little room: as `fuzz_house` demands."""
    told.judge(stream, told.tell(stream, cuts, room))


@pytest.mark.soak
@pytest.mark.parametrize("engine", ["atheris", "chance"])
def test_minutes_of_fuzzing_find_nothing(
    tmp_path: Path, table: Callable[[str, list[str]], None], engine: str
) -> None:
    """`fuzz_receive.py` for PACSNODE_FUZZ_SECONDS: no crash, no hang, no growth; figures are printed."""
    if engine == "atheris":
        pytest.importorskip("atheris")
    report, found = tmp_path / "report.json", tmp_path / "found.hex"
    program = Path(__file__).with_name("fuzz_receive.py")
    done = subprocess.run(
        [sys.executable, str(program), "--engine", engine, "--seconds", str(SECONDS),
         "--report", str(report), "--found", str(found)],
        capture_output=True, text=True, check=False, timeout=SECONDS + 300, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stderr[-2000:]}\n{found.read_text() if found.exists() else ''}"
    wait_for(report.exists, "the report")
    figures = json.loads(report.read_text())
    assert figures["executions"] > 10 * min(SECONDS, 600)
    table(f"fuzzing reception, {engine}", [f"{key} {value}" for key, value in figures.items()])

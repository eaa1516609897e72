"""Claims about limits and about reading PDUs of a peer nobody trusts."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.receive.command import Elements, decode, encode, integer
from node.receive.limits import Watermark
from node.receive.messages import Messages, encode_message
from node.receive.wire import FaultError


def command(dataset: bool) -> bytes:
    """Return a command set with a Command Field and a Command Data Set Type."""
    kind = 0x0001 if dataset else 0x0101
    return struct.pack("<HHIH", 0, 0x0100, 2, 1) + struct.pack("<HHIH", 0, 0x0800, 2, kind)


def pdv(context: int, control: int, payload: bytes) -> bytes:
    """Return one fragment (PS3.8 Annex E)."""
    return struct.pack(">IBB", len(payload) + 2, context, control) + payload


class Notes:
    """A receiver that writes down what it is given."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def begin(self, context: int, command: Elements) -> None:
        """A command came."""
        self.seen.append(f"begin {context} {sorted(command)}")

    def write(self, fragment: memoryview) -> None:
        """A fragment came."""
        self.seen.append(bytes(fragment).decode())

    def end(self) -> None:
        """A message is over."""
        self.seen.append("end")


COMMAND, LAST = 1, 2


def test_the_watermark_asks_at_most_once_a_second(tmp_path: Path) -> None:
    """A full disk is noticed within a second, and asking costs nothing in between."""
    now = [0.0]
    never, always = (Watermark(tmp_path, share, lambda: now[0]) for share in (1.01, 0.0))
    assert (never.is_full(), always.is_full()) == (False, True)
    gone = Watermark(tmp_path / "gone", 0.5, lambda: now[0])
    with pytest.raises(FileNotFoundError):
        gone.is_full()
    (tmp_path / "gone").mkdir()
    gone.is_full()
    (tmp_path / "gone").rmdir()
    now[0] = 0.9
    gone.is_full()
    now[0] = 1.0
    with pytest.raises(FileNotFoundError):
        gone.is_full()


def test_well_formed_messages_are_handed_on_however_they_are_cut() -> None:
    """Split commands, one-byte fragments and several messages in one PDU are all legal."""
    notes = Notes()
    messages = Messages(notes)
    whole = command(dataset=True)
    for body in (pdv(1, COMMAND, whole[:5]), pdv(1, COMMAND, whole[5:7])):
        messages.take(memoryview(body))
    assert (messages.in_hand, notes.seen) == (True, [])
    messages.take(memoryview(pdv(1, COMMAND | LAST, whole[7:]) + pdv(1, 0, b"x")))
    messages.take(memoryview(pdv(1, 0, b"y") * 2))
    assert messages.in_hand
    messages.take(memoryview(pdv(1, LAST, b"z") + pdv(3, COMMAND | LAST, command(dataset=False))))
    assert not messages.in_hand
    begun = str([0x0100, 0x0800])
    assert notes.seen == [f"begin 1 {begun}", "x", "y", "y", "z", "end", f"begin 3 {begun}", "end"]


@pytest.mark.parametrize(
    ("bodies", "fault"),
    [
        ([b""], "without a fragment"),
        ([b"\0\0\0\1"], "without its header"),
        ([struct.pack(">IBB", 1, 1, 3)], "a fragment of 1 bytes"),
        ([struct.pack(">IBB", 0xFFFFFFFC, 1, 3) + b"abc"], "a fragment of 4294967292 bytes"),
        ([pdv(1, LAST, b"data")], "without its command"),
        ([pdv(1, COMMAND | LAST, command(True)), pdv(3, LAST, b"data")], "two presentation contexts"),
        ([pdv(1, COMMAND | LAST, command(True)), pdv(1, 0, b"d"), pdv(1, COMMAND, b"c")], "inside a dataset"),
        ([pdv(1, COMMAND | LAST, command(False)), pdv(1, LAST, b"data")], "without its command"),
        ([pdv(1, COMMAND | LAST, b"\0" * 7)], "without Command Data Set Type"),
        ([pdv(1, COMMAND, b"\0" * 60000)] * 2, "longer than 64 KiB"),
    ],
)
def test_broken_fragments_are_named(bodies: list[bytes], fault: str) -> None:
    """Each violation of PS3.8 Annex E is found before any of it is buffered further."""
    messages = Messages(Notes())
    for body in bodies[:-1]:
        messages.take(memoryview(body))
    with pytest.raises(FaultError, match=fault):
        messages.take(memoryview(bodies[-1]))


def test_a_command_that_lies_about_its_lengths_loses_those_elements() -> None:
    """A length past the end, or an empty value, ends the search instead of reading beyond."""
    lie = struct.pack("<HHI", 0, 0x0002, 0xFFFFFFFF) + command(True)
    assert decode(lie) == {}
    assert integer(decode(struct.pack("<HHI", 0, 0x0800, 0)), 0x0800) is None
    assert integer(decode(struct.pack("<HHI", 0, 0x0800, 2)), 0x0800) is None
    assert integer(decode(command(True)), 0x0800) == 1


@given(
    st.dictionaries(st.integers(1, 0xFFFF), st.binary(max_size=40)),
    st.binary(max_size=300),
    st.sampled_from([0, 3, 7, 16, 100, 16384]),
)
def test_a_message_comes_back_whole_from_pdus_of_any_size(
    elements: dict[int, bytes], dataset: bytes, most: int
) -> None:
    """What is encoded for a peer's maximum length keeps to it and is decoded to the same, evenly padded."""
    elements[0x0800] = struct.pack("<H", 1 if dataset else 0x0101)
    stream, bodies = encode_message(5, encode(elements), dataset, most), []
    while stream:
        kind, _, length = struct.unpack_from(">BBI", stream)
        assert kind == 4
        assert length <= most or most < 7
        bodies.append(stream[6 : 6 + length])
        stream = stream[6 + length :]
    found: list[Elements] = []
    data = bytearray()

    class Whole(Notes):
        def begin(self, context: int, command: Elements) -> None:
            """A command came."""
            assert context == 5
            found.append(command)

        def write(self, fragment: memoryview) -> None:
            """A fragment came."""
            data.extend(fragment)

    messages = Messages(Whole())
    for body in bodies:
        messages.take(memoryview(body))
    assert not messages.in_hand
    assert found == [{number: value + b"\0" * (len(value) % 2) for number, value in elements.items()}]
    assert bytes(data) == dataset


@given(st.binary(max_size=400))
def test_no_bytes_break_the_reader_of_fragments(body: bytes) -> None:
    """Whatever a P-DATA-TF holds, it is handed on or named as a fault."""
    messages = Messages(Notes())
    with contextlib.suppress(FaultError, UnicodeDecodeError):  # the notes are text
        messages.take(memoryview(body))

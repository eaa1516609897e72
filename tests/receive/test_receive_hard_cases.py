"""Claims about associations that are hard to serve: each is taken, refused or ended as the standard says."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pydicom
import pytest
import structlog
from peers import need, wait_for
from pynetdicom.sop_class import CTImageStorage, MRImageStorage, Verification
from receive.conversations import ABORT
from receive.receive_house import Node, Process, associate, kept_dataset, node, process
from receive.scripted_peer import (
    ECHO,
    EXPLICIT,
    RELEASE,
    STATUS,
    STORE,
    accepted,
    associate_pdu,
    dataset_pdu,
    item,
    pdu,
    pdv,
    raw,
    read_command,
    read_pdu,
    request,
    request_pdu,
    store_pdu,
    user_items,
)

from node.ops import log as logging
from node.receive.limits import Pace
from node.store.files import read_arrival, records_after

__all__ = ["node", "process"]

HELD = {
    # as many contexts as there can be; contexts of even numbers, or of the same
    1: ["test_as_many_contexts_as_there_can_be_are_all_answered"],
    2: ["test_contexts_that_break_the_rules_end_in_an_abort"],
    # lengths: of 4 GiB, more than was announced, of fragments
    3: ["test_a_length_of_4_gib_is_aborted_and_not_buffered", "test_an_announced_length_is_not_buffered"],
    4: [
        "test_fragments_that_cannot_be_end_in_an_abort",
        "test_a_broken_pdu_is_answered_with_an_abort_at_once",
    ],
    5: ["test_fragments_that_cannot_be_end_in_an_abort", "test_broken_fragments_are_named"],
    # fragments: packed, tiny, out of order
    6: ["test_a_message_may_begin_in_the_pdu_that_ends_another"],
    7: [
        "test_tiny_fragments_are_stored_and_cost_no_more_than_their_number",
        "test_a_command_may_come_byte_by_byte",
        "test_fragments_of_nothing_do_not_go_on_for_ever",
    ],
    8: ["test_fragments_that_cannot_be_end_in_an_abort", "test_what_may_not_come_now_ends_the_association"],
    # commands that lack what they need
    9: [
        "test_a_command_that_makes_no_sense_is_answered_or_aborted",
        "test_a_command_nobody_can_answer_ends_the_association",
    ],
    # silence, drips, other protocols
    10: [
        "test_a_silent_peer_is_closed_by_a_deadline",
        "test_the_limit_counts_associations_and_not_idle_connections",
    ],
    11: [
        "test_two_hundred_dripping_connections_hold_up_nobody",
        "test_an_object_that_drips_is_aborted_and_leaves_nothing",
        "test_a_pause_within_a_message_is_shorter_than_one_between_two",
    ],
    12: ["test_another_protocol_is_closed_with_one_line"],
    # TLS: who says nothing, who cannot prove who it is
    13: ["test_an_idle_connection_holds_up_nobody", "test_a_client_that_never_begins_its_handshake"],
    14: ["test_tls_1_0_and_1_1_are_refused", "test_who_cannot_prove_who_it_is_is_refused"],
    # ends: in the middle of an object, releases that cross
    15: ["test_an_object_cut_short_is_never_visible", "test_an_object_that_never_ended_leaves_nothing"],
    16: [
        "test_a_release_is_answered_once_and_behind_all_that_came_before",
        "test_a_release_we_never_asked_for_is_an_abort",
    ],
    # titles: padded, blank, of another case, hostile
    17: ["test_titles_are_compared_without_their_spaces_and_with_their_case"],
    18: ["test_hostile_titles_never_become_more_than_text"],
    # UIDs: paths, too long, none; not those of the dataset; missing in it
    19: ["test_an_illegal_instance_uid_is_kept_and_never_becomes_a_name", "test_uids_are_kept_as_sent"],
    20: [
        "test_an_object_that_contradicts_its_command_is_kept",
        "test_a_known_uid_in_another_series_is_a_conflict",
    ],
    21: ["test_an_object_without_identity_is_kept", "test_an_object_without_a_series_is_kept_and_routed"],
    # classes, transfer syntaxes, and how often one is offered
    22: ["test_private_and_unknown_classes_and_syntaxes_are_kept_as_sent"],
    23: [
        "test_what_dcmtk_sends_is_kept_byte_for_byte",
        "test_a_bomb_is_kept_as_small_as_it_is",
        "test_a_deflated_bomb_is_stopped",
    ],
    24: [
        "test_what_dcmtk_sends_is_kept_byte_for_byte",
        "test_the_same_object_says_the_same_in_every_uncompressed_syntax",
    ],
    25: ["test_encapsulated_objects_are_taken_without_transcoding"],
    26: ["test_the_syntax_that_was_chosen_is_recorded"],
    # datasets: odd, deep, endless, enormous
    27: ["test_odd_datasets_are_kept_byte_for_byte", "test_a_damaged_object_never_raises"],
    28: ["test_odd_datasets_are_kept_byte_for_byte", "test_deep_nesting_is_unreadable_at_worst"],
    29: ["test_five_gigabytes_are_never_held_in_memory", "test_an_object_is_never_held_in_memory"],
    # several at once
    30: ["test_two_receivers_share_one_socket_and_lose_nothing"],
    31: [
        "test_one_object_from_two_peers_at_once_is_kept_twice_and_whole",
        "test_a_duplicate_is_counted_and_its_file_let_go",
        "test_other_pixels_under_a_known_uid_are_kept_aside",
    ],
    # what the peer takes, asks for, and says in between
    39: ["test_an_answer_fits_what_the_peer_takes", "test_an_answer_keeps_to_the_length_that_the_peer_takes"],
    40: [
        "test_further_negotiation_is_answered_validly",
        "test_pipelined_objects_are_all_stored_and_held_back_by_tcp",
    ],
    43: [
        "test_an_object_of_a_move_is_kept_and_others_may_come_between",
        "test_a_request_that_nothing_here_serves_is_answered_so",
        "test_a_cancel_of_what_is_answered_is_passed_over",
        "test_an_echo_between_objects_is_answered_in_its_turn",
    ],
    44: [
        "test_further_negotiation_is_answered_validly",
        "test_user_information_that_cannot_be_read_is_passed_over",
    ],
    # clocks, signals, networks
    45: [
        "test_a_clock_that_jumps_ends_no_association",
        "test_a_stop_under_load_loses_nothing_that_was_acknowledged",
    ],
    47: ["test_over_ipv6_as_over_ipv4", "test_a_thousand_probes_leave_nothing_behind"],
}
"""The hard cases of reception, by their numbers, and the tests that hold them."""


def test_every_hard_case_is_held() -> None:
    """Each test that the table names is there."""
    sources = "".join(path.read_text("utf-8") for path in Path(__file__).parents[1].rglob("test_*.py"))
    named = {name for names in HELD.values() for name in names}
    assert sorted(name for name in named if f"def {name}(" not in sources) == []


ONE = pdu(pdv(3, request(STORE)), pdv(2, b"data"))


def status_of_one(connection: socket.socket) -> bytes:
    """Send one small object; return the status."""
    connection.sendall(ONE)
    return read_command(connection)[STATUS]


# --- asking to associate ----------------------------------------------------------------------------------


def test_as_many_contexts_as_there_can_be_are_all_answered(
    node: Callable[..., Node], table: Callable[[str, list[str]], None]
) -> None:
    """128 contexts with 20 transfer syntaxes: each odd number to 255 is answered, in the syntax proposed first."""
    receiver = node()
    syntaxes = [EXPLICIT, *(f"1.2.840.10008.1.2.4.{50 + i}" for i in range(19))]
    asked = associate_pdu([(2 * i + 1, CTImageStorage, syntaxes) for i in range(128)])
    times = []
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", receiver.port)) as connection:
            before = time.monotonic()
            connection.sendall(asked)
            kind, body = read_pdu(connection)
            times.append(time.monotonic() - before)
            assert kind == 2
            assert accepted(body) == dict.fromkeys(range(1, 256, 2), (0, EXPLICIT))
    assert min(times) < 2
    connection = raw(receiver, asked)
    connection.sendall(pdu(pdv(3, request(STORE), 255), pdv(2, b"data", 255)))
    assert read_command(connection)[STATUS] == b"\0\0"
    table("associations with 128 contexts of 20 transfer syntaxes", [f"{1000 * min(times):.0f} ms"])


@pytest.mark.parametrize(
    "contexts",
    [
        [(2, CTImageStorage, (EXPLICIT,)), (1, CTImageStorage, (EXPLICIT,))],
        [(0, CTImageStorage, (EXPLICIT,))],
        [(1, CTImageStorage, (EXPLICIT,)), (1, CTImageStorage, ("1.2.840.10008.1.2",))],
        [((2 * i + 1) % 256, CTImageStorage, (EXPLICIT,)) for i in range(130)],
        [(1, CTImageStorage, ())],
    ],
    ids=["even", "zero", "the same twice", "130", "no transfer syntax"],
)
def test_contexts_that_break_the_rules_end_in_an_abort(
    node: Callable[..., Node], contexts: list[tuple[int, str, tuple[str, ...]]]
) -> None:
    """Nobody could tell in which syntax an object came: A-ABORT; no place is taken, and the next is served."""
    receiver = node()
    with socket.create_connection(("127.0.0.1", receiver.port)) as connection:
        connection.sendall(associate_pdu(contexts))
        assert read_pdu(connection)[0] == 7
    wait_for(receiver.idle, "the end", 5)
    assert receiver.listener.desk.census.total() == 0
    assert status_of_one(raw(receiver)) == b"\0\0"


def test_a_class_nobody_stores_is_refused_alone(node: Callable[..., Node]) -> None:
    """Query and worklist are refused as not supported (result 3); the storage beside them is accepted."""
    find = "1.2.840.10008.5.1.4.1.2.2.1"
    connection = socket.create_connection(("127.0.0.1", node().port))
    connection.sendall(associate_pdu([(1, find, (EXPLICIT,)), (3, CTImageStorage, (EXPLICIT,))]))
    kind, body = read_pdu(connection)
    assert kind == 2
    assert {number: result for number, (result, _) in accepted(body).items()} == {1: 3, 3: 0}


def test_a_stranger_is_told_so_before_its_proposal_is_read(node: Callable[..., Node]) -> None:
    """What follows the titles may be anything: A-ASSOCIATE-RJ, and the decoder never sees it."""
    receiver = node()
    nonsense = item(0x20, b"\2\0\0\0" + item(0x99, b"?" * 200)) * 100
    for known, kind in ((b"NOBODY", 3), (b"CT01", 7)):
        whole = associate_pdu(calling=known)
        body = whole[6:] + nonsense
        with socket.create_connection(("127.0.0.1", receiver.port)) as connection:
            connection.sendall(struct.pack(">BBI", 1, 0, len(body)) + body)
            assert read_pdu(connection)[0] == kind


NAME = struct.pack(">H", len(CTImageStorage)) + CTImageStorage.encode()
IDENTITY = {
    kind: item(0x58, struct.pack(">BBH", kind, 1, 4) + b"user" + struct.pack(">H", 4) + b"pass")
    for kind in range(1, 6)
}
FURTHER = {
    **{f"identity of type {kind}": given for kind, given in IDENTITY.items()},
    "role of a user": item(0x54, NAME + b"\1\0"),
    "role of a provider": item(0x54, NAME + b"\0\1"),
    "either role": item(0x54, NAME + b"\1\1"),
    "extended negotiation": item(0x56, NAME + b"\2\1\0\1\0\0"),
    "common extended negotiation": item(0x57, NAME + NAME + struct.pack(">H", len(NAME)) + NAME),
    "no limit of asynchronous operations": item(0x53, bytes(4)),
    "nine asynchronous operations": item(0x53, struct.pack(">HH", 9, 9)),
    "a version name": item(0x55, b"SCANNER_1"),
}


@pytest.mark.parametrize("name", FURTHER)
def test_further_negotiation_is_answered_validly(node: Callable[..., Node], name: str) -> None:
    """Roles are answered with no more than was asked, a window with 1 and 1 or not at all, identities not at all."""
    receiver = node()
    connection = socket.create_connection(("127.0.0.1", receiver.port))
    connection.sendall(associate_pdu(further=FURTHER[name]))
    kind, body = read_pdu(connection)
    assert kind == 2
    assert accepted(body) == {1: (0, EXPLICIT)}
    answered = user_items(body)
    assert set(answered) <= {0x51, 0x52, 0x53, 0x54, 0x55}
    assert answered.get(0x53, [b"\0\1\0\1"]) == [b"\0\1\0\1"]  # left out means the same (PS3.7 D.3.3.3)
    for role in answered.get(0x54, []):
        proposed = FURTHER[name][4:]
        assert role[:-2] == proposed[:-2]
        assert all(ours <= theirs for ours, theirs in zip(role[-2:], proposed[-2:], strict=True))
    assert status_of_one(connection) == b"\0\0"


@pytest.mark.parametrize(
    "further",
    [
        item(0x55, b"V" * 17),
        item(0x55, b""),
        item(0x55, b"V" * 60_000),
        item(0x55, b"\xff\0\r\n"),
        item(0x5F, b"of a later edition"),
        item(0x53, b"\0"),
        item(0x54, NAME + b"\7\7"),
        item(0x58, struct.pack(">BBH", 9, 1, 4) + b"user" + struct.pack(">H", 4) + b"pass"),
        item(0x58, struct.pack(">BBH", 2, 1, 400) + b"user"),
        item(0x57, b"\xff\xff"),
        item(0x56, b"\xff\xff1"),
    ],
    ids=lambda further: f"{further[0]:02x}, {len(further)} bytes",
)
def test_user_information_that_cannot_be_read_is_passed_over(
    node: Callable[..., Node], further: bytes
) -> None:
    """A version name too long, a lying length inside, an item of a later edition: the object is stored all the same."""
    receiver = node()
    valid = item(0x54, NAME + b"\1\1")
    connection = socket.create_connection(("127.0.0.1", receiver.port))
    connection.sendall(associate_pdu(further=further + valid))
    kind, body = read_pdu(connection)
    assert kind == 2
    assert user_items(body)[0x54] == [NAME + b"\1\1"], "what can be read beside it counts"
    assert status_of_one(connection) == b"\0\0"


@pytest.mark.parametrize("extra", [1, 400, 65_000])
def test_an_item_that_goes_on_behind_the_end_is_an_abort(node: Callable[..., Node], extra: int) -> None:
    """Items that lie about their lengths make the whole request unreadable."""
    receiver = node()
    with socket.create_connection(("127.0.0.1", receiver.port)) as connection:
        connection.sendall(associate_pdu(further=item(0x53, b"\0\1\0\1", length=4 + extra)))
        assert read_pdu(connection)[0] == 7
    wait_for(receiver.idle, "the end", 5)


# --- titles -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("calling", "called", "answer"),
    [
        (b"CT01            ", b"PACSNODE        ", (2,)),
        (b"  CT01", b" PACSNODE ", (2,)),
        (b"CT01", b" " * 16, (3, 1, 1, 7)),
        (b"CT01", b"pacsnode", (3, 1, 1, 7)),
        (b"ct01", b"PACSNODE", (3, 1, 1, 3)),
        (b" " * 16, b"PACSNODE", (3, 1, 1, 3)),
        (b"CT01\0", b"PACSNODE", (3, 1, 1, 3)),
        (b"CT01", b"PACSNODE\0\0\0", (3, 1, 1, 7)),
        (b"CT\xd601", b"PACSNODE", (3, 1, 1, 3)),
        (b"CT01", b"PACS\xffNODE", (3, 1, 1, 7)),
    ],
)
def test_titles_are_compared_without_their_spaces_and_with_their_case(
    node: Callable[..., Node], calling: bytes, called: bytes, answer: tuple[int, ...]
) -> None:
    """Padding does not count (PS3.5 6.2); whatever else differs is rejected with the reason that fits."""
    with socket.create_connection(("127.0.0.1", node().port)) as connection:
        connection.sendall(associate_pdu(calling=calling, called=called))
        kind, body = read_pdu(connection)
    assert (kind, *(body[1:4] if kind == 3 else ())) == answer


HOSTILE = [
    b"../../../x", b"/etc/x", b"..", b"%s%n%x", b"{0}{peer}", b"$(reboot)", b"`id`;id|id", b"a b&c'\"",
    b"A\\B", b"A\0B", b"A\nB: x", b"\x1b[31mred", b"\xe4\xf6\xfc\xff", b"\x7f\x80\x85",
]  # fmt: skip


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """Give the log as the receiver writes it."""
    stream = io.StringIO()
    logging.configure("receiver", stream)
    yield stream
    structlog.reset_defaults()


@pytest.mark.parametrize("title", HOSTILE)
def test_hostile_titles_never_become_more_than_text(
    node: Callable[..., Node], written: io.StringIO, title: bytes
) -> None:
    """As a stranger's name or as ours: no path, no format, no line of its own; what is kept names it readably."""
    receiver = node(strangers=True)
    with socket.create_connection(("127.0.0.1", receiver.port)) as connection:
        connection.sendall(associate_pdu(called=title))
        assert read_pdu(connection)[0] == 3
    with socket.create_connection(("127.0.0.1", receiver.port)) as connection:
        connection.sendall(associate_pdu(calling=title))
        kind, _ = read_pdu(connection)
        legal = all(32 <= byte < 127 for byte in title) and b"\\" not in title
        assert kind == (2 if legal else 3)
        if kind == 2:
            assert status_of_one(connection) == b"\0\0"
            connection.sendall(RELEASE)
            assert read_pdu(connection)[0] == 6
    wait_for(receiver.idle, "the end", 5)
    lines = written.getvalue().splitlines()
    assert [json.loads(line)["event"] for line in lines][:1] == ["association_rejected"]
    assert all(line.isprintable() for line in lines)
    places = sorted(str(path.relative_to(receiver.data)) for path in receiver.data.rglob("*"))
    assert all(set(place) <= set("objects/0123456789.dcmenalive") for place in places), places
    for path in receiver.objects():
        meta = pydicom.dcmread(path, force=True).file_meta
        assert meta[0x0002, 0x0016].value == title.decode()
        assert read_arrival(path)[0].peer == title.decode()


# --- PDUs and fragments -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [1, 4])
def test_a_length_of_4_gib_is_aborted_and_not_buffered(process: Process, kind: int) -> None:
    """The receiver does not grow by 2 MB, whoever announces it, and A-ABORT comes within a second."""
    status_of_one(raw(process))
    before = process.memory("VmHWM")
    connection = raw(process) if kind == 4 else socket.create_connection(("127.0.0.1", process.port))
    begun = time.monotonic()
    connection.sendall(struct.pack(">BBI", kind, 0, 0xFFFFFFFF))
    with contextlib.suppress(OSError):
        for _ in range(200):
            connection.sendall(bytes(100_000))
    assert read_pdu(connection)[0] in (7, 0)  # 0: a reset, for what was sent in vain
    assert time.monotonic() - begun < 5
    assert process.memory("VmHWM") - before < 2048


FRAGMENTS = {
    "of 0 bytes": struct.pack(">IBB", 0, 1, 3),
    "of 1 byte": struct.pack(">IBB", 1, 1, 3),
    "longer than the PDU": struct.pack(">IBB", 100, 1, 3) + b"short",
    "of nearly 4 GiB": struct.pack(">IBB", 0xFFFFFFFC, 1, 3) + bytes(10),
    "one without its header": pdv(1, request(STORE)) + b"\0\0\0\7\1",
    "data on another context": pdv(3, request(STORE)) + pdv(2, b"data", 3),
    "data on a context nobody proposed": pdv(3, request(STORE)) + pdv(2, b"data", 77),
    "a command on a context nobody proposed": pdv(3, request(STORE), 77) + pdv(2, b"data", 77),
    "data before its command": pdv(2, b"data"),
    "a command within a dataset": pdv(3, request(STORE)) + pdv(0, b"da") + pdv(3, request(STORE)),
    "more data behind the last": pdv(3, request(STORE)) + pdv(2, b"data") + pdv(2, b"more"),
    "none at all": b"",
    "a command of 70 kB": pdv(1, bytes(70_000)),
    "more than was announced": pdv(3, request(STORE)) + pdv(0, bytes(131_072)),
}
TWO_CONTEXTS = associate_pdu(((1, CTImageStorage, (EXPLICIT,)), (3, MRImageStorage, (EXPLICIT,))))


@pytest.mark.parametrize("name", FRAGMENTS)
def test_fragments_that_cannot_be_end_in_an_abort(node: Callable[..., Node], name: str) -> None:
    """PS3.8 Annex E: A-ABORT; what was whole before is kept, nothing else; no thread and no place is left."""
    receiver = node()
    threads = threading.active_count()
    connection = raw(receiver, TWO_CONTEXTS)
    assert status_of_one(connection) == b"\0\0"
    body = FRAGMENTS[name]
    connection.sendall(struct.pack(">BBI", 4, 0, len(body)) + body)
    kind = read_pdu(connection)[0]
    whole = name == "more data behind the last"
    if whole:
        assert kind == 4
        kind = read_pdu(connection)[0]
    assert kind == 7
    connection.close()
    wait_for(receiver.idle, "the end", 5)
    wait_for(lambda: threading.active_count() <= threads, "the thread to end", 5)
    assert [kept_dataset(path) for path in receiver.objects()] == [b"data"] * (2 if whole else 1)
    assert receiver.listener.desk.census.total() == 0


@pytest.mark.parametrize(
    ("command", "answers"),
    [
        (request(STORE)[12:], {4}),  # no group length: nothing here needs it
        (struct.pack("<HHII", 0, 0, 4, 0xFFFFFFFF) + request(STORE)[12:], {4}),
        (request(STORE).replace(struct.pack("<HHIH", 0, 0x100, 2, 1), b""), {7}),
        (request(0xFFFF), {7}),
        (request(0x8030), {7}),
        (request(STORE)[:-9], {4, 7}),
        (bytes(40), {7}),
        (b"\xff" * 40, {7}),
    ],
)
def test_a_command_that_makes_no_sense_is_answered_or_aborted(
    node: Callable[..., Node], command: bytes, answers: set[int]
) -> None:
    """Without a field, of none that exists, with a wrong length: an answer or A-ABORT, and no thread is left."""
    receiver = node()
    threads = threading.active_count()
    connection = raw(receiver)
    connection.sendall(pdu(pdv(3, command), pdv(2, b"data")))
    assert read_pdu(connection)[0] in answers
    connection.close()
    wait_for(receiver.idle, "the end", 5)
    wait_for(lambda: threading.active_count() <= threads, "the thread to end", 5)


def test_tiny_fragments_are_stored_and_cost_no_more_than_their_number(node: Callable[..., Node]) -> None:
    """A command in three fragments, 100 000 bytes one by one, some of nothing between them: kept, within seconds."""
    receiver = node()
    connection = raw(receiver)
    command, data = request(STORE), bytes(range(256)) * 390
    connection.sendall(pdu(pdv(1, command[:20]), pdv(1, command[20:50])) + pdu(pdv(3, command[50:])))
    pieces = [pdv(0, data[at : at + 1]) + (pdv(0, b"") if at % 1000 == 0 else b"") for at in range(len(data))]
    before = time.process_time()
    for at in range(0, len(pieces), 10_000):
        connection.sendall(pdu(*pieces[at : at + 10_000]))
    connection.sendall(dataset_pdu(b"", last=True))
    assert read_command(connection)[STATUS] == b"\0\0"
    assert time.process_time() - before < 20
    assert [kept_dataset(path) for path in receiver.objects()] == [data]


def test_fragments_of_nothing_do_not_go_on_for_ever(node: Callable[..., Node]) -> None:
    """A message of empty fragments only, one after the other at full speed, is a fault of its sender."""
    receiver = node()
    connection = raw(receiver)
    connection.sendall(pdu(pdv(3, request(STORE)), pdv(0, b"da")))
    with pytest.raises(OSError):
        for _ in range(100):
            connection.sendall(pdu(*[pdv(0, b"")] * 20_000))
    wait_for(receiver.idle, "the end", 10)
    assert receiver.objects() == []


@pytest.mark.parametrize("most", [0, 1, 6, 7, 8, 4096, 131_072, 0xFFFFFFFF])
def test_an_answer_fits_what_the_peer_takes(node: Callable[..., Node], most: int) -> None:
    """Fragments of one byte where there is room for no more; where there is room for none, any length is taken."""
    receiver = node()
    connection = raw(receiver, associate_pdu(most=most))
    connection.sendall(ONE)
    command, last = b"", False
    while not last:
        kind, body = read_pdu(connection)
        assert kind == 4
        assert len(body) <= most or most < 7
        last = bool(body[5] & 2)
        command += body[6:]
    assert struct.pack("<HHIH", 0, 0x0900, 2, 0) in command
    connection.sendall(RELEASE)
    assert read_pdu(connection)[0] == 6


# --- how it goes on, and ends -----------------------------------------------------------------------------


def test_an_object_of_a_move_is_kept_and_others_may_come_between(node: Callable[..., Node]) -> None:
    """Move Originator title and message are taken (PS3.7 9.1.1.1), and C-ECHO is answered in its turn."""
    receiver = node()
    connection = raw(
        receiver, associate_pdu(((1, CTImageStorage, (EXPLICIT,)), (3, Verification, (EXPLICIT,))))
    )
    moved = request(STORE, 9, further={0x1030: b"ELSEWHERE ", 0x1031: b"\5\0"})
    echo = request(ECHO, 10, dataset=False, further={0x0002: Verification.encode() + b"\0"})
    connection.sendall(pdu(pdv(3, moved), pdv(2, b"data")) + pdu(pdv(3, echo, 3)) + ONE)
    answers = [read_command(connection) for _ in range(3)]
    assert [answer[0x0100] for answer in answers] == [b"\1\x80", b"\x30\x80", b"\1\x80"]
    assert [answer[0x0120] for answer in answers] == [b"\x09\0", b"\x0a\0", b"\7\0"]
    assert {answer[STATUS] for answer in answers} == {b"\0\0"}
    assert len(receiver.objects()) == 2


@pytest.mark.parametrize("how", ["abort", "close", "reset"])
@pytest.mark.parametrize(
    "where", ["before its data", "in its first fragment", "in the middle", "before its last fragment"]
)
def test_an_object_cut_short_is_never_visible(node: Callable[..., Node], how: str, where: str) -> None:
    """Wherever it is cut, and however: the object before it is kept, nothing of it is, and the place is free."""
    receiver = node()
    connection = raw(receiver)
    assert status_of_one(connection) == b"\0\0"
    begin, more = pdu(pdv(3, request(STORE))), dataset_pdu(bytes(50_000))
    connection.sendall(
        {
            "before its data": begin,
            "in its first fragment": begin + more[:20_000],
            "in the middle": begin + more * 3 + more[:7],
            "before its last fragment": begin + more * 3,
        }[where]
    )
    if how == "abort" and where in ("before its data", "before its last fragment"):
        connection.sendall(ABORT)
    if how == "reset":
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
    wait_for(receiver.idle, "the end", 5)
    assert [kept_dataset(path) for path in receiver.objects()] == [b"data"]
    assert (receiver.end().objects, receiver.end().aborted) == (1, True)
    assert receiver.listener.desk.census.total() == 0


def test_a_release_is_answered_once_and_behind_all_that_came_before(node: Callable[..., Node]) -> None:
    """Pipelined behind two objects it waits for them; what follows a release is not read any more."""
    receiver = node()
    connection = raw(receiver)
    connection.sendall(ONE + ONE + RELEASE + RELEASE + ONE)
    assert [read_pdu(connection)[0] for _ in range(3)] == [4, 4, 6]
    assert read_pdu(connection)[0] == 0
    wait_for(receiver.idle, "the end", 5)
    assert (receiver.end().objects, receiver.end().aborted) == (2, False)


@pytest.mark.parametrize(
    "answer", [struct.pack(">BBII", 6, 0, 4, 0), request_pdu(), struct.pack(">BBII", 3, 0, 4, 0)]
)
def test_a_release_we_never_asked_for_is_an_abort(node: Callable[..., Node], answer: bytes) -> None:
    """We accept and never ask for release, so no two can cross (PS3.8 9.2, Sta9 to Sta12): an answer to nothing."""
    receiver = node()
    connection = raw(receiver)
    connection.sendall(answer)
    assert read_pdu(connection)[0] == 7
    wait_for(receiver.idle, "the end", 5)


def hello() -> bytes:
    """Return a TLS ClientHello."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    talking = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="pacs")
    with contextlib.suppress(ssl.SSLWantReadError):
        talking.do_handshake()
    return outgoing.read()


@pytest.mark.parametrize(
    "said", [b"GET / HTTP/1.1\r\nHost: pacs\r\n\r\n", b"SSH-2.0-x\r\n", hello(), b"\r\n\r\n\r\n"]
)
def test_another_protocol_is_closed_with_one_line(
    node: Callable[..., Node], written: io.StringIO, said: bytes
) -> None:
    """HTTP, SSH, TLS on the plain port: A-ABORT at once, one line that names the address, nothing of what was said."""
    receiver = node()
    with socket.create_connection(("127.0.0.1", receiver.port)) as connection:
        begun = time.monotonic()
        connection.sendall(said)
        assert read_pdu(connection)[0] == 7
        assert read_pdu(connection)[0] == 0
        assert time.monotonic() - begun < 5
    wait_for(receiver.idle, "the end", 5)
    lines = [json.loads(line) for line in written.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["pdu_invalid"]
    assert lines[0]["address"].startswith("127.0.0.1:")
    assert "pacs" not in written.getvalue()


# --- many of them -----------------------------------------------------------------------------------------


def test_two_hundred_dripping_connections_hold_up_nobody(
    node: Callable[..., Node], table: Callable[[str, list[str]], None]
) -> None:
    """Half drip a request, half an object: all are ended by their deadline; meanwhile an echo is answered."""
    receiver = node(associations=150, pace=Pace(negotiate=3.0, pdu=3.0))
    dripping = []
    for number in range(200):
        source = (f"127.0.0.{2 + number % 4}", 0)
        connection = socket.create_connection(("127.0.0.1", receiver.port), source_address=source)
        if number % 2:
            connection.sendall(request_pdu())
            assert read_pdu(connection)[0] == 2
        dripping.append(connection)
    slow = [store_pdu(b"slow") if number % 2 else request_pdu() for number in range(200)]
    longest, begun = 0.0, time.monotonic()
    for at in range(40):
        for connection, said in zip(dripping, slow, strict=True):
            with contextlib.suppress(OSError):
                connection.sendall(said[at : at + 1])
        if at in (2, 6):
            asked = time.monotonic()
            assoc = associate(receiver, Verification, EXPLICIT)
            assert assoc.send_c_echo().Status == 0
            assoc.release()
            longest = max(longest, time.monotonic() - asked)
        if receiver.idle():
            break
        time.sleep(0.2)
    wait_for(receiver.idle, "the end of all of them", 10)
    assert longest < 5
    table(
        "an echo while 200 connections drip",
        [f"{1000 * longest:.0f} ms", f"all ended {time.monotonic() - begun:.0f} s"],
    )
    assert receiver.objects() == []
    assert receiver.listener.desk.census.total() == 0
    for connection in dripping:
        connection.close()


def test_a_thousand_probes_leave_nothing_behind(process: Process) -> None:
    """Connections that close at once, ask and leave, or reset: threads, descriptors and memory are as before."""

    def probe(number: int) -> None:
        with socket.create_connection(("127.0.0.1", process.port)) as connection:
            if number % 4 == 1:
                connection.sendall(request_pdu())
                assert read_pdu(connection)[0] == 2
                connection.sendall(RELEASE)
                assert read_pdu(connection)[0] == 6
            if number % 4 == 2:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            if number % 4 == 3:
                connection.sendall(request_pdu()[:50])

    def held() -> tuple[int, int]:
        return len(list(Path(f"/proc/{process.pid}/fd").iterdir())), len(
            list(Path(f"/proc/{process.pid}/task").iterdir())
        )

    for number in range(200):
        probe(number)
    time.sleep(2)
    base = held()
    before = process.memory("VmRSS")
    for number in range(1000):
        probe(number)
    wait_for(lambda: held() == base, "the probes to be over", 10)
    assert process.memory("VmRSS") - before < 4096
    assert status_of_one(raw(process)) == b"\0\0"


@pytest.mark.parametrize("host", ["::1", "::"])
def test_over_ipv6_as_over_ipv4(node: Callable[..., Node], host: str) -> None:
    """IPv6 alone and both families on one socket: the address that is noted is the one that people write."""
    try:
        receiver = node(host=host)
    except OSError:
        pytest.skip("this machine has no IPv6")
    for address in ("::1", *(("127.0.0.1",) if host == "::" else ())):
        with socket.create_connection((address, receiver.port)) as connection:
            connection.sendall(request_pdu())
            assert read_pdu(connection)[0] == 2
            assert status_of_one(connection) == b"\0\0"
    noted = [read_arrival(path)[0].address.rpartition(":")[0] for path in receiver.objects()]
    assert noted == ["[::1]", "127.0.0.1"][: len(noted)]


# --- time, and the end ------------------------------------------------------------------------------------


def test_a_clock_that_jumps_ends_no_association(node: Callable[..., Node]) -> None:
    """An hour forth and two back between two fragments: nothing is late, and the time noted is what the clock said."""
    receiver = node(pace=Pace(idle=5.0, pdu=5.0, slow_after=5.0))
    now = [datetime(2026, 3, 29, 0, 59, tzinfo=UTC)]
    receiver.listener.desk.clock = lambda: now[0]
    connection = raw(receiver)
    for step in (timedelta(hours=1), timedelta(hours=-2), timedelta(hours=1)):
        connection.sendall(store_pdu(b"da"))
        wait_for(lambda: bool(list(receiver.data.rglob("*.part"))), "the part", 5)
        now[0] += step
        connection.sendall(dataset_pdu(b"ta", last=True))
        assert read_command(connection)[STATUS] == b"\0\0"
    connection.sendall(RELEASE)
    assert read_pdu(connection)[0] == 6
    assert (receiver.end().objects, receiver.end().aborted) == (3, False)
    hours = [read_arrival(path)[0].received_at.hour for path in receiver.objects()]
    assert hours == [0, 1, 23]


def test_a_stop_under_load_loses_nothing_that_was_acknowledged(process: Process) -> None:
    """SIGTERM while four peers send as fast as they can: what was answered is kept, and it is over in seconds."""
    need("sh")  # a machine without processes has no signals either
    acknowledged, lock = [0], threading.Lock()

    def send() -> None:
        connection = raw(process)
        with contextlib.suppress(OSError, AssertionError):
            while True:
                connection.sendall(pdu(pdv(3, request(STORE))) + dataset_pdu(bytes(100_000), last=True))
                if read_command(connection)[STATUS] == b"\0\0":
                    with lock:
                        acknowledged[0] += 1

    senders = [threading.Thread(target=send, daemon=True) for _ in range(4)]
    for sender in senders:
        sender.start()
    wait_for(lambda: acknowledged[0] > 50, "some objects")
    begun = time.monotonic()
    os.kill(process.pid, signal.SIGTERM)
    for sender in senders:
        sender.join(20)
    assert not any(sender.is_alive() for sender in senders)
    assert time.monotonic() - begun < 15
    records = list(records_after(process.data, 1, 0))
    kept = [record for record in records if record.is_object]
    assert acknowledged[0] <= len(kept) <= acknowledged[0] + 4
    assert all(kept_dataset(record.path) == bytes(100_000) for record in kept)
    assert not list(process.data.rglob("*.part"))

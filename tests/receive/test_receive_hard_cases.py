"""Claims about associations that are hard to serve: each is taken, refused or ended as the standard says."""

from __future__ import annotations

import io
import json
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from peers import wait_for
from pynetdicom.sop_class import CTImageStorage
from receive.receive_house import Node, node, written
from receive.scripted_peer import (
    EXPLICIT,
    RELEASE,
    STATUS,
    STORE,
    accepted,
    associate_pdu,
    item,
    pdu,
    pdv,
    raw,
    read_command,
    read_pdu,
    request,
    status_of_one,
    user_items,
)

from node.store.files import read_arrival

__all__ = ["node", "written"]

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
    12: [
        "test_another_protocol_is_closed_with_one_line",
        "test_tls_at_the_plain_port_is_closed_with_one_line",
        "test_what_is_no_tls_is_closed_with_one_line",
    ],
    # TLS: who says nothing, who cannot prove who it is
    13: ["test_an_idle_connection_holds_up_nobody", "test_a_client_that_never_begins_its_handshake"],
    14: ["test_tls_1_0_and_1_1_are_refused", "test_who_cannot_prove_who_it_is_is_refused"],
    # ends: in the middle of an object, releases that cross
    15: [
        "test_an_object_cut_short_is_never_visible",
        "test_an_object_that_never_ended_leaves_nothing",
        "test_a_small_soak",
    ],
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
    25: ["test_encapsulated_objects_are_taken_without_transcoding", "test_what_a_client_sends_is_kept"],
    26: ["test_the_syntax_that_was_chosen_is_recorded"],
    # datasets: odd, deep, endless, enormous
    27: ["test_odd_datasets_are_kept_byte_for_byte", "test_a_damaged_object_never_raises"],
    28: ["test_odd_datasets_are_kept_byte_for_byte", "test_deep_nesting_is_unreadable_at_worst"],
    29: ["test_five_gigabytes_are_never_held_in_memory", "test_an_object_is_never_held_in_memory"],
    # several at once
    30: [
        "test_a_long_series_is_one_series_over_any_number_of_associations",
        "test_two_receivers_share_one_socket_and_lose_nothing",
    ],
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
    47: [
        "test_over_ipv6_as_over_ipv4",
        "test_both_families_are_served_and_counted_by_address",
        "test_a_thousand_probes_and_a_thousand_associations_leave_everything_flat",
    ],
}
"""The hard cases of reception, by their numbers, and the tests that hold them."""


def test_every_hard_case_is_held() -> None:
    """Each test that the table names is there."""
    sources = "".join(path.read_text("utf-8") for path in Path(__file__).parents[1].rglob("test_*.py"))
    named = {name for names in HELD.values() for name in names}
    assert sorted(name for name in named if f"def {name}(" not in sources) == []


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
    wait_for(receiver.idle, "the end")
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
    wait_for(receiver.idle, "the end")


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
    wait_for(receiver.idle, "the end")
    lines = written.getvalue().splitlines()
    assert [json.loads(line)["event"] for line in lines][:1] == ["association_rejected"]
    assert all(line.isprintable() for line in lines)
    places = sorted(str(path.relative_to(receiver.data)) for path in receiver.data.rglob("*"))
    assert all(set(place) <= set("objects/0123456789.dcmenalive") for place in places), places
    for path in receiver.objects():
        meta = pydicom.dcmread(path, force=True).file_meta
        assert meta[0x0002, 0x0016].value == title.decode()
        assert read_arrival(path)[0].peer == title.decode()

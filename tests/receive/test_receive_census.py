"""Claims about the page that the receivers share: exact limits over processes, counts, last words."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from node.receive.census import BUCKETS, Census, LastWords, PeerTally
from node.receive.reasons import Kind, Reason, cause
from node.receive.wire import CommandError, EndOfStreamError, FaultError, QuietError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def page() -> Iterator[int]:
    """A page of three receivers without peers."""
    fd = Census.create(3)
    yield fd
    os.close(fd)


def receiver(page: int, slot: int, work: str) -> subprocess.Popen[str]:
    """Run *work* in a process that takes part as the receiver of *slot*, as `census`; it begins when told."""
    text = (
        "import os, signal, sys\nfrom node.receive.census import Census\n"
        f"census = Census({page}, {slot})\nprint('ready', flush=True)\nsys.stdin.readline()\n{work}"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", text], pass_fds=[page], text=True, cwd=ROOT,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    return process


def answers(processes: Sequence[subprocess.Popen[str]]) -> list[str]:
    """Tell all to begin at once; what each one prints at its end."""
    for process in processes:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    return [process.communicate(timeout=60)[0].strip() for process in processes]


def hosts_apart(page: int, count: int) -> list[str]:
    """Addresses that share no counter in this page."""
    census, found = Census(page, 0), dict[int, str]()
    for number in range(65536):
        host = f"10.1.{number // 256}.{number % 256}"
        found.setdefault(census._bucket(host), host)
        if len(found) == count:
            break
    return list(found.values())


# --- limits


def test_three_processes_admit_exactly_as_many_as_the_limit(page: int) -> None:
    """Three receivers that each try 400 times at once let in 500 of 1 200 between them, and never one more."""
    work = "print(sum(census.enter(500) is None for _ in range(400)))"
    admitted = [int(text) for text in answers([receiver(page, slot, work) for slot in range(3)])]
    assert sum(admitted) == 500
    tally = Census.tally(page)
    assert (tally.open, tally.accepted) == (500, 500)


def test_at_the_limit_a_place_that_is_freed_is_taken_once(page: int) -> None:
    """Three receivers that come and go 3 000 times at a limit of one are never inside together."""
    work = (
        "most = done = 0\n"
        "while done < 1000:\n"
        "    if census.enter(1) is None:\n"
        "        most = max(most, census.total())\n"
        "        done += 1\n"
        "        census.leave()\n"
        "print(most)"
    )
    assert answers([receiver(page, slot, work) for slot in range(3)]) == ["1", "1", "1"]
    tally = Census.tally(page)
    assert (tally.open, tally.accepted) == (0, 3000)


def test_connections_are_limited_in_all_and_by_address_over_processes(page: int) -> None:
    """50 from one address and 80 in all are let in, however many receivers they come by."""
    hosts = hosts_apart(page, 4)
    work = (
        f"got = [census.connect(host, 80, 50) for _ in range(60) for host in {hosts[:2]}]\n"
        "print(sum(one is None for one in got))"
    )
    assert sum(int(text) for text in answers([receiver(page, slot, work) for slot in range(3)])) == 80
    assert Census.tally(page).connections == 80
    one = Census(page, 0)
    assert one.connect(hosts[2], 80, 50) is Reason.CONNECTIONS
    for _ in range(50):
        one.connect(hosts[3], 1000, 50)
    assert one.connect(hosts[3], 1000, 50) is Reason.CONNECTIONS_PER_ADDRESS
    one.disconnect(hosts[3])
    assert one.connect(hosts[3], 1000, 50) is None


def test_an_address_that_shares_a_counter_is_held_up_only_by_one_that_uses_it_up(page: int) -> None:
    """Two addresses of one counter are both served until they hold together what one may hold."""
    census, seen, pair = Census(page, 0), dict[int, str](), ("", "")
    for number in range(65536):
        host = f"10.1.{number // 256}.{number % 256}"
        other = seen.setdefault(census._bucket(host), host)
        if other != host:
            pair = (other, host)
            break
    assert [census.connect(host, 100, 3) for host in (*pair, pair[0])] == [None, None, None]
    assert census.connect(pair[1], 100, 3) is Reason.CONNECTIONS_PER_ADDRESS
    census.disconnect(pair[0])
    assert census.connect(pair[1], 100, 3) is None


def test_a_receiver_that_dies_inside_the_lock_holds_up_nobody(page: int) -> None:
    """SIGKILL between reading and adding: the kernel frees the lock, and the next one is let in."""
    work = (
        "census._sum = lambda column: os.kill(os.getpid(), signal.SIGKILL)\n"  # in the middle of the step
        "census.enter(5)"
    )
    dead = receiver(page, 0, work)
    answers([dead])
    assert dead.returncode == -signal.SIGKILL
    alive = receiver(page, 1, "signal.alarm(10)\nprint(census.enter(5))")
    assert answers([alive]) == ["None"]


def test_a_receiver_that_waits_for_the_lock_goes_on_when_its_holder_dies(page: int) -> None:
    """Who holds the lock is killed while another waits for it: the other one is let in."""
    holding = receiver(
        page, 0, "with census._alone():\n    print('held', flush=True)\n    sys.stdin.readline()"
    )
    assert holding.stdin
    assert holding.stdout
    holding.stdin.write("\n")
    holding.stdin.flush()
    assert holding.stdout.readline() == "held\n"
    waiting = receiver(page, 1, "print(census.enter(5))")
    assert waiting.stdin
    waiting.stdin.write("\n")
    waiting.stdin.flush()
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(0.5)
    holding.kill()
    assert waiting.communicate(timeout=10)[0] == "None\n"
    holding.communicate()


def test_a_dead_receivers_places_and_connections_come_back(page: int) -> None:
    """The reset of a row frees what it had open, of every address, and nothing of the others' rows."""
    one, two, hosts = Census(page, 0), Census(page, 1), hosts_apart(page, 20)
    for census in (one, two):
        census.accepting()
        assert census.enter(9) is None
        for host in hosts:
            assert census.connect(host, 100, 2) is None
    assert two.connect(hosts[0], 100, 2) is Reason.CONNECTIONS_PER_ADDRESS
    Census.reset(page, 0)
    tally = Census.tally(page)
    assert (tally.open, tally.ready, tally.connections, tally.accepted) == (1, 1, 20, 2)
    assert two.total() == 1
    for host in hosts:
        assert two.connect(host, 100, 2) is None
        assert two.connect(host, 100, 2) is Reason.CONNECTIONS_PER_ADDRESS


def test_nobody_can_know_which_addresses_share_a_counter() -> None:
    """Two pages put the same addresses together differently, and most addresses have a counter to themselves."""
    hosts = [f"10.0.{i // 256}.{i % 256}" for i in range(100)]

    def buckets() -> list[int]:
        fd = Census.create(1)
        census = Census(fd, 0)
        os.close(fd)
        return [census._bucket(host) for host in hosts]

    one, other = buckets(), buckets()
    assert one != other
    assert len(set(one)) > 80
    assert max(one) < BUCKETS + min(BUCKETS, 100)


# --- counts


def test_receivers_count_what_they_do_by_peer_and_a_death_loses_no_count() -> None:
    """Rows add up over receivers; strangers are one; a reset forgets what is open and keeps what was counted."""
    peers = ("CT01", "PACS")
    fd = Census.create(2, peers)
    one, two = Census(fd, 0, peers), Census(fd, 1, peers)
    for census in (one, two):
        census.accepting()
        census.enter(10)
        census.stored("PACS", 1000, True)
    one.stored("CT01", 5, False)
    one.stored("nobody we know", 7, True)
    words = LastWords(1.0, "10.0.0.1", "X", "Y")
    for reason in Reason:
        one.count(reason, words)
    two.count(Reason.LIMIT, words)
    found = Census.tally(fd, peers)
    assert (found.open, found.ready, found.accepted) == (2, 2, 2)
    assert found.reasons == {reason: 2 if reason is Reason.LIMIT else 1 for reason in Reason}
    assert found.peers == {
        "CT01": PeerTally(0, 0, 1), "PACS": PeerTally(2, 2000, 0), "": PeerTally(1, 7, 0),
    }  # fmt: skip
    Census.reset(fd, 1, peers)
    after = Census.tally(fd, peers)
    assert (after.open, after.ready, after.accepted, after.reasons) == (1, 1, 2, found.reasons)
    assert after.peers == found.peers
    os.close(fd)


def test_who_was_refused_last_is_told_by_each_receiver_the_newest_first(page: int) -> None:
    """Long and strange titles fit, cut where they are too long; other reasons have words of their own."""
    one, two = Census(page, 0), Census(page, 2)
    assert Census.last_words(page, Reason.LIMIT) == ()
    one.count(Reason.LIMIT, LastWords(5.0, "10.0.0.1", "CT\x1b[2J\0é", "PACSNODE"))
    two.count(
        Reason.LIMIT, LastWords(6.0, "fe80::1234:5678:9abc:def0%ethernet0", "X" * 200, "\udcff", "y" * 500)
    )
    newest, older = Census.last_words(page, Reason.LIMIT)
    assert older == LastWords(5.0, "10.0.0.1", "CT\x1b[2J\0é", "PACSNODE")
    assert newest == LastWords(6.0, "fe80::1234:5678:9abc:def0%ethernet0", "X" * 35, "\\udcff", "y" * 159)
    assert Census.last_words(page, Reason.ADDRESS) == ()


def test_words_that_are_half_written_are_not_read(page: int) -> None:
    """A reader beside a writer that never rests sees whole words only, or none."""
    work = (
        "from node.receive.census import LastWords\nfrom node.receive.reasons import Reason\n"
        "for i in range(60000):\n"
        "    text = str(i % 10) * 30\n"
        "    census.count(Reason.LIMIT, LastWords(float(i), text, text, text))\n"
    )
    writer = receiver(page, 0, work)
    assert writer.stdin
    writer.stdin.write("\n")
    writer.stdin.flush()
    seen = set()
    while writer.poll() is None:
        for words in Census.last_words(page, Reason.LIMIT):
            assert len({words.calling, words.called, words.host}) == 1
            assert len(set(words.host)) == 1
            seen.add(words.at)
    assert writer.wait() == 0
    assert len(seen) > 10
    assert Census.tally(page).reasons[Reason.LIMIT] == 60000


def test_what_has_been_told_outlives_whoever_tells(page: int) -> None:
    """How much of each reason is told stands in the page, and resets of receivers leave it alone."""
    Census.note(page, Reason.LIMIT, 41)
    Census.reset(page, 0)
    assert Census.noted(page)[Reason.LIMIT] == 41
    assert sum(Census.noted(page).values()) == 41


def test_a_page_that_is_let_go_closes_what_it_opened(page: int) -> None:
    """Descriptors do not pile up, whoever looks."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(50):
        assert Census(page, 0).total() == 0
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 2


# --- reasons


@pytest.mark.parametrize(
    ("error", "in_hand", "reason"),
    [
        (FaultError("x"), True, Reason.BROKEN_PROTOCOL),
        (CommandError("x"), False, Reason.BROKEN_PROTOCOL),
        (QuietError(), False, Reason.IDLE),
        (QuietError(), True, Reason.TOO_SLOW),
        (TimeoutError(), False, Reason.TOO_SLOW),
        (EndOfStreamError(), True, Reason.CONNECTION_LOST),
        (ConnectionResetError(), False, Reason.CONNECTION_LOST),
        (ZeroDivisionError(), False, Reason.ENDED_BY_FAULT),
    ],
)
def test_each_way_an_association_breaks_has_a_reason(error: Exception, in_hand: bool, reason: Reason) -> None:
    """What the peer did, and whether by doing nothing, decides."""
    assert cause(error, in_hand) is reason


def test_reasons_are_told_apart_in_metrics_and_in_words() -> None:
    """Within its kind each reason has a label and words of its own, fit for Prometheus."""
    for kind in Kind:
        of_kind = [reason for reason in Reason if reason.kind is kind]
        assert of_kind
        assert len({reason.label for reason in of_kind}) == len({r.words for r in of_kind}) == len(of_kind)
        assert all(reason.label.replace("_", "").isalpha() for reason in of_kind)
    assert Kind.REFUSED.counted(1) == "1 connection refused"
    assert Kind.ENDED.counted(3) == "3 associations ended by us"

"""Claims about what makes an association cheap: threads that wait for the next one, agreements that are remembered."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
from peers import wait_for
from pynetdicom import _config
from receive.scripted_peer import request_pdu

from node.receive import negotiation
from node.receive.crew import Crew
from node.receive.listener import application_entity, configure
from node.receive.negotiation import Negotiator
from node.receive.wire import FaultError


def told(names: list[str], *waits: threading.Event) -> Callable[[], None]:
    """A job that notes its thread, and ends when all of *waits* are set."""

    def job() -> None:
        names.append(str(threading.get_ident()))
        for one in waits:
            one.wait(60)

    return job


def test_a_thread_that_is_done_takes_the_next_connection() -> None:
    """Connections one after the other are served by one thread; those at once by one each."""
    crew, seen = Crew(patience=5), []
    for number in range(1, 6):
        crew.hand(told(seen))
        wait_for(lambda many=number: len(seen) == many and crew._idle == 1, "the job")
    assert len(set(seen)) == 1
    seen.clear()
    over = threading.Event()
    for _ in range(8):
        crew.hand(told(seen, over))
    wait_for(lambda: len(seen) == 8, "eight jobs at once")
    assert len(set(seen)) == 8
    over.set()


def test_few_threads_wait_and_none_for_long() -> None:
    """After a flood as many threads stay as may, and these end when nothing comes."""
    before = threading.active_count()
    crew, over, seen = Crew(spare=2, patience=0.5), threading.Event(), []
    for _ in range(20):
        crew.hand(told(seen, over))
    wait_for(lambda: len(seen) == 20, "twenty jobs")
    over.set()
    wait_for(lambda: threading.active_count() <= before + 2, "the flood to be over")
    wait_for(lambda: threading.active_count() <= before, "the last of them")
    crew.hand(told(seen))
    wait_for(lambda: len(seen) == 21, "one more")


def test_no_job_is_lost_while_threads_come_and_go() -> None:
    """Threads that give up just when a job is handed out: every job is done, once."""
    crew, lock, done = Crew(spare=3, patience=0.0005), threading.Lock(), []

    def job(number: int) -> Callable[[], None]:
        def work() -> None:
            with lock:
                done.append(number)

        return work

    for number in range(3000):
        crew.hand(job(number))
        if number % 7 == 0:
            threading.Event().wait(0.0005)
    wait_for(lambda: len(done) == 3000, "all jobs")
    assert sorted(done) == list(range(3000))


@pytest.fixture
def negotiator() -> Iterator[Negotiator]:
    """One that negotiates as receivers do; pynetdicom's switches are put back after the test."""
    before = (_config.LOG_HANDLER_LEVEL, _config.UNRESTRICTED_STORAGE_SERVICE, _config.VALIDATORS["UI"])
    configure()
    yield Negotiator(application_entity("PACSNODE", ("2.25.1", "TEST")))
    _config.LOG_HANDLER_LEVEL, _config.UNRESTRICTED_STORAGE_SERVICE, _config.VALIDATORS["UI"] = before


def test_what_is_asked_again_is_answered_from_memory(
    negotiator: Negotiator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same request has the same agreement; another one, or another role, is negotiated by itself."""
    body = request_pdu()[6:]
    first = negotiator.agree(body)
    assert negotiator.agree(body) is first
    assert set(first.contexts) == {1}
    assert first.accept[:1] == b"\2"
    commitment = negotiator.agree(body, "1.2.840.10008.1.20.1")
    assert commitment is not first
    monkeypatch.setattr(negotiation, "_MOST_KNOWN", 2)
    for title in (b"A", b"B", b"C"):
        negotiator.agree(body[:20] + title.ljust(16) + body[36:])
    assert len(negotiator._known) <= 3
    assert negotiator.agree(body) is not first, "it was forgotten"
    assert negotiator.agree(body) == first


def test_what_cannot_be_agreed_on_is_not_remembered(negotiator: Negotiator) -> None:
    """A request that breaks the rules is refused each time."""
    broken = request_pdu()[6:80]
    for _ in range(2):
        with pytest.raises(FaultError):
            negotiator.agree(broken)
    assert not negotiator._known

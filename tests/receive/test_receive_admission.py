"""Claims about who may associate."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from node.receive.admission import Accept, Policy, Reject, Request, Secured, Sender, admit, plain
from node.receive.reasons import Kind, Reason

CT = Sender("CT01", ("CT01", "CT01_QA"), (ip_network("10.1.2.3"),))
WARD = Sender("WARD", ("US",), (ip_network("10.2.0.0/16"), ip_network("fd00::/8")))
ANYWHERE = Sender("PACS", ("PACS",))
POLICY = Policy(("PACSNODE", "STAT"), (CT, WARD, ANYWHERE), unknown_may_send=False, associations=2)
OPEN = Policy(("PACSNODE",), (CT, WARD), unknown_may_send=True, associations=2)


@pytest.mark.parametrize(
    ("request_", "peer"),
    [
        (Request("CT01", "PACSNODE", "10.1.2.3"), "CT01"),
        (Request("CT01_QA", "STAT", "10.1.2.3"), "CT01"),
        (Request(" CT01 ", "  PACSNODE  ", "10.1.2.3"), "CT01"),
        (Request("CT01", "PACSNODE", "::ffff:10.1.2.3"), "CT01"),
        (Request("US", "PACSNODE", "10.2.200.1"), "WARD"),
        (Request("US", "PACSNODE", "fd12::1%eth0"), "WARD"),
        (Request("PACS", "PACSNODE", "192.0.2.7"), "PACS"),
    ],
)
def test_a_known_sender_is_let_in_under_its_peer_name(request_: Request, peer: str) -> None:
    """Title and address together find the peer; spaces around titles do not count."""
    assert admit(request_, POLICY, 0) == Accept(peer)


@pytest.mark.parametrize(
    ("request_", "numbers", "why"),
    [
        (Request("CT01", "OTHER", "10.1.2.3"), (1, 1, 7), "OTHER"),
        (Request("CT01", "PACSNODE", "::ffff:10.1.2.4"), (1, 1, 3), "does not call from ::ffff:10.1.2.4"),
        (Request("CT01", "pacsnode", "10.1.2.3"), (1, 1, 7), "PACSNODE or STAT"),
        (Request("CT01", "", "10.1.2.3"), (1, 1, 7), "it called ''"),
        (Request("CT02", "PACSNODE", "10.1.2.3"), (1, 1, 3), "sends_as"),
        (Request("", "PACSNODE", "10.1.2.3"), (1, 1, 3), "sends_as"),
        (Request("ct01", "PACSNODE", "10.1.2.3"), (1, 1, 3), "sends_as"),
        (Request("CT01", "PACSNODE", "10.1.2.4"), (1, 1, 3), "does not call from 10.1.2.4"),
        (Request("CT01", "PACSNODE", "not-an-address"), (1, 1, 3), "does not call from"),
        (Request("CT01", "PACSNODE", "10.1.2.3", "1.2.3"), (1, 1, 2), "application context"),
    ],
)
def test_others_are_rejected_with_the_numbers_of_the_standard_and_words(
    request_: Request, numbers: tuple[int, int, int], why: str
) -> None:
    """PS3.8 9.3.4: permanent, by the service user, called or calling title not recognised."""
    answer = admit(request_, POLICY, 0)
    assert isinstance(answer, Reject)
    assert (answer.result, answer.source, answer.reason) == numbers
    assert why in answer.why


def test_an_unknown_sender_is_let_in_by_its_title_only_where_the_site_says_so() -> None:
    """`unknown_senders: accept` takes a new title, but not a known one from a wrong address, nor no title."""
    assert admit(Request("NEW", "PACSNODE", "10.9.9.9"), OPEN, 0) == Accept("NEW")
    assert isinstance(admit(Request("CT01", "PACSNODE", "10.9.9.9"), OPEN, 0), Reject)
    assert isinstance(admit(Request("   ", "PACSNODE", "10.9.9.9"), OPEN, 0), Reject)


def test_the_limit_is_a_transient_rejection_for_those_who_may_enter() -> None:
    """At the limit a known sender is told to come again (2, 3, 2); a stranger learns nothing of it."""
    answer = admit(Request("CT01", "PACSNODE", "10.1.2.3"), POLICY, 2)
    assert isinstance(answer, Reject)
    assert (answer.result, answer.source, answer.reason) == (2, 3, 2)
    stranger = admit(Request("CT02", "PACSNODE", "10.1.2.3"), POLICY, 2)
    assert isinstance(stranger, Reject)
    assert stranger.reason == 3


def test_a_stranger_cannot_take_a_peers_name() -> None:
    """Rules know unknown senders by their title, so a title equal to a peer's name is refused."""
    answer = admit(Request("WARD", "PACSNODE", "192.0.2.9"), OPEN, 0)
    assert isinstance(answer, Reject)
    assert "is the name of a peer" in answer.why


@pytest.mark.parametrize(
    ("request_", "policy", "open_now", "reason"),
    [
        (Request("CT01", "OTHER", "10.1.2.3"), POLICY, 0, Reason.CALLED_TITLE),
        (Request("CT02", "PACSNODE", "10.1.2.3"), POLICY, 0, Reason.CALLING_TITLE),
        (Request("WARD", "PACSNODE", "192.0.2.9"), OPEN, 0, Reason.CALLING_TITLE),
        (Request("CT01", "PACSNODE", "10.1.2.4"), POLICY, 0, Reason.ADDRESS),
        (Request("CT01", "PACSNODE", "10.1.2.3", "1.2.3"), POLICY, 0, Reason.APPLICATION_CONTEXT),
        (Request("CT01", "PACSNODE", "10.1.2.3"), POLICY, 2, Reason.LIMIT),
    ],
)
def test_each_rejection_has_the_reason_it_is_counted_by(
    request_: Request, policy: Policy, open_now: int, reason: Reason
) -> None:
    """The word is of the kind that rejections are counted under."""
    answer = admit(request_, policy, open_now)
    assert isinstance(answer, Reject)
    assert answer.because is reason
    assert reason.kind is Kind.REJECTED


@pytest.mark.parametrize(
    ("shown", "address"),
    [
        ("::ffff:10.1.2.3", "10.1.2.3"),
        ("::FFFF:a01:203", "10.1.2.3"),
        ("10.1.2.3", "10.1.2.3"),
        ("::1", "::1"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("2001:DB8:0:0::1", "2001:db8::1"),
        ("no address", "no address"),
    ],
)
def test_an_ipv4_address_is_the_same_on_a_socket_for_both_families(shown: str, address: str) -> None:
    """Mapped addresses are IPv4's (RFC 4291 2.5.5.2); link-local ones keep their interface."""
    assert plain(shown) == address


SECURE = Policy(
    ("PACSNODE",),
    (
        Sender("CT01", ("CT01",), tls_needed=True),
        Sender("MR01", ("MR01",), client_names=("mr01.hospital.example", "10.1.2.9")),
        Sender("PLAIN", ("PLAIN",)),
    ),
    unknown_may_send=True,
    associations=2,
)


@pytest.mark.parametrize(
    ("calling", "secured", "why"),
    [
        ("CT01", Secured(), ""),
        ("CT01", Secured(("any.name",)), ""),
        ("CT01", None, "CT01 came without TLS; it must use the port of tls.listen"),
        ("MR01", Secured(("other", "MR01.Hospital.Example")), ""),
        ("MR01", Secured(("10.1.2.9",)), ""),
        ("MR01", None, "without TLS"),
        ("MR01", Secured(), "for mr01.hospital.example or 10.1.2.9; this one carries no name"),
        ("MR01", Secured(("ct01", "x")), "10.1.2.9; this one carries the names ct01, x (see client_names)"),
        ("MR01", Secured(("*.hospital.example",)), "carries the names *.hospital.example"),
        ("PLAIN", None, ""),
        ("PLAIN", Secured(("ct01",)), ""),
        ("NEW", None, ""),
        ("NEW", Secured(), ""),
    ],
)
def test_a_sender_shows_what_the_site_file_asks_of_it(
    calling: str, secured: Secured | None, why: str
) -> None:
    """Without TLS, or without one of its names in the certificate, it is rejected, in words that name both."""
    answer = admit(Request(calling, "PACSNODE", "10.1.2.3", secured=secured), SECURE, 0)
    if why:
        assert isinstance(answer, Reject)
        assert (answer.result, answer.source, answer.reason) == (1, 1, 3)
        assert why in answer.why
        assert answer.because is (Reason.TLS_REQUIRED if secured is None else Reason.CERTIFICATE_NAME)
    else:
        assert answer == Accept(calling)

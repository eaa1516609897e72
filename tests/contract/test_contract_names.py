"""Inner names of pynetdicom, pydicom and highdicom that the node uses: an upgrade of a library fails here first.

What is asked of each name is what the file that uses it takes for granted, no more.
"""

from __future__ import annotations

import ast
import inspect
import queue
import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pynetdicom.acse
import pynetdicom.association
import pynetdicom.dimse
import pytest
from highdicom import _standard_utils
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import UID
from pynetdicom import AE, _config, build_context
from pynetdicom.association import MODE_ACCEPTOR, Association
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import A_ASSOCIATE, SCP_SCU_RoleSelectionNegotiation
from pynetdicom.presentation import negotiate_unrestricted

NODE = Path(__file__).parents[2] / "node"
CT, IMPLICIT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2"
RAW = RawDataElement(Tag("PatientID"), "LO", 2, b"P ", 0, False, True)


@dataclass(frozen=True)
class Inner:
    """One name, the files below `node/` that use it, and what they take for granted."""

    name: str
    users: str
    holds: Callable[[], bool]


def association() -> Any:
    """Make an acceptor's association that has no socket and never starts."""
    return pynetdicom.association.Association(AE(), "acceptor")


def takes(method: Any, *names: str) -> bool:
    """Whether a bound method has to be called with exactly these arguments."""
    parameters = inspect.signature(method).parameters.values()
    return tuple(p.name for p in parameters if p.default is p.empty) == names


def calls(module: ModuleType, text: str) -> bool:
    """Whether the module looks a name up when it calls it, so that an instance's own one takes its place."""
    return text in inspect.getsource(module)


def an_association_is_negotiated_without_a_thread() -> bool:
    """An acceptor that never starts sends its A-ASSOCIATE-AC through `dul.send_pdu`, and kill() returns."""
    acceptor, sent = association(), []
    acceptor.dul.send_pdu = sent.append
    request = A_ASSOCIATE()
    request.application_context_name = "1.2.840.10008.3.1.1.1"
    request.calling_ae_title, request.called_ae_title = "SENDER", "NODE"
    context = build_context(CT)
    context.context_id = 1
    request.presentation_context_definition_list = [context]
    acceptor.requestor.primitive = request
    acceptor.acceptor.supported_contexts = [build_context(CT)]
    acceptor.acse.negotiate_association()
    accepted = acceptor.is_established and [context.context_id for context in acceptor.accepted_contexts] == [
        1
    ]
    acceptor.kill()
    return bool(
        accepted
        and [type(primitive).__name__ for primitive in sent] == ["A_ASSOCIATE"]
        and sent[0].result == 0
    )


def an_accepted_association_says_what_was_negotiated() -> bool:
    """The request is `requestor.primitive`; the answer is an A-ASSOCIATE-AC PDU that repeats both titles."""
    acceptor, sent = association(), []
    acceptor.dul.send_pdu = sent.append
    acceptor.requestor.primitive = request_of(A_ASSOCIATE_RQ(), asked(roles=True))
    acceptor.acceptor.supported_contexts = [build_context(CT)]
    acceptor.acse.negotiate_association()
    answer = A_ASSOCIATE_AC(sent[0]).encode()
    (context,) = acceptor.accepted_contexts
    return bool(
        answer[:1] == b"\2"
        and answer[10:42] == b"NODE".ljust(16) + b"SENDER".ljust(16)
        and (context.context_id, context.abstract_syntax, context.transfer_syntax[0]) == (1, CT, IMPLICIT)
        and acceptor.requestor.maximum_length == 16384
        and acceptor.requestor.role_selection[CT].scp_role is True
    )


def a_role_of_ours_is_answered() -> bool:
    """What `acceptor.add_negotiation_item` was given stands in the answer's user information."""
    acceptor, sent = association(), []
    acceptor.dul.send_pdu = sent.append
    acceptor.requestor.primitive = request_of(A_ASSOCIATE_RQ(), asked(roles=False))
    acceptor.acceptor.supported_contexts = [build_context(CT)]
    role = SCP_SCU_RoleSelectionNegotiation()
    role.sop_class_uid, role.scu_role, role.scp_role = UID(CT), True, True
    acceptor.acceptor.add_negotiation_item(role)
    acceptor.acse.negotiate_association()
    return CT.encode() + b"\1\1" in A_ASSOCIATE_AC(sent[0]).encode()


def a_request_without_contexts_is_decoded() -> bool:
    """User information can be tried item by item: the rest of the request may be missing, an unknown item raises."""
    known = struct.pack(">BBHI", 0x51, 0, 4, 16384)
    head = struct.pack(">HH16s16s32x", 1, 0, b"NODE".ljust(16), b"SENDER".ljust(16))

    def decodes(item: bytes) -> bool:
        body = head + struct.pack(">BBH", 0x50, 0, len(item)) + item
        try:
            request_of(A_ASSOCIATE_RQ(), struct.pack(">BBI", 1, 0, len(body)) + body)
        except Exception:  # noqa: BLE001 - any will do
            return False
        return True

    unknown, long_name = struct.pack(">BBH", 0x5F, 0, 0), struct.pack(">BBH", 0x55, 0, 20) + b"V" * 20
    return decodes(known) and not decodes(unknown) and not decodes(long_name)


def asked(*, roles: bool) -> bytes:
    """Return an A-ASSOCIATE-RQ for CT as bytes, with a role selection or without."""
    proposed = struct.pack(">H", len(CT)) + CT.encode() + b"\0\1"
    items = [(0x51, struct.pack(">I", 16384)), (0x52, b"1.2.3"), *([(0x54, proposed)] if roles else [])]
    user = b"".join(struct.pack(">BBH", kind, 0, len(value)) + value for kind, value in items)
    names = b"".join(
        struct.pack(">BBH", kind, 0, len(value)) + value.encode()
        for kind, value in ((0x30, CT), (0x40, IMPLICIT))
    )
    context = b"\1\0\0\0" + names
    body = struct.pack(">HH16s16s32x", 1, 0, b"NODE".ljust(16), b"SENDER".ljust(16))
    for kind, value in ((0x10, b"1.2.840.10008.3.1.1.1"), (0x20, context), (0x50, user)):
        body += struct.pack(">BBH", kind, 0, len(value)) + value
    return struct.pack(">BBI", 1, 0, len(body)) + body


def request_of(pdu: Any, data: bytes) -> Any:
    """Decode a PDU to its primitive."""
    pdu.decode(data)
    return pdu.to_primitive()


def storage_is_accepted_in_the_first_transfer_syntax() -> bool:
    """Unrestricted, any storage, private or unknown class is accepted in what is proposed first, whatever it is."""
    contexts = []
    for number, uid in enumerate((CT, "1.2.826.0.1.3680043.9.9999.1", "1.2.840.10008.5.1.4.1.1.999")):
        context = build_context(uid, ["1.2.3.4", IMPLICIT])
        context.context_id = 2 * number + 1
        contexts.append(context)
    found, _ = negotiate_unrestricted(contexts, [build_context("1.2.840.10008.1.1")], {})
    return [(c.result, [str(s) for s in c.transfer_syntax]) for c in found] == [(0, ["1.2.3.4"])] * 3


def an_association_is_made_and_not_started() -> bool:
    """An acceptor's association is made from an AE alone; its threads and its socket are left to who starts it."""
    made = Association(AE(), MODE_ACCEPTOR)
    return bool(
        made.is_acceptor and not made.is_alive() and not made.dul.is_alive() and made.dul.socket is None
    )


def the_validator_of_uids_can_be_replaced() -> bool:
    """A UID of 90 characters is refused by the one that is there, and taken by one that takes all in its place."""
    long = "1." + "2" * 88
    whole = asked(roles=False)
    context = whole.index(b"\x30\0" + struct.pack(">H", len(CT)))
    names = whole[context:].replace(
        struct.pack(">H", len(CT)) + CT.encode(), struct.pack(">H", 90) + long.encode(), 1
    )
    body = whole[6 : context - 6] + struct.pack(">H", 4 + 94 + 4 + len(IMPLICIT)) + b"\1\0\0\0" + names
    strange = struct.pack(">BBI", 1, 0, len(body)) + body
    before = _config.VALIDATORS["UI"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom has its own opinion
        refused = not before(UID(long))[0]
        _config.VALIDATORS["UI"] = lambda _uid: (True, "")
        try:
            (found,) = request_of(A_ASSOCIATE_RQ(), strange).presentation_context_definition_list
        finally:
            _config.VALIDATORS["UI"] = before
    return refused and str(found.abstract_syntax) == long


def elements_are_put_as_they_are() -> bool:
    """What is put into the dictionary is what the dataset holds, without conversion."""
    dataset = Dataset()
    dataset._dict[RAW.tag] = RAW
    return dataset.get_item("PatientID") is RAW and list(dataset.elements()) == [RAW]


def items_inherit_the_character_set() -> bool:
    """A dataset without Specific Character Set has that of the dataset around it."""
    dataset = Dataset()
    dataset._parent_encoding = "latin_1"
    return bool(dataset._character_set == "latin_1")


def tables_lead_to_attributes() -> bool:
    """From a SOP class over its IOD's modules, their usage and entity, to attributes, their place and type."""
    modules = _standard_utils.get_iod_module_map()[_standard_utils.get_sop_class_iod_map()[CT]]
    known = {module["key"]: (module["usage"], module["ie"]) for module in modules}
    rows = _standard_utils.get_module_attribute_map()["general-series"]
    types = {row["keyword"]: row["type"] for row in rows if row["path"] == []}
    return known["general-series"] == ("M", "Series") and types["Modality"] == "1"


NEGOTIATION = "receive/negotiation.py"
INNER = [
    Inner("dul.send_pdu", NEGOTIATION, lambda: takes(association().dul.send_pdu, "primitive")
          and calls(pynetdicom.acse, "self.dul.send_pdu(primitive)")),
    Inner("acse.negotiate_association", NEGOTIATION, an_association_is_negotiated_without_a_thread),
    Inner("requestor.primitive", NEGOTIATION, an_accepted_association_says_what_was_negotiated),
    Inner("acceptor.add_negotiation_item", NEGOTIATION, a_role_of_ours_is_answered),
    Inner("A_ASSOCIATE_RQ", NEGOTIATION, a_request_without_contexts_is_decoded),
    Inner("dimse.msg_queue", "demo/scanner.py",
          lambda: isinstance(association().dimse.msg_queue, queue.Queue)),
    Inner("assoc._serve_request", "demo/scanner.py",
          lambda: takes(association()._serve_request, "msg", "context_id")
          and calls(pynetdicom.association, "self._serve_request(")),
    Inner("Association", NEGOTIATION, an_association_is_made_and_not_started),
    Inner("_config.VALIDATORS", "receive/listener.py", the_validator_of_uids_can_be_replaced),
    Inner("_config.LOG_HANDLER_LEVEL", "receive/listener.py send/negotiation.py demo/__init__.py",
          lambda: calls(pynetdicom.association, '_config.LOG_HANDLER_LEVEL == "standard"')),
    Inner("_config.UNRESTRICTED_STORAGE_SERVICE", "receive/listener.py",
          lambda: calls(pynetdicom.acse, "if _config.UNRESTRICTED_STORAGE_SERVICE:")
          and storage_is_accepted_in_the_first_transfer_syntax()),
    Inner("_config.ENFORCE_UID_CONFORMANCE", "send/negotiation.py",
          lambda: isinstance(_config.ENFORCE_UID_CONFORMANCE, bool)),
    Inner("_config.STORE_SEND_CHUNKED_DATASET", "demo/scanner.py",
          lambda: calls(pynetdicom.association, "if not _config.STORE_SEND_CHUNKED_DATASET")),
    Inner("dataset._dict", "derive/adopting.py derive/charset.py derive/classic.py derive/deidentify/elements.py "
          "derive/edit.py derive/inherit.py derive/nm_image.py derive/original.py derive/series.py treating.py "
          "read/frames.py read/lift.py read/vendor.py",
          elements_are_put_as_they_are),
    Inner("dataset._parent_encoding", "derive/classic.py derive/inherit.py", items_inherit_the_character_set),
    Inner("dataset._character_set", "derive/classic.py derive/inherit.py", items_inherit_the_character_set),
    Inner("element._replace", "derive/deidentify/elements.py read/elements.py",
          lambda: RAW._replace(VR="SQ").VR == "SQ"),
    Inner("highdicom._standard_utils", "derive/standard.py", tables_lead_to_attributes),
]  # fmt: skip
OF_PYTHON = {"_exit"}
"""Underscored names that Python itself documents: os._exit."""


@pytest.mark.parametrize("inner", INNER, ids=lambda inner: inner.name)
def test_inner_names_are_as_the_node_uses_them(inner: Inner) -> None:
    """The library still has the name, in the shape that the files beside it take for granted."""
    assert inner.holds(), f"{inner.name} has changed; see to node/: {inner.users}"


@pytest.mark.parametrize("inner", INNER, ids=lambda inner: inner.name)
def test_inner_names_are_used_where_it_is_said(inner: Inner) -> None:
    """Each file that is named beside a name holds it: what nobody uses any more leaves the list."""
    word = inner.name.rpartition(".")[2]
    assert [user for user in inner.users.split() if word not in (NODE / user).read_text("utf-8")] == []


def inner_names() -> dict[str, set[str]]:
    """Collect underscored names that node/ uses but nowhere defines, each with the files that use it."""
    used: dict[str, set[str]] = {}
    ours: set[str] = set()
    for path in NODE.rglob("*.py"):
        for found in ast.walk(ast.parse(path.read_text("utf-8"))):
            names: list[str] = []
            if isinstance(found, ast.FunctionDef | ast.ClassDef):
                ours.add(found.name)
            elif isinstance(found, ast.Name) and isinstance(found.ctx, ast.Store):
                ours.add(found.id)
            elif isinstance(found, ast.Attribute):
                made_here = isinstance(found.ctx, ast.Store) and ast.unparse(found.value) == "self"
                (ours.add if made_here else names.append)(found.attr)
            elif isinstance(found, ast.ImportFrom) and not (found.module or "").startswith("node"):
                names = [*(found.module or "").split("."), *(alias.name for alias in found.names)]
            for name in names:
                if name.startswith("_") and not name.endswith("__"):
                    used.setdefault(name, set()).add(path.relative_to(NODE).as_posix())
    return {name: files for name, files in used.items() if name not in ours}


def test_every_inner_name_is_listed() -> None:
    """Whoever reaches into a library says so here: no underscored name of another's is used unlisted."""
    listed = {word: inner.users.split() for inner in INNER for word in inner.name.split(".")}
    configured = {
        file for inner in INNER if inner.name.startswith("_config.") for file in inner.users.split()
    }
    listed["_config"] = sorted(configured)
    unlisted = {
        name: sorted(files - set(listed.get(name, ())))
        for name, files in inner_names().items()
        if name not in OF_PYTHON and files - set(listed.get(name, ()))
    }
    assert unlisted == {}

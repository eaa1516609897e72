"""`send:` lists → what goes where, checked against the steps and the peers."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from node.model import KIND_OF, RECEIVED
from node.route.deidentify import parse_deidentify
from node.route.edits import NO_EDITS, Edits, parse_edits
from node.route.keywords import OURS, lookup
from node.route.tables import Tables
from node.route.values import Kind
from node.route.ways import Share, parse_to
from node.settings.windows import read_windows, spelled
from node.shape import Node, Shaper, nearest

SETTABLE = ("SeriesDescription",)
"""What a rule may word itself in a derived header: it fits every derived object, and all else follows
from the source and PS3.3; Series Number is ours, so that two results never share one."""
KEYS = {
    "what": "received, or the as: name of a step",
    "to": "peers, or {share: peers, by: patient}; received objects never go back to where they came from",
    "as": "what it may go as, best first: each destination gets the first that it shows",
    "mode": "received: immediate (each object as it arrives) or sealed (when the series is complete)",
    "back_to_sender": "yes: received objects go even to the peer they came from",
    "lossy": "ok: with loss where the peer takes it in no other way",
    "edit": "changes on the way to these peers, in order; of received objects the old values are kept in them",
    "window": "when it may be sent, as mon-fri 19:00-06:00, or a list of such; else as the rule's own window says",
    "hold": "yes: it waits until a person releases or cancels it",
    "deidentify": "what says whose it is goes away before it is sent: a profile's name, or its parts",
    **{key: f"{key} of the result; braces hold one DICOM keyword of the source" for key in SETTABLE},
}
"""Every key of a `send` entry, with a sentence for editors."""
PICTURE = "picture"
_BRACES = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class Send:
    """One entry under `send:`."""

    what: str
    """`received`, or the `as:` name of a step."""
    to: tuple[str, ...]
    """Peer names."""
    immediate: bool = False
    """Each received object as it arrives, not when the series is complete."""
    back_to_sender: bool = False
    """Received objects go even to the peer they came from."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    """Keyword → template; braces hold one DICOM keyword of the source."""
    line: int = 0
    forms: tuple[str, ...] = ()
    """The kinds it may go as, best first; a destination gets the first that it shows. Empty: as what it is."""
    lossy: bool = False
    """It may be transcoded with loss where a destination takes it in no other way."""
    treatment: str = ""
    """JSON: what is changed in the copy that goes in its place; empty: it goes as it is."""
    edits: Edits = NO_EDITS
    """What of that `edit:` asks for."""
    window: str = ""
    """When it may be sent (`settings.windows.spelled`); empty: whenever the destination may be sent to."""
    hold: bool = False
    """It waits for a person, who releases or cancels it."""
    share: Share | None = None
    """Only one of *to* gets it: the one that the patient, or the study, has."""
    column: int = 0

    @property
    def at(self) -> str:
        """`line:column` of the entry."""
        return f"{self.line}:{self.column}"

    def destinations(self, sender: str) -> tuple[str, ...]:
        """Where an object of *sender* goes: not back to it, unless the rule says so."""
        if self.back_to_sender or self.what != RECEIVED:
            return self.to
        return tuple(to for to in self.to if to != sender)


@dataclass(frozen=True)
class Around:
    """What an entry under `send:` is read against."""

    made: Mapping[str, str]
    """A step's result → its type."""
    peers: Mapping[str, bool]
    tables: Tables
    edits: Edits = NO_EDITS
    """What the rule changes in all that it sends."""
    window: str = ""
    """When the rule lets anything be sent."""


def parse_sends(node: Node, around: Around, shaper: Shaper) -> tuple[Send, ...]:
    """The entries under `send:`. Mistakes are noted in *shaper*."""
    if not node.is_list or not node.items:
        shaper.wrong(node, "send holds a list, for example send: [{what: received, to: PACS}]")
        return ()
    found = tuple(_send(item, around, shaper) for item in node.items)
    _no_contradictions(node, found, around.made, shaper)
    return found


def _send(node: Node, around: Around, shaper: Shaper) -> Send:
    made, peers = around.made, around.peers
    if "priority" in node.fields:
        shaper.wrong(node.fields["priority"], "priority is the whole rule's: put it beside when:")
    capital = tuple(key for key in node.fields if key[:1].isupper())
    fields = shaper.fields(node, (*KEYS, "priority", *capital), ("what", "to"))
    what = _what(fields["what"], made, shaper) if "what" in fields else ""
    to, share = parse_to(fields["to"], peers, shaper) if "to" in fields else ((), None)
    immediate = what == RECEIVED
    if "mode" in fields:
        mode = shaper.choice(fields["mode"], ("immediate", "sealed"), "sealed")
        if mode == "immediate" and what not in ("", RECEIVED):
            shaper.wrong(
                fields["mode"], f"{what} exists only after processing; mode: immediate is for received"
            )
        immediate = immediate and mode == "immediate"
    attributes = {}
    for key in capital:
        template = _template(key, fields[key], what, shaper)
        if template:
            attributes[key] = template
    back = shaper.yes_no(fields["back_to_sender"]) if "back_to_sender" in fields else False
    if back and what not in ("", RECEIVED):
        shaper.wrong(fields["back_to_sender"], "back_to_sender is for received; results go wherever to: says")
    forms = _forms(fields["as"], what, made.get(what, ""), shaper) if "as" in fields else ()
    lossy = "lossy" in fields and shaper.choice(fields["lossy"], ("ok",)) == "ok"
    edits = around.edits
    if "edit" in fields:
        edits = edits.then(parse_edits(fields["edit"], around.tables, shaper))
    stages = edits.treatment()
    if "deidentify" in fields and (profile := parse_deidentify(fields["deidentify"], peers, shaper)):
        stages["deidentify"] = profile
    return Send(
        what, to, immediate, back, attributes, node.place.line, forms, lossy, treatment_of(stages), edits,
        window=spelled(read_windows(shaper, fields["window"])) if "window" in fields else around.window,
        hold="hold" in fields and shaper.yes_no(fields["hold"]),
        share=share, column=node.place.column,
    )  # fmt: skip


def treatment_of(stages: Mapping[str, Any]) -> str:
    """A delivery's treatment as it is kept: the same for the same changes; empty where there are none."""
    return json.dumps(stages, sort_keys=True, ensure_ascii=False, separators=(",", ":")) if stages else ""


def _forms(node: Node, what: str, made: str, shaper: Shaper) -> tuple[str, ...]:
    """`as:`: the kinds a result may go as, each one that it can be made into."""
    if what == RECEIVED:
        shaper.wrong(node, "as: is for results; received objects go as they came")
        return ()
    native = KIND_OF.get(made, "")
    can = tuple(dict.fromkeys((native, PICTURE))) if native != "document" else (native,)
    found = []
    for item in node.items:
        form = shaper.text(item)
        if native and form not in can:
            shaper.wrong(item, f"as: {what} can go as {' or '.join(can)}, not as {form}{nearest(form, can)}")
        elif form in found:
            shaper.wrong(item, f"as: {form} is named twice")
        found.append(form)
    return tuple(found)


def _what(node: Node, made: Mapping[str, str], shaper: Shaper) -> str:
    what = shaper.text(node)
    names = list(made)
    if what and what != RECEIVED and what not in names:
        hint = nearest(what, (*names, RECEIVED))
        shaper.wrong(node, f"nothing under do: is called {what} by its as: name{hint}")
    return what


def _template(key: str, node: Node, what: str, shaper: Shaper) -> str:
    if what == RECEIVED:
        shaper.wrong(
            node,
            f"{key}: received objects stay as they came; edit: [{{set: {{{key}: …}}}}] changes what is sent",
        )
        return ""
    if key not in SETTABLE:
        known = ", ".join(SETTABLE)
        shaper.wrong(node, f"{key} cannot be set in a result{nearest(key, SETTABLE)} (can be set: {known})")
        return ""
    text = shaper.text(node)
    for keyword in _BRACES.findall(text):
        try:
            found = lookup(keyword)
            if found.name in OURS or not keyword.isalnum() or found.kind is Kind.OPAQUE:
                shaper.wrong(
                    node,
                    f"{key}: {keyword} is no DICOM keyword with a value; braces hold one, as {{Modality}}",
                )
        except ValueError as error:
            shaper.wrong(node, f"{key}: {error}")
    if set("{}") & set(_BRACES.sub("", text)):
        shaper.wrong(
            node, f"{key}: braces come in pairs and hold one DICOM keyword, as {{SeriesDescription}}"
        )
    return text


def _no_contradictions(node: Node, sends: Sequence[Send], made: Mapping[str, str], shaper: Shaper) -> None:
    """One result is one set of objects in each form: it has one description, and goes once to a peer as each."""
    told: dict[tuple[str, str], str] = {}
    gone: set[tuple[str, str, str]] = set()
    for item, send in zip(node.items, sends, strict=True):
        for key, template in send.attributes.items():
            if told.setdefault((send.what, key), template) != template:
                shaper.wrong(item, f"{send.what} gets two different {key}; make it twice, with two as: names")
        forms = send.forms or (KIND_OF.get(made.get(send.what, ""), ""),)
        for to in send.to:
            if any((send.what, to, form) in gone for form in forms):
                shaper.wrong(item, f"{send.what} is already sent to {to} above")
            gone.update((send.what, to, form) for form in forms)

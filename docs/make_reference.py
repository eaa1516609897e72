"""Write docs/operators.md and docs/rules.md from the program's own tables.

Run it from the repository's root: `.venv/bin/python docs/make_reference.py`; with `table` it prints the README's
table of operators instead.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from node.flow.forms import SHOWN_AS
from node.model import OperatorSpec, Parameter
from node.process import registry
from node.route.edits import OPERATIONS
from node.route.inputs import AGAIN, INPUT_KEYS, WAITS
from node.route.keywords import OURS
from node.route.rule_reading import KEYS
from node.route.splitting import EACH_PART
from node.route.values import unit_name
from node.route.when import OPERATORS

DOCS = Path(__file__).parent
_OPERATORS_HEAD = """# The shipped operators

Made by `docs/make_reference.py` from the operators themselves; `pacsnode operators NAME` shows the same for those of
your installation, plugins included. The first input is the received series unless a step names another one. What it
*makes* decides what leaves the node, see the [README](../README.md).
"""
_RULES_HEAD = """# What may stand in a rule

Made by `docs/make_reference.py` from the program's own tables; `pacsnode schema` gives the same to editors.
CapitalCase is a DICOM keyword, lower_case is ours. Keywords are looked up at the top of the header, then in the
functional groups of each frame. Deeper ones are written as
`RadiopharmaceuticalInformationSequence[0].RadionuclideTotalDose`, private ones as
`"(0019,xx0C) SIEMENS MR HEADER"`. Units are optional and are checked where the standard fixes one.
"""
_CONDITIONS_HEAD = """A plain value is equality: case, padding and repeated blanks do not count, numbers compare as
numbers. Several conditions in one mapping must all hold. `use` is applied first; then each distinct value over all
images and frames that are left is judged. Holds for all: yes. For none: no. For some: *undecided*, which never runs
a rule.
"""
_SEND = """Under `send`, `what` is `received` or the `as:` name of a step, `to` one peer or a list.
`{what: received, to: PACS}` sends each object as it arrives; `mode: sealed` waits for the whole series. Received
objects never go back to the peer they came from, unless `back_to_sender: yes`, nor twice to one destination.
`SeriesDescription: "{SeriesDescription} 5mm AX"` words the description of a result; braces hold a DICOM keyword of
the source. `as: [report, picture]` lists what a result may go as, best first: each destination gets the first that
its `shows` names. Where it shows none of them, the first goes. A result goes to one destination in two forms where
two entries say so: `{what: adc, to: PACS}` sends the map, and `{what: adc, to: PACS, as: picture}` its colours as well.

`priority: urgent | normal | low` beside `when` ranks all that the rule sends and its runs: urgent overtakes whatever
waits, low lets pass what is queued within the hour after it, and no more, so that it never starves.

`window: mon-fri 19:00-06:00`, or a list of such, beside `when` or in an entry under `send`, is when things may be sent,
by the site's clock; a window of the destination itself must be open as well. What waits for one says until when.
`hold: yes` in an entry keeps each object until a person lets it go (`pacsnode release --to PACS`) or gives it up
(`cancel`). `to: {share: [AI1, AI2], by: patient}` gives each patient, or with `by: study` each study, to one of
several peers, and always to the same: what begins while a peer has been down for 15 minutes goes to another one.

An object that a destination refuses in its transfer syntax is transcoded to one that the destination takes, without
loss: `transfer_syntaxes` of the peer names which, best first. `lossy: ok` in an entry under `send` allows a lossy one
where nothing else is taken; the copy then is a derived object with a UID of its own.
"""


_EDIT = """`edit`, in an entry under `send` or beside it for all entries, is a list of changes that are made, in order,
in a copy of each object; what was received stays as it is. A received object keeps its SOP Instance UID and
says what it said before in its Original Attributes Sequence (PS3.3 C.12.1.1.9). `{Keyword}` in a text stands
for what the object says. `PatientName.family` (given, middle, prefix, suffix; `ideographic.family`) is one
part of a name, `RequestAttributesSequence[0].RequestedProcedureID` an attribute in one item of a sequence,
and without `[0]` in every item; items are not made. UIDs, private attributes and what describes the pixels
cannot be edited. A value that does not fit its attribute parks the delivery with a sentence: nothing goes
half changed.
"""


_DEIDENTIFY = """`deidentify`, in an entry under `send`, sends a copy without identity (PS3.15 Annex E), made after what
`edit` changes: `deidentify: basic`, a profile of the site file by its name, or `{profile: basic, retain: [...],
clean: [...]}`. The copy is an object of its own: its UIDs, the patient's pseudonym and the shift of dates follow from
a secret key, so that copies of one patient, study or reference stay together, and the same object under the same
profile gives the same bytes. What cannot be read, understood or vouched for parks the delivery with a sentence. A
peer marked `only: deidentified` gets nothing else, whatever a rule says; `pacsnode check` tells which entries would
be refused.
"""
_OPTIONS = {
    "retain: uids": "UIDs stay (113110)",
    "retain: dates": "dates and times stay (113106)",
    "retain: shifted_dates": "dates go back by a number of days that is the patient's own; times of day stay (113107)",
    "retain: device": "what tells the device: serial number, station, software (113109)",
    "retain: institution": "name, address and department of the hospital (113112)",
    "retain: patient_characteristics": "sex, age, size, weight and the like (113108)",
    "retain: safe_private": "private attributes of PS3.15 Table E.3.10-1 (113111); all other private ones go",
    "clean: descriptors": "descriptions keep words of anatomy and protocols, and `words` of the site file (113105)",
    "clean: graphics": "drawn annotations and overlays of regions stay, texts in them are cleaned (113103)",
    "clean: structured_content": "reports keep what Table E.3.4-1 lets stay; else all content is replaced (113104)",
    "clean: pixel_data": "`devices` of the site file say what is blacked out, or that there is no text (113101)",
}
"""Option of a profile → what it does, with its code in PS3.16 CID 7050."""


_STUDY = """`scope: study` makes a rule of several series of one study. Each stands under `inputs` with a name of your
choice, and steps take it by that name, where rules over one series take `received`. `when` beside `scope: study`
holds facts of the patient and the study only, or `{}`.

The rule runs as soon as every required input is complete and nothing that is known could change what it runs on: a
series that is still arriving is waited for where it could be an input that is missing, or be preferred. `wait:
{at_most: 30 min, then: skip}` says how long, from the first input that was there; without it that is 2 h, then
`skip`. Of several series that fit, each entry of `prefer` decides in turn, then the lower Series Number, then the
Series Instance UID. No series is two inputs; an input takes what those above it leave. Without an optional input, the
steps that need it are left out, with all that needs their results.

Results inherit patient and study from the first required input and refer to all images that were used. Inputs whose
Patient ID or Issuer differ are refused. What the node made itself, incomplete series (without `incomplete: ok`) and
series fetched from earlier studies are no inputs unless the input says so.

Cases under `try` give each series a name: `given: {series: {thin: {Modality: CT}, pet: {Modality: PT}}}`, beside it
`study:` (shared by all), `arriving:`, `priors:` and `waited: 30 min`; `expect: {runs: yes, uses: {ct: thin}}`.
"""


def shipped() -> list[OperatorSpec]:
    """The node's own operators by name."""
    return [spec for _, spec in sorted(registry.specs().items()) if spec.distribution == "pacsnode"]


def short_table(specs: Iterable[OperatorSpec]) -> str:
    """The README's table: a line each."""
    rows = (
        (f"`{spec.name}`", ", ".join(p.type for p in spec.inputs), spec.returns, spec.summary)
        for spec in specs
    )
    return _table(("operator", "takes", "makes", ""), rows)


def operators_page(specs: Iterable[OperatorSpec]) -> str:
    """All of docs/operators.md."""
    return "\n".join([_OPERATORS_HEAD, *(part for spec in specs for part in _section(spec))])


def rules_page() -> str:
    """All of docs/rules.md."""
    facts = {a.name: a.title + (f", in {unit_name(a.unit)}" if a.unit else "") for a in OURS.values()}
    forms = ((f"`{kind}`", f"`{word}`") for kind, word in SHOWN_AS.items())
    parts = (
        _RULES_HEAD, "## Keys\n", _sentences(KEYS, "key"), "\n## Conditions\n", _CONDITIONS_HEAD,
        _sentences(OPERATORS, "condition"), "\n## Facts of ours\n", _sentences(facts, "fact"),
        "\n## Series that hold several things\n", _sentences(EACH_PART, "`each_part`"),
        "\n## Rules over a study\n", _STUDY, _sentences(INPUT_KEYS, "under an input"), "",
        _sentences(WAITS, "`wait: then`"), "", _sentences(AGAIN, "`again`"), "\n## Where it goes\n", _SEND,
        _table(("in `as`", "in a peer's `shows`"), forms),
        "\n## What is changed on the way\n", _EDIT, _sentences(OPERATIONS, "in `edit`"),
        "\n## Copies without identity\n", _DEIDENTIFY, _sentences(_OPTIONS, "in a profile"), "",
    )  # fmt: skip
    return "\n".join(parts)


def _section(spec: OperatorSpec) -> Iterator[str]:
    inputs = ", ".join(f"{p.name}: {p.type}" for p in spec.inputs)
    yield f"## {spec.name}\n\n`{spec.name}({inputs})` makes `{spec.returns}`. {spec.summary}\n"
    if spec.options:
        rows = ((f"`{p.name}`", _kind(p), _unit(p), _default(p)) for p in spec.options)
        yield _table(("option", "kind", "unit", "default"), rows) + "\n"


def _sentences(table: Mapping[str, str], head: str) -> str:
    return _table((head, "means"), ((f"`{name}`", text) for name, text in table.items()))


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = (head, ("---",) * len(head), *rows)
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _kind(p: Parameter) -> str:
    return ", ".join(f"`{choice}`" for choice in p.choices) or p.type


def _unit(p: Parameter) -> str:
    return unit_name(p.unit) if p.unit else ""


def _default(p: Parameter) -> str:
    if p.required:
        return "required"
    if isinstance(p.default, bool):
        return "`yes`" if p.default else "`no`"
    return "none" if p.default is None else f"`{p.default}`"


def main(arguments: list[str]) -> None:
    """Write the pages, or print the README's table."""
    if arguments == ["table"]:
        print(short_table(shipped()))
        return
    (DOCS / "operators.md").write_text(operators_page(shipped()), encoding="utf-8")
    (DOCS / "rules.md").write_text(rules_page(), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])

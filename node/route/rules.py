"""Rule files → frozen rules; every mistake of every file at once, with file, line and column."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from node.errors import Misconfigured
from node.model import RECEIVED, OperatorSpec, Priority, Step
from node.route.cautions import cautions
from node.route.edits import NO_EDITS, parse_edits
from node.route.inputs import Study
from node.route.inputs_reading import parse_study
from node.route.keywords import NOT_OF_ONE_IMAGE, OURS
from node.route.rule import Rule, with_meaning
from node.route.sends import Around, Send, parse_sends
from node.route.splitting import parse_split
from node.route.steps import left_without, parse_steps
from node.route.study_tries import StudyTry, parse_study_tries
from node.route.tables import SUFFIX, Tables
from node.route.together import check_together, needs_the_series
from node.route.tries import Try, parse_tries
from node.route.when import When, parse_when
from node.settings.windows import read_windows, spelled
from node.shape import Node, Place, Shaper, parse, read
from node.yamltext import MOST_BYTES

__all__ = [
    "Rule",
    "RuleSet",
    "Send",
    "When",
    "digest_of",
    "parse_rules",
    "parse_when",
    "read_file",
    "read_folder",
    "read_rules",
    "scan_folder",
]

KEYS = {
    "rule": "the rule's name: letters, digits, - and _",
    "purpose": "one sentence for whoever reads this in two years",
    "owner": "whom to ask: a mail address",
    "group": "rules of one group can refer to each other with unless and fallback",
    "unless": "rules of the group that keep this one from running",
    "fallback": "yes: runs only if no other rule of the group does",
    "when": "conditions; every line must hold; {} stands for every series",
    "use": "which images of the series; the rest is left out and counted",
    "split": "what tells the parts of a series apart: orientation, b_value, temporal_position, DICOM keywords",
    "each_part": "what becomes of the parts: run, largest, refuse or together",
    "do": "the steps, in order",
    "send": "what goes where",
    "edit": "what is changed in all that the rule sends: set, copy, prefix, map, remove, in order",
    "window": "when it may be sent, as mon-fri 19:00-06:00, or a list of such; the peer's own window counts as well",
    "discard": "yes: the series is not wanted; recorded, and removed by retention",
    "mode": "shadow: processes and checks, but sends nothing",
    "incomplete": "ok: also processes series with gaps or missing images",
    "on_failure": "how often to try again, and what then",
    "priority": "urgent, normal or low: which of those that wait for a destination go first",
    "scope": "series, or study: a rule that takes several series of a study, each under a name",
    "inputs": "scope: study: the series it takes, each a name with when, prefer, pick, optional, prior",
    "wait": "scope: study: how long it waits for inputs that are missing, and what then",
    "again": "scope: study: whether a better or newer input makes it run again: better_input or never",
    "try": "cases that pacsnode check runs",
}
"""Every key of a rule, with a sentence for editors."""

_MOST_TABLE = 20_000_000
"""Bytes of a table: 200 000 rows."""
RULE_FILES = (".yaml", ".yml")
"""How names of rule files end."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_RETRIES = 3
_MOST_RETRIES = 100


@dataclass(frozen=True)
class RuleSet:
    """All rules that passed together."""

    rules: tuple[Rule, ...]
    digest: str
    """SHA-256 over the files' names and texts."""
    warnings: tuple[str, ...] = ()
    lookups: Mapping[str, str] = field(default_factory=dict)
    """Digest → the table as JSON, of those that treatments look values up in."""

    @property
    def of_studies(self) -> tuple[Rule, ...]:
        """The rules of `scope: study`."""
        return tuple(rule for rule in self.rules if rule.study is not None)


def read_folder(folder: Path) -> dict[str, str]:
    """Shown name → text of each *.yaml, *.yml and *.csv file. Raises Misconfigured with every file it cannot read."""
    found, mistakes = scan_folder(folder)
    if mistakes:
        raise Misconfigured(*mistakes)
    return found


def scan_folder(folder: Path) -> tuple[dict[str, str], tuple[str, ...]]:
    """Shown name → text of each *.yaml, *.yml and *.csv file that can be read, and a sentence for each that cannot.

    Raises Misconfigured where there is no such folder.
    """
    if folder.is_file():
        return read_file(folder, folder.name), ()
    if not folder.is_dir():
        raise Misconfigured(
            f"{folder}: there is no such folder; make it, or correct node: rules: in the site file"
        )
    found: dict[str, str] = {}
    mistakes: list[str] = []
    for path in sorted(
        p for p in folder.iterdir() if p.suffix in (*RULE_FILES, SUFFIX) and not p.name.startswith(".")
    ):
        try:
            found[f"{folder.name}/{path.name}"] = read(
                path, str(path), _MOST_TABLE if path.suffix == SUFFIX else MOST_BYTES
            )
        except Misconfigured as error:
            mistakes.extend(error.mistakes)
    return found, tuple(mistakes)


def read_file(file: Path, shown: str) -> dict[str, str]:
    """One rule file under its *shown* name, with the tables beside it that it names. Raises Misconfigured."""
    text, found = read(file, shown), {}
    for path in sorted(file.parent.glob(f"*{SUFFIX}")):
        if path.name in text:
            found[str(Path(shown).parent / path.name)] = read(path, str(path), _MOST_TABLE)
    return {shown: text, **found}


def parse_rules(
    files: Mapping[str, str], specs: Mapping[str, OperatorSpec], peers: Mapping[str, bool]
) -> RuleSet:
    """Shown name → text of each rule file → checked rules. Raises Misconfigured with all mistakes.

    *peers* says of each name in the site file whether it can receive (has an address).
    """
    found, mistakes, warnings = read_rules(files, specs, peers)
    if mistakes:
        raise Misconfigured(*mistakes)
    lookups = {
        name: text for rule in found for send in rule.sends for name, text in send.edits.lookups.items()
    }
    return RuleSet(found, digest_of(files), warnings, lookups)


def digest_of(files: Mapping[str, str]) -> str:
    """SHA-256 over names and texts: what tells one set of rule files from another."""
    return hashlib.sha256(json.dumps(sorted(files.items())).encode()).hexdigest()


def read_rules(
    files: Mapping[str, str], specs: Mapping[str, OperatorSpec], peers: Mapping[str, bool]
) -> tuple[tuple[Rule, ...], tuple[str, ...], tuple[str, ...]]:
    """The rules without mistakes, every mistake, and every warning."""
    shaper = Shaper()
    rules: list[Rule] = []
    sound: list[Rule] = []
    tables = Tables({name: text for name, text in files.items() if name.endswith(SUFFIX)})
    for file in sorted(set(files) - set(tables.files)):
        try:
            documents = parse(files[file], file)
        except Misconfigured as error:
            shaper.mistakes.extend(error.mistakes)
            continue
        for node in documents:
            before = len(shaper.mistakes)
            rule = _Reader(node, specs, peers, tables, shaper).rule()
            rules.append(rule)
            sound += [rule] if len(shaper.mistakes) == before else []
    check_together(rules, shaper)
    unused = tuple(f"{name}:1: no rule uses this table" for name in tables.unused())
    return tuple(sound), tuple(_by_place(shaper.mistakes)), (*cautions(sound, peers), *unused)


def _by_place(mistakes: Sequence[str]) -> list[str]:
    def place(mistake: str) -> tuple[str, int, int]:
        match = re.match(r"(.*?):(\d+)(?::(\d+))?: ", mistake)
        return (match[1], int(match[2]), int(match[3] or 0)) if match else (mistake, 0, 0)

    return sorted(dict.fromkeys(mistakes), key=place)


class _Reader:
    """Reads one document."""

    def __init__(
        self, node: Node, specs: Mapping[str, OperatorSpec], peers: Mapping[str, bool], tables: Tables,
        shaper: Shaper,
    ) -> None:  # fmt: skip
        self.node, self.specs, self.peers, self.tables, self.shaper = node, specs, peers, tables, shaper
        self.fields: dict[str, Node] = {}

    def rule(self) -> Rule:
        """The rule; where something is wrong the shaper knows, and the value is only good for more checks."""
        self._keys()
        shaper, fields = self.shaper, self.fields
        name = self._text("rule")
        if name and not _NAME.fullmatch(name):
            shaper.wrong(fields["rule"], f"rule: {name} may hold letters, digits, - and _ only")
        when = parse_when(fields["when"], shaper) if "when" in fields else When()
        use = parse_when(fields["use"], shaper) if "use" in fields else When()
        before = len(shaper.mistakes)
        study = parse_study(fields, self.peers, shaper)
        split = parse_split(fields, shaper)
        inputs = [one.name for one in study.inputs] if study else ()
        steps = (
            parse_steps(fields["do"], self.specs, shaper, together=split.together, inputs=inputs)
            if "do" in fields and (study is None or study.inputs)
            else ()
        )
        clean = len(shaper.mistakes) == before
        edits = parse_edits(fields["edit"], self.tables, shaper) if "edit" in fields else NO_EDITS
        # Without a readable `do` every name a send uses would be called wrong as well.
        made = self._made(steps) if clean else self._named()
        window = spelled(read_windows(shaper, fields["window"])) if "window" in fields else ""
        around = Around(made, self.peers, self.tables, edits, window)
        sends = parse_sends(fields["send"], around, shaper) if "send" in fields else ()
        rule = Rule(
            name, self._text("purpose"), self._text("owner"), self._text("group"),
            shaper.texts(fields["unless"]) if "unless" in fields else (),
            self._yes("fallback"), when, use, steps, sends, self._retry(), "", self.node.place,
            shadow="mode" in fields and shaper.choice(fields["mode"], ("shadow",)) == "shadow",
            discard=self._yes("discard"),
            incomplete_ok="incomplete" in fields and shaper.choice(fields["incomplete"], ("ok",)) == "ok",
            tries=self._tries(study),
            split=split,
            priority=Priority(shaper.choice(fields["priority"], tuple(Priority), Priority.NORMAL))
            if "priority" in fields
            else Priority.NORMAL,
            study=study,
        )  # fmt: skip
        self._sense(rule)
        self._facts_of(rule)
        if study is not None and clean:
            self._inputs_used(rule, study)
        return with_meaning(rule, self.specs) if clean else rule

    def _keys(self) -> None:
        node, shaper = self.node, self.shaper
        if not node.is_mapping:
            shaper.wrong(node, "expected a rule: a mapping that begins with rule: NAME")
            return
        if "deidentify" in node.fields:
            shaper.wrong(
                node.fields["deidentify"], "deidentify is asked for per destination: put it into send:"
            )
        if "hold" in node.fields:
            shaper.wrong(
                node.fields["hold"], "hold stands in an entry under send:, as {what: …, to: …, hold: yes}"
            )
        outside = [key for key in node.fields if key in OURS or key[:1].isupper() or key[:1] == "("]
        for key in outside:
            shaper.wrong(node.fields[key], f"{key} stands under when:, not beside it")
        known = (*KEYS, "deidentify", "hold", *outside)
        self.fields = shaper.fields(node, known, ("rule", "purpose", "owner", "when"))

    def _tries(self, study: Study | None) -> tuple[Try | StudyTry, ...]:
        if "try" not in self.fields:
            return ()
        node = self.fields["try"]
        return (
            parse_tries(node, self.shaper) if study is None else parse_study_tries(node, study, self.shaper)
        )

    def _made(self, steps: tuple[Step, ...]) -> dict[str, str]:
        """Each step's result and its type."""
        return {step.name: self.specs[step.operator].returns for step in steps}

    def _named(self) -> dict[str, str]:
        """Results by name only, where `do` has mistakes of its own."""
        found = {}
        for item in self.fields["do"].items if "do" in self.fields else ():
            operator = next((key for key in item.fields if key != "as"), item.text)
            found[item.fields["as"].text if "as" in item.fields else operator.rpartition(".")[2]] = ""
        return found

    def _text(self, key: str) -> str:
        return self.shaper.text(self.fields[key]) if key in self.fields else ""

    def _yes(self, key: str) -> bool:
        return self.shaper.yes_no(self.fields[key]) if key in self.fields else False

    def _retry(self) -> int:
        if "on_failure" not in self.fields:
            return _RETRIES
        fields = self.shaper.fields(self.fields["on_failure"], ("retry", "then"))
        if "then" in fields:
            self.shaper.choice(fields["then"], ("quarantine",))
        retry = self.shaper.integer(fields["retry"], at_least=0) if "retry" in fields else _RETRIES
        if retry > _MOST_RETRIES:
            self.shaper.wrong(fields["retry"], f"{retry} is too often; the most is {_MOST_RETRIES}")
        return retry

    def _sense(self, rule: Rule) -> None:
        """A rule does something, and one thing."""
        shaper, fields, node = self.shaper, self.fields, self.node
        if not node.is_mapping:
            return
        if rule.discard and ("do" in fields or "send" in fields):
            shaper.wrong(
                fields["discard"], "a rule that discards neither processes nor sends; make two rules"
            )
        if not rule.discard and "send" not in fields:
            what = "nothing of do: is sent" if "do" in fields else "it does nothing"
            shaper.wrong(
                node, f"rule {rule.name}: {what}; add send: (or discard: yes where the series is not wanted)"
            )
        elif rule.steps and all(send.what == RECEIVED for send in rule.sends):
            shaper.wrong(fields["do"], "no send: names a result of do:, so nothing would come of it")
        for key, says in (("edit", "changes what is sent"), ("window", "says when it is sent")):
            if key in fields and "send" not in fields:
                shaper.wrong(fields[key], f"{key} {says}; add send:")
        if "split" in fields and "do" not in fields:
            shaper.wrong(fields["split"], "split divides a series before it is processed; add do:")
        if (rule.unless or rule.fallback) and not rule.group:
            key = "unless" if rule.unless else "fallback"
            shaper.wrong(fields[key], f"{key} counts within a group; add group:")

    def _inputs_used(self, rule: Rule, study: Study) -> None:
        """Every input is taken by a step, and something is left to send without the optional ones."""
        taken = {source for step in rule.steps for source in step.inputs.values()}
        for one in study.inputs:
            if one.name not in taken and "do" in self.fields:
                at = Node(Place(self.node.place.file, one.line, one.column), "")
                self.shaper.wrong(at, f"no step takes the input {one.name}; remove it, or name it under do:")
        received = next((send for send in rule.sends if send.what == RECEIVED), None)
        if received is not None:
            at = Node(Place(self.node.place.file, received.line, received.column), "")
            self.shaper.wrong(
                at, "a rule over a study sends results; write a rule of scope: series for received objects"
            )
        optional = [one for one in study.inputs if one.optional]
        left = {step.name for step in left_without(rule.steps, [one.name for one in optional], self.specs)}
        if optional and rule.sends and not any(send.what in left for send in rule.sends):
            at = Node(Place(self.node.place.file, optional[0].line, optional[0].column), "")
            names = " and ".join(one.name for one in optional)
            self.shaper.wrong(at, f"without {names} nothing that is sent is left; it is not optional then")

    def _facts_of(self, rule: Rule) -> None:
        """`use` asks single images, an immediate rule single objects: neither knows the series as a whole."""
        for line in rule.use.conditions():
            if line.name in NOT_OF_ONE_IMAGE or line.condition.some:
                at = Node(Place(self.node.place.file, line.line, line.column), "")
                what = "some asks" if line.condition.some else f"{line.name} tells"
                self.shaper.wrong(
                    at, f"{what} about the series, but use picks single images; put it under when:"
                )
        send = next((send for send in rule.sends if send.immediate), None)
        for line in needs_the_series(rule) if send else ():
            at = Node(Place(self.node.place.file, line.line, line.column), "")
            self.shaper.wrong(
                at,
                f"{line.text} is known only when the series is complete, but line {send.line if send else 0} "
                "sends received objects as they arrive; add mode: sealed there",
            )

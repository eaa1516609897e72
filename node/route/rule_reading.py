"""One YAML document → one rule; every mistake with its place."""

from __future__ import annotations

import re
from collections.abc import Mapping

from node.model import RECEIVED, OperatorSpec, Priority, Step
from node.route.edits import NO_EDITS, parse_edits
from node.route.inputs import Study
from node.route.inputs_reading import parse_study
from node.route.keywords import NOT_OF_ONE_IMAGE, OURS
from node.route.rule import Rule, with_meaning
from node.route.sends import Around, Send, parse_sends
from node.route.splitting import parse_split
from node.route.steps import left_without, parse_steps
from node.route.study_tries import StudyTry, parse_study_tries
from node.route.tables import Tables
from node.route.together import needs_the_series
from node.route.tries import Try, parse_tries
from node.route.when import When
from node.route.when_reading import parse_when
from node.settings.windows import read_windows, spelled
from node.shape import Node, Place, Shaper

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
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_RETRIES = 3
_MOST_RETRIES = 100


class RuleReader:
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
        # Without a readable `do` every name a send uses would be called wrong as well.
        sends = self._sends(self._made(steps) if clean else self._named())
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

    def _sends(self, made: Mapping[str, str]) -> tuple[Send, ...]:
        """What goes where, of what is *made*: each result and its type."""
        shaper, fields = self.shaper, self.fields
        edits = parse_edits(fields["edit"], self.tables, shaper) if "edit" in fields else NO_EDITS
        window = spelled(read_windows(shaper, fields["window"])) if "window" in fields else ""
        around = Around(made, self.peers, self.tables, edits, window)
        return parse_sends(fields["send"], around, shaper) if "send" in fields else ()

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

"""A run over a study in its worker: each input read once, and what every result descends from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from node.derive.adopting import adopted
from node.derive.sources import Sources
from node.descent import sources_of
from node.errors import Broken, Refused
from node.model import Job, OperatorSpec, Plan
from node.process import steps
from node.read.loaded import Loaded
from node.read.series import parts

INPUT = "input"
"""The fact that says which input of the rule a value comes from; operators that keep the facts keep it."""
_IDENTITY = {"PatientID": "Patient ID", "IssuerOfPatientID": "Issuer of Patient ID"}


@dataclass(frozen=True)
class Combined:
    """The inputs of one run, by name; the first stands for the patient and the study."""

    plan: Plan
    loaded: Mapping[str, Loaded[Any]]

    def give(self, name: str) -> Any:
        """What a step takes under this name. Raises KeyError for one that is no input."""
        return self.loaded[name].value

    @property
    def main(self) -> str:
        """The input that stands for the run."""
        return next(iter(self.loaded))

    @property
    def remarks(self) -> list[str]:
        """What reading the inputs had to decide, with the input's name."""
        return [f"{name}: {text}" for name, one in self.loaded.items() for text in one.remarks]

    def sources(self, results: Mapping[str, Any]) -> dict[str, Sources]:
        """Result → the headers it descends from: those of the input it resembles, and of all others it was made of."""
        return {name: self._sources(name, result) for name, result in results.items()}

    def _sources(self, name: str, result: Any) -> Sources:
        used = list(dict.fromkeys(self._inputs_of(name)))
        facts = getattr(result, "facts", {})
        like = str(facts.get(INPUT) or next(iter(used), self.main))
        if like not in self.loaded:
            raise Broken(f"output {name}: the fact `input` names {like}, which is no input of the rule")
        own, main = self.loaded[like], self.loaded[self.main]
        headers = own.headers
        frame = str(facts.get("frame_of_reference") or "")
        if like != self.main:
            sop_class = str(own.headers[0].get("SOPClassUID", ""))
            headers = adopted(own.headers, main.headers[0], sop_class, frame)
        others = [h for other in used if other != like for h in self.loaded[other].headers]
        said = [text for other in dict.fromkeys((like, *used)) for text in self.loaded[other].remarks]
        return replace(sources_of(own, others, headers).behind(result), remarks=tuple(dict.fromkeys(said)))

    def _inputs_of(self, name: str) -> Iterator[str]:
        """The inputs that a result was made of: those of its step's first parameter first."""
        if name in self.loaded:
            yield name
            return
        step = next((step for step in self.plan.steps if step.name == name), None)
        for source in step.inputs.values() if step else ():
            yield from self._inputs_of(source)


def combined(job: Job, specs: Mapping[str, OperatorSpec]) -> Combined:
    """Read the inputs of *job*. Raises Refused, naming the input, where one does not suit; also for two patients."""
    loaded: dict[str, Loaded[Any]] = {}
    begin = 0
    for name, count in job.inputs.items():
        paths = [Path(file) for file in job.files[begin : begin + count]]
        begin += count
        try:
            loaded[name] = _read(name, steps.received_as(job.plan, specs, name), paths)
        except Refused as error:
            raise Refused(f"{name}: {error}") from error
    _refuse_strangers(loaded)
    return Combined(job.plan, loaded)


def _read(name: str, kind: str, paths: list[Path]) -> Loaded[Any]:
    found = list(parts(kind, paths, (), "refuse"))
    if len(found) != 1:
        raise Refused(f"it holds {len(found)} objects, and one {kind} is needed; narrow it with use:")
    loaded = found[0].load()
    if not hasattr(loaded.value, "facts"):
        return loaded
    return replace(loaded, value=replace(loaded.value, facts={**loaded.value.facts, INPUT: name}))


def _refuse_strangers(loaded: Mapping[str, Loaded[Any]]) -> None:
    """The index says that they are of one patient; their headers must say so, too."""
    (first, one), *others = loaded.items()
    for name, other in others:
        for keyword, said in _IDENTITY.items():
            if _text(one, keyword) != _text(other, keyword):
                raise Refused(f"{first} and {name} differ in {said}; they are not surely of one patient")


def _text(one: Loaded[Any], keyword: str) -> str:
    return str(one.headers[0].get(keyword) or "").strip(" \0")

"""A run and what it makes: its job, its results, and how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from node.model.planning import Plan
from node.model.states import RunState

KIND_OF = {
    "Volume": "image", "Picture": "picture", "Recording": "recording", "Tiles": "tiles", "Mask": "segmentation",
    "FractionalMask": "segmentation", "Map": "parametric_map", "Measurements": "report", "Document": "document",
    "KeyImages": "key_images", "Presentation": "presentation", "Stack": "image", "Segments": "segmentation",
    "Report": "report",
}  # fmt: skip
"""What an operator returns → the kind of object that it leaves as (`Product.kind`)."""
REJECTION = "rejection"
"""The kind of the notes by which the node takes its own results back (`Product.kind`); no operator makes them."""
NOTICE = "For research use. Not for primary diagnosis."
"""Of reports, where the site says no other."""


@dataclass(frozen=True, slots=True)
class SeriesPart:
    """Which part of a series results were made from; an undivided series is its own part 1."""

    number: int = 1
    label: str = ""
    """What tells it from the others, e.g. `b_value 800`."""


WHOLE = SeriesPart()
"""A series that is not split."""


def series_key(output: str, part: int = 1, form: str = "") -> str:
    """How the series of an output is called where it gets its UIDs and its number: `thick#2/picture`."""
    return output + (f"#{part}" if part > 1 else "") + (f"/{form}" if form else "")


@dataclass(frozen=True, slots=True)
class Provenance:
    """Who made an output, from what, and when first: everything that decides its UIDs and dates."""

    identity: str
    """Hex digest over source digests, rule meaning, operator versions, node major version, generation."""
    first_run_at: datetime
    """Aware; the dates in every output of this identity, however often it is made again."""
    software: str
    """Name and version of the node, for Contributing Equipment."""
    device: str
    """Our AE title, for Contributing Equipment's Station Name."""
    series_numbers: Mapping[str, int]
    """`series_key` → Series Number."""
    operators: Mapping[str, str] = field(default_factory=dict)
    """Operator name → version."""
    notice: str = ""
    """What results are for, in the site's words; stands in every report."""


@dataclass(frozen=True, slots=True)
class Product:
    """One derived object on disk, gated; rows and files, never a dataset."""

    output: str
    index: int
    kind: str
    """image | picture | recording | tiles | segmentation | parametric_map | report | document | key_images |
    presentation"""
    path: str
    """Relative to the run's folder."""
    sop_uid: str
    sop_class: str
    transfer_syntax: str
    series_uid: str
    digest: str
    size: int = 0
    """Bytes of the file."""


@dataclass(frozen=True, slots=True)
class Issued:
    """A result that left earlier, as what replaces it or takes it back refers to it."""

    output: str
    """Of the rule; in a note of withdrawal the note that names it."""
    kind: str
    """`Product.kind`."""
    sop_uid: str
    sop_class: str
    series_uid: str
    study_uid: str


@dataclass(frozen=True, slots=True)
class Job:
    """What the conductor hands to a worker: `job.json` in the attempt's folder."""

    run: int
    plan: Plan
    provenance: Provenance
    files: tuple[str, ...]
    """Absolute paths of the used objects."""
    inherited_timezone: str = ""
    """IANA name used where the source has no Timezone Offset From UTC."""
    revision: int = 1
    """Of the series, when this identity was first run: from the second on the results say so (design §6)."""
    predecessors: tuple[Issued, ...] = ()
    """Reports that those of this run replace."""
    withdraws: tuple[Issued, ...] = ()
    """Not to make results but rejection notes that name these; *files* are then where patient and study stand."""
    why: str = ""
    """Why they are withdrawn."""
    inputs: Mapping[str, int] = field(default_factory=dict)
    """Of a rule over a study: input → how many of *files* are its, in their order; the first stands for the study."""


@dataclass(frozen=True, slots=True)
class Exit:
    """How one attempt of a run ended."""

    state: RunState
    """done | refused | quarantined; waiting when trying again may help."""
    reason: str
    """In words; empty when done."""
    products: tuple[Product, ...] = ()
    measurements: tuple[Mapping[str, Any], ...] = ()
    """One mapping per number: output, name, value, unit, region (codes as `value^scheme^meaning`)."""

"""The frozen values and the states that every room speaks. Imports nothing of ours.

In the order of the data's way: `arriving` (what receivers and readers know of an object), `attributes` (what a header
says), `planning` (operators and the steps of a rule), `making` (runs and their results), `sending` (how something
goes to a destination); `states` are those of the rows. All of it is imported from here.
"""

from node.model.arriving import (
    EXPIRED,
    REJECTIONS,
    Arrival,
    AssociationEnd,
    CommitMessage,
    Header,
    Keeper,
    Kept,
    Part,
    StepMessage,
)
from node.model.attributes import Cell, Code, Value
from node.model.making import (
    KIND_OF,
    NOTICE,
    REJECTION,
    WHOLE,
    Exit,
    Issued,
    Job,
    Product,
    Provenance,
    SeriesPart,
    series_key,
)
from node.model.planning import PART_NAME, RECEIVED, OperatorSpec, Output, Parameter, Plan, Step, is_received
from node.model.sending import PLAIN, Destinations, Manner, Priority, Trouble
from node.model.states import DeliveryState, InstanceState, RunState, SeriesState

__all__ = [
    "EXPIRED",
    "KIND_OF",
    "NOTICE",
    "PART_NAME",
    "PLAIN",
    "RECEIVED",
    "REJECTION",
    "REJECTIONS",
    "WHOLE",
    "Arrival",
    "AssociationEnd",
    "Cell",
    "Code",
    "CommitMessage",
    "DeliveryState",
    "Destinations",
    "Exit",
    "Header",
    "InstanceState",
    "Issued",
    "Job",
    "Keeper",
    "Kept",
    "Manner",
    "OperatorSpec",
    "Output",
    "Parameter",
    "Part",
    "Plan",
    "Priority",
    "Product",
    "Provenance",
    "RunState",
    "SeriesPart",
    "SeriesState",
    "Step",
    "StepMessage",
    "Trouble",
    "Value",
    "is_received",
    "series_key",
]

"""What the verbs of the command line ask for: answers as plain values, and their lines for people."""

from node.desk.acting import (
    Asked,
    Replayed,
    act,
    acted_lines,
    release_object,
    replay,
    replay_lines,
    sop_class_uid,
)
from node.desk.explaining import (
    Explained,
    explain_files,
    explain_kept,
    explanation_json,
    explanation_lines,
    matched_lines,
    process_files,
    processed_json,
    processed_lines,
)
from node.desk.offers import operator_lines, operators_json, operators_table, unknown_operator
from node.desk.standing import status, status_lines
from node.desk.timeline import timeline_lines, timelines
from node.desk.writing import Example, new_rule

__all__ = [
    "Asked", "Example", "Explained", "Replayed", "act", "acted_lines", "explain_files", "explain_kept",
    "explanation_json", "explanation_lines", "matched_lines", "new_rule", "operator_lines", "operators_json",
    "operators_table", "process_files", "processed_json", "processed_lines", "release_object", "replay",
    "replay_lines", "sop_class_uid", "status", "status_lines", "timeline_lines", "timelines",
    "unknown_operator",
]  # fmt: skip

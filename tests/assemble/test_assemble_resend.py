"""Claims about the same SOP Instance UID coming again."""

from __future__ import annotations

from typing import Any

import pytest
from flow_material import JPEG, header

from node.assemble.resend import RECOMPRESSED, Known, judge
from node.model import InstanceState

FIRST = header(1)
KNOWN = Known(
    7, FIRST.study_uid, FIRST.series_uid, FIRST.transfer_syntax, FIRST.digest, FIRST.pixel_digest
)  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "state", "why", "replaces"),
    [
        ({}, InstanceState.DUPLICATE, "same bytes", False),
        ({"digest": "f" * 64}, InstanceState.KEPT, "newer header of the same pixels", True),
        ({"digest": "f" * 64, "pixel_digest": "e" * 64}, InstanceState.CONFLICT, "other pixels", False),
        ({"digest": "f" * 64, "series_uid": "5"}, InstanceState.CONFLICT, "another study or series", False),
        ({"digest": "f" * 64, "study_uid": "5"}, InstanceState.CONFLICT, "another study or series", False),
        (
            {"digest": "f" * 64, "pixel_digest": "e" * 64, "transfer_syntax": JPEG},
            InstanceState.CONFLICT, RECOMPRESSED, False,
        ),
    ],
)  # fmt: skip
def test_what_the_newcomer_is(
    changes: dict[str, Any], state: InstanceState, why: str, replaces: bool
) -> None:
    """Same bytes are a duplicate, another header over the same pixels wins, everything else is a conflict."""
    judged = judge(KNOWN, header(1, **changes))
    assert (judged.state, judged.replaces) == (state, replaces)
    assert why in judged.why


def test_a_new_uid_is_simply_kept() -> None:
    """What was never seen is kept, without a word."""
    judged = judge(None, header(1))
    assert (judged.state, judged.why, judged.replaces) == (InstanceState.KEPT, "", False)

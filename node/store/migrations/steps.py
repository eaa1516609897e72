"""Every step there is, by the version it begins at."""

from __future__ import annotations

from collections.abc import Mapping

from node.store.migrations.step import Step
from node.store.migrations.to_2 import TO_2
from node.store.migrations.to_3 import TO_3
from node.store.migrations.to_4 import TO_4

STEPS: Mapping[int, Step] = {1: TO_2, 2: TO_3, 3: TO_4}
"""Version → what leads from it to the next."""

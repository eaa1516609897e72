"""Upgrading an older database, one version after the other, in one transaction: all of it or nothing.

The steps are frozen: what a step once did it does for ever, whatever the tables look like today. A change of
`schema.py` raises its VERSION and adds the module `to_VERSION` that leads there; `upgrading` takes the steps.
"""

from node.store.migrations.steps import STEPS
from node.store.migrations.upgrading import refuse_while_running, said, upgrade_postgresql, upgrade_sqlite

__all__ = ["STEPS", "refuse_while_running", "said", "upgrade_postgresql", "upgrade_sqlite"]

"""De-identification of one object (PS3.15 Annex E): a dataset, a profile and a key in, a new dataset out.

`table` is the standard's Table E.1-1 as data, `decide` judges one row under a profile, `walk` goes through the
object at any depth; `words`, `content`, `graphics`, `private` and `moments` clean what options ask to be cleaned,
`burned` says what may hold text in its pixels. It fails closed: what cannot be read, understood or vouched for is
refused in words, and there is no copy.
"""

from node.derive.deidentify.burned import Plan, Rectangle, Template, plan
from node.derive.deidentify.making import Made, Site, deidentified
from node.derive.deidentify.pixels import Pixels
from node.derive.deidentify.profile import BASIC, CLEAN, RETAIN, Profile
from node.derive.deidentify.secrets import Secrets
from node.derive.deidentify.table import EDITION

__all__ = [
    "BASIC",
    "CLEAN",
    "EDITION",
    "RETAIN",
    "Made",
    "Pixels",
    "Plan",
    "Profile",
    "Rectangle",
    "Secrets",
    "Site",
    "Template",
    "deidentified",
    "plan",
]

"""The site file: its frozen values (`values`) and how it is read (`reading`)."""

from node.settings.reading import KEYS, find, load, parse
from node.settings.values import (
    Alarm,
    Alerts,
    Disk,
    Email,
    Keep,
    Limits,
    Network,
    NodeSettings,
    Peer,
    SealLine,
    SealPolicy,
    Settings,
    Web,
)

__all__ = [
    "KEYS",
    "Alarm",
    "Alerts",
    "Disk",
    "Email",
    "Keep",
    "Limits",
    "Network",
    "NodeSettings",
    "Peer",
    "SealLine",
    "SealPolicy",
    "Settings",
    "Web",
    "find",
    "load",
    "parse",
]

"""The site file: its frozen values (`values`) and how it is read (`reading`)."""

from node.settings.reading import KEYS, find, load, parse
from node.settings.values import (
    SOURCE,
    Alarm,
    Alerts,
    Commit,
    Disk,
    Email,
    Keep,
    Limits,
    Network,
    NodeSettings,
    Peer,
    PeerTls,
    SealLine,
    SealPolicy,
    Settings,
    Tls,
    Web,
)
from node.settings.windows import Window, is_open

__all__ = [
    "KEYS",
    "SOURCE",
    "Alarm",
    "Alerts",
    "Commit",
    "Disk",
    "Email",
    "Keep",
    "Limits",
    "Network",
    "NodeSettings",
    "Peer",
    "PeerTls",
    "SealLine",
    "SealPolicy",
    "Settings",
    "Tls",
    "Web",
    "Window",
    "find",
    "is_open",
    "load",
    "parse",
]

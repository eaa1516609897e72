"""`alerts:` of the site file: who is told what."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

from node import shape
from node.settings.terms import address, fields, get
from node.settings.values import Alarm, Alerts, Email
from node.shape import Node, Shaper, nearest

ALERTS_KEYS = ("email", "webhook", "syslog", "when")
EMAIL_KEYS = ("to", "from", "host", "port", "starttls", "user", "password", "password_file")

AFTER: Mapping[str, timedelta | None] = {
    "destination_down": timedelta(minutes=15),
    "parked": timedelta(0),
    "quarantined": timedelta(0),
    "disk": timedelta(0),
    "rules_refused": timedelta(0),
    "tls_certificate": timedelta(0),
    "conductor_down": timedelta(minutes=2),
    "set_aside": timedelta(0),
    "series_attention": timedelta(hours=2),
    "no_objects": None,
}
"""What may be told, and after how long where the site file does not say; None: it must say."""

_USUAL = ("destination_down", "parked", "quarantined", "disk", "rules_refused", "tls_certificate")
_MAILBOX = re.compile(r"[^\s@<>,;:\"]+@[^\s@<>,;:\"]+")
_LOCAL = ("localhost", "127.0.0.1", "::1")


def read_alerts(shaper: Shaper, node: Node, folder: Path) -> Alerts:
    """The channels and what goes through them; *folder* is where relative paths start."""
    given = fields(shaper, node, ALERTS_KEYS)
    if node.is_mapping and not {"email", "webhook", "syslog"} & given.keys():
        shaper.wrong(node, "nobody would be told: alerts needs email, webhook or syslog")
    return Alerts(
        email=_email(shaper, given["email"], folder) if "email" in given else None,
        webhook=get(given, "webhook", lambda item, _: _url(shaper, item), ""),
        syslog=address(shaper, given["syslog"]) if "syslog" in given else None,
        when=_when(shaper, given["when"]) if "when" in given else tuple(_usual()),
    )


def missing_files(alerts: Alerts) -> list[str]:
    """A sentence for each file that is named and cannot be read; asked at start and by `check` only."""
    file = alerts.email.password_file if alerts.email else None
    if file is None:
        return []
    try:
        file.read_bytes()
    except OSError as error:
        return [f"alerts.email.password_file: {file} cannot be read: {error.strerror}"]
    return []


def _usual() -> list[Alarm]:
    return [Alarm(what, AFTER[what] or timedelta(0)) for what in _USUAL]


def _when(shaper: Shaper, node: Node) -> tuple[Alarm, ...]:
    found: dict[str, Alarm] = {}
    for item in node.items:
        what, _, text = item.text.strip().partition(" ")
        if not item.is_text or what not in AFTER:
            known = ", ".join(AFTER)
            shaper.wrong(item, f"{what or 'this'} is no condition; there are {known}{nearest(what, AFTER)}")
            continue
        after = shape.duration(text) if text else AFTER[what]
        if after is None:
            shaper.wrong(item, f"{what} needs how long it must have lasted, such as {what} 2 h")
        elif what in found:
            shaper.wrong(item, f"{what} is given twice")
        else:
            found[what] = Alarm(what, after)
    return tuple(found.values())


def _email(shaper: Shaper, node: Node, folder: Path) -> Email:
    given = fields(shaper, node, EMAIL_KEYS, required=("to", "from", "host"))
    host = get(given, "host", shaper.text, "")
    port = get(given, "port", lambda item, default: shaper.integer(item, default, at_least=1), Email.port)
    if port > 65535:
        shaper.wrong(given["port"], f"port {port} is above 65535")
    if "to" in given and not given["to"].items:
        shaper.wrong(given["to"], "at least one address is needed")
    email = Email(
        to=tuple(_mailbox(shaper, item) for item in given["to"].items) if "to" in given else (),
        sender=get(given, "from", lambda item, _: _mailbox(shaper, item), ""),
        host=host,
        port=port,
        starttls=get(given, "starttls", shaper.yes_no, Email.starttls),
        user=get(given, "user", shaper.text, ""),
        password=get(given, "password", shaper.text, ""),
        password_file=folder / shaper.text(given["password_file"]) if "password_file" in given else None,
    )
    _check_login(shaper, node, given, email)
    return email


def _check_login(shaper: Shaper, node: Node, given: Mapping[str, Node], email: Email) -> None:
    secrets = [key for key in ("password", "password_file") if key in given]
    if len(secrets) > 1:
        shaper.wrong(given[secrets[1]], "give password or password_file, not both")
    if bool(secrets) != ("user" in given):
        shaper.wrong(node, "user and its password (or password_file) belong together")
    if secrets and not email.starttls and email.host not in _LOCAL:
        shaper.wrong(node, "the password would cross the network in clear; say starttls: yes")


def _mailbox(shaper: Shaper, node: Node) -> str:
    text = shaper.text(node).strip()
    if text and not _MAILBOX.fullmatch(text):
        shaper.wrong(node, f"expected an address such as pacs-team@hospital.example, found {text!r}")
    return text


def _url(shaper: Shaper, node: Node) -> str:
    text = shaper.text(node).strip()
    try:
        parts = urlsplit(text)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        fits = False
    if not fits or not text.isascii() or not text.isprintable() or " " in text:
        shaper.wrong(node, "expected a URL such as https://chat.hospital.example/hooks/pacs")
        return ""
    return text

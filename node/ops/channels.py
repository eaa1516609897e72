"""The ways an alert leaves: e-mail, webhook, syslog. Each takes a Message or raises OSError, within its time."""

from __future__ import annotations

import contextlib
import http.client
import json
import smtplib
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, tzinfo
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from typing import Protocol
from urllib.parse import urlsplit

from node.settings import Alerts, Email

PATIENCE = 10.0
"""Seconds for one step of a dialogue."""
_SMTPS = 465
"""Port on which TLS begins at once (RFC 8314 3.3)."""
_WARNING, _NOTICE = 4, 5
_DAEMON = 3
"""Severities and facility of RFC 5424 6.2.1."""
_DATAGRAM = 2048
"""Bytes a syslog receiver should take (RFC 5424 6.1)."""


@dataclass(frozen=True)
class News:
    """One thing that began or ended."""

    what: str
    key: str
    since: datetime
    detail: str
    over_at: datetime | None = None
    """None while it lasts."""

    def at_home(self, zone: tzinfo) -> News:
        """The same with its times as a clock on the wall shows them."""
        over = self.over_at.astimezone(zone) if self.over_at else None
        return replace(self, since=self.since.astimezone(zone), over_at=over)

    def words(self) -> str:
        """The line for people."""
        name = f"{self.what} {self.key}".strip()
        if self.over_at is None:
            return f"{name} since {_moment(self.since)}: {self.detail}"
        return f"{name} is over since {_moment(self.over_at)}; it had lasted since {_moment(self.since)}"


@dataclass(frozen=True)
class Message:
    """Everything one channel is told at a time."""

    node: str
    """Which node speaks."""
    at: datetime
    news: tuple[News, ...]

    def subject(self) -> str:
        """One line; it names what began, else what ended."""
        begun = sorted({one.what for one in self.news if one.over_at is None})
        over = sorted({one.what for one in self.news if one.over_at is not None} - set(begun))
        said = ([", ".join(begun)] if begun else []) + ([f"over: {', '.join(over)}"] if over else [])
        return f"PACSNode {self.node}: {'; '.join(said)}"


def _moment(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M:%S %Z").strip()


class Channel(Protocol):
    """One way out."""

    @property
    def name(self) -> str:
        """A word without blanks."""
        ...

    def tell(self, message: Message) -> None:
        """Say it. Raises OSError (smtplib's and http.client's count as such) when nobody took it."""
        ...


def channels(alerts: Alerts) -> list[Channel]:
    """The channels that the site file names."""
    found: list[Channel] = []
    if alerts.email:
        found.append(Mail(alerts.email))
    if alerts.webhook:
        found.append(Webhook(alerts.webhook))
    if alerts.syslog:
        found.append(Syslog(*alerts.syslog))
    return found


@dataclass(frozen=True)
class Mail:
    """A mail through the site's server (RFC 5321), with STARTTLS (RFC 3207) where it is asked for."""

    email: Email
    name: str = "email"

    def tell(self, message: Message) -> None:
        """Hand one mail over. Raises OSError, also where its password file cannot be read."""
        password = self._password()
        try:
            with self._connected() as server:
                if self.email.starttls and self.email.port != _SMTPS:
                    server.starttls(context=ssl.create_default_context())
                if self.email.user:
                    server.login(self.email.user, password)
                server.send_message(self._written(message))
        except (
            smtplib.SMTPException,
            ValueError,
        ) as error:  # ValueError: what is not ASCII for an old server
            raise OSError(f"the mail server did not take it: {_reply(error)}") from error

    def _connected(self) -> smtplib.SMTP:
        host, port = self.email.host, self.email.port
        if port == _SMTPS:
            return smtplib.SMTP_SSL(host, port, timeout=PATIENCE, context=ssl.create_default_context())
        return smtplib.SMTP(host, port, timeout=PATIENCE)

    def _password(self) -> str:
        if self.email.password_file is None:
            return self.email.password
        try:
            return self.email.password_file.read_text(encoding="utf-8").strip("\r\n")
        except UnicodeDecodeError:
            raise OSError("alerts.email.password_file is not UTF-8 text") from None

    def _written(self, message: Message) -> EmailMessage:
        mail = EmailMessage()
        mail["From"], mail["To"] = self.email.sender, ", ".join(self.email.to)
        mail["Subject"] = message.subject()
        mail["Date"] = formatdate(message.at.timestamp())
        mail["Message-ID"] = make_msgid(domain=self.email.sender.rpartition("@")[2])
        mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: no out-of-office answers
        mail.set_content("\n\n".join(one.words() for one in message.news) + "\n")
        return mail


def _reply(error: Exception) -> str:
    """What kind of failure, and the server's code; its text is not ours to log."""
    code = getattr(error, "smtp_code", "")
    return f"{type(error).__name__} {code}".strip()


@dataclass(frozen=True)
class Webhook:
    """A JSON document by POST; `text` is what chat systems show."""

    url: str
    name: str = "webhook"

    def tell(self, message: Message) -> None:
        """POST it; redirects are not followed. Raises OSError unless the answer is 2xx."""
        parts = urlsplit(self.url)
        made = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        with contextlib.closing(made(parts.hostname or "", parts.port, timeout=PATIENCE)) as connection:
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            try:
                connection.request("POST", target, self._body(message), {"Content-Type": "application/json"})
                status = connection.getresponse().status
            except (http.client.HTTPException, ValueError) as error:
                raise OSError(f"the webhook did not take it: {type(error).__name__}") from error
        if not 200 <= status < 300:
            raise OSError(f"the webhook answered {status}")

    def _body(self, message: Message) -> bytes:
        said: Mapping[str, object] = {
            "node": message.node,
            "at": message.at.isoformat(),
            "text": "\n".join([message.subject(), *(one.words() for one in message.news)]),
            "news": [
                {
                    "what": one.what,
                    "key": one.key,
                    "state": "begun" if one.over_at is None else "over",
                    "since": one.since.isoformat(),
                    "over_at": one.over_at.isoformat() if one.over_at else None,
                    "detail": one.detail,
                }
                for one in message.news
            ],
        }
        return json.dumps(said, ensure_ascii=False).encode()


@dataclass(frozen=True)
class Syslog:
    """One datagram per thing, as RFC 5424 and 5426 say; nobody confirms that it came."""

    host: str
    port: int
    name: str = "syslog"

    def tell(self, message: Message) -> None:
        """Send them. Raises OSError where the host is not known or this machine has no way to it."""
        family, *_, address = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as channel:
            channel.settimeout(PATIENCE)
            for one in message.news:
                channel.sendto(self._line(message, one), address)

    def _line(self, message: Message, one: News) -> bytes:
        priority = _DAEMON * 8 + (_WARNING if one.over_at is None else _NOTICE)
        at = message.at.isoformat(timespec="milliseconds")
        host = socket.gethostname().encode("ascii", "replace").decode() or "-"
        header = f"<{priority}>1 {at} {host} pacsnode - {one.what} - "
        text = one.words().replace("\n", " / ")
        return (header.encode() + b"\xef\xbb\xbf" + text.encode())[:_DATAGRAM]

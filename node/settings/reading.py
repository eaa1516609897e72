"""The site file (`config/node.yaml`) → frozen Settings; every mistake is named at once, with file and line.

Keys may be overridden from the environment: `PACSNODE__NODE__LISTEN=0.0.0.0:104`. A key this version does
not act on yet is refused, so that nothing the file says is silently ignored.
"""

from __future__ import annotations

import os
import zoneinfo
from collections.abc import Mapping
from dataclasses import fields as fields_of
from datetime import timedelta
from pathlib import Path
from typing import Literal

from node import overrides, shape
from node.errors import Misconfigured
from node.model import NOTICE
from node.settings.alerting import ALERTS_KEYS, EMAIL_KEYS, missing_files, read_alerts
from node.settings.deidentify import DEIDENTIFY_KEYS, NESTED_KEYS, PROFILE_KEYS, Deidentify, read_deidentify
from node.settings.peers import COMMIT_KEYS, PEER_KEYS, read_peers
from node.settings.seal import POLICY_KEYS, check_counters, read_seal
from node.settings.security import PEER_TLS_KEYS, TLS_KEYS, agree, read_tls
from node.settings.terms import NO_ADDRESS, address, ae_title, count, fields, get, pick
from node.settings.values import Alerts, Disk, Keep, Limits, NodeSettings, Settings, Web
from node.shape import Node, Shaper, nearest

_TOP = (
    "node",
    "unknown_senders",
    "peers",
    "seal",
    "keep",
    "disk",
    "limits",
    "alerts",
    "web",
    "tls",
    "state",
    "engine",
    "never_process",
    "deidentify",
)
_NODE_NEEDED = ("ae_titles", "listen", "timezone", "data", "rules")
_NODE = (*_NODE_NEEDED, "durability", "receivers", "notice")
_DISK = ("warn", "stop_processing", "refuse", "per_destination")
_LIMITS = (
    "associations", "connections", "connections_per_address", "artim", "idle", "pdu", "object_size", "run_time",
    "run_memory", "workers",
)  # fmt: skip
_LIMIT_TIMES, _LIMIT_SIZES = ("artim", "idle", "pdu", "run_time"), ("object_size", "run_memory")
_FEWEST_IDLE = 64  # connections beside those that associate: monitors, port scanners
_KEEP = tuple(field.name for field in fields_of(Keep))
_WEB = ("listen",)
_PLACES = (Path("config/node.yaml"), Path("/etc/pacsnode/node.yaml"))
_NOWHERE = NodeSettings((), NO_ADDRESS, "UTC", Path(), Path())  # stands in until finish() raises

KEYS = tuple(
    dict.fromkeys(
        (
            *_TOP,
            *_NODE,
            *PEER_KEYS,
            *COMMIT_KEYS,
            *POLICY_KEYS,
            *_DISK,
            *_LIMITS,
            *_KEEP,
            *_WEB,
            *ALERTS_KEYS,
            *EMAIL_KEYS,
            *TLS_KEYS,
            *PEER_TLS_KEYS,
            *DEIDENTIFY_KEYS,
            *PROFILE_KEYS,
            *NESTED_KEYS,
        )
    )
)
"""Every key that the site file may hold, in any of its parts."""


def find(option: str | None, environ: Mapping[str, str]) -> Path:
    """Where the site file is: `--config`, `$PACSNODE_CONFIG`, then the usual places. Raises Misconfigured."""
    named = option or environ.get("PACSNODE_CONFIG")
    if named:
        return Path(named)
    for place in _PLACES:
        if place.is_file():
            return place
    looked = " nor ".join(str(place) for place in _PLACES)
    raise Misconfigured(
        f"no site file: neither {looked} exists; name one with --config FILE or PACSNODE_CONFIG=FILE"
    )


def load(path: Path, environ: Mapping[str, str]) -> Settings:
    """Read and check a site file and the files it names. Raises Misconfigured with every mistake."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise Misconfigured(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Misconfigured(f"{path}: not UTF-8 text; save the file as UTF-8") from None
    settings = parse(text, str(path), environ)
    if missing := missing_files(settings.alerts):
        raise Misconfigured(*(f"{path}: {sentence}" for sentence in missing))
    return settings


def parse(text: str, file: str, environ: Mapping[str, str]) -> Settings:
    """Check the *text* of a site file; its relative paths start at *file*'s folder. Raises Misconfigured."""
    documents = shape.parse(text, file)
    if len(documents) != 1 or not documents[0].is_mapping:
        raise Misconfigured(f"{file}:1: expected one mapping with {', '.join(_TOP)}")
    shaper = Shaper()
    root = overrides.applied(shaper, documents[0], environ)
    given = fields(shaper, root, _TOP, required=("node",))
    folder, cores = Path(file).absolute().parent, os.cpu_count() or 1
    settings = Settings(
        node=_node(shaper, given["node"], folder, cores) if "node" in given else _NOWHERE,
        unknown_senders=pick(shaper, given, "unknown_senders", ("refuse", "accept")),  # type: ignore[arg-type]
        peers=read_peers(shaper, given["peers"], folder) if "peers" in given else {},
        seal=read_seal(shaper, given["seal"]) if "seal" in given else Settings.seal,
        disk=_disk(shaper, given["disk"]) if "disk" in given else Disk(),
        limits=_limits(shaper, given.get("limits"), cores),
        keep=_keep(shaper, given["keep"]) if "keep" in given else Keep(),
        alerts=read_alerts(shaper, given["alerts"], folder) if "alerts" in given else Alerts(),
        web=_web(shaper, given["web"]) if "web" in given else None,
        tls=read_tls(shaper, given["tls"], folder) if "tls" in given else None,
        state=_state(shaper, given.get("state")),
        never_process=tuple(given["never_process"].items) if "never_process" in given else (),
        engine=_engine(shaper, given.get("engine")),
        deidentify=read_deidentify(shaper, given["deidentify"]) if "deidentify" in given else Deidentify(),
        source=text,
        file=file,
    )
    check_counters(shaper, given.get("seal"), given.get("peers"), settings.peers)
    agree(shaper, given.get("peers"), settings.tls, settings.peers)
    if settings.tls and settings.tls.listen == settings.node.listen:
        shaper.wrong(
            given["tls"], "tls.listen is what node.listen says; TLS needs a port of its own, such as 2762"
        )
    shaper.finish()
    return settings


def _node(shaper: Shaper, node: Node, folder: Path, cores: int) -> NodeSettings:
    given = fields(shaper, node, _NODE, required=_NODE_NEEDED)
    titles = (
        tuple(ae_title(shaper, item) for item in given["ae_titles"].items) if "ae_titles" in given else ()
    )
    if "ae_titles" in given and not titles:
        shaper.wrong(given["ae_titles"], "at least one AE title is needed; the first is ours when we call")
    return NodeSettings(
        ae_titles=titles,
        listen=get(given, "listen", lambda item, _: address(shaper, item), NO_ADDRESS),
        timezone=get(given, "timezone", lambda item, _: _timezone(shaper, item), "UTC"),
        data=folder / get(given, "data", shaper.text, ""),
        rules=folder / get(given, "rules", shaper.text, ""),
        durability=pick(shaper, given, "durability", ("power", "process")),  # type: ignore[arg-type]
        receivers=count(shaper, given.get("receivers"), min(4, cores)),
        notice=get(given, "notice", lambda item, _: _notice(shaper, item), NOTICE),
    )


def _notice(shaper: Shaper, node: Node) -> str:
    text = "" if node.value == "" else shaper.text(node, NOTICE).strip()
    if len(text) > 200:
        shaper.wrong(node, f"the notice has {len(text)} characters; say it in 200")
        return NOTICE
    return text


def _timezone(shaper: Shaper, node: Node) -> str:
    name = shaper.text(node, "UTC")
    known = zoneinfo.available_timezones()
    if name not in known:
        shaper.wrong(node, f"{name} is not a time zone such as Europe/Berlin{nearest(name, known)}")
        return "UTC"
    return name


def _disk(shaper: Shaper, node: Node) -> Disk:
    given = fields(shaper, node, _DISK)
    shares = {key: get(given, key, shaper.percent, getattr(Disk, key)) for key in _DISK}
    disk = Disk(**shares)
    if not disk.warn < disk.stop_processing < disk.refuse:
        shaper.wrong(node, "disk shares must rise: warn, then stop_processing, then refuse")
    if not disk.per_destination:
        shaper.wrong(node, "per_destination must be more than nothing; 100 % is no limit")
    return disk


def _limits(shaper: Shaper, node: Node | None, cores: int) -> Limits:
    workers = max(1, cores // 2)
    if node is None:
        return Limits(workers=workers)
    given = fields(shaper, node, _LIMITS)
    associations = count(shaper, given.get("associations"), Limits.associations)
    connections = count(shaper, given.get("connections"), _FEWEST_IDLE + 4 * associations)
    limits = Limits(
        associations=associations,
        connections=connections,
        connections_per_address=count(shaper, given.get("connections_per_address"), max(1, connections // 2)),
        **{key: get(given, key, shaper.duration, getattr(Limits, key)) for key in _LIMIT_TIMES},
        **{key: get(given, key, shaper.size, getattr(Limits, key)) for key in _LIMIT_SIZES},
        workers=count(shaper, given.get("workers"), workers),
    )
    for key in (*_LIMIT_TIMES, *_LIMIT_SIZES):
        if key in given and not getattr(limits, key):
            shaper.wrong(given[key], f"{key} must be more than nothing")
    if connections < associations and "connections" in given:
        shaper.wrong(given["connections"], f"connections are fewer than the {associations} associations")
    return limits


def _keep(shaper: Shaper, node: Node) -> Keep:
    given = fields(shaper, node, _KEEP)

    def undelivered(item: Node, default: timedelta | None) -> timedelta | None:
        return default if item.text == "until_delivered" else shaper.duration(item)

    return Keep(
        delivered=get(given, "delivered", shaper.duration, Keep.delivered),
        unrouted=get(given, "unrouted", shaper.duration, Keep.unrouted),
        refused=get(given, "refused", shaper.duration, Keep.refused),
        quarantined=get(given, "quarantined", shaper.duration, Keep.quarantined),
        undelivered=get(given, "undelivered", undelivered, Keep.undelivered),
        priors=get(given, "priors", shaper.duration, Keep.priors),
    )


def _web(shaper: Shaper, node: Node) -> Web:
    given = fields(shaper, node, _WEB, required=_WEB)
    return Web(get(given, "listen", lambda item, _: address(shaper, item), NO_ADDRESS))


def _state(shaper: Shaper, node: Node | None) -> str:
    if node is None or node.text == "sqlite":
        return "sqlite"
    if not node.text.startswith("postgresql://"):
        shaper.wrong(node, "state must be sqlite or postgresql://user@host/database")
    return node.text


def _engine(shaper: Shaper, node: Node | None) -> Literal["local"]:
    if node is not None and node.text.startswith("dask"):
        shaper.wrong(node, "engine dask is not available in this version; remove it or say local")
    elif node is not None:
        shaper.choice(node, ("local",), "local")
    return "local"

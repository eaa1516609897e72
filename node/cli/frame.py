"""What every verb stands on: the group, exit codes, and how the site file, rules and tables are found.

Exit codes: 0 done · 1 failed · 2 wrong config, rule or usage · 3 refused: the data does not suit the rule.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import click

from node import __version__, app
from node import settings as site
from node.errors import Broken, Misconfigured, Refused, Retryable
from node.route.rules import RuleSet, parse_rules, read_folder
from node.settings import Settings
from node.shape import duration, nearest
from node.store.choosing import Wanted
from node.store.database import Database, open_database

DONE, FAILED, WRONG, REFUSED = 0, 1, 2, 3
_MODULES = ("acting", "bench", "files", "listing", "offer", "peers", "running", "security", "upkeep")
"""Where the verbs are."""

as_json = click.option("--json", "as_json", is_flag=True, help="JSON for scripts.")
paths = click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
rules_folder = click.option(
    "--rules", type=click.Path(path_type=Path), help="Another rule folder, or rule file, than the site's."
)


def verb(function: Callable[..., int]) -> Callable[..., None]:
    """Turn what a verb returns, and every failure a user can meet, into an exit code."""

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            code = function(*args, **kwargs)
        except Misconfigured as error:
            click.echo("\n".join(error.mistakes), err=True)
            code = WRONG
        except Refused as error:
            click.echo(str(error), err=True)
            code = REFUSED
        except (Broken, Retryable) as error:
            click.echo(str(error), err=True)
            code = FAILED
        except PermissionError as error:
            click.echo(
                f"{error.filename or 'a file'}: no permission; run this as the user that the node runs as, "
                "or name a file or folder that you may use",
                err=True,
            )
            code = WRONG
        except BrokenPipeError:  # `pacsnode series | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = DONE
        sys.exit(code)

    return run


class Verbs(click.Group):
    """The verbs; their modules are imported when the first of them is asked for.

    `run` has a module of its own and loads no other: the node's first process stays small, and is there soon.
    """

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """One verb."""
        import_module(f"{__package__}.running")
        found = super().get_command(ctx, cmd_name)
        if found is None:
            self.load()
            found = super().get_command(ctx, cmd_name)
        return found

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all verbs."""
        self.load()
        return super().list_commands(ctx)

    def load(self) -> None:
        """Import the modules of all verbs."""
        for name in _MODULES:
            import_module(f"{__package__}.{name}")


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="pacsnode")
@click.option(
    "--config", help="The site file; else $PACSNODE_CONFIG, ./config/node.yaml, /etc/pacsnode/node.yaml."
)
@click.pass_context
def main(context: click.Context, config: str | None) -> None:
    """A DICOM network node that keeps, routes and processes what scanners send."""
    warnings.simplefilter("ignore")  # pydicom's warnings quote values of headers
    context.obj = config


def ago(option: str, text: str) -> datetime | None:
    """The moment so long ago; None where nothing is given. Raises Misconfigured for what is no time."""
    if not text:
        return None
    span = duration(text)
    if span is None:
        raise Misconfigured(f"{option} {text}: expected a time such as 30 min, 2 h or 3 d")
    return datetime.now(UTC) - span


def site_of(context: click.Context) -> Settings:
    """The site file that the command line names. Raises Misconfigured."""
    return site.load(site.find(context.obj, os.environ), os.environ)


def site_if_any_of(context: click.Context) -> Settings | None:
    """The site file, or None where none was named and none is there."""
    try:
        file = site.find(context.obj, os.environ)
    except Misconfigured:
        if context.obj or "PACSNODE_CONFIG" in os.environ:
            raise
        return None
    return site.load(file, os.environ)


def database_of(context: click.Context) -> Database:
    """The tables of the site's node. Raises Misconfigured where there are none yet."""
    settings = site_of(context)
    return open_database(settings.state, settings.node.data, create=False)


def rules_of(settings: Settings | None, folder: Path | None) -> RuleSet:
    """The rules of *folder*, else of the site. Raises Misconfigured with all mistakes in them."""
    if folder is None and settings is None:
        raise Misconfigured("no rules: name a folder with --rules, or a site file with --config")
    files = read_folder(folder or settings.node.rules) if settings else read_folder(folder or Path("rules"))
    return parse_rules(files, app.operator_specs(settings), app.destinations(settings))


def zone_of(context: click.Context) -> ZoneInfo:
    """The time zone of the site, in which people read times."""
    return ZoneInfo(site_of(context).node.timezone)


def state_option(states: type[StrEnum], with_runs: type[StrEnum] | None = None) -> Callable[..., Any]:
    """`--state`, whose help names the states there are, and the others that there are with `--runs`."""
    words = f"Only this state: {', '.join(state.value for state in states)}."
    if with_runs:
        words = f"{words[:-1]}; with --runs: {', '.join(state.value for state in with_runs)}."
    return click.option("--state", default="", help=words)


def known_state(text: str, states: type[StrEnum]) -> None:
    """Raises Misconfigured where *text* is given and is none of *states*: nothing would ever be in it."""
    known = [state.value for state in states]
    if text and text not in known:
        raise Misconfigured(f"--state {text} is not one of {', '.join(known)}{nearest(text, known)}")


def say_unknown_peer(context: click.Context, name: str) -> None:
    """Why nothing was found for the destination *name*: no peer of the site is called so. A removed one may be."""
    peers = site_of(context).peers
    if name and name not in peers:
        click.echo(f"{name} is not among the peers{nearest(name, peers)}", err=True)


def wanted_of(given: Mapping[str, Any]) -> Wanted:
    """The rows that options name. Raises Misconfigured for a value that cannot be read."""
    values = dict(given)
    if "status" in values:
        values["status"] = _status(values["status"])
    if values.get("sop_class"):
        from node import desk  # noqa: PLC0415 - much that `run` does not need

        values["sop_class"] = desk.sop_class_uid(values["sop_class"])
    for key, option in (("since", "--since"), ("before", "--older-than")):
        if key in values:
            values[key] = ago(option, values[key])
    return Wanted(**values)


def _status(text: str) -> int | None:
    try:
        return int(text, 16) if text else None
    except ValueError:
        raise Misconfigured(f"--status {text}: expected four hexadecimal digits, such as C000") from None

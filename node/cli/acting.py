"""What a person may do to what the node holds: `hold`, `release`, `cancel`, `retry`, `replay`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import click

from node import desk, holding, show
from node.cli.frame import (
    DONE,
    FAILED,
    as_json,
    database_of,
    known_state,
    main,
    rules_of,
    say_unknown_peer,
    site_of,
    state_option,
    verb,
    wanted_of,
)
from node.errors import Misconfigured
from node.model import DeliveryState, RunState
from node.shape import nearest
from node.store.acts import Act
from node.store.choosing import Wanted
from node.store.replays import Replay

_SELECT: dict[str, Callable[..., Any]] = {
    "to": click.option("--to", "destination", default="", help="Deliveries to this destination."),
    "status": click.option("--status", default="", help="Deliveries with this C-STORE status, such as C000."),
    "sop_class": click.option("--class", "sop_class", default="", help="Of this SOP class: its name or UID."),
    "rule": click.option("--rule", default="", help="Of this rule."),
    "series": click.option("--series", default="", help="Of this series: its number or Series Instance UID."),
    "study": click.option("--study", default="", help="Of this study: its Study Instance UID."),
    "accession": click.option("--accession", default="", help="Of this Accession Number."),
    "run": click.option("--run", type=int, default=0, help="Of this run."),
    "state": state_option(DeliveryState),
    "since": click.option("--since", default="", help="Made in the last 30 min, 2 h, 3 d."),
    "older_than": click.option("--older-than", "before", default="", help="Made longer ago than 2 h, 3 d."),
}
_RUNS = click.option("--runs", is_flag=True, help="Runs instead of deliveries.")
_WHY = click.option("--why", default="", help="Why, for the record. No patient data.")
_DRY_RUN = click.option("--dry-run", is_flag=True, help="Count what would change; change nothing.")
_OF_DELIVERIES = ("destination", "status", "sop_class")


def _selecting(*names: str, runs: bool = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The options that say which rows an act means: deliveries, or *runs* as well."""
    options = {**_SELECT, "state": state_option(DeliveryState, RunState)} if runs else _SELECT

    def with_options(function: Callable[..., Any]) -> Callable[..., Any]:
        for name in reversed(names or tuple(options)):
            function = options[name](function)
        return function

    return with_options


def _wanted(verb_name: str, given: dict[str, Any], states: type[DeliveryState] | type[RunState]) -> Wanted:
    """What is selected. Raises Misconfigured where nothing is, or where a value cannot be read."""
    if not any(given.values()):
        options = ", ".join(f"--{name.replace('_', '-')}" for name in _SELECT).replace("sop-class", "class")
        more = ", --all, --object" if verb_name == "release" else ""
        raise Misconfigured(f"{verb_name} needs at least one of {options}{more}")
    known_state(given["state"], states)
    return wanted_of(given)


def _do(context: click.Context, asked: desk.Asked, as_json: bool) -> int:
    acted = desk.act(database_of(context), asked)
    if as_json:
        show.as_json(
            {
                "verb": asked.act.verb,
                "what": asked.what,
                "changed": acted.changed,
                "left": acted.left,
                "dry_run": asked.act.dry_run,
            }
        )
    else:
        click.echo("\n".join(desk.acted_lines(asked, acted)))
    if not acted.changed:
        say_unknown_peer(context, asked.wanted.destination)
    return DONE if acted.changed else FAILED


def _of_runs(given: dict[str, Any], runs: bool) -> bool:
    """Whether runs are meant: `--runs`, or `--run N` without anything that only deliveries have."""
    return runs or bool(given["run"] and not any(given[name] for name in _OF_DELIVERIES))


@main.command()
@_selecting(runs=True)
@_RUNS
@_DRY_RUN
@as_json
@click.pass_context
@verb
def retry(context: click.Context, runs: bool, dry_run: bool, as_json: bool, **given: Any) -> int:
    """Take up what is parked, or runs that failed.

    Deliveries: what is parked, and what waits for its next try, goes now; with --state cancelled what was
    cancelled by hand. Runs (--run N, or --runs with a selection): quarantined and refused ones; a cancelled
    one by its number, or with --state cancelled.
    """
    act = Act("retry", datetime.now(UTC), "", dry_run)
    if _of_runs(given, runs):
        return _do(context, desk.Asked(act, "runs", _wanted("retry", given, RunState)), as_json)
    return _do(context, desk.Asked(act, "deliveries", _wanted("retry", given, DeliveryState)), as_json)


@main.command()
@_selecting(runs=True)
@_RUNS
@_WHY
@_DRY_RUN
@as_json
@click.pass_context
@verb
def cancel(context: click.Context, runs: bool, why: str, dry_run: bool, as_json: bool, **given: Any) -> int:
    """Give up deliveries that wait, are parked or held; or runs that wait or are under way.

    Deliveries, unless --runs, or --run N alone, asks for runs. The worker of a run under way is ended.
    """
    act = Act("cancel", datetime.now(UTC), why, dry_run)
    if _of_runs(given, runs):
        return _do(context, desk.Asked(act, "runs", _wanted("cancel", given, RunState)), as_json)
    return _do(context, desk.Asked(act, "deliveries", _wanted("cancel", given, DeliveryState)), as_json)


@main.command()
@_selecting()
@_WHY
@_DRY_RUN
@as_json
@click.pass_context
@verb
def hold(context: click.Context, why: str, dry_run: bool, as_json: bool, **given: Any) -> int:
    """Keep deliveries from being sent, or with --series N alone a series from being judged.

    A held series is not processed until it is released; rules that send each object as it arrives go on.
    """
    wanted = _wanted("hold", given, DeliveryState)
    what = "series" if _only_series(given) else "deliveries"
    return _do(context, desk.Asked(Act("hold", datetime.now(UTC), why, dry_run), what, wanted), as_json)


def _only_series(given: dict[str, Any]) -> bool:
    return bool(given["series"]) and not any(value for name, value in given.items() if name != "series")


@main.command()
@_selecting()
@click.option("--all", "everything", is_flag=True, help="Every series that is held.")
@click.option("--object", "key", type=int, default=0, help="An object that was set aside: its number.")
@_DRY_RUN
@as_json
@click.pass_context
@verb
def release(
    context: click.Context, everything: bool, key: int, dry_run: bool, as_json: bool, **given: Any
) -> int:
    """Let go what is held: deliveries; with --series N alone or --all, series; with --object N, one object.

    An object in conflict takes the place of the one that was kept under its SOP Instance UID; with --to NAME
    an unreadable one is sent there as it is.
    """
    if key:
        said = desk.release_object(
            database_of(context), site_of(context), key, given["destination"], datetime.now(UTC)
        )
        if as_json:
            show.as_json({"object": key, "done": said})
        else:
            click.echo(said)
        return DONE
    wanted = Wanted() if everything else _wanted("release", given, DeliveryState)
    what = "series" if everything or _only_series(given) else "deliveries"
    return _do(context, desk.Asked(Act("release", datetime.now(UTC), "", dry_run), what, wanted), as_json)


@main.command()
@_selecting("series", "study", "accession", "since")
@click.option("--rule", default="", help="Only by this rule.")
@click.option(
    "--new-generation", "fresh", is_flag=True, help="Results get new UIDs, as after a PACS rejected them."
)
@_WHY
@_DRY_RUN
@as_json
@click.pass_context
@verb
def replay(
    context: click.Context, rule: str, fresh: bool, why: str, dry_run: bool, as_json: bool, **given: Any
) -> int:
    """Judge series again by the rules now in use; what was sent already is not sent twice."""
    if not any(given.values()):
        raise Misconfigured("replay needs at least one of --series, --study, --accession, --since")
    settings = site_of(context)
    if rule and rule not in (names := [known.name for known in rules_of(settings, None).rules]):
        raise Misconfigured(f"--rule {rule} is no rule of {settings.node.rules}{nearest(rule, names)}")
    act = Act("replay", datetime.now(UTC), why, dry_run)
    found = desk.replay(database_of(context), wanted_of(given), Replay(rule, fresh), act)
    if as_json:
        show.as_json({"replayed": found.series, "not_again": found.not_again, "instead": found.instead})
    else:
        click.echo("\n".join(desk.replay_lines(found, dry_run, holding.is_running(settings.node.data))))
    return DONE if found.series else FAILED

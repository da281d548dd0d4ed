"""The verbs `cache ls`, `prune`, `clear` and `verify` of the command line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kfpbench.cli_options import AsJson

if TYPE_CHECKING:
    from kfpbench.cache.store import Entry, Store

cache_app = typer.Typer(
    help="Costly results that later runs use again: statistics, features, fits, samples.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@cache_app.command("ls")
def list_entries(as_json: AsJson = False) -> None:
    """List what is kept, used last first: kind, size, seconds that it took, days since its last use, what it is of."""
    store = _store()
    entries = store.entries()
    told = [_told(entry) for entry in entries]
    if as_json:
        typer.echo(json.dumps({"folder": str(store.folder), "entries": told}, indent=2))
        return
    for one in told:
        spent = "damaged" if one["seconds"] is None else f"{one['seconds']:.2f} s"
        days = f"{one['days']:.1f} d"
        typer.echo(
            f"{one['entry'][:16]}  {one['kind']:<9} {_size(one['bytes']):>9}  {spent:>10}  {days:>7}  {one['of']}"
        )
    typer.echo(f"{len(entries)} entries, {_size(sum(entry.bytes for entry in entries))}, in {store.folder}")


@cache_app.command("prune")
def prune(
    max_size: Annotated[
        str | None, typer.Option("--max-size", metavar="SIZE", help="As in 500MB or 2GiB: what was used last stays.")
    ] = None,
    older_than: Annotated[
        str | None, typer.Option("--older-than", metavar="AGE", help="As in 30d or 12h: not used for so long.")
    ] = None,
) -> None:
    """Remove what was not used for long, until the rest is small enough; by default until 20 GiB are left."""
    from kfpbench.cache.location import largest_size, parse_age, parse_size

    age = None if older_than is None else parse_age(older_than)
    most = parse_size(max_size) if max_size is not None else (largest_size() if age is None else None)
    _tell_removed(_store().prune(most, age))


@cache_app.command("clear")
def clear() -> None:
    """Remove everything that is kept."""
    _tell_removed(_store().clear())


@cache_app.command("verify")
def verify() -> None:
    """Read every entry and compare its checksum; damaged ones are removed. Exit code 1: some were damaged."""
    store = _store()
    count, damaged = len(store.entries()), store.verify()
    for entry, reason in damaged:
        typer.echo(f"{entry.name[:16]}  {entry.kind}: {reason}")
    typer.echo(f"{count} entries, {len(damaged)} damaged" + (" and removed" if damaged else ""))
    raise typer.Exit(1 if damaged else 0)


def _store() -> Store:
    from kfpbench.cache.location import cache_folder
    from kfpbench.cache.store import Store

    return Store(cache_folder())


def _told(entry: Entry) -> dict[str, Any]:
    import time

    from kfpbench.errors import StoreError

    days = max(time.time() - entry.used, 0.0) / 86400
    told = {"entry": entry.name, "kind": entry.kind, "bytes": entry.bytes, "days": days}
    try:
        about = entry.about()
    except (StoreError, OSError):
        return {**told, "seconds": None, "made": None, "of": ""}
    return {**told, "seconds": about.seconds, "made": about.made, "of": _subject(about.parts)}


def _subject(parts: dict[str, Any]) -> str:
    """The names of the data set and of the sampler or spectrum, where the entry's key says them."""
    named = [parts.get(name) for name in ("data", "score", "sampler", "spectrum")]
    found = [str(part["name"]) for part in named if isinstance(part, dict) and "name" in part]
    text = ", ".join(found)
    return "".join(one if one.isprintable() else "?" for one in text)  # a plugin chose its name


def _tell_removed(removed: list[Entry]) -> None:
    typer.echo(f"{len(removed)} entries removed, {_size(sum(entry.bytes for entry in removed))}")


def _size(count: int) -> str:
    size, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if size < 1024 or unit == "TiB":
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"

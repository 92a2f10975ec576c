"""`releasekit trust`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from releasekit.cli import render
from releasekit.cli.exits import EPILOG
from releasekit.cli.shell import Shell, common_options

if TYPE_CHECKING:
    from releasekit.trust import Publisher


@click.group("trust", epilog=EPILOG)
def command() -> None:
    """Keep the keys of publishers whose releases you trust.

    They are in trust.json in $XDG_CONFIG_HOME/releasekit, or ~/.config/releasekit. So are
    the latest versions of signed releases that you rebuilt, so that an older one is
    noticed.
    """


@command.command("add", epilog=EPILOG)
@click.argument("publisher")
@click.argument("key", type=click.Path(path_type=Path))
@click.option(
    "--require-signature",
    is_flag=True,
    help="Refuse releases that are not signed, if they come from this organisation on the "
    "Hub, or say to be this publisher's.",
)
@common_options
@click.pass_obj
def add(shell: Shell, publisher: str, key: Path, require_signature: bool) -> None:
    """Trust the public KEY, a PEM file, as PUBLISHER's.

    Compare the fingerprint that is printed with the one that PUBLISHER gives. PUBLISHER is
    a name as on the Hub: releases from that organisation are then held against its keys
    alone. A publisher may have several keys.

    \b
    Example:
      releasekit trust add acme acme.pub.pem --require-signature
    """
    from releasekit.signing.keys import PublicKey
    from releasekit.trust import default_path, updating

    loaded = PublicKey.load(key)
    with updating(default_path()) as trust:
        entry = trust.add(publisher, loaded, require_signature=require_signature)
    _show(shell, [entry])


@command.command("list", epilog=EPILOG)
@common_options
@click.pass_obj
def show(shell: Shell) -> None:
    """List publishers, their keys' fingerprints, and the releases that were seen."""
    from releasekit.trust import default_path, load

    trust = load(default_path())
    seen = [
        {"release": s.release, "version": s.version, "key": s.key, "manifest": s.manifest}
        for s in trust.seen.values()
    ]
    _show(shell, trust.publishers, path=str(trust.path), seen=seen)


@command.command("remove", epilog=EPILOG)
@click.argument("publisher")
@common_options
@click.pass_obj
def remove(shell: Shell, publisher: str) -> None:
    """Trust PUBLISHER's keys no longer."""
    from releasekit.trust import default_path, updating

    with updating(default_path()) as trust:
        entry = trust.remove(publisher)
    lines = [f"removed {entry.name}: {key.fingerprint}" for key in entry.keys]
    shell.result({"removed": _document(entry)}, lines)


def _show(shell: Shell, publishers: list[Publisher], **more: Any) -> None:
    rows = [
        (
            publisher.name,
            key.fingerprint,
            key.curve,
            "superseded" if key in publisher.superseded else "trusted",
            "must be signed" if publisher.require_signature else "",
        )
        for publisher in publishers
        for key in (*publisher.keys, *publisher.superseded)
    ]
    header = ("publisher", "key", "curve", "status", "releases")
    lines = list(render.table(header, rows, "lllll")) if rows else ["no key is trusted"]
    if more.get("seen"):
        seen = [(s["release"], s["version"], s["key"]) for s in more["seen"]]
        lines += ["", *render.table(("seen", "version", "signed by"), seen, "lll")]
    shell.result({"publishers": [_document(p) for p in publishers], **more}, lines)


def _document(publisher: Publisher) -> dict[str, Any]:
    return {
        "name": publisher.name,
        "require_signature": publisher.require_signature,
        "keys": [key.fingerprint for key in publisher.keys],
        "superseded": [key.fingerprint for key in publisher.superseded],
    }

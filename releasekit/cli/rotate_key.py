"""`releasekit rotate-key`."""

from __future__ import annotations

from pathlib import Path

import click

from releasekit.cli import render
from releasekit.cli.exits import EPILOG
from releasekit.cli.shell import Shell, common_options
from releasekit.cli.signatures import load_key, passphrase_option


@click.command("rotate-key", epilog=EPILOG)
@click.option(
    "--old",
    required=True,
    type=click.Path(path_type=Path),
    help="Private key in PEM that users trust so far.",
)
@click.option(
    "--new",
    required=True,
    type=click.Path(path_type=Path),
    help="Public key in PEM that is to take its place.",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="File of the result. If it is there, the new link is added to it.",
)
@passphrase_option
@common_options
@click.pass_obj
def command(
    shell: Shell, old: Path, new: Path, out: Path, passphrase_file: Path | None
) -> None:
    """Vouch for a new key with the old one.

    Give OUT to make-delta or sign as --succession, along with the new key: users who trust
    the old one then come to trust the new, and no longer the old. Keep OUT for the next
    rotation.

    This does not help if somebody has stolen the old key: tell your users to remove it.

    \b
    Examples:
      releasekit keygen new.pem
      releasekit rotate-key --old acme.pem --new new.pub.pem --out acme-keys.jsonl
      releasekit sign my-tune-delta --key new.pem --succession acme-keys.jsonl --force
    """
    from releasekit.signing.keys import PublicKey
    from releasekit.signing.rotation import rotate

    shell.resume_hint = "nothing was changed"
    successor = PublicKey.load(new)
    key = load_key(shell, old, passphrase_file)
    assert key is not None
    count = rotate(key, successor, out)
    document = {
        "out": str(out),
        "old": key.public.fingerprint,
        "new": successor.fingerprint,
        "links": count,
    }
    pairs = [
        ("old key", key.public.fingerprint),
        ("new key", successor.fingerprint),
        ("written", f"{out}; links: {count}"),
    ]
    shell.result(document, render.facts(pairs))

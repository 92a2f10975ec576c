"""`releasekit keygen`."""

from __future__ import annotations

from pathlib import Path

import click

from releasekit.cli import render
from releasekit.cli.exits import EPILOG
from releasekit.cli.shell import Shell, common_options
from releasekit.cli.signatures import ask_passphrase, read_passphrase


@click.command("keygen", epilog=EPILOG)
@click.argument("key", type=click.Path(path_type=Path))
@click.option(
    "--curve",
    type=click.Choice(["P-256", "P-384", "P-521"]),
    default="P-256",
    show_default=True,
    help="The elliptic curve.",
)
@click.option(
    "--passphrase-file",
    type=click.Path(path_type=Path),
    help="File whose first line becomes the passphrase; by default it is asked for.",
)
@click.option(
    "--no-passphrase",
    is_flag=True,
    help="Do not encrypt the key: whoever can read the file can sign as you.",
)
@common_options
@click.pass_obj
def command(
    shell: Shell, key: Path, curve: str, passphrase_file: Path | None, no_passphrase: bool
) -> None:
    """Make a key to sign releases with.

    Writes the private key to KEY, encrypted, for you alone to read; and beside it the
    public one, KEY.pub.pem, which users verify with. Publish the public key and its
    fingerprint where users would look for your word, and not in the release itself.

    \b
    Examples:
      releasekit keygen acme.pem
      releasekit sign my-tune-delta --key acme.pem
    """
    from releasekit.errors import UsageError
    from releasekit.signing.keys import PrivateKey, refuse_existing, write_pair

    if no_passphrase and passphrase_file is not None:
        raise click.UsageError("--passphrase-file and --no-passphrase: give one of them")
    refuse_existing(key)
    passphrase = None
    if passphrase_file is not None:
        passphrase = read_passphrase(passphrase_file)
    elif not no_passphrase:
        passphrase = ask_passphrase("Passphrase for the new key", confirm=True)
        if passphrase is None:
            raise UsageError(
                "no passphrase: type one at a terminal, give --passphrase-file, or leave "
                "the key open to whoever can read the file with --no-passphrase"
            )
    made = PrivateKey.generate(curve)
    public = write_pair(made, key, passphrase)
    document = {
        "private_key": str(key),
        "public_key": str(public),
        "curve": curve,
        "fingerprint": made.public.fingerprint,
        "encrypted": passphrase is not None,
    }
    how = "encrypted" if passphrase else "not encrypted"
    pairs = [
        ("private key", f"{key} ({how}; keep a copy in a safe place)"),
        ("public key", f"{public} (for your users)"),
        ("fingerprint", made.public.fingerprint),
    ]
    shell.result(document, render.facts(pairs))

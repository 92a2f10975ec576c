"""`releasekit sign`."""

from __future__ import annotations

from pathlib import Path

import click

from releasekit.cli import render
from releasekit.cli.exits import EPILOG
from releasekit.cli.shell import Shell, common_options, printable
from releasekit.cli.signatures import load_key, passphrase_option, succession_option


@click.command("sign", epilog=EPILOG)
@click.argument("folder", metavar="RELEASE", type=click.Path(path_type=Path))
@click.option(
    "--key",
    required=True,
    type=click.Path(path_type=Path),
    help="Private key in PEM, of keygen or OpenSSL: elliptic curve P-256, P-384 or P-521.",
)
@passphrase_option
@succession_option
@click.option("--force", is_flag=True, help="Replace a signature that another key made.")
@click.option("--threads", type=click.IntRange(1), help="By default one a processor.")
@common_options
@click.pass_obj
def command(
    shell: Shell,
    folder: Path,
    key: Path,
    passphrase_file: Path | None,
    succession: Path | None,
    force: bool,
    threads: int | None,
) -> None:
    """Sign a release, or any folder with a model.

    Writes model.sig over all that lies in RELEASE, and for a delta rebuilt.model.sig over
    the model that it rebuilds. Both are OpenSSF Model Signing bundles, which the
    model_signing tool verifies as well as releasekit does. Files are held against
    SHA256SUMS first, if there is one.

    \b
    Examples:
      releasekit sign my-tune-delta --key acme.pem
      releasekit verify my-tune-delta --public-key acme.pub.pem
    """
    from releasekit import sign

    shell.resume_hint = "run the same command again, which completes what was begun"
    loaded = load_key(shell, key, passphrase_file, published=folder)
    assert loaded is not None
    with shell.progress() as progress:
        signed = sign(
            folder,
            loaded,
            succession=succession,
            force=force,
            threads=threads,
            progress=progress,
        )
    document = {
        "path": str(signed.path),
        "kind": signed.kind,
        "name": signed.name,
        "key": signed.key,
        "files": signed.files,
        "added": list(signed.added),
        "replaced": signed.replaced,
    }
    pairs = [
        (signed.kind, f"{signed.name} in {signed.path}"),
        ("signed", f"{len(signed.files)} files"),
        ("key", signed.key),
    ]
    if signed.denied:
        shell.warn(
            f"{folder / 'README.md'}: says that the release is not signed; write it again "
            "with `releasekit card --sign-key`"
        )
    if signed.added:
        pairs.append(("new", f"{', '.join(signed.added)}: not in SHA256SUMS before"))
    lines = list(render.facts(pairs))
    if shell.verbose:
        lines += [f"{digest}  {printable(name)}" for name, digest in signed.files.items()]
    shell.result(document, lines)

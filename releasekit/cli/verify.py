"""`releasekit verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from releasekit.cli import signatures
from releasekit.cli.exits import EPILOG, EXIT_CODES
from releasekit.cli.shell import Shell, common_options, printable
from releasekit.cli.signatures import check_options, policy_of
from releasekit.errors import IntegrityError


@click.command("verify", epilog=EPILOG)
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    help="The release that PATH was rebuilt from.",
)
@click.option(
    "--signature",
    type=click.Path(path_type=Path),
    help="Signature of PATH, if it is not PATH/model.sig.",
)
@check_options
@click.option("--threads", type=click.IntRange(1), help="By default one a processor.")
@common_options
@click.pass_obj
def command(
    shell: Shell,
    /,
    path: Path,
    against: Path | None,
    signature: Path | None,
    threads: int | None,
    **options: Any,
) -> int:
    """Hash a release, or a rebuilt model, and compare with the published digests.

    Lists each file of PATH as good, wrong, missing or unexpected, and exits with 5 if
    any is not good. Where a trusted key has signed, the digests are those that it signed,
    and nothing else may lie in PATH.

    PATH may be org/name@revision on the Hugging Face Hub: what the cache lacks of it is
    downloaded, and all of it is hashed. A model without a list is held against the Hub's.

    \b
    Examples:
      releasekit verify my-tune-delta
      releasekit verify my-tune-delta --public-key acme.pub.pem
      releasekit verify my-tune --against my-tune-delta
      releasekit verify meta-llama/Llama-2-70b-hf
    """
    from releasekit.verification import Status, verify

    shell.resume_hint = "nothing was changed"
    with shell.progress() as progress:
        result = verify(
            path,
            against=against,
            signature=signature,
            policy=policy_of(shell, options),
            threads=threads,
            progress=progress,
        )
    document = {
        "path": str(result.path),
        "against": str(result.against),
        "ok": result.ok,
        "signature": signatures.document(result.authenticity),
        "files": [
            {
                "path": file.path,
                "status": file.status.value,
                "expected": file.expected,
                "found": file.found,
            }
            for file in result.files
        ],
    }
    lines = [f"{file.status.value:10}  {printable(file.path)}" for file in result.files]
    counts = ", ".join(f"{result.count(status)} {status.value}" for status in Status)
    lines += [counts, f"signature: {result.authenticity.text}"]
    shell.result(document, lines)
    if result.ok:
        return 0
    if not shell.json:
        click.echo(
            f"error: {result.path}: {counts}, compared with {result.against}: download or "
            "rebuild what is wrong or missing, remove what is unexpected",
            err=True,
        )
    return EXIT_CODES[IntegrityError]

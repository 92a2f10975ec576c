"""`releasekit verify`."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from releasekit.cli import signatures
from releasekit.cli.exits import EPILOG, EXIT_CODES
from releasekit.cli.shell import Shell, common_options, printable
from releasekit.cli.signatures import check_options, policy_of
from releasekit.cli.spreading import share_of, worker_document, worker_facts
from releasekit.errors import IntegrityError

if TYPE_CHECKING:
    from releasekit.verification import Verification


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
@click.option(
    "--engine",
    default="local",
    show_default=True,
    metavar="local|ray[:ADDRESS]",
    help="Who hashes the files: this process; or a Ray cluster, all of whose machines find "
    "them under the same path. A file is hashed by one processor.",
)
@click.option(
    "--shard",
    metavar="I/N",
    help="Look only at the I-th of N shares of the files, as an array job does. The result "
    "is of these files alone.",
)
@click.option("--threads", type=click.IntRange(1), help="By default one a processor.")
@common_options
@click.pass_obj
def command(
    shell: Shell,
    /,
    path: Path,
    against: Path | None,
    signature: Path | None,
    engine: str,
    shard: str | None,
    threads: int | None,
    **options: Any,
) -> int:
    """Hash a release, or a rebuilt model, and compare with the published digests.

    Lists each file of PATH as good, wrong, missing or unexpected, and exits with 5 if
    any is not good. Where a trusted key has signed, the digests are those that it signed,
    and nothing else may lie in PATH.

    PATH may be org/name@revision on the Hugging Face Hub: what the cache lacks of it is
    downloaded, and all of it is hashed. A model without a list is held against the Hub's.

    With --engine ray, the machines of a Ray cluster hash a file each. With --shard 1/8 to
    8/8, eight processes look at a share of the files each, and none of them at the whole:
    all of them must succeed. Files that are not listed are looked for by the first.

    \b
    Examples:
      releasekit verify my-tune-delta
      releasekit verify my-tune-delta --public-key acme.pub.pem
      releasekit verify my-tune --against my-tune-delta
      releasekit verify meta-llama/Llama-2-70b-hf
    """
    from releasekit.parts.engines import pool_of
    from releasekit.verification import verify

    shell.resume_hint = "nothing was changed"
    share = share_of(engine, shard, finish=False)
    with ExitStack() as stack:
        pool = stack.enter_context(pool_of(engine))
        result = verify(
            path,
            against=against,
            signature=signature,
            policy=policy_of(shell, options),
            threads=threads,
            pool=pool,
            share=share,
            progress=stack.enter_context(shell.progress()),
        )
    return _show(shell, result)


def _show(shell: Shell, result: Verification) -> int:
    """Say what is found; the exit code."""
    from releasekit.storage import address
    from releasekit.verification import Status

    # Nobody is to take a share that is good for the whole.
    verdict: dict[str, Any] = {"ok": result.ok}
    if result.share is not None:
        verdict = {"share": str(result.share), "share_ok": result.faultless}
    document = {
        "path": address.text(result.path),
        "against": str(result.against),
        **verdict,
        "listed": result.listed,
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
        "workers": worker_document(result.workers),
    }
    lines = [f"{file.status.value:10}  {printable(file.path)}" for file in result.files]
    counts = ", ".join(f"{result.count(status)} {status.value}" for status in Status)
    of = ""
    if result.share is not None:
        unlisted = result.count(Status.UNEXPECTED)
        looked = f"{len(result.files) - unlisted} of {result.listed} listed files"
        of = f"share {result.share}: "
        lines.append(f"{of}{looked} were looked at, and none of the others")
    lines += [f"{of}{counts}", f"signature: {result.authenticity.text}"]
    lines += [f"{label}: {text}" for label, text in worker_facts(result.workers)]
    shell.result(document, lines)
    if result.faultless:
        return 0
    shell.fault(
        IntegrityError.__name__,
        f"{address.text(result.path)}: {of}{counts}, compared with {result.against}: "
        "download or rebuild what is wrong or missing, remove what is unexpected",
    )
    return EXIT_CODES[IntegrityError]

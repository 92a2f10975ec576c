"""`releasekit fetch`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from releasekit.cli import render, signatures
from releasekit.cli.exits import EPILOG
from releasekit.cli.shell import Shell, common_options, printable
from releasekit.cli.signatures import check_options, downgrade_option, policy_of

_AGAINST = {
    "signature": "its signature",
    "list": "SHA256SUMS, which nobody signed",
    "hub": "the Hub's own digests; its publisher left no list",
}


@click.command("fetch", epilog=EPILOG)
@click.argument("model", metavar="ORG/NAME[@REVISION]")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="New folder; by default the files stay in the Hub's cache.",
)
@click.option("--force", is_flag=True, help="Replace OUT if it exists.")
@click.option("--threads", type=click.IntRange(1), help="By default one a processor.")
@check_options
@downgrade_option
@common_options
@click.pass_obj
def command(
    shell: Shell,
    /,
    model: str,
    out: Path | None,
    force: bool,
    threads: int | None,
    **options: Any,
) -> None:
    """Download a release or a model from the Hub, and check every byte of it.

    The revision is pinned to a commit. Signature, lists and manifest come first, and are
    held against what the Hub lists; then the rest, several files at once. What was
    interrupted goes on inside the file. Nothing is used, and OUT does not appear, before
    all is right.

    Without --out the files are in huggingface_hub's cache, for other tools too, and there
    is no second copy. HF_ENDPOINT, HF_HOME, HF_TOKEN and HF_HUB_OFFLINE have their usual
    meaning; a private or gated model takes `hf auth login`.

    \b
    Examples:
      releasekit fetch acme/my-tune-delta
      releasekit fetch acme/my-tune-delta@v1.0 --out my-tune-delta
    """
    from releasekit.fetching import fetch

    kept = f"{out}.partial" if out is not None else "the cache"
    shell.resume_hint = f"run the same command to go on; what has arrived is in {kept}"
    with shell.progress() as progress:
        found = fetch(
            model,
            out,
            policy=policy_of(shell, options),
            force=force,
            threads=threads,
            progress=progress,
        )
    document = {
        "path": str(found.path),
        "name": found.name,
        "commit": found.commit,
        "kind": found.kind,
        "nbytes": found.nbytes,
        "downloaded_nbytes": found.downloaded_nbytes,
        "offline": found.offline,
        "against": found.against,
        "files": found.files,
        "signature": signatures.document(found.authenticity),
        "notes": list(found.notes),
    }
    came = render.size(found.downloaded_nbytes)
    here = render.size(found.nbytes - found.downloaded_nbytes)
    pairs = [
        (found.kind, f"{found.name}@{found.commit}"),
        ("folder", str(found.path)),
        ("files", f"{len(found.files)}, {render.size(found.nbytes)}"),
        ("", f"{came} downloaded, {here} here before"),
        ("checked", f"every byte, against {_AGAINST[found.against]}"),
        ("signature", found.authenticity.text),
    ]
    if found.offline is not None:
        pairs.append(("offline", f"{found.offline}; this is the commit last seen"))
    pairs += [("note", note) for note in found.notes]
    if shell.verbose:
        pairs += [(digest, printable(name)) for name, digest in found.files.items()]
    shell.result(document, render.facts(pairs))

"""The command line: parse, one library call, render.

Commands live in a module each, and import the library only when they run, so that help
and argument errors are instant.
"""

from __future__ import annotations

import io
import os
import sys

import click

from releasekit.cli import (
    apply,
    card,
    convert,
    diff,
    evals,
    fetch,
    identify,
    import_delta,
    inspect,
    keygen,
    licenses,
    make,
    plan,
    preflight,
    publish,
    release,
    report,
    rotate_key,
    sign,
    trust,
    verify,
)
from releasekit.cli.exits import EPILOG
from releasekit.cli.interrupts import orderly
from releasekit.cli.shell import run


@click.group(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="releasekit")
def cli() -> None:
    """Release models as lossless deltas, and rebuild them byte for byte.

    A maintainer publishes the difference between a fine-tune and its base with
    make-delta; whoever holds the base rebuilds the exact files with apply-delta.
    """


cli.add_command(release.init_command)
for module in (
    release,
    *(make, publish, fetch, plan, preflight, apply, verify),
    *(keygen, sign, trust, rotate_key),
    *(inspect, identify, diff, report, convert, import_delta),
    *(card, evals, licenses),
):
    cli.add_command(module.command)


def main() -> None:
    """Entry point of the `releasekit` command."""
    # numpy starts threads for linear algebra, which nothing here does, and lets them spin
    # for a tenth of a second each.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # whatever the terminal can show
            stream.reconfigure(errors="backslashreplace")
    with orderly():
        sys.exit(run(cli))

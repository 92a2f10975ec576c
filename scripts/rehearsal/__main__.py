"""Rehearse a release, from its recipe to a user who has the model: see scripts/rehearse."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import time
from pathlib import Path

from releasekit.errors import ReleaseKitError
from scripts.rehearsal.forecasting import disk_needed, gb
from scripts.rehearsal.planning import Planned, plan
from scripts.rehearsal.rehearsing import Rehearsed, rehearse
from scripts.rehearsal.reporting import Report
from scripts.rehearsal.shapes import SCALES, SMALL, SUBJECTS, TINY, TRUE, Subject

#: Says that a folder was made by this, and may go; scripts/rehearse looks for it, too.
MARK = ".made-by-releasekit-rehearse"
#: Bytes of a delta, at most, for a byte of the fine-tune; fp16 takes a third.
_DELTA = 0.4


def main() -> int:
    """Parse the arguments, rehearse, report; the exit code."""
    parser = argparse.ArgumentParser(prog="rehearse", description=__doc__)
    parser.add_argument("subject", choices=SUBJECTS)
    parser.add_argument("--scale", choices=SCALES, default=TINY)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--keep", action="store_true")
    given = parser.parse_args()
    subject, work = SUBJECTS[given.subject], given.work.resolve()
    if (
        work / MARK
    ).is_file():  # what an earlier run made, now that this one is sure to run
        shutil.rmtree(work)
    work.mkdir(parents=True, exist_ok=True)
    (work / MARK).touch()
    try:
        report = _report(subject, given.scale, work)
    except (ReleaseKitError, OSError) as error:
        print(f"rehearse: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("rehearse: interrupted", file=sys.stderr)
        return 130
    finally:
        if not given.keep:
            for name in (*SCALES, SMALL):
                shutil.rmtree(work / name, ignore_errors=True)
    text = report.markdown
    (work / "rehearsal.md").write_text(text)
    (work / "rehearsal.json").write_text(json.dumps(report.document, indent=1) + "\n")
    print(f"\n{text}\n{work / 'rehearsal.md'} and rehearsal.json have this too.")
    return 0


def _report(subject: Subject, scale: str, work: Path) -> Report:
    begun = time.monotonic()

    def tell(what: str) -> None:
        print(f"{time.monotonic() - begun:6.1f} s  {what}", flush=True)

    largest = SMALL if scale == TRUE else scale
    _refuse_if_full(subject, largest, work)
    planned: Planned | None = None
    if scale == TRUE:
        tell("planning the true size, with headers alone")
        planned = plan(subject, work / TRUE)
    smaller: Rehearsed | None = None
    if largest != TINY:
        smaller = rehearse(subject, TINY, work / TINY, tell)
        shutil.rmtree(work / TINY)
    found = rehearse(subject, largest, work / largest, tell)
    return Report(found, smaller, planned)


def _refuse_if_full(subject: Subject, scale: str, work: Path) -> None:
    """Refuse what the disk has no room for, before hours of work."""
    base, tune = subject.nbytes(scale)
    release = round(tune * _DELTA) if subject.is_delta else tune
    sizes = {"base": base, "fine-tune": tune, "release": release}
    parts = disk_needed(sizes, is_delta=subject.is_delta)
    needed = sum(nbytes for nbytes, _ in parts.values())
    free = shutil.disk_usage(work).free
    if needed > free:
        raise ReleaseKitError(
            f"{work}: has {gb(free)} of room, and {scale} takes about {gb(needed)}; choose "
            "another --work, or a smaller --scale"
        )


if __name__ == "__main__":
    # As Ctrl-C does: what was started is ended, and what was made removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())

"""Measure how fast models in every container are read, and other tools' deltas applied.

    python scripts/benchmark/containers.py WORK [--size 1.0] [--runs 3] [--no-peers]

Makes a fp16 pair, and its base as safetensors, as a .bin file, as a .pt file of the format
before torch 1.6, and as Meta's files in two parts; see make_containers.py. They stay in
WORK, for the next run. Then runs each contender as a process of its own, in turn, as
scripts/bench.py does: inputs are warm, and all run once before they are measured. Prints a
table of medians, with ratios to plain copy + sha256 and to the faster of FastChat's two
ways, and leaves it in WORK/containers.md, all samples in WORK/containers.json.

Compared while at it, over all runs, and to be equal:

- the base's identity in all containers, and the weight files that convert makes of it;
- the rebuilt files, whatever holds the base, and the target's identity;
- the sum of base and additive delta, of both containers, of import-delta, and of FastChat.

The exit code is 1 if something differs, or if one of releasekit's commands failed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts import bench
from scripts.benchmark import report

COPY, PREFLIGHT, FASTCHAT = "copy + sha256", "preflight", "fschat"


@dataclass(frozen=True, slots=True)
class Row:
    """A contender, and what is to be checked of its answer.

    Attributes:
        contender: as measure.py takes it.
        says: fields of the JSON that it prints, each with what it is about. All that is
            said about the same must be equal.
    """

    contender: bench.Contender
    says: dict[str, str] = field(default_factory=dict)


def rows(at: Path, peers: Path) -> Iterator[Row]:
    """All contenders, in the order in which they take turns."""
    base, delta, out, nothing = (at / name for name in ("base", "delta", "out", "nothing"))
    stored = {
        "safetensors": base,
        ".bin": at / "bin" / "base",
        "old .pt": at / "old" / "base.pt",
        "Meta's two parts": at / "meta",
    }
    pairs = {"safetensors": at / "fp16", ".bin": at / "bin"}  # as FastChat reads them

    def ours(
        name: str, *words: str | Path, says: dict[str, str], out: Path = out, **rest: Any
    ) -> Row:
        command = [sys.executable, "-m", "releasekit", *map(str, words), "--json"]
        return Row(bench.Contender(name=name, command=command, out=str(out), **rest), says)

    copy = [sys.executable, str(bench.PARTS / "copy_and_sha256.py"), str(base), str(out)]
    yield Row(bench.Contender(name=COPY, command=copy, reads=[str(base)], out=str(out)))
    yield ours(
        *("make-delta", "make-delta"),
        *bench.line(base=base, target=at / "target", out=delta),
        reads=[str(base), str(at / "target")],
        out=delta,
        once=True,
        says={"base_identity": "the base", "target_identity": "the target"},
    )
    for kind, path in stored.items():
        says = {"identity": "the base", "files": "the base as converted"}
        words = f"convert {kind}", "convert", path, out
        yield ours(*words, reads=[str(path)], says=says)
    yield ours(
        *("convert safetensors to bfloat16", "convert", base, out, "--dtype", "bfloat16"),
        reads=[str(base)],
        says={"identity": "the base in bfloat16", "files": "its files"},
    )
    for kind, path in stored.items():
        says = {"identity": "the base"}
        identify = f"identify {kind}", "identify", path
        yield ours(*identify, reads=[str(path)], out=nothing, says=says)
    yield ours(
        *(PREFLIGHT, "preflight", *bench.line(base=base, delta=delta)),
        reads=[str(base), str(delta)],
        out=nothing,
        after="make-delta",
        says={},
    )
    for kind, path in stored.items():
        if kind != "old .pt":
            yield ours(
                *(f"apply-delta, base {kind}", "apply-delta"),
                *bench.line(base=path, delta=delta, out=out),
                reads=[str(path), str(delta)],
                rebuilds=True,
                after="make-delta",
                says={"identity": "the target", "files": "the target as rebuilt"},
            )
    for kind, path in pairs.items():
        yield ours(
            *(f"apply-delta, additive {kind}", "apply-delta"),
            *bench.line(base=path / "base", delta=path / "additive", out=out),
            reads=[str(path)],
            says={"identity": "the sum", "files": "the sum as rebuilt"},
        )
    path = pairs["safetensors"]
    yield ours(
        *("import-delta", "import-delta"),
        *bench.line(base=path / "base", delta=path / "additive", out=out),
        reads=[str(path)],
        says={"base_identity": "the base", "target_identity": "the sum"},
    )
    for one in bench.contenders(at, base, at / "target", peers, []):
        if one.peer == FASTCHAT:
            yield Row(one)
            yield ours(  # what it made, before the next one makes something there
                *(f"identify {one.name}'s", "identify", one.out),
                reads=[],
                out=nothing,
                after=one.name,
                peer=FASTCHAT,
                once=True,
                says={"identity": "the sum"},
            )


def disagreements(every: list[Row], found: dict[str, dict[str, Any]]) -> Iterator[str]:
    """What is not equal but should be, or failed though it is ours."""
    said: dict[str, dict[str, list[str]]] = {}
    for row in every:
        name = row.contender.name
        record = found.get(name, {})
        answers = record.get("answers", [])
        for answer, (key, topic) in itertools.product(answers, row.says.items()):
            value = answer[key]
            if key == "files":  # but for config.json, which Meta's say less of
                value = {k: v for k, v in value.items() if k.endswith(".safetensors")}
            names = said.setdefault(topic, {}).setdefault(json.dumps(value), [])
            names += [name] * (name not in names)
        if "failure" in record and not row.contender.peer:
            yield f"{name} failed: {record['failure']}"
        if not row.contender.peer and record.get("wrong_weights"):
            yield f"{name} rebuilt {record['wrong_weights']:.3%} of the weights wrongly"
    for topic, values in said.items():
        if len(values) > 1:
            listed = (f"{value} of {'; '.join(names)}" for value, names in values.items())
            yield "\n  ".join((f"{topic} differs:", *listed))
        else:
            print(f"equal: {topic} of {'; '.join(*values.values())}", file=sys.stderr)


def table(found: dict[str, dict[str, Any]], nbytes: int) -> Iterator[str]:
    """Medians of all that was measured."""
    copy = report.median(found[COPY], "seconds")
    theirs = report.least(
        *(report.median(found[n], "seconds") for n in found if n.startswith("FastChat"))
    )
    yield f"### fp16 {nbytes / 1e9:.3g} GB"
    yield ""
    yield (
        "| | seconds | ÷ (copy + sha256) | ÷ FastChat | GB/s | CPU seconds | peak MiB "
        "| notes |"
    )
    yield "|---|--:|--:|--:|--:|--:|--:|---|"
    for name, record in found.items():
        if not record["samples"] and "failure" not in record:
            continue  # it ran only for what it made, or said
        seconds, peak = (report.median(record, key) for key in ("seconds", "peak_nbytes"))
        is_cold = any(not sample["warm"] for sample in record["samples"])
        rate = None if name == PREFLIGHT or not seconds else nbytes / 1e9 / seconds
        cells = (
            name,
            report.shown(seconds),
            report.shown(report.ratio(seconds, copy)),
            report.shown(report.ratio(seconds, theirs)),
            report.shown(rate, 3),
            report.shown(report.median(record, "cpu_seconds")),
            report.shown(peak and peak / 2**20, 0),
            f"**failed**: {record['failure']}" if "failure" in record else "cold" * is_cold,
        )
        yield f"| {' | '.join(cells)} |"
    yield ""


def tidy(at: Path) -> None:
    """Remove what contenders made; one that was stopped would go on where it was."""
    for name in ("out", "delta"):
        for path in (at / name, at / f"{name}.partial"):
            shutil.rmtree(path, ignore_errors=True)


def main() -> None:
    """Measure, check, report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    option = parser.add_argument
    option("work", type=Path, help="folder for models, peers and results")
    option(
        "--size", type=bench.size_in_gb, default="1.0", help="GB, 0.001 to 4.9; default: 1"
    )
    option("--runs", type=int, default=3, help="of each contender; default: 3")
    option("--peers", action=argparse.BooleanOptionalAction, default=True)
    option("--peers-env", type=Path, help="default: WORK/peers-env")
    arguments = parser.parse_args()
    work = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    at = work / f"containers-{arguments.size}"
    peers = (arguments.peers_env or work / "peers-env").absolute()

    environment = bench.ask("environment.py", peers, *[FASTCHAT] * arguments.peers)
    if not at.exists():
        bench.ask("make_containers.py", at, arguments.size)
    tidy(at)
    every = [row for row in rows(at, peers) if arguments.peers or not row.contender.peer]
    failures = environment["failures"]
    plan = {
        "at": str(at),
        "target": str(at / "target"),
        "warm_ups": 1,
        "runs": arguments.runs,
        "contenders": [
            asdict(replace(one.contender, failure=failures.get(one.contender.peer, "")))
            | {"answers": bool(one.says)}
            for one in every
        ],
    }
    found = {
        "environment": environment,
        "runs": arguments.runs,
        **bench.ask("contend.py", "describe", at / "base"),
        "contenders": bench.ask("measure.py", stdin=json.dumps(plan)),
    }
    tidy(at)
    (work / "containers.json").write_text(json.dumps(found, indent=1) + "\n")
    lines = [*report.about(found), *table(found["contenders"], found["nbytes"])]
    (work / "containers.md").write_text("\n".join(lines))
    print("\n".join(lines))
    if faults := [*disagreements(every, found["contenders"])]:
        sys.exit("\n".join(faults))


if __name__ == "__main__":
    main()

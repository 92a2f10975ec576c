"""Measure size, speed and memory against plain copying and the other ways to make deltas.

    python scripts/bench.py WORK [--gb 0.25 1 4] [--dtype BF16 F16] [--runs 3] [--no-peers]
    python scripts/bench.py WORK --pair BASE TARGET
    python scripts/bench.py WORK --shape 7b
    python scripts/bench.py WORK --engine ray

Makes LLaMA checkpoints and fine-tunes of them, or takes a given pair, and runs each
contender as a process of its own, in turn, several times. Prints tables of medians, and
which limits the figures keep. Leaves WORK/bench.md, bench.svg, and bench.json, which holds
every sample and from which scripts/benchmark/report.py can make the other two again.

What makes it fair:

- Whole processes, with their start. Before each, what it reads is read once, unless that
  is more than half of the memory (then the table says "cold"), and what others wrote is
  synced. Code is warm, too: all run first on a tiny model, which also shows what a start
  takes.
- apply-delta and make-delta check every digest and sync to disk. The others do not sync,
  and none but the copy hashes anything.
- What rebuilds a model is compared with the target in the end, off the clock.
- FastChat and mergekit add floats, which misses some weights. Their delta, the difference
  of target and base, is made beforehand.
- FastChat computes in fp16 only. For a bf16 pair it gets base and delta in fp16, so that it
  need not convert. Both of its ways run, each on the format that it reads.
- mergekit has no command to add a delta. Its linear merge of base and delta, each with
  weight 1 and not normalised, does just that, and reads no more than FastChat does.

With --engine ray, parts in Ray's workers are measured against threads of one process
(scripts/benchmark/spread.py), the loss of a node half-way (lost_node.py), and a release
swapped into a model in memory against copying it (swap.py), each at 1 GB.

The peers are installed on demand, in an environment of their own. One that cannot be
installed, or fails, stands in the tables with the reason.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

PARTS = Path(__file__).resolve().parent / "benchmark"
TINY, GIVEN = "0.0001", "given"  # sizes: GB, and that of the given pair


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A command to measure.

    Attributes:
        name: as the tables name it.
        command: the program, by its path, and its arguments.
        reads: what is to be in memory before it starts.
        out: the folder that it makes; removed before it starts.
        published: where the size of what it would publish is to be found.
        rebuilds: whether `out` is to be the target.
        after: the contender that makes what this one reads.
        additive: whether it needs an additive delta.
        peer: the package that it is part of; none for ours.
        once: whether it runs only to make what another reads.
        failure: why it cannot run.
    """

    name: str
    command: list[str]
    reads: list[str]
    out: str
    published: Literal["", "printed", "written"] = ""
    rebuilds: bool = False
    after: str = ""
    additive: bool = False
    peer: str = ""
    once: bool = False
    failure: str = ""


def line(*words: str, **options: str | Path) -> list[str]:
    """A command line with its long options."""
    named = ((f"--{name.replace('_', '-')}", str(value)) for name, value in options.items())
    return [*words, *itertools.chain.from_iterable(named)]


def contenders(
    at: Path, base: Path, target: Path, peers: Path, device: list[str]
) -> list[Contender]:
    """All of them, in the order in which they take turns."""
    ours, theirs = sys.executable, str(peers / "bin" / "python")
    releasekit = ours, "-m", "releasekit"
    contend = str(PARTS / "contend.py")
    pair = [str(base), str(target)]
    delta, packed, out = (str(at / name) for name in ("delta", "packed", "out"))

    def fastchat(name: str, pair_format: str, *words: str) -> Contender:
        return Contender(
            name=name,
            command=line(
                *(theirs, "-m", "fastchat.model.apply_delta", *words),
                base_model_path=at / pair_format / "base",
                delta_path=at / pair_format / "additive",
                target_model_path=out,
            ),
            reads=[str(at / pair_format)],
            out=out,
            rebuilds=True,
            additive=True,
            peer="fschat",
        )

    return [
        Contender(
            name="copy + sha256",
            command=[ours, str(PARTS / "copy_and_sha256.py"), str(target), out],
            reads=[str(target)],
            out=out,
            rebuilds=True,
        ),
        Contender(
            name="XOR + zstd-3",
            command=[ours, contend, "xor", *pair],
            reads=pair,
            out=out,
            published="printed",
        ),
        Contender(
            name="ZipNN delta",
            command=[theirs, contend, "zipnn", *pair, packed],
            reads=pair,
            out=packed,
            published="written",
            peer="zipnn",
        ),
        Contender(
            name="ZipNN rebuild",
            command=[theirs, contend, "unzipnn", str(base), packed, out],
            reads=[str(base), packed],
            out=out,
            rebuilds=True,
            after="ZipNN delta",
            peer="zipnn",
        ),
        Contender(
            name="make-delta",
            command=line(
                *(*releasekit, "make-delta", "--json", *device),
                base=base,
                target=target,
                out=delta,
            ),
            reads=pair,
            out=delta,
            published="written",
        ),
        Contender(
            name="apply-delta",
            command=line(
                *(*releasekit, "apply-delta", "--json", *device),
                base=base,
                delta=delta,
                out=out,
            ),
            reads=[str(base), delta],
            out=out,
            rebuilds=True,
            after="make-delta",
        ),
        fastchat("FastChat", "fp16"),
        fastchat("FastChat --low-cpu-mem", "bin", "--low-cpu-mem"),
        Contender(
            name="mergekit",
            command=[
                *(str(peers / "bin" / "mergekit-yaml"), "--lazy-unpickle"),
                *(str(at / "merge.json"), out),
            ],
            reads=[str(base), str(at / "additive")],
            out=out,
            rebuilds=True,
            additive=True,
            peer="mergekit",
        ),
    ]


ALL = contenders(Path(), Path(), Path(), Path(), [])  # for their names
NAMES = [one.name for one in ALL]


def chosen(everyone: list[Contender], names: list[str]) -> list[Contender]:
    """Those that were asked for, and those whose output they read."""
    needed = {one.after for one in everyone if one.name in names}
    return [
        replace(one, once=one.name not in names)
        for one in everyone
        if one.name in names or one.name in needed
    ]


def ask(script: str, *words: str | Path, stdin: str = "") -> dict[str, Any]:
    """Run one of the parts; what it answers."""
    done = subprocess.run(
        [sys.executable, PARTS / script, *words],
        input=stdin,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    answer: dict[str, Any] = json.loads(done.stdout or "{}")
    return answer


def pairs(arguments: argparse.Namespace) -> Iterator[tuple[str, str, str]]:
    """Title, size and dtype of each pair, tiny ones first."""
    for dtype in arguments.dtype:
        yield f"{dtype} tiny", TINY, dtype
    if arguments.pair:
        yield "given pair", GIVEN, ""
    for dtype, size in itertools.product(arguments.dtype, arguments.gb):
        yield (
            f"{dtype} {'LLaMA-7B' if size == '7b' else f'{float(size):g} GB'}",
            size,
            dtype,
        )


def bench(arguments: argparse.Namespace) -> None:
    """Measure all pairs; bench.json grows with each."""
    work: Path = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    peers = arguments.peers_env or work / "peers-env"
    packages = {one.peer for one in ALL if one.peer and one.name in arguments.only}
    environment = ask("environment.py", peers, *sorted(packages))
    measured: list[dict[str, Any]] = []
    for title, size, dtype in pairs(arguments):
        at = work / title.replace(" ", "-")
        shutil.rmtree(at, ignore_errors=True)
        at.mkdir()
        base, target = arguments.pair if size == GIVEN else (at / "base", at / "target")
        taking_part = [
            replace(one, failure=environment["failures"].get(one.peer, ""))
            for one in chosen(
                contenders(at, base, target, peers, arguments.device), arguments.only
            )
            if not one.additive or size in (*arguments.peers_gb, TINY)
        ]
        if size != GIVEN:
            additive = any(one.additive for one in taking_part)
            ask("make_pair.py", at, dtype, size, *(["--additive"] if additive else []))
        plan = {
            "at": str(at),
            "target": str(target),
            "warm_ups": int(size == TINY),
            "runs": arguments.runs,
            "contenders": [asdict(one) for one in taking_part],
        }
        measured.append(
            {
                "title": title,
                "tiny": size == TINY,
                **ask("contend.py", "describe", target),
                "contenders": ask("measure.py", stdin=json.dumps(plan)),
            }
        )
        found = {"environment": environment, "runs": arguments.runs, "pairs": measured}
        (work / "bench.json").write_text(json.dumps(found, indent=1) + "\n")
        shutil.rmtree(at)


def size_in_gb(text: str) -> str:
    """A number, written in one way."""
    return str(float(text))


def parse() -> argparse.Namespace:
    """The command line, with what its options imply."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    option = parser.add_argument
    option("work", type=Path, help="folder for pairs, peers and results")
    option("--gb", type=size_in_gb, nargs="+", default=["0.25", "1.0", "4.0"])
    option("--dtype", nargs="+", choices=["BF16", "F16"], default=["BF16", "F16"])
    option("--runs", type=int, help="of each contender; default: 3, and 1 for --shape")
    option(
        "--pair", type=Path, nargs=2, metavar=("BASE", "TARGET"), help="measure this pair"
    )
    option(
        "--shape", choices=["7b"], help="LLaMA-7B; by default copy, make- and apply-delta"
    )
    option("--only", nargs="+", choices=NAMES, metavar="NAME", help=", ".join(NAMES))
    option("--peers", action=argparse.BooleanOptionalAction, default=True)
    option(
        "--peers-env",
        type=lambda text: Path(text).absolute(),
        help="default: WORK/peers-env",
    )
    option(
        "--peers-gb",
        type=size_in_gb,
        nargs="*",
        default=["1.0"],
        help="for FastChat, mergekit",
    )
    option("--device", help="passed on to make-delta and apply-delta")
    option("--engine", choices=["local", "ray"], default="local")
    arguments = parser.parse_args()
    if arguments.pair and arguments.shape:
        parser.error("--pair and --shape exclude each other")
    only = set(arguments.only or NAMES)
    if arguments.pair:
        arguments.pair = [path.absolute() for path in arguments.pair]
        arguments.gb, arguments.dtype = [], arguments.dtype[:1]
    elif arguments.shape:
        arguments.gb = [arguments.shape]
        only &= set(arguments.only or ("copy + sha256", "make-delta", "apply-delta"))
    asked_for = arguments.only or ()
    arguments.only = [
        one.name
        for one in ALL
        if one.name in only
        and (arguments.peers or not one.peer)
        and (not one.additive or set(arguments.gb) & set(arguments.peers_gb))
    ]
    if missing := set(asked_for) - set(arguments.only):
        parser.error(
            f"no pair for {', '.join(sorted(missing))}: see --peers-gb, --no-peers"
        )
    arguments.runs = arguments.runs or (1 if arguments.shape else 3)
    arguments.device = ["--device", arguments.device] if arguments.device else []
    return arguments


def main() -> None:
    """Measure, then report."""
    arguments = parse()
    if arguments.engine == "ray":
        runs = ["--runs", str(arguments.runs or 3)]
        for script in ("spread.py", "lost_node.py", "swap.py"):
            subprocess.run(
                [sys.executable, PARTS / script, arguments.work, *runs], check=True
            )
        return
    bench(arguments)
    subprocess.run(
        [sys.executable, PARTS / "report.py", arguments.work / "bench.json"], check=True
    )


if __name__ == "__main__":
    main()

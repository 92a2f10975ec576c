"""What a release takes at its true size, from what smaller ones took.

A step takes a time that does not depend on the model, to start and to ask, and then one in
proportion to the bytes that it works on. Two rehearsals of different sizes tell them apart:

    rate  = (bytes of the larger − the smaller's) ÷ (seconds of the larger − the smaller's)
    start = seconds of the larger − its bytes ÷ rate, or none if that is negative
    time  = start + true bytes ÷ rate

Where they took as long, the larger one's rate is taken with its start, and is too low.

That is arithmetic, not a measurement: it supposes the same machine, a disk that stays as
fast, and a Hub on loopback. A network is slower: what has to cross it is listed beside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

#: Bytes a second of the network that transfers are counted for: 1 Gbit/s.
NETWORK: Final = 125_000_000
#: Seconds by which two rehearsals must differ in a step for a rate; less is noise.
_APART: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A step of a rehearsal.

    Attributes:
        actor: who did it.
        name: what it is called.
        seconds: that it took.
        works_on: "fine-tune" or "release", whose bytes it takes time by; None if by none.
        nbytes: the bytes of that.
        peak_nbytes: memory that its process took at most.
    """

    actor: str
    name: str
    seconds: float
    works_on: str | None
    nbytes: int
    peak_nbytes: int

    @property
    def rate(self) -> float | None:
        """Bytes a second, start and all; None where it works on none."""
        return self.nbytes / self.seconds if self.works_on and self.seconds else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """A step at the true size.

    Attributes:
        step: as it was measured.
        seconds: that it would take.
        is_bound: whether it would take less, since its start could not be told apart.
        arithmetic: how that was found, in one line.
    """

    step: Step
    seconds: float
    arithmetic: str
    is_bound: bool = False


def true_sizes(
    measured: Mapping[str, int], true_base: int, true_tune: int, *, is_delta: bool
) -> tuple[dict[str, int], str]:
    """Bytes of base, fine-tune and release at the true size, and how the last was found.

    Args:
        measured: bytes of "fine-tune", "release" and "its weights" in the rehearsal.
        true_base: of the base's weights.
        true_tune: of the fine-tune's.
        is_delta: whether a delta is released; else the fine-tune is.
    """
    if not is_delta:
        sizes = {"base": true_base, "fine-tune": true_tune, "release": true_tune}
        return sizes, f"release: all weights, {gb(true_tune)}"
    ratio = measured["its weights"] / measured["fine-tune"]
    beside = measured["release"] - measured["its weights"]
    nbytes = round(ratio * true_tune) + beside
    told = (
        f"release: {mb(measured['its weights'])} ÷ {mb(measured['fine-tune'])} = "
        f"{ratio:.3f}; {ratio:.3f} × {gb(true_tune)} + {mb(beside)} of other files = "
        f"{gb(nbytes)}"
    )
    return {"base": true_base, "fine-tune": true_tune, "release": nbytes}, told


def forecast(
    steps: Sequence[Step], smaller: Sequence[Step], sizes: Mapping[str, int]
) -> list[Forecast]:
    """Each step at the true size.

    Args:
        steps: of the larger rehearsal.
        smaller: of the smaller one; empty if there was none.
        sizes: the true ones, by what a step works on.
    """
    before = {(step.actor, step.name): step for step in smaller}
    return [_forecast(s, before.get((s.actor, s.name)), sizes) for s in steps]


def _forecast(step: Step, before: Step | None, sizes: Mapping[str, int]) -> Forecast:
    name = f"{step.actor}, {step.name}"
    if step.works_on is None:
        line = f"{name}: {step.seconds:.2f} s, whatever the size"
        return Forecast(step=step, seconds=step.seconds, arithmetic=line)
    if before is not None and step.seconds - before.seconds >= _APART:
        nbytes, seconds = step.nbytes - before.nbytes, step.seconds - before.seconds
        rate, is_bound = nbytes / seconds, False
        start = max(0.0, step.seconds - step.nbytes / rate)
        how = (
            f"({mb(step.nbytes)} − {mb(before.nbytes)}) ÷ "
            f"({step.seconds:.2f} − {before.seconds:.2f}) s"
        )
    else:
        rate, start, is_bound = step.nbytes / step.seconds, 0.0, True
        how = f"{mb(step.nbytes)} ÷ {step.seconds:.2f} s, start and all"
    total = sizes[step.works_on]
    taken = start + total / rate
    more = f" + {start:.2f} s" if start else ""
    line = (
        f"{name}: {how} = {rate / 1e6:.1f} MB/s; {gb(total)} ÷ that{more} = "
        f"{duration(taken)}{', at most' * is_bound}"
    )
    return Forecast(step=step, seconds=taken, arithmetic=line, is_bound=is_bound)


def transfers(sizes: Mapping[str, int], *, is_delta: bool) -> list[str]:
    """What has to cross the network, line by line."""
    lines = [("maintainer, upload of the release", sizes["release"])]
    lines.append(("user, download of the release", sizes["release"]))
    if is_delta:
        lines.append(("user, download of the base", sizes["base"]))
    return [
        f"{what}: {gb(nbytes)} ÷ 0.125 GB/s = {duration(nbytes / NETWORK)}"
        for what, nbytes in lines
    ]


def disk_needed(sizes: Mapping[str, int], *, is_delta: bool) -> dict[str, tuple[int, str]]:
    """Bytes of disk that each needs, and of what they are the sum."""
    base, tune, release = (sizes[name] for name in ("base", "fine-tune", "release"))
    held = {"base": base, "fine-tune": tune, "release": release}
    # Payloads are spooled, and then written into files that begin with their sizes.
    held |= {"as much while it is made": release, "rebuilt model": tune}
    while_made = ("as much while it is made",) if is_delta else ()
    whose = {
        "maintainer": ("base", "fine-tune", "release", *while_made),
        "Hub": ("base", "release") if is_delta else ("release",),
        "user": ("base", "release", "rebuilt model") if is_delta else ("release",),
    }
    found = {}
    for actor, names in whose.items():
        total = sum(held[name] for name in names)
        told = " + ".join(f"{name} {gb(held[name])}" for name in names)
        found[actor] = total, f"{actor}: {told}{f' = {gb(total)}' * (len(names) > 1)}"
    return found


def gb(nbytes: int) -> str:
    """Bytes in GB, as many digits as say something."""
    return f"{nbytes / 1e9:.2f} GB" if nbytes >= 1e9 else f"{nbytes / 1e9:.4f} GB"


def mb(nbytes: int) -> str:
    """Bytes in MB."""
    return f"{nbytes / 1e6:.2f} MB"


def duration(seconds: float) -> str:
    """Seconds, and minutes or hours where there are some."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    if seconds < 5400:
        return f"{seconds:.0f} s, {seconds / 60:.0f} min"
    return f"{seconds:.0f} s, {seconds / 3600:.1f} h"

"""Go through a release once, from the checkpoint to a user who has the model.

There are three: the maintainer with base and fine-tune, the Hub, and a user with nothing
but the names and the publisher's key. Each has a folder, and what they do is a process of
its own, with an environment of its own. The Hub is the test double, in this process.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from scripts.rehearsal.comparing import same_files, same_tensors
from scripts.rehearsal.forecasting import Step
from scripts.rehearsal.recipes import copy_recipe
from scripts.rehearsal.running import ROOT, Actor, Disk, Ran, StepError, User
from scripts.rehearsal.shapes import Subject
from tests.fakehub import OTHER_TOKEN, TOKEN, FakeHub

ACTORS: Final = ("maintainer", "Hub", "user")
_HUB_ERROR: Final = 8
#: Steps of `releasekit release` that read or write every byte of something.
_WORKS_ON: Final = {
    "make": "fine-tune",
    "sign": "release",
    "verify": "release",
    "publish": "release",
}


@dataclass(kw_only=True)
class Rehearsed:
    """What a rehearsal came to.

    Attributes:
        subject: what was released.
        scale: how large.
        sizes: bytes of the weights of "base" and "fine-tune", of the whole "release", and
            of "its weights".
        steps: what was done, in order.
        said: what the release said of each of its steps.
        disk: the most bytes that each actor's folder took.
        disk_peak: the most that all took at once.
        compared_nbytes: of the fine-tune, found the same with the user.
    """

    subject: Subject
    scale: str
    sizes: dict[str, int]
    steps: list[Step] = field(default_factory=list)
    said: dict[str, str] = field(default_factory=dict)
    disk: dict[str, int] = field(default_factory=dict)
    disk_peak: int = 0
    compared_nbytes: int = 0

    @classmethod
    def of(cls, subject: Subject, scale: str) -> Rehearsed:
        """One that nothing was done of yet."""
        base, tune = subject.nbytes(scale)
        sizes = {"base": base, "fine-tune": tune, "release": 0, "its weights": 0}
        return cls(subject=subject, scale=scale, sizes=sizes)

    def add(
        self, actor: str, name: str, seconds: float, works_on: str | None, peak: int = 0
    ) -> None:
        """Note a step."""
        nbytes = self.sizes[works_on] if works_on is not None else 0
        self.steps.append(
            Step(
                actor=actor,
                name=name,
                seconds=seconds,
                works_on=works_on,
                nbytes=nbytes,
                peak_nbytes=peak,
            )
        )


def rehearse(
    subject: Subject, scale: str, place: Path, tell: Callable[[str], None]
) -> Rehearsed:
    """Go through a release; leaves its folders.

    Args:
        subject: what is released.
        scale: how large.
        place: folder to make.
        tell: told what is done next.

    Raises:
        StepError: if a step does not do what it has to.
        IntegrityError: if what the user has is not the fine-tune.
    """
    homes = {actor: place / actor.lower() for actor in ACTORS}
    for home in homes.values():
        home.mkdir(parents=True)
    found = Rehearsed.of(subject, scale)
    base = homes["maintainer"] / subject.base_id.rpartition("/")[2]
    tune = homes["maintainer"] / subject.target
    tell(f"making {subject.title}'s stand-in and its base, {scale}")
    make_models(subject, scale, base, tune)
    file = copy_recipe(subject.name, homes["maintainer"], base)
    # The user's command reads the base from the Hub, where somebody else has put it.
    with FakeHub(homes["Hub"]) as hub, Disk(homes) as disk:
        if subject.is_delta:
            tell("the base is on the Hub")
            hub.put(subject.base_id, {p.name: p for p in sorted(base.iterdir())})
        maintainer = User(home=homes["maintainer"], hub=hub.url, token=TOKEN)
        maintainer.run("keygen", "publisher.pem", "--no-passphrase")
        release(maintainer, file, found, tell)
        user = User(home=homes["user"], hub=hub.url, token=OTHER_TOKEN)
        shutil.copy(homes["maintainer"] / "publisher.pub.pem", user.home)
        model = receive(user, found, tell, lambda: let_in(hub, subject.repo))
    found.disk, found.disk_peak = disk.peaks, disk.peak
    tell("comparing every byte with the fine-tune")
    same = same_files if subject.is_delta else same_tensors
    found.compared_nbytes = same(tune, model)
    return found


def make_models(
    subject: Subject, scale: str, base: Path, tune: Path, *, headers: bool = False
) -> None:
    """Write base and fine-tune, in a process whose memory is not counted to others."""
    words = ["-m", "scripts.rehearsal.models", subject.name, scale, str(base), str(tune)]
    command = [sys.executable, *words, *(["--headers"] if headers else [])]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    if done.returncode:
        raise StepError(f"the models could not be made:\n{done.stdout}{done.stderr}")


def release(
    maintainer: Actor, file: Path, found: Rehearsed, tell: Callable[[str], None]
) -> None:
    """The maintainer's part: one command, and the same again."""
    tell("maintainer: releasekit release")
    ran = maintainer.run("release", file.name, "--json")
    document = ran.json
    out = maintainer.home / document["out"]
    files = [path for path in out.rglob("*") if path.is_file()]
    found.sizes["release"] = sum(path.stat().st_size for path in files)
    weights = [path for path in files if path.suffix == ".safetensors"]
    found.sizes["its weights"] = sum(path.stat().st_size for path in weights)
    for step in document["steps"]:
        name, state = step["step"], step["state"]
        found.said[name] = step["said"]
        if state == "done":
            works_on = _WORKS_ON.get(name)
            found.add("maintainer", name, step["seconds"], works_on, ran.peak_nbytes)
    if {"make", "sign", "verify", "publish"} - {step.name for step in found.steps}:
        raise StepError(f"`releasekit release` left something out:\n{ran.stdout}")
    tell("maintainer: releasekit release, again")
    ran = maintainer.run("release", file.name, "--json")
    if odd := [s for s in ran.json["steps"] if s["state"] not in ("kept", "idle")]:
        raise StepError(f"the same command again did {odd}")
    found.add("maintainer", "again: nothing to do", ran.seconds, None, ran.peak_nbytes)


def receive(
    user: Actor, found: Rehearsed, tell: Callable[[str], None], agree: Callable[[], None]
) -> Path:
    """The user's part: agrees, downloads, checks, rebuilds; where the model then is."""
    subject = found.subject
    key: tuple[str | Path, ...] = ("--public-key", "publisher.pub.pem")
    tell("user: refused, since the terms are not agreed to")
    user.run("fetch", subject.repo, *key, code=_HUB_ERROR)
    agree()
    tell("user: releasekit fetch")
    ran = _noted(found, "fetch", "release", user.run("fetch", subject.repo, *key, "--json"))
    if not subject.is_delta:
        folder = Path(ran.json["path"])
        tell("user: releasekit verify")
        _noted(found, "verify", "release", user.run("verify", subject.repo, *key))
        return folder
    pair = ("--base", subject.base_id, "--delta", subject.repo)
    tell("user: releasekit preflight")
    _noted(found, "preflight", None, user.run("preflight", *pair, *key))
    tell("user: releasekit apply-delta")
    options = ("--out", subject.title, "--accept-license")
    ran = user.run("apply-delta", *pair, *key, *options)
    _noted(found, "apply-delta, with the base's download", "fine-tune", ran)
    return user.home / subject.title


def _noted(found: Rehearsed, name: str, works_on: str | None, ran: Ran) -> Ran:
    found.add("user", name, ran.seconds, works_on, ran.peak_nbytes)
    return ran


def let_in(hub: FakeHub, repo: str) -> None:
    """The user agrees to the terms on the release's page, if it is as it should be."""
    held: Any = hub.repos[repo]
    if (held.private, held.gated) != (False, "auto"):
        raise StepError(
            f"{repo}: private is {held.private} and gated {held.gated}; expected False "
            "and auto"
        )
    held.granted.add("other")

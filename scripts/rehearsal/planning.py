"""A release at its true size, before there is one: headers, and holes for weights.

Nothing of that size is read, so this takes seconds, and of the disk what headers take.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from releasekit import sharding, sizes
from releasekit.releasing.run import read
from scripts.rehearsal.forecasting import gb
from scripts.rehearsal.recipes import copy_recipe
from scripts.rehearsal.rehearsing import make_models
from scripts.rehearsal.running import StepError, User, used
from scripts.rehearsal.shapes import TRUE, Subject
from tests.fakehub import TOKEN, FakeHub


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """What is known of a release before there is one.

    Attributes:
        tensors: how many the fine-tune has.
        parameters: how many elements.
        nbytes: of the tensors of "base" and "fine-tune".
        files: how many weight files there are of "base" and "fine-tune".
        shard_nbytes: that a weight file of the release has at most.
        full_files: how many weight files full weights are.
        steps: what `releasekit release --dry-run` would do.
        disk_nbytes: that the headers took.
    """

    tensors: int
    parameters: int
    nbytes: dict[str, int]
    files: dict[str, int]
    shard_nbytes: int
    full_files: int
    steps: tuple[str, ...]
    disk_nbytes: int


def plan(subject: Subject, place: Path) -> Planned:
    """Write headers, have releasekit look at them, and plan the release.

    Raises:
        StepError: if it sees something else than the true shapes.
    """
    place.mkdir(parents=True)
    base, tune = place / subject.base_id.rpartition("/")[2], place / subject.target
    make_models(subject, TRUE, base, tune, headers=True)
    file = copy_recipe(subject.name, place, base)
    maintainer = User(home=place, hub="", token=TOKEN)
    maintainer.run("keygen", "publisher.pem", "--no-passphrase")
    nbytes, files = {}, {}
    for name, folder, dtype in (
        ("base", base, subject.base_dtype),
        ("fine-tune", tune, subject.dtype),
    ):
        seen = maintainer.run("inspect", folder.name, "--json").json
        specs = subject.true.specs(dtype)
        expected = len(specs), subject.true.nbytes(dtype)
        if (len(seen["tensors"]), seen["tensor_nbytes"]) != expected:
            raise StepError(f"{folder}: inspect saw other tensors than {expected}")
        nbytes[name] = seen["tensor_nbytes"]
        files[name] = len(list(folder.glob("*.safetensors")))
    said = read(file)
    most = said.shard_nbytes
    assert most is not None, file  # recipes say it
    shards = sharding.lay_out(subject.true.specs(subject.dtype), most)
    with FakeHub(place / "hub") as hub:  # which is asked what it has
        maintainer = replace(maintainer, hub=hub.url)
        ran = maintainer.run("release", file.name, "--dry-run", "--json")
    return Planned(
        tensors=len(subject.true.specs(subject.dtype)),
        parameters=sum(spec.numel for spec in subject.true.specs(subject.dtype)),
        nbytes=nbytes,
        files=files,
        shard_nbytes=most,
        full_files=len(shards),
        steps=tuple(f"{step['step']}: {step['state']}" for step in ran.json["steps"]),
        disk_nbytes=used(place),
    )


def shown(planned: Planned, release_nbytes: int, *, is_delta: bool) -> list[str]:
    """The plan, line by line, for a release of so many bytes."""
    count = -(-release_nbytes // planned.shard_nbytes) if is_delta else planned.full_files
    return [
        f"{planned.tensors} tensors, {planned.parameters:,} parameters, read from headers",
        *(
            f"{name}: {nbytes:,} bytes in {planned.files[name]} files"
            for name, nbytes in planned.nbytes.items()
        ),
        f"release: {count} weight files, of {gb(planned.shard_nbytes)} at most",
        f"to do: {', '.join(planned.steps)}",
        f"disk that this took: {sizes.shown(planned.disk_nbytes)}",
    ]

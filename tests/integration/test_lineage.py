"""Releases that build on each other: v1.1 on v1.0, and on what is below both."""

import json
import math
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise, permutations
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import releasekit
from releasekit.codec import Add, Ulp
from releasekit.delta.samples import choose
from releasekit.digest import identity
from releasekit.licenses.chain import Chain
from releasekit.manifest import MANIFEST, SUMS, Manifest
from releasekit.manifest_parser import parse
from releasekit.tensors import DTYPES
from tests.builders import RawTensor, model_folder, safetensors_bytes, stock_tensors
from tests.integration.test_memory import peak_nbytes
from tests.integration.tools import (
    Done,
    Model,
    digests,
    good,
    here,
    in_process,
    small_pair,
    trained,
    weights,
)

SHARD: Final = "delta-{:05}-of-00020.safetensors"


@dataclass(frozen=True)
class Line:
    """A base, three versions of a model, and each as a release on the one before."""

    base: Path
    models: tuple[Path, ...]
    releases: tuple[Path, ...]

    def deltas(self, *some: int | Path) -> list[str]:
        """Options that name some of the releases, by number, or others."""
        paths = (self.releases[one] if isinstance(one, int) else one for one in some)
        return [part for path in paths for part in ("--delta", str(path))]


def versions() -> Iterator[Model]:
    """A base and three versions: rows grow, a dtype changes, tensors come and go."""
    source = np.random.default_rng(11)
    base, first = small_pair()
    yield base
    yield first
    second = {name: trained(source, t) for name, t in first.items() if t[0] != "I64"}
    del second["head.weight"]
    grown = weights(source, "BF16", 60, 64)
    label, _, data = second["embed.weight"]
    second["embed.weight"] = (label, (60, 64), data + grown[2][56 * 128 :])
    second["tied.weight"] = second["embed.weight"]
    second["norm.weight"] = trained(source, first["norm.weight"], "BF16")
    yield second
    third = dict(second)
    third["layer.weight"] = trained(source, second["layer.weight"])
    third["tied.weight"] = trained(source, second["tied.weight"])
    third["head.weight"] = weights(source, "BF16", 8, 64)
    yield third


def make_line(folder: Path, *chunks: int) -> Line:
    """All of that in a folder; each release with its own size of chunks, in words."""
    base, *models = (
        model_folder(folder / name, tensors, shards=shards)
        for name, tensors, shards in zip(
            ("base", "v1.0", "v1.1", "v1.2"), versions(), (1, 2, 1, 2), strict=True
        )
    )
    for model in models:
        (model / "config.json").write_text(json.dumps({"model": model.name}))
    releases: list[Path] = []
    for before, model, chunk in zip((base, *models), models, chunks, strict=False):
        out = folder / f"{model.name}-delta"
        releasekit.make_delta(
            before,
            model,
            out,
            name="tune",
            version=model.name[1:],
            base_release=releases[-1] if releases else None,
            codec=Ulp(chunk=chunk),
        )
        releases.append(out)
    return Line(base=base, models=tuple(models), releases=tuple(releases))


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Line:
    return make_line(tmp_path_factory.mktemp("line"), *[1 << 20] * 3)


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Line:
    """Releases whose chunks do not begin at the same places."""
    return make_line(tmp_path_factory.mktemp("uneven"), 1 << 12, 1 << 10, 3 << 10)


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_three_versions_are_rebuilt_in_whatever_order_they_are_named(
    line: Line, tmp_path: Path, order: tuple[int, ...]
) -> None:
    done = good(
        *("apply-delta", "--base", str(line.base), *line.deltas(*order)),
        *("--out", tmp_path / "out", "--json"),
    )
    assert digests(tmp_path / "out") == digests(line.models[2])
    assert done.json["releases"] == ["tune 1.0", "tune 1.1", "tune 1.2"]


def test_chunks_of_other_sizes_rebuild_the_same(uneven: Line, tmp_path: Path) -> None:
    good(
        "apply-delta",
        "--base",
        uneven.base,
        *uneven.deltas(0, 1, 2),
        "--out",
        tmp_path / "o",
    )
    assert digests(tmp_path / "o") == digests(uneven.models[2])


def test_each_version_is_rebuilt_from_any_before_it(line: Line, tmp_path: Path) -> None:
    models = (line.base, *line.models)
    for start in range(3):
        for end in range(start, 3):
            out = tmp_path / f"{start}-{end}"
            numbers = range(start, end + 1)
            good(
                "apply-delta", "--base", models[start], *line.deltas(*numbers), "--out", out
            )
            assert digests(out) == digests(line.models[end])


def test_what_an_earlier_version_rebuilt_is_no_downgrade_of_a_later(
    line: Line, tmp_path: Path
) -> None:
    # The trust file knows 1.2 by now, and 1.0 is older; but it is on the way there.
    key = tmp_path / "key.pem"
    good("keygen", key, "--no-passphrase")
    signed = []
    for release in line.releases:
        signed.append(tmp_path / release.name)
        shutil.copytree(release, signed[-1])
        good("sign", signed[-1], "--key", key)
    asked = ("--public-key", tmp_path / "key.pub.pem")
    deltas = [part for one in signed for part in ("--delta", one)]
    for name in ("first", "again"):
        out = tmp_path / name
        good("apply-delta", "--base", line.base, *deltas, "--out", out, *asked)
    alone = ("--base", line.base, "--delta", signed[0], "--out", tmp_path / "old")
    refused = here("apply-delta", *alone, *asked)
    assert refused.code == 6
    assert "expected version 1.2 of tune or a later one" in refused.error


def test_the_release_says_which_one_it_upgrades(line: Line) -> None:
    said = json.loads((line.releases[1] / "release.json").read_text())["base"]["release"]
    digest = digests(line.releases[0])["release.json"]
    assert said == {"name": "tune", "version": "1.0", "manifest": digest}
    shown = good("inspect", line.releases[1])
    assert "tune 1.0" in shown.stdout


def test_whoever_has_only_the_first_base_is_told_of_the_release_between(
    line: Line, tmp_path: Path
) -> None:
    done = in_process(
        "apply-delta", "--base", line.base, *line.deltas(1), "--out", tmp_path / "out"
    )
    assert done.returncode == 4
    assert (
        "which the release tune 1.0 rebuilds: name that release as well, with another "
        "--delta, and its own base with --base"
    ) in done.stderr


def test_releases_that_do_not_build_on_each_other_are_refused(
    line: Line, tmp_path: Path
) -> None:
    out = ("--out", tmp_path / "out")
    done = here("apply-delta", "--base", line.base, *line.deltas(0, 2), *out)
    assert done.code == 2
    assert done.error.startswith("delta: the releases do not build on each other: ")
    assert f"{line.releases[2]} on " in done.error
    twice = here("apply-delta", "--base", line.base, *line.deltas(1, 1, 0), *out)
    assert twice.code == 2
    assert not (tmp_path / "out").exists()


def test_of_two_that_rebuild_the_same_one_is_to_be_named(
    line: Line, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    releasekit.make_delta(line.base, line.models[0], other, version="1.0.1")
    deltas = line.deltas(0, 1, other)
    done = here("apply-delta", "--base", line.base, *deltas, "--out", tmp_path / "out")
    assert done.code == 2
    assert done.error == (
        f"{line.releases[0]} and {other}: rebuild the same model, which "
        f"{line.releases[1]} is made on: name one of them"
    )


@pytest.mark.parametrize("how", ["path", "link", "copy"])
def test_the_same_release_is_named_once(line: Line, tmp_path: Path, how: str) -> None:
    again = line.releases[1]
    if how == "link":
        again = tmp_path / "link"
        again.symlink_to(line.releases[1])
    elif how == "copy":
        again = tmp_path / "copy"
        shutil.copytree(line.releases[1], again)
    deltas = line.deltas(0, 1, again)
    done = here("apply-delta", "--base", line.base, *deltas, "--out", tmp_path / "out")
    assert done.code == 2
    assert done.error == (
        f"{line.releases[1]} and {again}: are the same release, tune 1.1: name it once"
    )


def test_a_release_behind_a_link_is_one_of_the_line(line: Line, tmp_path: Path) -> None:
    (tmp_path / "first").symlink_to(line.releases[0])
    deltas = line.deltas(1, tmp_path / "first")
    good("apply-delta", "--base", line.base, *deltas, "--out", tmp_path / "out")
    assert digests(tmp_path / "out") == digests(line.models[1])


def test_a_release_is_no_base_of_those_after_it(line: Line, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "out")
    done = here("apply-delta", "--base", line.releases[0], *line.deltas(1), *out)
    assert done.code == 4
    assert done.error.startswith(
        f"{line.releases[0]}: is a delta itself, which holds no model: give the base model "
        "with --base; expected the base with identity "
    )
    assert done.error.endswith(
        "which the release tune 1.0 rebuilds: name that release as well, with another "
        "--delta, and its own base with --base"
    )


def test_a_wrong_base_is_named_before_work(line: Line, tmp_path: Path) -> None:
    wrong = model_folder(tmp_path / "wrong", small_pair(seed=2)[0])
    done = in_process(
        "apply-delta", "--base", wrong, *line.deltas(0, 1, 2), "--out", tmp_path / "out"
    )
    assert done.returncode == 4
    assert str(wrong) in done.stderr
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize("number", range(3))
def test_a_damaged_release_of_any_place_is_named(
    line: Line, tmp_path: Path, number: int
) -> None:
    releases = list(line.releases)
    releases[number] = tmp_path / "damaged"
    shutil.copytree(line.releases[number], releases[number])
    (shard,) = releases[number].glob("delta-*.safetensors")
    data = bytearray(shard.read_bytes())
    for at in range(len(data) // 2, len(data), 200):
        data[at] ^= 0x41
    shard.write_bytes(data)
    deltas = [part for one in releases for part in ("--delta", str(one))]
    done = in_process(
        "apply-delta", "--base", line.base, *deltas, "--out", tmp_path / "out"
    )
    assert done.returncode == 5, done.stderr
    assert str(shard) in done.stderr
    assert not (tmp_path / "out").exists()


def test_the_plan_counts_all_that_is_read(line: Line, tmp_path: Path) -> None:
    plan = releasekit.plan_apply(line.base, line.releases, tmp_path / "out")
    ends = [releasekit.plan_apply(m, r, tmp_path / "out") for m, r in line_pairs(line)]
    assert plan.delta_nbytes == sum(end.delta_nbytes for end in ends)
    assert plan.base_nbytes == ends[0].base_nbytes - 8  # "steps" went with 1.1
    assert plan.write_nbytes == ends[-1].write_nbytes
    assert plan.memory_nbytes > ends[-1].memory_nbytes
    assert plan.releases == ("tune 1.0", "tune 1.1", "tune 1.2")


def line_pairs(line: Line) -> list[tuple[Path, Path]]:
    return list(zip((line.base, *line.models), line.releases, strict=False))


def test_preflight_takes_all_of_them(line: Line) -> None:
    ready = good("preflight", "--base", line.base, *line.deltas(2, 0, 1), "--json").json
    assert ready["ok"]
    assert ready["name"] == "tune"
    lacking = here("preflight", "--base", line.base, *line.deltas(0, 2), "--json")
    assert lacking.code == 2


def test_into_memory(line: Line) -> None:
    import torch

    with releasekit.open_delta(line.releases, line.base) as made:
        state = made.state_dict()
    with releasekit.open_delta(line.releases[2], line.models[1]) as made:
        expected = made.state_dict()
    assert state.keys() == expected.keys()
    for name, tensor in state.items():
        assert torch.equal(tensor, expected[name])
    model = {name: torch.zeros_like(tensor) for name, tensor in expected.items()}
    identity = releasekit.load_into(model, line.base, line.releases)
    assert identity == releasekit.identify(line.models[2]).identity
    with pytest.raises(releasekit.UsageError, match="load them one after another"):
        releasekit.load_into(model, None, line.releases)


def test_two_releases_of_one_base_are_compared(line: Line) -> None:
    found = good("diff", line.releases[0], line.releases[1], "--base", line.base, "--json")
    same = good("diff", line.models[0], line.models[1], "--json")
    assert _figures(found.json) == _figures(same.json)
    far = ("--base", line.base, "--base", line.releases[0], "--base", line.releases[1])
    beyond = good("diff", line.models[2], line.releases[2], *far, "--exit-code")
    assert beyond.code == 0


def _figures(document: dict[str, Any]) -> list[dict[str, Any]]:
    """What differs, without what the releases take."""
    for tensor in document["tensors"]:
        for side in ("a", "b"):
            tensor.get(side, {}).pop("published_nbytes", None)
    found: list[dict[str, Any]] = document["tensors"]
    return found


def test_another_tools_delta_is_in_no_line(line: Line, tmp_path: Path) -> None:
    other = model_folder(tmp_path / "other", small_pair()[0])
    deltas = line.deltas(0, other)
    done = here("apply-delta", "--base", line.base, *deltas, "--out", tmp_path / "out")
    assert done.code == 2
    assert "not all are releases of releasekit" in done.error


def test_a_base_release_that_rebuilds_something_else_is_refused(
    line: Line, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    made = ("make-delta", "--base", line.base, "--target", line.models[0], "--out", out)
    done = here(*made, "--base-release", line.releases[0])
    assert done.code == 4
    assert "is not what tune 1.0 in" in done.error
    assert not list(tmp_path.glob("out*"))


def test_no_release_is_no_release() -> None:
    with pytest.raises(releasekit.UsageError, match="at least one release"):
        releasekit.apply_delta("base", [], "out")


# What is wrong, and whose fault it is.


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Line:
    """Two versions of a model of more tensors than are sampled, each in a file of its own.

    All have terms that restrict use, and must be accepted.
    """
    root = tmp_path_factory.mktemp("long")
    source = np.random.default_rng(3)
    model: Model = {f"layer.{n:02}": weights(source, "BF16", 16, 64) for n in range(20)}
    base = model_folder(root / "base", model, shards=2)
    (base / "LICENSE").write_text("LLaMA LICENSE AGREEMENT")
    models: list[Path] = []
    releases: list[Path] = []
    for version in ("1.0", "1.1"):
        model = {name: trained(source, tensor) for name, tensor in model.items()}
        models.append(model_folder(root / version, model, shards=4))
        out = root / f"{version}-delta"
        options = ["--name", "tune", "--version", version, "--shard-size", "1"]
        options += ["--license", "llama-1", "--base-license", "llama-1"]
        if releases:
            options += ["--base-release", str(releases[-1])]
        before = models[-2] if releases else base
        good("make-delta", "--base", before, "--target", models[-1], "--out", out, *options)
        releases.append(out)
    return Line(base=base, models=tuple(models), releases=tuple(releases))


def test_terms_are_asked_for_once(long: Line, tmp_path: Path) -> None:
    asked: list[Chain] = []

    def accept(chain: Chain) -> bool:
        asked.append(chain)
        return True

    out = tmp_path / "out"
    releasekit.apply_delta(long.base, long.releases, out, accept_license=accept)
    assert len(asked) == 1
    found = releasekit.preflight(long.base, long.releases).findings
    assert [finding.kind for finding in found] == ["license"]


def manifest_of(release: Path) -> Manifest:
    return parse((release / MANIFEST).read_bytes())


def rebuild(base: Path, deltas: Sequence[Path], out: Path) -> Done:
    options = [part for one in deltas for part in ("--delta", one)]
    return here("apply-delta", "--base", base, *options, "--out", out, "--accept-license")


def test_a_base_that_is_wrong_where_nothing_was_sampled(long: Line, tmp_path: Path) -> None:
    manifest = manifest_of(long.releases[0])
    name = next(n for n in manifest.target if n not in choose(manifest, manifest.target))
    base = tmp_path / "base"
    shutil.copytree(long.base, base)
    for file in base.glob("*.safetensors"):
        data = file.read_bytes()
        model = stock_tensors(data)
        if name in model:
            at = data.index(model[name][2])
            file.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    done = rebuild(base, long.releases, tmp_path / "out")
    assert done.code == 4
    assert done.error == (
        f'{base}: tensor "{name}" is not the one that the delta was made with: expected '
        f"the base with identity {manifest.base_identity}; get that base, in the revision "
        "that the release names"
    )
    assert not (tmp_path / "out").exists()


def forged(release: Path, copy: Path, change: Callable[[Any], object]) -> Path:
    """A copy of a release as a publisher may make it: consistent, but for what is changed.

    Args:
        release: the release.
        copy: where its copy is made.
        change: changes the manifest; the files that it lists may have been changed before.
    """
    if not copy.exists():
        shutil.copytree(release, copy)
    document = json.loads((copy / MANIFEST).read_bytes())
    change(document)
    for entry in document["shards"]:
        data = (copy / entry["path"]).read_bytes()
        entry |= {"size": len(data), "sha256": sha256(data).hexdigest()}
    (copy / MANIFEST).write_text(json.dumps(document))
    found = digests(copy)
    names = sorted(found.keys() - {SUMS})
    (copy / SUMS).write_text("".join(f"{found[name]}  {name}\n" for name in names))
    return copy


@pytest.mark.parametrize("number", range(2))
def test_a_publisher_whose_release_contradicts_itself_is_named(
    long: Line, tmp_path: Path, number: int
) -> None:
    bad = tmp_path / "bad"
    shutil.copytree(long.releases[number], bad)
    # What is right for another tensor.
    payload = stock_tensors((bad / SHARD.format(4)).read_bytes())["layer.03"]
    (bad / SHARD.format(3)).write_bytes(safetensors_bytes({"layer.02": payload}))
    forged(bad, bad, lambda document: None)
    releases = [*long.releases]
    releases[number] = bad
    done = rebuild(long.base, releases, tmp_path / "out")
    assert done.code == 5
    assert re.fullmatch(
        rf'{bad}: tensor "layer.02": .*expected [a-z0-9]+ [0-9a-f]{{64}}, found '
        "[0-9a-f]{64}, though the release's file and the base's tensor are right: the "
        "publisher's release contradicts itself, or this machine's memory or disk fails; "
        "try again, here and elsewhere",
        done.error,
    ), done.error
    assert not (tmp_path / "out").exists()


def test_a_payload_that_cannot_be_decoded_is_named(long: Line, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    shutil.copytree(long.releases[0], bad)
    shard = bad / SHARD.format(3)
    shard.write_bytes(shard.read_bytes()[:-4] + b"\xff\xff\xff\x7f")
    forged(bad, bad, lambda document: None)
    done = rebuild(long.base, [long.releases[1], bad], tmp_path / "out")
    assert done.code == 3
    assert done.error.startswith(f'{bad}: payload "layer.02"')


@pytest.mark.parametrize("part", [0.1, 0.4, 0.7])
def test_damage_that_can_be_decoded_is_named(
    long: Line, tmp_path: Path, part: float
) -> None:
    releases = [tmp_path / "damaged", long.releases[1]]
    shutil.copytree(long.releases[0], releases[0])
    shard = releases[0] / SHARD.format(3)
    data = bytearray(shard.read_bytes())
    at = len(data) - int(len(stock_tensors(bytes(data))["layer.02"][2]) * part) - 8
    data[at] ^= 0x10
    shard.write_bytes(data)
    done = rebuild(long.base, releases, tmp_path / "out")
    assert done.code == 5
    assert done.error.startswith(f"{shard}: expected sha256 ")
    assert done.error.endswith(": the file is damaged; download it again")


def test_who_accepts_a_base_that_lacks_what_is_read_is_not_believed(
    long: Line, tmp_path: Path
) -> None:
    first = manifest_of(long.releases[0])

    def lie(document: Any) -> None:
        (tensor, *_) = document["base"]["tensors"]
        tensor["digest"] = "0" * 64
        document["base"]["accepted"] = [first.target_identity]
        del document["base"]["release"]
        document["base"]["identity"] = identity(
            (spec, "0" * 64 if spec.name == tensor["name"] else held.digest)
            for spec, held in ((h.spec, h) for h in manifest_of(bad).base.values())
        )

    bad = tmp_path / "bad"
    shutil.copytree(long.releases[1], bad)
    forged(bad, bad, lie)
    done = rebuild(long.base, [long.releases[0], bad], tmp_path / "out")
    assert done.code == 2
    assert "the releases do not build on each other" in done.error


class StoppedError(Exception):
    """What stops the work."""


@pytest.mark.parametrize("again", ["all", "last"])
def test_what_was_stopped_is_gone_on_with_by_either_way(
    long: Line, tmp_path: Path, again: str
) -> None:
    out = tmp_path / "out"
    total = manifest_of(long.releases[1]).rebuilt_nbytes

    def stop(progress: releasekit.Progress) -> None:
        if progress.stage == "rebuild" and progress.done > total // 2:
            raise StoppedError

    with pytest.raises(StoppedError):
        releasekit.apply_delta(
            long.base, long.releases, out, accept_license=True, threads=1, progress=stop
        )
    assert not out.exists()
    base, deltas = {
        "all": (long.base, list(long.releases)),
        "last": (long.models[0], [long.releases[1]]),
    }[again]
    done = releasekit.apply_delta(base, deltas, out, accept_license=True)
    assert done.kept
    expected = digests(long.models[1])
    assert {name: digests(out)[name] for name in expected} == expected


# Whose each release is.


def signed(line: Line, folder: Path, *keys: str | None) -> list[Path]:
    """Copies of a line's releases, each signed with the key of that name, if any."""
    made = []
    for number, key in enumerate(keys):
        made.append(folder / f"release {number}")
        shutil.copytree(line.releases[number], made[-1])
        if key is not None:
            if not (folder / f"{key}.pem").exists():
                good("keygen", folder / f"{key}.pem", "--no-passphrase")
            good("sign", made[-1], "--key", folder / f"{key}.pem")
    return made


def test_releases_of_two_publishers_are_each_held_against_their_own_keys(
    line: Line, tmp_path: Path
) -> None:
    releases = signed(line, tmp_path, "acme", "other")
    deltas = [part for one in releases for part in ("--delta", one)]
    command = ("apply-delta", "--base", line.base, *deltas, "--out", tmp_path / "out")
    good("trust", "add", "acme", tmp_path / "acme.pub.pem")
    half = here(*command, "--require-signature")
    assert half.code == 6
    assert half.error.startswith(f"{releases[1]}/model.sig: ")
    good("trust", "add", "other", tmp_path / "other.pub.pem")
    good(*command, "--require-signature")
    assert digests(tmp_path / "out") == digests(line.models[1])


@pytest.mark.parametrize("number", range(2))
def test_one_release_that_is_not_signed_is_enough_to_refuse(
    line: Line, tmp_path: Path, number: int
) -> None:
    keys = [None if n == number else "acme" for n in range(2)]
    releases = signed(line, tmp_path, *keys)
    # Nor is any of it read before.
    (releases[number] / MANIFEST).write_bytes(b"\xff")
    deltas = [part for one in releases for part in ("--delta", one)]
    command = ("apply-delta", "--base", line.base, *deltas, "--out", tmp_path / "out")
    good("trust", "add", "acme", tmp_path / "acme.pub.pem")
    done = here(*command, "--require-signature")
    assert done.code == 6
    assert done.error == (
        f"{releases[number]}: is not signed, and a signature is required: get it anew from "
        "its publisher, and model.sig with it"
    )
    assert not list(tmp_path.glob("out*"))


@pytest.mark.slow
@pytest.mark.parametrize("chunks", [(1 << 20,) * 2, (1 << 22, 1 << 18), (1 << 18, 1 << 22)])
def test_memory_stays_within_the_plan(tmp_path: Path, chunks: tuple[int, int]) -> None:
    source = np.random.default_rng(2)
    labels = [("F32", "BF16"), ("BF16", "F32"), ("BF16", "BF16")]
    model: Model = {f"layer.{n}": weights(source, "F32", 9000, 1024) for n in range(2)}
    folders, releases = [], []
    for version, kinds in enumerate(labels):
        model = {
            name: trained(source, tensor, label)
            for (name, tensor), label in zip(model.items(), kinds, strict=True)
        }
        folders.append(model_folder(tmp_path / str(version), model))
    for before, after, chunk in zip(folders, folders[1:], chunks, strict=False):
        releases.append(tmp_path / f"{after.name}-delta")
        releasekit.make_delta(before, after, releases[-1], codec=Ulp(chunk=chunk))
    plan = releasekit.plan_apply(folders[0], releases, tmp_path / "out", threads=2)
    deltas = [part for one in releases for part in ("--delta", one)]
    command = ("apply-delta", "--base", folders[0], *deltas, "--out", tmp_path / "out")
    peak = peak_nbytes(*command)
    print(f"{peak / 2**20:.0f} MiB of {plan.memory_nbytes / 2**20:.0f}")
    assert plan.memory_nbytes / 2 < peak <= plan.memory_nbytes


# Whatever there may be in them.

FLOATS: Final = ("F8_E4M3", "F16", "BF16", "F32")


def changed(source: np.random.Generator, tensor: RawTensor) -> RawTensor:
    """The tensor with some of its bytes one more."""
    label, shape, data = tensor
    raw = np.frombuffer(data, np.uint8)
    return label, shape, (raw + (source.random(raw.size) < 0.1)).astype(np.uint8).tobytes()


@st.composite
def lines(draw: st.DrawFn) -> list[Model]:
    """Versions of a model, each tensor with a history of its own."""
    source = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.integers(3, 5))

    def fresh(label: str, shape: tuple[int, ...]) -> RawTensor:
        bits = DTYPES[label].bits
        return label, shape, source.bytes(math.prod(shape) * bits // 8)

    shapes = [(), (0, 3), (7,), (9, 5), (40, 70)]
    models: list[Model] = [{} for _ in range(count)]
    for number in range(draw(st.integers(1, 5))):
        name, last = f"tensor.{number}", None
        for model in models:
            kinds = ["new"] if last is None else ["same", "changed", "rows", "cast", "drop"]
            aliases = sorted(model)
            match draw(st.sampled_from([*kinds, "absent"] + ["alias"] * bool(aliases))):
                case "new":
                    label = draw(st.sampled_from([*FLOATS, "I64", "U8"]))
                    last = fresh(label, draw(st.sampled_from(shapes)))
                case "changed" if last:
                    last = changed(source, last)
                case "rows" if last and last[1]:
                    rows = draw(st.integers(0, 60))
                    grown = fresh(last[0], (rows, *last[1][1:]))
                    last = (*grown[:2], last[2][: len(grown[2])] + grown[2][len(last[2]) :])
                case "cast" if last and last[0] in FLOATS:
                    last = fresh(draw(st.sampled_from(FLOATS)), tuple(last[1]))
                case "alias":
                    last = model[draw(st.sampled_from(aliases))]
                case "drop" | "absent":
                    last = None
            if last is not None:
                model[name] = last
    for model in models:
        model["always"] = fresh("F16", ())
    return models


@settings(max_examples=max(settings().max_examples // 6, 1))
@given(models=lines(), data=st.data())
def test_any_line_is_rebuilt_byte_for_byte(
    models: list[Model], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        folders = [
            model_folder(root / str(number), model, shards=min(len(model), 1 + number % 2))
            for number, model in enumerate(models)
        ]
        releases = []
        for number, (before, after) in enumerate(pairwise(folders)):
            kind = data.draw(st.sampled_from([Ulp, Ulp, Add]))
            codec = kind(chunk=data.draw(st.sampled_from([1024, 1536, 2048, 1 << 20])))
            out = root / f"{number}-delta"
            releasekit.make_delta(
                before, after, out, codec=codec, version=f"1.{number}", threads=2
            )
            releases.append(out)
        order = data.draw(st.permutations(releases))
        releasekit.apply_delta(folders[0], order, root / "out", threads=2)
        assert digests(root / "out") == digests(folders[-1])


def test_the_card_of_an_upgrade_names_what_comes_before(line: Line, tmp_path: Path) -> None:
    release = tmp_path / "release"
    shutil.copytree(line.releases[1], release)
    good("card", release)
    card = (release / "README.md").read_text()
    assert "--base BASE --delta EARLIER_DELTA --delta DELTA" in card
    assert "it is made on what the release tune 1.0 rebuilds" in card


def test_a_release_file_names_it(line: Line, tmp_path: Path) -> None:
    (tmp_path / "release.toml").write_text(
        f"""
        [release]
        name = "tune"
        version = "1.1"
        kind = "delta"
        base = "{line.models[0]}"
        base_release = "{line.releases[0]}"
        target = "{line.models[1]}"
        out = "made"
        [licenses]
        license = "apache-2.0"
        bases = ["apache-2.0"]
        """
    )
    good("release", tmp_path / "release.toml", "--until", "make")
    shown = json.loads((tmp_path / "made" / "release.json").read_bytes())
    assert shown["base"]["release"]["version"] == "1.0"
    kept = good("release", tmp_path / "release.toml", "--until", "make", "--json").json
    assert [step["state"] for step in kept["steps"]] == ["kept"]
    text = (tmp_path / "release.toml").read_text()
    (tmp_path / "release.toml").write_text(text.replace(str(line.releases[0]), "nowhere"))
    refused = here("release", tmp_path / "release.toml", "--until", "make")
    assert refused.code == 2
    assert "nowhere" in refused.error

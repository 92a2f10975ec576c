"""Releases that build on each other: v1.1 on v1.0, and on what is below both."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import releasekit
from releasekit.codec import Ulp
from tests.builders import model_folder
from tests.integration.tools import (
    Model,
    digests,
    good,
    here,
    in_process,
    small_pair,
    trained,
    weights,
)


@dataclass(frozen=True)
class Line:
    """A base, three versions of a model, and each as a release on the one before."""

    base: Path
    models: tuple[Path, ...]
    releases: tuple[Path, ...]

    def deltas(self, *numbers: int) -> list[str]:
        """Options that name some of the releases."""
        return [part for n in numbers for part in ("--delta", str(self.releases[n]))]


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
    releases = []
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
        *("apply-delta", "--base", line.base, *line.deltas(*order)),
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
    shutil.copytree(line.releases[0], other)
    deltas = (*line.deltas(0, 1), "--delta", other)
    done = here("apply-delta", "--base", line.base, *deltas, "--out", tmp_path / "out")
    assert done.code == 2
    assert f"{line.releases[0]} and {other}: rebuild the same model" in done.error


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
    deltas = (*line.deltas(0), "--delta", other)
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

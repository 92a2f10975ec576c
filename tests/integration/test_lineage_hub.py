"""Releases that build on each other by name on the Hub: two tags of one repository."""

import re
import shutil
import ssl
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from releasekit import Progress, Ulp, apply_delta, make_delta, plan_apply, preflight
from releasekit.manifest import MANIFEST, SUMS
from releasekit.manifest_parser import parse
from tests.builders import model_folder
from tests.fakehub import Answer, FakeHub, Request
from tests.integration.tools import Model, digests, good, here, trained, weights

BASE, FIRST, SECOND = "org/base", "acme/tune@v1.0", "acme/tune@v1.1"
DELTAS = ("--delta", SECOND, "--delta", FIRST)


@dataclass(frozen=True)
class World:
    """A base of four files and two versions of a tune, in shards, as releases.

    The second version has neither what is in the base's third file, nor what the last
    files of the first release are for; nothing is made of the base's fourth.
    """

    base: Path
    wrong: Path
    models: tuple[Path, Path]
    releases: tuple[Path, Path]

    @property
    def needed(self) -> dict[str, int]:
        """Where the weights lie that make the second version, and their sizes."""
        paths = [*sorted(self.base.glob("*.safetensors"))[:2]]
        for release in self.releases:
            wanted = {f"layer.{n}" for n in range(6)}
            paths += [
                path
                for path in release.glob("*.safetensors")
                if any(f'"{name}"'.encode() in path.read_bytes() for name in wanted)
            ]
        contents = {path: digests(path.parent)[path.name] for path in paths}
        return {f"GET /cdn/{content}": p.stat().st_size for p, content in contents.items()}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("world")
    source = np.random.default_rng(5)
    base: Model = {f"layer.{n}": weights(source, "BF16", 256, 256) for n in range(12)}
    wrong = {name: weights(source, "BF16", 256, 256) for name in base}
    first = {f"layer.{n}": trained(source, base[f"layer.{n}"]) for n in range(9)}
    second = {f"layer.{n}": trained(source, first[f"layer.{n}"]) for n in range(6)}
    models = (
        model_folder(root / "v1.0", first, shards=3),
        model_folder(root / "v1.1", second, shards=2),
    )
    folder = model_folder(root / "base", base, shards=4)
    releases: list[Path] = []
    for before, model in zip((folder, *models), models, strict=False):
        (model / "config.json").write_text(model.name)
        made = make_delta(
            before,
            model,
            root / f"{model.name}-delta",
            name="tune",
            version=model.name[1:],
            base_release=releases[-1] if releases else None,
            codec=Ulp(chunk=1 << 14),
            shard_nbytes=1,
        )
        releases.append(made.out)
    return World(
        base=folder,
        wrong=model_folder(root / "wrong", wrong, shards=4),
        models=models,
        releases=(releases[0], releases[1]),
    )


@pytest.fixture(autouse=True)
def _no_certificates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading them takes longer than most tests here, none of which needs any."""
    context = partial(ssl.SSLContext, ssl.PROTOCOL_TLS_CLIENT)
    monkeypatch.setattr("ssl.create_default_context", lambda *args, **kwargs: context())


def files_of(folder: Path) -> dict[str, bytes | Path]:
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path for path in paths}


@pytest.fixture
def online(hub: FakeHub, world: World) -> FakeHub:
    """The Hub with the base and both releases."""
    hub.put(BASE, files_of(world.base))
    for reference, release in zip((FIRST, SECOND), world.releases, strict=True):
        name, _, tag = reference.partition("@")
        hub.put(name, files_of(release))
        hub.tag(name, tag)
    return hub


def whole(hub: FakeHub) -> list[str]:
    """Contents that were asked for to their end, rather than by range."""
    return [
        str(request).partition("?")[0]
        for request in hub.requests
        if "GET /cdn/" in str(request)
        and request.headers.get("range", "bytes=0-").endswith("-")
    ]


def test_only_what_the_last_version_is_made_of_is_downloaded_and_once(
    online: FakeHub, world: World, tmp_path: Path
) -> None:
    nbytes = sum(world.needed.values())
    plan = plan_apply(BASE, [FIRST, SECOND], tmp_path / "out")
    assert plan.download_nbytes == nbytes
    found = preflight(BASE, [SECOND, FIRST], out=tmp_path / "out")
    assert (found.ok, found.download_nbytes) == (True, nbytes)
    assert whole(online) == []
    steps: list[Progress] = []
    apply_delta(BASE, [SECOND, FIRST], tmp_path / "out", progress=steps.append)
    assert digests(tmp_path / "out") == digests(world.models[1])
    assert sorted(whole(online)) == sorted(world.needed)
    assert max(s.done for s in steps if s.stage == "download") == nbytes
    online.requests.clear()
    apply_delta(BASE, [SECOND, FIRST], tmp_path / "again")
    assert whole(online) == []


def test_offline_once_all_is_here(
    online: FakeHub, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (BASE, FIRST, SECOND):
        good("fetch", name)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    done = good("apply-delta", "--base", BASE, *DELTAS, "--out", tmp_path / "o", "--json")
    assert done.json["releases"] == ["tune 1.0", "tune 1.1"]
    assert digests(tmp_path / "o") == digests(world.models[1])


def test_a_wrong_base_is_refused_before_weights_come(
    online: FakeHub, world: World, tmp_path: Path
) -> None:
    online.put(BASE, files_of(world.wrong))
    done = here("apply-delta", "--base", BASE, *DELTAS, "--out", tmp_path / "out")
    assert done.code == 4
    assert "this is another model of the architecture" in done.error
    assert whole(online) == []
    assert not list(tmp_path.glob("out*"))


def test_who_names_only_the_upgrade_is_told_where_the_release_before_is(
    online: FakeHub, world: World, tmp_path: Path
) -> None:
    upgrade = make_delta(
        *world.models, tmp_path / "upgrade", version="1.1", base_release=FIRST
    ).out
    assert whole(online) == []  # its manifest says enough
    before = parse((upgrade / MANIFEST).read_bytes()).predecessor
    assert before is not None
    assert (before.name, before.version, before.hub) == ("tune", "1.0", FIRST)
    done = here("apply-delta", "--base", BASE, "--delta", upgrade, "--out", tmp_path / "o")
    assert done.code == 4
    assert done.error.endswith(
        f"which the release tune 1.0 ({FIRST}) rebuilds: name that release as well, with "
        "another --delta, and its own base with --base"
    )
    deltas = ("--delta", upgrade, "--delta", FIRST)
    good("apply-delta", "--base", BASE, *deltas, "--out", tmp_path / "o")
    assert digests(tmp_path / "o") == digests(world.models[1])


@pytest.mark.sampled(3)
@pytest.mark.parametrize("which", [0, 1, 4])
def test_a_download_that_fails_ends_the_run_and_the_next_goes_on(
    online: FakeHub, world: World, tmp_path: Path, which: int
) -> None:
    content = list(world.needed)[which * 2]  # of base and releases
    refused: list[str] = []

    def refuse(request: Request, answer: Answer) -> Answer | None:
        if request.headers.get("range", "-").endswith("-"):
            refused.append(str(request))
            return Answer(451)
        return None

    online.rewrite(content, refuse)
    command = ("apply-delta", "--base", BASE, *DELTAS, "--out", tmp_path / "out", "--json")
    done = here(*command)
    assert (done.code, bool(refused)) == (8, True), done.stderr
    assert re.search("(org/base|acme/tune).*did not arrive", done.json["error"]["message"])
    assert not (tmp_path / "out").exists()
    online.rewritings.clear()
    came = set(whole(online)) - {content}
    online.requests.clear()
    assert good(*command).json["releases"] == ["tune 1.0", "tune 1.1"]
    assert digests(tmp_path / "out") == digests(world.models[1])
    assert content in whole(online)
    assert len(whole(online)) < len(world.needed) or not came


def test_the_disk_of_the_cache_must_have_room_for_all_of_them(
    online: FakeHub, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nbytes = sum(world.needed.values())
    monkeypatch.setattr(
        "releasekit.delta.supply._disk", lambda path: "cache" * (path.name != "out.partial")
    )
    monkeypatch.setattr("releasekit.output.free_nbytes", lambda path: nbytes)
    done = here("apply-delta", "--base", BASE, *DELTAS, "--out", tmp_path / "out")
    assert done.code == 1
    assert re.fullmatch(
        rf"{tmp_path}/hf/hub/models--\S+: expected [\d,]+ bytes free, found {nbytes:,}: "
        "free some space, or set HF_HOME to a folder on another disk",
        done.error,
    )
    assert whole(online) == []


def test_a_malformed_payload_is_named_though_not_all_files_are_here(
    hub: FakeHub, world: World, tmp_path: Path
) -> None:
    """Some of that release's files are not needed, and never come."""
    bad = tmp_path / "bad"
    shutil.copytree(world.releases[0], bad)
    shard = bad / "delta-00002-of-00009.safetensors"
    shard.write_bytes(shard.read_bytes()[:-4] + b"\xff\xff\xff\x7f")
    for listing in (MANIFEST, SUMS):
        path = bad / listing
        for name in (shard.name, MANIFEST):
            before, after = (digests(at)[name] for at in (world.releases[0], bad))
            path.write_text(path.read_text().replace(before, after))
    hub.put("acme/bad", files_of(bad))
    hub.put(BASE, files_of(world.base))
    deltas = ("--delta", world.releases[1], "--delta", "acme/bad")
    done = here("apply-delta", "--base", BASE, *deltas, "--out", tmp_path / "out")
    assert (done.code, "delta-00007" in "".join(whole(hub))) == (3, False), done.stderr
    assert 'payload "layer.1"' in done.error

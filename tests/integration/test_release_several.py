"""`releasekit release` of several files, or of a sweep: side by side, each as if alone."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack, chdir
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from releasekit.cli.shell import Shell
from releasekit.cli.watching import watcher_of
from releasekit.digest import blake3
from releasekit.progress import Progress
from releasekit.releasing.several import Several, release_all
from releasekit.releasing.watching import Watcher
from releasekit.releasing.work import Means
from tests.builders import model_folder
from tests.fakehub import TOKEN, FakeHub
from tests.integration.publishing import has
from tests.integration.tools import (
    Done,
    Model,
    as_raw,
    digests,
    fine_tuned,
    good,
    here,
    llama,
    numbers,
    small_pair,
)

Tables = dict[str, dict[str, Any]]
_LICENSES = {"license": "mit", "bases": ["mit"], "files": ["mit=mit.txt"]}


def tables(name: str, **release: object) -> Tables:
    """What a file says of a release, of the target that is called so."""
    said = {"name": name, "version": "1.0", "kind": "delta", "target": name, "base": "base"}
    return {"release": {**said, "out": f"{name}-out", **release}, "licenses": _LICENSES}


def write(file: Path, said: Mapping[str, Mapping[str, object]]) -> Path:
    lines = []
    for name, table in said.items():
        lines.append(f"[{name}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in table.items()]
    file.write_text("\n".join(lines))
    return file


def desk(root: Path, targets: Mapping[str, Model], base: Model) -> Path:
    """A folder with a base, targets, and a file for each of them."""
    root.mkdir()
    model_folder(root / "base", base, shards=2)
    (root / "base" / "LICENSE").write_text("MIT\n")
    (root / "mit.txt").write_text("MIT\n")
    for name, target in targets.items():
        model_folder(root / name, target)
        write(root / f"{name}.toml", tables(name))
    return root


def small(root: Path) -> Path:
    base, tuned = small_pair()
    other = {**tuned, "layer.weight": base["layer.weight"]}
    return desk(root, {"a": tuned, "b": other, "c": base}, base)


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """Of three releases on one base nothing is made yet."""
    return small(tmp_path / "three")


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three releases that are made, side by side."""
    root = small(tmp_path_factory.mktemp("shelf") / "made")
    with chdir(root):
        good("release", *FILES)
    return root


@pytest.fixture
def made(shelf: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    return shutil.copytree(shelf, tmp_path / "made")


FILES = ("a.toml", "b.toml", "c.toml")


def states(root: Path, *options: str) -> dict[str, dict[str, str]]:
    """What became of each step of each release, by the releases' names."""
    with chdir(root):
        document = good("release", *FILES, "--json", *options).json
    return {
        one["name"]: {step["step"]: step["state"] for step in one["steps"]}
        for one in document["releases"]
    }


def refused(root: Path, code: int, *files: str) -> list[str]:
    """The errors of a run that begins nothing, and that a dry run has told as well."""
    before = digests(root)
    with chdir(root):
        planned, done = here("release", *files, "--dry-run"), here("release", *files)
    assert (planned.code, done.code) == (code, code), done.stdout + done.stderr
    assert planned.stderr == done.stderr
    assert digests(root) == before
    return errors(done)


def errors(done: Done) -> list[str]:
    told = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return [line.removeprefix("error: ") for line in told]


# Each as if alone.


def unlike(base: Model) -> dict[str, Model]:
    """Targets of all kinds on one base."""
    source = np.random.default_rng(7)
    tuned = fine_tuned(source, base)
    wide = {name: as_raw(numbers(tensor), "F32") for name, tensor in tuned.items()}
    embed = "model.embed_tokens.weight"
    label, (rows, columns), data = tuned[embed]
    cut: Model = {**tuned, embed: (label, (rows // 2, columns), data[: len(data) // 2])}
    twice = {**tuned, "lm_head.weight": tuned[embed], "again": tuned["lm_head.weight"]}
    twice["once more"] = twice["again"]
    less = {name: tuned[name] for name in list(tuned)[::2]}
    turned = {name: tuned[name] for name in reversed(list(tuned))}
    return {
        "tuned": tuned,
        "wide": wide,
        "cut": cut,
        "twice": twice,
        "less": less,
        "turned": turned,
        "same": base,
    }


def test_each_is_made_as_if_it_were_the_only_one(tmp_path: Path) -> None:
    base = llama(np.random.default_rng(5), layers=2)
    targets = unlike(base)
    together = desk(tmp_path / "together", targets, base)
    good("keygen", together / "acme.pem", "--no-passphrase")
    write(together / "less.toml", tables("less", codec="add", sign_key="acme.pem"))
    write(together / "cut.toml", tables("cut", shard_size="3kB", sign_key="acme.pem"))
    alone = shutil.copytree(together, tmp_path / "alone")
    files = [f"{name}.toml" for name in targets]
    with chdir(together):
        document = good("release", *files, "--until", "make", "--json").json
        assert document["together"] == [files]
    with chdir(alone):
        for file in files:
            good("release", file, "--until", "make")
    assert digests(together) == digests(alone)
    with chdir(together):
        for name in ("cut", "twice"):
            out = Path("rebuilt", name)
            good("apply-delta", "--base", "base", "--delta", f"{name}-out", "--out", out)
            weights = digests(Path(name))["model.safetensors"]
            assert digests(out)["model.safetensors"] == weights


def test_a_file_of_its_own_and_a_sweep_make_the_same(shelf: Path, tmp_path: Path) -> None:
    root = small(tmp_path / "sweep")
    for name in FILES:
        (root / name).unlink()
    common = tables("", out="")
    for key in ("name", "target", "out"):
        del common["release"][key]
    sweep = write(root / "sweep.toml", common)
    with sweep.open("a") as file:
        for name in "abc":
            file.write(f'\n[[sweep]]\nrelease.name = "{name}"\nrelease.target = "{name}"\n')
            file.write(f'release.out = "{name}-out"\n')
    with chdir(root):
        document = good("release", "sweep.toml", "--json").json
        assert [one["name"] for one in document["releases"]] == ["a", "b", "c"]
        assert document["together"] == [
            ["sweep.toml (a)", "sweep.toml (b)", "sweep.toml (c)"]
        ]
        for name in "abc":
            assert digests(root / f"{name}-out") == digests(shelf / f"{name}-out")
        again = good("release", "sweep.toml").stdout.splitlines()
        assert [line.split()[:3] for line in again[1:]] == [
            *(["a", "1.0", "kept"], ["b", "1.0", "kept"], ["c", "1.0", "kept"]),
        ]
        # One of them in a folder that another has made.
        sweep.write_text(
            sweep.read_text().replace("a-out", "b-out2").replace("b-out2", "x")
        )
        assert good("release", "sweep.toml", "--json").json["releases"][0]["out"] == "x"
        sweep.write_text(sweep.read_text().replace('"b-out"', '"a-out"'))
        done = here("release", "sweep.toml")
    assert done.code == 2
    assert errors(done) == [
        "sweep.toml (b): a-out: was made from sweep.toml (a): name another folder in "
        "release.out, or replace it with --force",
        "1 of 3 releases cannot be made as they stand; nothing was begun",
    ]


# Once for all.


class Counts:
    """Bytes of the base's weights that are read, and that are hashed."""

    def __init__(self, base: Path, patch: pytest.MonkeyPatch) -> None:
        self.read = self.sha256 = self.blake3 = 0
        counts, lock = self, threading.Lock()
        preadv, hash_one, plain = os.preadv, _hash_one(), blake3

        def counting_preadv(fd: int, buffers: Any, offset: int) -> int:
            count = preadv(fd, buffers, offset)
            if Path(os.readlink(f"/proc/self/fd/{fd}")).parent == base:
                with lock:
                    counts.read += count
            return count

        def counting_hash_one(path: Path, *others: Any) -> str:
            if path.resolve().parent == base:
                with lock:
                    counts.sha256 += path.stat().st_size
            return hash_one(path, *others)

        class CountingBlake3:
            def __init__(self) -> None:
                self._hasher = plain()

            def update(self, data: memoryview) -> None:
                with lock:
                    counts.blake3 += len(data)
                self._hasher.update(data)

            def hexdigest(self) -> str:
                return str(self._hasher.hexdigest())

        patch.setattr(os, "preadv", counting_preadv)
        for module in ("releasekit.hashing", "releasekit.delta.making.once"):
            patch.setattr(f"{module}.hash_one", counting_hash_one)
        # Of a make, the target's tensors, and the base's unless others take its digests.
        for module in ("releasekit.delta.making.encode", "releasekit.delta.making.common"):
            patch.setattr(f"{module}.blake3", CountingBlake3)


def _hash_one() -> Callable[..., str]:
    from releasekit.hashing import hash_one

    return hash_one


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="tells what is read")
def test_three_read_and_hash_the_base_as_often_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = np.random.default_rng(5)
    base = llama(source, layers=2, hidden=128)
    root = desk(tmp_path / "desk", {n: fine_tuned(source, base) for n in "abcd"}, base)
    files = [path.stat().st_size for path in (root / "base").glob("*.safetensors")]
    tensors = sum(len(data) for _, _, data in base.values())
    counts = {}
    for names in ("d", "abc"):
        with monkeypatch.context() as patch, chdir(root):
            counts[names] = Counts(root / "base", patch)
            good("release", *(f"{name}.toml" for name in names), "--until", "make")
    assert tensors < counts["d"].read < tensors + 20_000  # and the headers
    assert counts["abc"].read == counts["d"].read
    assert counts["abc"].sha256 == counts["d"].sha256 == sum(files)
    assert counts["d"].blake3 == 2 * tensors
    assert counts["abc"].blake3 == 4 * tensors  # three targets, and the base once


def test_a_base_on_the_hub_is_downloaded_once(
    three: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.put("org/base", {path.name: path for path in (three / "base").iterdir()})
    for name, revision in (("a", ""), ("b", "@main"), ("c", f"@{hub.head('org/base')}")):
        said = tables(name, base=f"org/base{revision}")
        write(three / f"{name}.toml", said | {"hub": {"repo": f"acme/{name}"}})
    with chdir(three):
        planned = good("release", *FILES, "--dry-run", "--json").json
        assert planned["together"] == [list(FILES)]
        nbytes = sum(path.stat().st_size for path in (three / "base").iterdir())
        downloads = [one["download"]["nbytes"] for one in planned["releases"]]
        assert all(0 < download <= nbytes for download in downloads)
        good("release", *FILES)
    asked = [path for path in hub.asked("safetensors") if "org/base" in path]
    assert len(asked) == len(set(asked)), asked
    for name in "abc":
        assert has(hub, three / f"{name}-out", repo=f"acme/{name}")


# What is told.


def test_what_is_told(three: Path) -> None:
    with chdir(three):
        planned = good("release", *FILES, "--dry-run").stdout.splitlines()
        done = good("release", *FILES)
        kept = good("release", *FILES)
        verbose = good("release", *FILES, "-v").stdout.splitlines()
        assert good("release", *FILES, "-q").stdout == ""
    assert [line.split() for line in planned[:4]] == [
        ["release", "state", "time"],
        *([n, "1.0", "to", "do", "make,", "licenses,", "card,", "verify"] for n in "abc"),
    ]
    assert planned[4] == "together  a.toml, b.toml, c.toml"
    assert planned[5].startswith("disk      at most 30 MB, 30.1 MB while it is made; ")
    assert len(planned) == 6
    rows = [line.split() for line in done.stdout.splitlines()]
    assert [row[:3] for row in rows[1:4]] == [[n, "1.0", "done"] for n in "abc"]
    assert rows[1][4:6] == ["s", "a-out:"]
    assert rows[4:] == [["together", "a.toml,", "b.toml,", "c.toml"]]
    assert [line.split()[:4] for line in kept.stdout.splitlines()[1:]] == [
        [name, "1.0", "kept", f"{name}-out:"] for name in "abc"
    ]
    assert kept.stderr == ""
    assert verbose[4:7] == [
        "",
        "release  a 1.0, delta, in a-out",
        "step         state  time",
    ]


def test_a_log_says_whose_steps_begin_and_end(three: Path) -> None:
    with chdir(three):
        lines = good("release", *FILES).stderr.splitlines()
    assert lines[0] == "3 releases on base: step 1 of 8: make begins"
    made = sorted(line.partition(" done in ")[0] for line in lines[1:4])
    assert made == [f"{name}.toml: step 1 of 8: make" for name in "abc"]
    assert lines[4:6] == [
        "a.toml: step 2 of 8: licenses begins",
        f"a.toml: step 2 of 8: licenses done in {lines[5].partition(' done in ')[2]}",
    ]
    assert [line for line in lines if "verify begins" in line] == [
        f"{name}.toml: step 7 of 8: verify begins" for name in "abc"
    ]


def test_a_terminal_shows_whose_turn_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with ExitStack() as stack:
        watcher = watcher_of(Shell(), stack)
        watcher.turn("3 releases on base")
        watcher.begin("make", 1, 8)
        watcher.show(Progress(stage="encode", done=0, total=10))
        watcher.show(Progress(stage="encode", done=15, total=30))  # another has begun
        watcher.turn("a.toml")
        watcher.fail("the disk is full")
        watcher.begin("licenses", 2, 8)
    told = re.split("[\r\n]", terminal.getvalue())
    assert told[0] == "3 releases on base: step 1 of 8: make"
    assert "a.toml: failed: the disk is full" in told
    assert told[-2] == "a.toml: step 2 of 8: licenses"
    assert any("50%" in line and "15.0/30.0" in line for line in told)


def test_one_file_is_told_of_as_ever(made: Path) -> None:
    with chdir(made):
        assert "releases" not in good("release", "a.toml", "--json").json
        lines = good("release", "a.toml").stdout.splitlines()
    assert lines[0] == "release  a 1.0, delta, in a-out"


def test_bases_are_told_apart_and_full_models_made_alone(three: Path) -> None:
    shutil.copytree(three / "base", three / "other")
    (three / "link").symlink_to("base")
    for name, base in (("c", "other"), ("b", "link")):
        write(three / f"{name}.toml", tables(name, base=base))
    write(three / "d.toml", tables("c", base="other", out="d"))
    write(three / "e.toml", tables("c", base="base", kind="full", out="e"))
    write(three / "f.toml", tables("a", base="base/model.safetensors.index.json", out="f"))
    files = [f"{name}.toml" for name in "abcdef"]
    with chdir(three):
        document = good("release", *files, "--until", "make", "--json").json
    assert document["together"] == [
        ["a.toml", "b.toml", "f.toml"],
        ["c.toml", "d.toml"],
    ]


# What is told beforehand.


def test_all_mistakes_of_all_files_are_told_before_anything_is_made(three: Path) -> None:
    shutil.rmtree(three / "b")
    write(three / "c.toml", tables("c", kind="both"))
    assert refused(three, 1, "a.toml", "gone.toml", "b.toml", "c.toml") == [
        "gone.toml: no such file; `releasekit init` writes one, with what it may say",
        "b.toml: b: no such file or folder",
        'c.toml: release.kind: expected one of "delta", "full", found "both"',
        "3 of 4 releases cannot be made as they stand; nothing was begun",
    ]
    with chdir(three):
        done = here("release", "a.toml", "b.toml", "--json")
    assert done.code == 2
    a, b = done.json["releases"]
    assert (a["steps"][0]["state"], "error" in a) == ("to do", False)
    assert b["error"] == {
        "type": "UsageError",
        "message": "b: no such file or folder",
        "exit_code": 2,
    }
    with chdir(three):
        lines = here("release", "a.toml", "b.toml", "gone.toml").stdout.splitlines()
    assert [line.split()[:3] for line in lines[1:]] == [
        ["a", "1.0", "to"],
        ["b", "1.0", "refused"],
        ["gone.toml", "refused", "gone.toml:"],
    ]


def _same_out(root: Path) -> None:
    write(root / "b.toml", tables("b", out="a-out"))


def _inside(root: Path) -> None:
    write(root / "b.toml", tables("b", out="a-out/b"))


def _report(root: Path) -> None:
    write(root / "b.toml", tables("b", report="a-out/pictures"))


def _reads(root: Path) -> None:
    write(root / "b.toml", tables("b", out="a/out"))


def _repository(root: Path) -> None:
    for name in "ab":
        said = tables(name) | {"hub": {"repo": "acme/tune"}}
        write(root / f"{name}.toml", said)


_APART = "name folders in release.out, and in release.report, of which none lies in another"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_same_out, f"b.toml: a-out: a.toml makes a-out: {_APART}"),
        (_inside, f"b.toml: a-out/b: a.toml makes a-out: {_APART}"),
        (_report, f"b.toml: a-out/pictures: a.toml makes a-out: {_APART}"),
        (
            _reads,
            "b.toml: a/out: a.toml reads a: name a folder that lies apart from it; or make "
            "one release after the other",
        ),
        (
            _repository,
            "b.toml: hub.repo: a.toml publishes version 1.0 in acme/tune: name another "
            "repository, or another version",
        ),
    ],
)
def test_releases_that_are_in_each_others_way_are_refused(
    three: Path,
    hub: FakeHub,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Path], None],
    message: str,
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    change(three)
    told = refused(three, 2, "a.toml", "b.toml")
    assert told[0] == message
    assert len(told) == 2


def test_a_file_that_is_named_twice_is_refused(three: Path) -> None:
    assert refused(three, 2, "a.toml", "./a.toml")[0] == (
        f"a.toml: a-out: a.toml makes a-out: {_APART}"
    )


def test_a_disk_that_is_too_small_for_all_is_told(
    three: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "ab":
        write(three / f"{name}.toml", tables(name, kind="full"))
    weights = sum(
        path.stat().st_size for name in "ab" for path in (three / name).glob("*.safe*")
    )
    usage = shutil.disk_usage(three)._replace(free=weights)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with chdir(three):
        planned = good("release", "a.toml", "b.toml", "--dry-run")
        done = here("release", "a.toml", "b.toml")
    assert planned.stderr.startswith("warning: ")
    assert ": up to 20," in planned.stderr
    assert done.code == 1
    assert done.error.endswith("or name a folder on another disk in release.out")
    assert not (three / "a-out").exists()


# What fails, and is gone on with.


def test_one_that_fails_does_not_stop_the_others(three: Path) -> None:
    base, _ = small_pair(2)
    model_folder(three / "c2", base)
    write(three / "b.toml", tables("b", accept_base=["c2"]))
    with chdir(three):
        done = here("release", *FILES)
    assert done.code == 4
    assert errors(done) == [
        'b.toml: c2: does not serve as the base: tensor "embed.weight" has other values, '
        "so nobody could rebuild the model from it",
        "1 of 3 releases failed: run the same command to go on with them",
    ]
    rows = [line.split() for line in done.stdout.splitlines()[1:4]]
    assert [row[:3] for row in rows] == [
        *(["a", "1.0", "done"], ["b", "1.0", "failed"], ["c", "1.0", "done"]),
    ]
    assert "b.toml: step 1 of 8: make failed: c2: does not serve" in done.stderr
    write(three / "b.toml", tables("b"))
    found = states(three)
    assert {state for name in "ac" for state in found[name].values()} == {"kept", "idle"}
    assert found["b"]["make"] == "done"
    assert (three / "b-out").is_dir()


def test_one_that_fails_later_does_not_stop_the_others(made: Path) -> None:
    (made / "a-out" / "junk.txt").write_text("x")
    (made / "c-out" / "README.md").unlink()
    with chdir(made):
        done = here("release", *FILES, "--json")
    assert done.code == 5
    a, b, c = done.json["releases"]
    assert (a["steps"][-1]["step"], a["steps"][-1]["state"]) == ("verify", "failed")
    assert a["error"]["type"] == "IntegrityError"
    assert "error" not in b
    assert {step["step"]: step["state"] for step in c["steps"]}["card"] == "done"
    assert errors(done)[-1] == (
        "1 of 3 releases failed: run the same command to go on with them"
    )


def test_a_base_that_cannot_be_read_fails_all_that_are_on_it(three: Path) -> None:
    shutil.copytree(three / "base", three / "other")
    write(three / "c.toml", tables("c", base="other"))
    for path in (three / "base").glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:-1])
    with chdir(three):
        done = here("release", *FILES, "--until", "make")
    assert done.code == 3
    a, b, last = errors(done)
    assert a.startswith("a.toml: base/model-0000")
    assert a.removeprefix("a.toml: ") == b.removeprefix("b.toml: ")
    assert last.startswith("2 of 3 releases failed")
    assert (three / "c-out").is_dir()


def test_a_base_that_changes_meanwhile_fails_all(
    three: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Meddler(Watcher):
        def show(self, progress: Progress) -> None:
            if progress.stage == "hash inputs":
                os.utime(three / "base" / "model-00001-of-00002.safetensors", (1, 1))

    found = run(three, Meddler())
    told = {str(outcome.error) for outcome in found.outcomes}
    assert told == {
        f"{three}/base/model-00001-of-00002.safetensors: was changed while releases were "
        "made on it: run again once nothing changes it"
    }


class StoppedError(Exception):
    """Somebody pressed ^C."""


class Stopper(Watcher):
    """Stops a run at a stage."""

    def __init__(self, stage: str = "", *, done: bool = False) -> None:
        self.stage = stage
        self.done = done
        self.stages: Counter[str] = Counter()

    def show(self, progress: Progress) -> None:
        self.stages[progress.stage] += 1
        assert progress.done <= progress.total
        if progress.stage == self.stage and bool(progress.done) is self.done:
            raise StoppedError


def run(root: Path, watcher: Watcher, max_memory: int = 1 << 30) -> Several:
    return release_all(
        [root / name for name in FILES],
        keys=lambda entry: None,
        until="make",
        means=Means(max_memory=max_memory),
        watcher=watcher,
    )


def test_a_run_that_was_stopped_anywhere_is_gone_on_with(
    three: Path, shelf: Path, tmp_path: Path
) -> None:
    watcher = Stopper()
    run(small(tmp_path / "all"), watcher)
    assert {"encode", "hash inputs", "read back"} <= watcher.stages.keys()
    for stage in watcher.stages:
        for done in (False, True):
            with pytest.raises(StoppedError):
                run(three, Stopper(stage, done=done))
    states(three)
    for name in "abc":
        assert digests(three / f"{name}-out") == digests(shelf / f"{name}-out")
    assert sorted(path.name for path in three.glob("*-out*")) == sorted(
        f"{name}-out{suffix}" for name in "abc" for suffix in ("", ".steps.json")
    )


def test_an_interrupted_command_says_how_to_go_on(
    three: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("releasekit.releasing.steps.make_delta", stop)
    with chdir(three):
        done = here("release", *FILES)
    assert (done.code, done.error) == (
        *(130, "interrupted; run the same command to go on; steps that are done are kept"),
    )


def test_those_that_are_made_are_kept(made: Path) -> None:
    model_folder(made / "b", small_pair()[1])
    found = states(made)
    assert found["b"]["make"] == "done"
    assert {state for name in "ac" for state in found[name].values()} == {"kept", "idle"}
    # Two that are to be made again, beside one that is kept.
    for name in "ac":
        (made / name / "config.json").write_text("{}")
    with chdir(made):
        document = good("release", *FILES, "--json").json
    assert document["together"] == [["a.toml", "c.toml"]]
    assert [one["steps"][0]["state"] for one in document["releases"]] == [
        *("done", "kept", "done"),
    ]


# What they may use.


@pytest.mark.parametrize("mebibytes", [145, 170, 400])
def test_less_memory_takes_more_rounds(three: Path, shelf: Path, mebibytes: int) -> None:
    found = run(three, Watcher(), mebibytes << 20)
    assert [outcome.error for outcome in found.outcomes] == [None] * 3
    for name in "abc":
        wanted = digests(shelf / f"{name}-out")
        assert digests(three / f"{name}-out").items() >= {
            (path, digest) for path, digest in wanted.items() if path.endswith("tensors")
        }


def test_too_little_memory_is_told_of_each(three: Path) -> None:
    found = run(three, Watcher(), 129 << 20)
    told = {str(outcome.error) for outcome in found.outcomes}
    assert 1 <= len(told) <= 3
    assert all("raise --max-memory" in text for text in told)


def test_a_passphrase_is_asked_for_once(
    three: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def ask(text: str) -> bytes:
        asked.append(text)
        return b"a secret of mine"

    word = three / "word.txt"
    word.write_text("a secret of mine\n")
    good("keygen", three / "acme.pem", "--passphrase-file", word)
    for name in "ab":
        write(three / f"{name}.toml", tables(name, sign_key="acme.pem"))
    monkeypatch.setattr("releasekit.cli.signatures.ask_passphrase", ask)
    with chdir(three):
        good("release", "a.toml", "b.toml", "--dry-run")
    assert asked == ["Passphrase of acme.pem"]
    shutil.copy(three / "acme.pem", three / "b" / "acme.pem")
    write(three / "b.toml", tables("b", sign_key="b/acme.pem"))
    told = refused(three, 2, "a.toml", "b.toml")
    assert told[0] == (
        f"b.toml: {three}/b/acme.pem: lies in b, and would be published with it; move it "
        "away"
    )

"""Files that are verified by several processes: a pool of them, or shares of an array."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from releasekit import (
    IntegrityError,
    Policy,
    PrivateKey,
    SignatureError,
    UsageError,
    Verification,
    sign,
    verify,
)
from releasekit.parts.records import Done
from releasekit.parts.split import Share
from releasekit.parts.tasks import Advance, Batch, Here
from releasekit.verification import FileStatus, Status
from tests.integration.test_lineage import Line, make_line
from tests.integration.tools import good, here
from tests.integration.tools import releasekit as run


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Line:
    return make_line(tmp_path_factory.mktemp("line"), 1 << 12)


@pytest.fixture
def release(line: Line, tmp_path: Path) -> Path:
    return Path(shutil.copytree(line.releases[0], tmp_path / "release"))


@pytest.fixture
def model(line: Line, tmp_path: Path) -> Path:
    return Path(shutil.copytree(line.models[0], tmp_path / "model"))


def damage(folder: Path) -> None:
    """One file that is wrong, one that is gone, and one that nobody listed."""
    large, *_ = sorted(folder.glob("*.safetensors"))
    data = bytearray(large.read_bytes())
    data[-1] ^= 1
    large.write_bytes(data)
    (folder / "config.json").unlink(missing_ok=True)
    (folder / "new.bin").write_bytes(b"new")


def shares(path: Path, count: int, **how: Any) -> list[Verification]:
    return [verify(path, share=Share(n, count), **how) for n in range(count, 0, -1)]


def together(parts: list[Verification]) -> tuple[FileStatus, ...]:
    found = [file for part in parts for file in part.files]
    return tuple(sorted(found, key=lambda file: file.path))


@pytest.mark.parametrize("count", [1, 2, 3, 9])
@pytest.mark.parametrize("is_damaged", [False, True])
def test_a_pool_and_shares_find_what_one_process_finds(
    line: Line, model: Path, is_damaged: bool, count: int
) -> None:
    if is_damaged:
        damage(model)
    whole = verify(model, against=line.releases[0])
    assert whole.ok is not is_damaged
    assert (whole.share, whole.workers) == (None, ())
    pooled = verify(model, against=line.releases[0], pool=Here())
    assert (pooled.files, pooled.ok, pooled.listed) == (whole.files, whole.ok, whole.listed)
    (worker,) = pooled.workers
    assert worker.parts == sum(file.found is not None for file in whole.files)
    parts = shares(model, count, against=line.releases[0])
    assert together(parts) == whole.files
    assert all(part.faultless for part in parts) is not is_damaged
    assert not any(part.ok for part in parts)  # of the whole, none knows
    assert [str(part.share) for part in parts] == [
        f"{n}/{count}" for n in range(count, 0, -1)
    ]
    assert {part.listed for part in parts} == {whole.listed}


def test_unexpected_files_are_looked_for_by_the_first_share(
    line: Line, model: Path
) -> None:
    (model / "new.bin").write_bytes(b"new")
    found = [
        part.count(Status.UNEXPECTED) for part in shares(model, 3, against=line.releases[0])
    ]
    assert found == [0, 0, 1]


def test_files_that_go_away_meanwhile_are_somebodys(line: Line, model: Path) -> None:
    first = verify(model, against=line.releases[0], share=Share(1, 2))
    for file in first.files:
        (model / file.path).unlink()
    other = verify(model, against=line.releases[0], share=Share(2, 2))
    whole = verify(model, against=line.releases[0])
    assert len(first.files) + len(other.files) == whole.listed


def test_the_lists_of_a_release_are_held_against_its_manifest(release: Path) -> None:
    assert all(part.faultless for part in shares(release, 3))
    rebuilt, sums = release / "rebuilt.SHA256SUMS", release / "SHA256SUMS"
    before = hashlib.sha256(rebuilt.read_bytes()).hexdigest()
    first, *others = rebuilt.read_text().splitlines(keepends=True)
    rebuilt.write_text("".join([first.replace(first[:64], "0" * 64), *others]))
    after = hashlib.sha256(rebuilt.read_bytes()).hexdigest()
    sums.write_text(sums.read_text().replace(before, after))
    with pytest.raises(IntegrityError) as whole:
        verify(release)
    found = []
    for number in (1, 2, 3):
        try:
            assert verify(release, share=Share(number, 3)).faultless
        except IntegrityError as error:
            found.append(str(error))
    assert found == [str(whole.value)]
    assert found[0].endswith("rebuilt.SHA256SUMS and release.json disagree")


def test_every_share_checks_the_signature(release: Path, tmp_path: Path) -> None:
    keys = [PrivateKey.generate() for _ in range(2)]
    sign(release, keys[0])
    files = []
    for number, key in enumerate(keys):
        files.append(tmp_path / f"{number}.pub.pem")
        files[-1].write_bytes(key.public.pem)
    for part in shares(release, 2, policy=Policy(public_key=files[0])):
        assert part.authenticity.key == keys[0].public
        assert part.faultless
    for number in (1, 2):
        with pytest.raises(SignatureError):
            verify(release, share=Share(number, 2), policy=Policy(public_key=files[1]))


def test_a_share_of_a_single_file(line: Line, model: Path) -> None:
    file = next(model.glob("*.safetensors"))
    first, other = (
        verify(file, against=line.releases[0], share=Share(number, 2)) for number in (1, 2)
    )
    assert [f.path for f in first.files] == [file.name]
    assert (other.files, other.listed, other.faultless) == ((), 1, True)


class Elsewhere(Here):
    """A pool whose machines find a longer copy of a file."""

    def run(self, batch: Batch[Any], advance: Advance) -> Iterator[Done]:
        with (batch.spec.folder / batch.tasks[0].name).open("ab") as file:
            file.write(b"more")
        return super().run(batch, advance)


def test_a_machine_that_finds_another_copy_is_told(line: Line, model: Path) -> None:
    with pytest.raises(IntegrityError) as caught:
        verify(model, against=line.releases[0], pool=Elsewhere())
    assert str(caught.value) == (
        f"{model}/config.json: expected 17 bytes, as where the work was begun, found 21: "
        "every machine must find the same files under this path, and nothing may write to "
        "them"
    )


def test_what_makes_no_sense_is_refused(model: Path) -> None:
    with pytest.raises(UsageError, match=r"^a pool and a share: give one of them$"):
        verify(model, pool=Here(), share=Share(1, 2))
    with pytest.raises(UsageError) as caught:
        verify(model, pool=Here(), threads=2)
    assert str(caught.value) == (
        "threads of a pool: a file is hashed by one, since SHA-256 is a chain; leave "
        "--threads out"
    )


@pytest.mark.parametrize("how", [{"pool": Here()}, {"share": Share(1, 2)}])
def test_models_on_the_hub_are_to_be_fetched_first(
    model: Path, how: dict[str, Any]
) -> None:
    with pytest.raises(UsageError, match="`releasekit fetch org/model --out FOLDER`"):
        verify("org/model", **how)
    with pytest.raises(UsageError, match="`releasekit fetch org/delta --out FOLDER`"):
        verify(model, against="org/delta", **how)


def test_the_command_says_that_a_share_is_not_all(line: Line, model: Path) -> None:
    asked = ("verify", model, "--against", line.releases[0])
    whole = good(*asked, "--json").json
    assert (whole["ok"], whole["listed"], whole["workers"]) == (True, 4, [])
    assert "share" not in whole
    first = good(*asked, "--shard", "1/2", "--json").json
    assert (first["share"], first["share_ok"], first["listed"]) == ("1/2", True, 4)
    assert "ok" not in first
    assert len(first["files"]) == 2
    shown = good(*asked, "--shard", "2/2").stdout.splitlines()
    assert shown[-3:-1] == [
        "share 2/2: 2 of 4 listed files were looked at, and none of the others",
        "share 2/2: 2 good, 0 wrong, 0 missing, 0 unexpected",
    ]
    damage(model)
    done = here(*asked, "--shard", "1/2")
    assert done.code == 5
    assert done.error == (
        f"{model}: share 1/2: 1 good, 0 wrong, 1 missing, 1 unexpected, compared with "
        f"{line.releases[0]}/rebuilt.SHA256SUMS: download or rebuild what is wrong or "
        "missing, remove what is unexpected"
    )
    bad = here(*asked, "--shard", "2/2", "--json")
    assert (bad.code, bad.json["share_ok"]) == (5, False)


def test_an_engine_and_a_share_are_refused(model: Path) -> None:
    done = here("verify", model, "--engine", "ray", "--shard", "1/2")
    assert done.code == 2
    assert done.error == "--engine ray and --shard: give one of them"


@pytest.mark.slow
def test_ray_finds_the_same(line: Line, model: Path) -> None:
    # In a process of its own: Ray leaves threads behind in one that had a cluster.
    damage(model)
    asked = ("verify", model, "--against", line.releases[0], "--json")
    done = run(*asked, "--engine", "ray")
    assert done.returncode == 5, done.stderr
    found, whole = json.loads(done.stdout), here(*asked).json
    same = ("path", "against", "ok", "listed", "signature", "files")
    assert [found[name] for name in same] == [whole[name] for name in same]
    assert sum(worker["parts"] for worker in found["workers"]) == 3
    assert not any(w["name"].endswith(f":{os.getpid()}") for w in found["workers"])

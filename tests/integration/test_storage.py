"""Models in object storage: S3, as moto's server speaks it on this machine."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import pytest
import s3fs

import releasekit
from releasekit.errors import BaseMismatchError, IntegrityError, ReleaseKitError, UsageError
from releasekit.output import partial_of
from releasekit.parts.split import Share
from releasekit.parts.tasks import Here
from releasekit.storage import blocks, store
from releasekit.storage.store import Store
from tests.fakehub import FakeHub
from tests.integration.test_convert_spread import containers
from tests.integration.test_lineage import Line, make_line
from tests.integration.tools import digests, good, here
from tests.integration.tools import releasekit as run

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of an S3 server of this module's own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            for _ in range(300):
                with socket.socket() as probe:
                    if not probe.connect_ex(("127.0.0.1", port)):
                        break
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


@dataclass(frozen=True)
class Cloud:
    """A store with a bucket `models`, empty at first."""

    files: Any
    scheme: str

    def put(self, folder: Path, name: str) -> str:
        self.files.put(f"{folder}/", f"models/{name}/", recursive=True)
        return f"{self.scheme}://models/{name}"

    def get(self, name: str, to: Path) -> Path:
        self.files.get(f"models/{name}", str(to), recursive=True)
        return to

    def find(self, name: str) -> list[str]:
        return [path.lstrip("/") for path in self.files.find(f"models/{name}")]

    def read(self, name: str) -> bytes:
        data: bytes = self.files.cat_file(name)
        return data

    def write(self, name: str, data: bytes) -> None:
        self.files.pipe(name, data)


@pytest.fixture
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache that is nobody else's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def s3(server: str, _cache: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    for name, value in {
        **KEYS,
        "AWS_ENDPOINT_URL": server,
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    store._file_system.cache_clear()
    s3fs.S3FileSystem.clear_instance_cache()
    files = s3fs.S3FileSystem(use_listings_cache=False)
    files.mkdir("models")
    yield Cloud(files, "s3")
    files.rm("models", recursive=True)
    store._file_system.cache_clear()


@pytest.fixture
def cloud(_cache: None) -> Iterator[Cloud]:
    """In memory: what is the store's own is tested with S3."""
    files = fsspec.filesystem("memory")
    yield Cloud(files, "memory")
    if files.exists("models"):
        files.rm("models", recursive=True)


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Line:
    return make_line(tmp_path_factory.mktemp("line"), *[1 << 12] * 3)


def placed(line: Line, cloud: Cloud) -> tuple[str, list[str]]:
    """Base and releases in the bucket."""
    releases = [cloud.put(one, f"v{n}") for n, one in enumerate(line.releases)]
    return cloud.put(line.base, "base"), releases


@pytest.fixture
def inputs(line: Line, cloud: Cloud) -> tuple[str, list[str]]:
    return placed(line, cloud)


def test_from_storage_to_storage(line: Line, s3: Cloud, tmp_path: Path) -> None:
    base, releases = placed(line, s3)
    options = [text for one in releases for text in ("--delta", one)]
    done = good(
        "apply-delta", "--base", base, *options, "--out", "s3://models/new", "--json"
    )
    assert done.json["out"] == "s3://models/new"
    assert digests(s3.get("new", tmp_path / "new")) == digests(line.models[2])
    assert s3.find("new.partial") == []


def test_from_storage_to_a_folder(
    line: Line, inputs: tuple[str, list[str]], tmp_path: Path
) -> None:
    releasekit.apply_delta(inputs[0], inputs[1], tmp_path / "new")
    assert digests(tmp_path / "new") == digests(line.models[2])
    cached = [p.name for p in (tmp_path / "cache").rglob("*.safetensors")]
    assert cached == []


def test_shares_and_their_end(
    line: Line, inputs: tuple[str, list[str]], cloud: Cloud, tmp_path: Path
) -> None:
    base, releases = inputs
    options = ["--base", base, *(text for one in releases for text in ("--delta", one))]
    options += ["--out", "memory://models/new"]
    good("apply-delta", *options, "--shard", "2/2")
    early = here("apply-delta", *options, "--finish")
    assert early.code == 1
    assert "parts are not done" in early.error
    assert "memory:/models/new.partial" in early.error
    assert cloud.find("new") == []
    good("apply-delta", *options, "--shard", "1/2")
    again = good("apply-delta", *options, "--shard", "1/2", "--json").json
    assert again["parts"] == []
    done = good("apply-delta", *options, "--finish", "--json").json
    assert sum(worker["parts"] for worker in done["workers"]) == 2
    assert digests(cloud.get("new", tmp_path / "new")) == digests(line.models[2])


def test_pieces_are_joined(
    line: Line, inputs: tuple[str, list[str]], cloud: Cloud, tmp_path: Path
) -> None:
    out = Path("memory://models/new")
    releasekit.apply_spread(*inputs, out, pool=Here(), piece_nbytes=4000)
    assert digests(cloud.get("new", tmp_path / "new")) == digests(line.models[2])
    assert cloud.find("new.partial") == []


@pytest.mark.sampled(2)
@pytest.mark.parametrize("copies", range(4))
def test_the_end_can_be_stopped_anywhere(
    line: Line,
    inputs: tuple[str, list[str]],
    cloud: Cloud,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    copies: int,
) -> None:
    out, copy, made = Path("memory://models/new"), Store.copy, 0

    def fail(self: Store, name: str, to: Store, final: str) -> None:
        nonlocal made
        made += 1
        if made > copies:
            raise OSError(5, "Input/output error", name)
        copy(self, name, to, final)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "copy", fail)
        with pytest.raises(OSError, match="Input/output"):
            releasekit.apply_spread(*inputs, out, pool=Here())
    names = {name.rpartition("/")[2] for name in cloud.find("new")}
    # What loaders ask for first is not there.
    assert len(names) <= copies
    assert "config.json" not in names or copies >= len(digests(line.models[2])) - 2
    assert "model.safetensors.index.json" not in names
    done = releasekit.apply_spread(*inputs, out, pool=Here())
    assert len(done.kept) == 2
    assert digests(cloud.get("new", tmp_path / "new")) == digests(line.models[2])


def test_an_upload_that_failed_is_all_that_is_done_again(
    line: Line,
    inputs: tuple[str, list[str]],
    cloud: Cloud,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, upload = Path("memory://models/new"), Store.upload

    def fail(self: Store, path: Path, name: str) -> None:
        if "model-00002" in name:
            raise OSError(5, "Input/output error", name)
        upload(self, path, name)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "upload", fail)
        with pytest.raises(OSError, match="Input/output"):
            releasekit.apply_spread(*inputs, out, pool=Here())
    assert cloud.find("new") == []
    assert releasekit.apply_spread(*inputs, out, pool=Here()).kept == (
        "model-00001-of-00002.safetensors",
    )
    assert digests(cloud.get("new", tmp_path / "new")) == digests(line.models[2])


def test_what_is_there_is_not_replaced(inputs: tuple[str, list[str]], cloud: Cloud) -> None:
    cloud.write("models/new/notes.txt", b"mine")
    out = Path("memory://models/new")
    with pytest.raises(UsageError, match=r"memory://models/new: exists already; choose"):
        releasekit.apply_spread(*inputs, out, pool=Here())
    with pytest.raises(UsageError, match=r"cannot be replaced at once: remove it"):
        releasekit.apply_spread(*inputs, out, pool=Here(), force=True)
    assert cloud.find("new") == ["models/new/notes.txt"]


def test_other_work_is_not_gone_on_with(
    line: Line, inputs: tuple[str, list[str]], cloud: Cloud
) -> None:
    base, (first, *others) = inputs
    out = Path("memory://models/new")
    releasekit.apply_share(base, [first, *others], out, share=Share(1, 2))
    with pytest.raises(UsageError, match=r"memory://models/new.partial: holds other work"):
        releasekit.apply_share(base, first, out, share=Share(1, 2))
    with pytest.raises(UsageError, match=r"memory://models/new.partial: holds other work"):
        releasekit.apply_spread(base, first, out, pool=Here())


def test_another_base_is_found_out(
    line: Line, inputs: tuple[str, list[str]], cloud: Cloud
) -> None:
    wrong = cloud.put(line.models[1], "other")
    with pytest.raises(BaseMismatchError):
        releasekit.apply_spread(wrong, inputs[1], Path("memory://models/new"), pool=Here())
    assert cloud.find("new") == cloud.find("new.partial") == []


def test_a_damaged_release_makes_nothing(
    inputs: tuple[str, list[str]], cloud: Cloud
) -> None:
    (name,) = [n for n in cloud.find("v1") if n.endswith("-of-00001.safetensors")]
    data = bytearray(cloud.read(name))
    data[-40] ^= 1
    cloud.write(name, bytes(data))
    with pytest.raises(ReleaseKitError):
        releasekit.apply_spread(*inputs, Path("memory://models/new"), pool=Here())
    assert cloud.find("new") == []
    cloud.write(name, bytes(data[:-1]))
    with pytest.raises(IntegrityError, match=r"the upload is incomplete"):
        releasekit.apply_spread(*inputs, Path("memory://models/new"), pool=Here())


def test_a_file_that_is_replaced_is_read_anew(
    line: Line, inputs: tuple[str, list[str]], cloud: Cloud, tmp_path: Path
) -> None:
    base, releases = inputs
    with pytest.raises(BaseMismatchError, match=r"memory://models/base: expected 56 rows"):
        releasekit.apply_delta(base, releases[1], tmp_path / "early")
    cloud.put(line.releases[0], "v1")  # over what was there: the manifest is another
    releasekit.apply_delta(base, releases[1], tmp_path / "new")
    assert digests(tmp_path / "new") == digests(line.models[0])


def test_a_single_file_serves(
    inputs: tuple[str, list[str]], cloud: Cloud, line: Line, tmp_path: Path
) -> None:
    (name,) = [n for n in cloud.find("base") if n.endswith(".safetensors")]
    releasekit.apply_delta(f"memory://{name}", inputs[1], tmp_path / "new")
    assert digests(tmp_path / "new") == digests(line.models[2])


def test_nothing_there(cloud: Cloud, tmp_path: Path) -> None:
    done = here(
        "apply-delta",
        "--base",
        "memory://models/no",
        "--delta",
        "memory://models/none",
        "--out",
        tmp_path / "new",
    )
    assert (done.code, done.error) == (2, "memory://models/none: there is nothing there")


def test_no_such_bucket_and_no_server(
    s3: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["apply-delta", "--base", "s3://models/b", "--out", str(tmp_path / "new")]
    done = here(*arguments, "--delta", "s3://nowhere/none")
    assert (done.code, done.error) == (2, "s3://nowhere/none: there is nothing there")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    store._file_system.cache_clear()
    s3fs.S3FileSystem.clear_instance_cache()
    done = here(*arguments, "--delta", "s3://models/none")
    assert done.code == 1
    assert done.error.startswith("s3://models/none: ")
    assert "127.0.0.1:9" in done.error


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("hf://acme/model", "hf://acme/model: make a folder or an object store's, and"),
        ("memory://models", "memory://models: names a bucket: name a folder in it to make"),
        ("nope://models/x", "nope://: is no store that fsspec knows; expected s3://"),
    ],
)
def test_places_that_nothing_is_written_to(
    inputs: tuple[str, list[str]], out: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        releasekit.apply_spread(*inputs, Path(out), pool=Here())


def test_commands_that_read_files_alone_say_so(inputs: tuple[str, list[str]]) -> None:
    done = here("inspect", inputs[0])
    assert done.code == 2
    assert done.error == (
        "memory://models/base: this reads files of this machine alone: copy it to a "
        "folder, and name that; make-delta, apply-delta, convert and verify read object "
        "storage"
    )


def test_the_partial_folder_has_its_own_name() -> None:
    assert partial_of(Path("s3://models/new")) == Path("s3://models/new.partial")


@pytest.mark.parametrize("block", [1, 7, 64, 1 << 20])
def test_blocks_of_any_size_read_the_same(
    line: Line,
    inputs: tuple[str, list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    block: int,
) -> None:
    data = os.urandom(300)
    files = store.Store("memory://bucket/folder")
    files.write("a", data)
    monkeypatch.setattr(blocks, "BLOCK", block)
    with blocks.Blocks(files) as kept:
        file = blocks.StoredFile(path=Path("a"), size=300, name="a", blocks=kept)
        for offset, nbytes in ((0, 300), (0, 0), (299, 1), (50, 100), (150, 150), (1, 7)):
            assert file.read(offset, nbytes) == data[offset : offset + nbytes]


def test_models_on_the_hub_are_read_by_range(
    hub: FakeHub, line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    store._file_system.cache_clear()
    for name, folder in (("org/base", line.base), ("acme/release", line.releases[0])):
        paths = [path for path in folder.rglob("*") if path.is_file()]
        hub.put(name, {path.relative_to(folder).as_posix(): path for path in paths})
    releasekit.apply_delta("hf://org/base", "hf://acme/release@main", tmp_path / "new")
    assert digests(tmp_path / "new") == digests(line.models[0])


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return containers(tmp_path_factory.mktemp("models"))


@pytest.mark.parametrize("container", ["safetensors", "PyTorch"])
def test_convert_reads_and_writes_there(
    models: dict[str, Path], cloud: Cloud, tmp_path: Path, container: str
) -> None:
    place = cloud.put(models[container], "in")
    options = ("--dtype", "smallest", "--shard-size", "3KB")
    releasekit.convert(
        models[container], tmp_path / "whole", dtype="smallest", shard_nbytes=3000
    )
    done = good("convert", place, "memory://models/new", *options, "--json")
    assert done.json["out"] == "memory://models/new"
    assert digests(cloud.get("new", tmp_path / "new")) == digests(tmp_path / "whole")
    good("convert", place, tmp_path / "local", *options)
    assert digests(tmp_path / "local") == digests(tmp_path / "whole")
    for number in (1, 2, 1, 2):  # at first they look, then they write
        good("convert", place, "memory://models/parts", *options, "--shard", f"{number}/2")
    good("convert", place, "memory://models/parts", *options, "--finish")
    assert digests(cloud.get("parts", tmp_path / "parts")) == digests(tmp_path / "whole")
    assert cloud.find("parts.partial") == []


def test_what_is_there_is_verified(
    line: Line, inputs: tuple[str, list[str]], cloud: Cloud
) -> None:
    _, (release, *_) = inputs
    found = good("verify", release, "--json").json
    assert (found["ok"], found["path"]) == (True, release)
    assert {file["status"] for file in found["files"]} == {"good"}
    model = cloud.put(line.models[0], "rebuilt")
    assert good("verify", model, "--against", release, "--json").json["ok"]
    shares = [
        good("verify", model, "--against", release, "--shard", share, "--json").json
        for share in ("1/2", "2/2")
    ]
    looked = [file["path"] for share in shares for file in share["files"]]
    assert sorted(looked) == sorted(digests(line.models[0]))
    (name, *_) = [name for name in cloud.find("rebuilt") if name.endswith(".json")]
    cloud.write(name, b"{}")
    weights, *_ = [n for n in cloud.find("rebuilt") if n.endswith(".safetensors")]
    data = bytearray(cloud.read(weights))
    data[-1] ^= 1
    cloud.write(weights, bytes(data))
    cloud.write("models/rebuilt/more.safetensors", bytes(data))
    done = here("verify", model, "--against", release, "--json")
    assert done.code == 5
    assert {
        file["path"]: file["status"]
        for file in done.json["files"]
        if file["status"] != "good"
    } == {
        name.rpartition("/")[2]: "wrong",
        weights.rpartition("/")[2]: "wrong",
        "more.safetensors": "unexpected",
    }


@pytest.mark.slow
def test_ray_reads_and_writes_there(line: Line, s3: Cloud, tmp_path: Path) -> None:
    base, releases = placed(line, s3)
    options = [text for one in releases for text in ("--delta", one)]
    done = run(
        *("apply-delta", "--base", base, *options, "--out", "s3://models/new"),
        *("--engine", "ray", "--json"),
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert sum(worker["parts"] for worker in json.loads(done.stdout)["workers"]) == 2
    assert digests(s3.get("new", tmp_path / "new")) == digests(line.models[2])
    assert s3.find("new.partial") == []

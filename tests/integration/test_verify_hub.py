"""`releasekit verify` of what is on the Hub, and against a release that is there."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from tests.builders import model_folder
from tests.fakehub import OTHER_TOKEN, TOKEN, FakeHub, path_of
from tests.integration.publishing import Shelf, copy
from tests.integration.tools import Done, digests, good, here, small_pair

NAME = "acme/tune"


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    return Shelf(tmp_path_factory.mktemp("shelf"))


@pytest.fixture
def plain(tmp_path: Path) -> dict[str, bytes | Path]:
    """A model whose publisher left no list."""
    folder = model_folder(tmp_path / "plain", small_pair()[1], shards=2)
    (folder / "config.json").write_text("{}")
    (folder / "README.md").write_text("# A model\n")
    return files(folder)


def files(folder: Path) -> dict[str, bytes | Path]:
    return {name: folder / name for name in digests(folder)}


def put(hub: FakeHub, folder: Path) -> str:
    return hub.put(NAME, {".gitattributes": b"", **files(folder)})


def verify(*options: str | Path, name: str | Path = NAME) -> Done:
    return here("verify", name, *options)


def statuses(done: Done) -> dict[str, str]:
    return {file["path"]: file["status"] for file in done.json["files"]}


def cached(hub: FakeHub, tmp_path: Path, name: str) -> Path:
    """The cache's content of a file."""
    place = tmp_path / "hf" / "hub" / f"models--{NAME.replace('/', '--')}"
    return (place / "snapshots" / hub.head(NAME) / name).resolve()


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)


# By the Hub's own digests.


def test_a_model_without_a_list(hub: FakeHub, plain: dict[str, Any]) -> None:
    commit = hub.put(NAME, plain)
    done = verify("--json")
    assert (done.code, done.stderr) == (0, "")
    assert done.json["against"] == f"{hub.url}/{NAME}/tree/{commit}"
    assert done.json["ok"]
    found = {file["path"]: file["found"] for file in done.json["files"]}
    shard = "model-00001-of-00002.safetensors"
    assert found[shard] == hashlib.sha256(plain[shard].read_bytes()).hexdigest()
    assert found["config.json"] == hashlib.sha1(b"blob 2\0{}").hexdigest()
    assert set(statuses(done).values()) == {"good"}
    assert hub.leaked() == []


def test_a_revision_of_it(hub: FakeHub, plain: dict[str, Any]) -> None:
    first = hub.put(NAME, plain)
    hub.tag(NAME, "v1")
    hub.put(NAME, plain | {"config.json": b"[]"})
    done = verify("--json", name=f"{NAME}@v1")
    assert done.code == 0
    assert done.json["against"].endswith(first)


def test_a_damaged_cache_is_found(
    hub: FakeHub, plain: dict[str, Any], tmp_path: Path
) -> None:
    hub.put(NAME, plain)
    assert verify().code == 0
    shard = "model-00002-of-00002.safetensors"
    flip(cached(hub, tmp_path, shard))
    done = verify("--json")
    assert done.code == 5
    assert statuses(done)[shard] == "wrong"
    assert list(statuses(done).values()).count("wrong") == 1
    flip(cached(hub, tmp_path, shard))
    assert verify().code == 0
    flip(cached(hub, tmp_path, "config.json"))
    done = verify()
    assert done.code == 5
    assert "wrong       config.json" in done.stdout.splitlines()
    assert done.error.endswith(
        "download or rebuild what is wrong or missing, remove what is unexpected"
    )


def test_what_comes_damaged_is_found(hub: FakeHub, plain: dict[str, Any]) -> None:
    hub.put(NAME, plain)
    hub.fault(match="GET /cdn/", flip=100, times=99)
    done = verify("--json")
    assert done.code == 5
    assert done.json["error"]["type"] == "IntegrityError"


def test_another_digest_is_listed(hub: FakeHub, plain: dict[str, Any]) -> None:
    hub.put(NAME, plain)

    def lie(entries: list[dict[str, Any]]) -> None:
        for entry in entries:
            if path_of(entry) == "config.json":
                entry["blobId" if "rfilename" in entry else "oid"] = "0" * 40

    hub.listing(lie)
    assert verify("--json").code == 5


# By the publisher's list.


def test_a_release(hub: FakeHub, shelf: Shelf) -> None:
    put(hub, shelf.plain)
    done = verify("--json")
    assert done.code == 0, done.stderr
    assert done.json["against"].endswith("/SHA256SUMS")
    assert set(statuses(done)) == set(digests(shelf.plain)) - {"SHA256SUMS"}
    assert done.json["signature"]["status"] == "unsigned"


def test_full_weights_with_a_list(hub: FakeHub, shelf: Shelf) -> None:
    put(hub, shelf.model)
    done = verify("--json")
    assert (done.code, done.stderr) == (0, "")
    assert set(statuses(done)) == set(digests(shelf.model)) - {"SHA256SUMS"}


def test_a_signed_release(hub: FakeHub, shelf: Shelf) -> None:
    put(hub, shelf.signed)
    done = verify("--json", "--public-key", shelf.public, "--require-signature")
    assert (done.code, done.stderr) == (0, "")
    assert done.json["signature"]["status"] == "signed"
    assert done.json["against"].endswith("/model.sig")
    other = shelf.pair("other").with_name("other.pub.pem")
    assert verify("--public-key", other).code == 6
    unknown = verify("--json")
    assert (unknown.code, unknown.json["signature"]["status"]) == (0, "unchecked")
    assert unknown.stderr.startswith("warning: ")


def test_the_trust_file_knows_whose_it_is(hub: FakeHub, shelf: Shelf) -> None:
    good("trust", "add", "acme", shelf.public, "--require-signature")
    put(hub, shelf.plain)
    assert verify().code == 6
    put(hub, shelf.signed)
    assert verify("--json").json["signature"]["publisher"] == "acme"


@pytest.mark.parametrize("kind", ["plain", "signed", "model"])
def test_a_release_that_is_damaged_in_the_cache(
    hub: FakeHub, shelf: Shelf, tmp_path: Path, kind: str
) -> None:
    folder: Path = getattr(shelf, kind)
    put(hub, folder)
    options = ("--json", "--public-key", shelf.public) if kind == "signed" else ("--json",)
    assert verify(*options).code == 0
    (name, *_) = [n for n in digests(folder) if n.endswith(".safetensors")]
    flip(cached(hub, tmp_path, name))
    done = verify(*options)
    assert done.code == 5
    assert statuses(done)[name] == "wrong"


def test_a_release_that_the_hub_has_otherwise(
    hub: FakeHub, shelf: Shelf, tmp_path: Path
) -> None:
    folder = copy(shelf.plain, tmp_path / "other")
    (folder / "config.json").write_text("[]")
    (folder / "more.txt").write_text("more")
    put(hub, folder)
    done = verify("--json")
    assert done.code == 5
    assert {k: v for k, v in statuses(done).items() if v != "good"} == {
        "config.json": "wrong",
        "more.txt": "unexpected",
    }


# What cannot be had.


def test_a_gated_model(
    hub: FakeHub, plain: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.put(NAME, plain)
    hub.repos[NAME].gated = "auto"
    for token in (None, OTHER_TOKEN):
        if token:
            monkeypatch.setenv("HF_TOKEN", token)
        done = verify("--json")
        assert done.code == 8
        assert f"accept its licence on {hub.url}/{NAME}" in done.error
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert verify().code == 0
    assert hub.leaked() == []


def test_without_the_hub(
    hub: FakeHub, shelf: Shelf, plain: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.put("acme/plain", plain)
    put(hub, shelf.plain)
    assert verify().code == 0
    assert verify(name="acme/plain").code == 0
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    count = len(hub.requests)
    done = verify("--json")
    assert (done.code, done.json["ok"]) == (0, True)
    assert verify(name="acme/none").code == 8
    done = verify("--json", name="acme/plain")
    assert done.code in (0, 8), done.stderr
    assert len(hub.requests) == count


def test_what_is_not_there(hub: FakeHub, tmp_path: Path) -> None:
    done = verify("--json")
    assert done.code == 8
    assert done.error == (
        f"{NAME}: expected a local folder or a model on {hub.url}, found neither; correct "
        "the name or, if the model is private, log in: hf auth login"
    )
    assert verify("--against", tmp_path).code == 2
    assert verify("--signature", tmp_path).code == 2


# A rebuilt model, against its release there.


def rebuilt(shelf: Shelf, folder: Path) -> Path:
    paths = ("--base", shelf.base, "--delta", shelf.plain, "--out", folder)
    good("apply-delta", *paths)
    return folder


@pytest.mark.parametrize("kind", ["plain", "signed"])
def test_a_rebuilt_model(hub: FakeHub, shelf: Shelf, tmp_path: Path, kind: str) -> None:
    model = rebuilt(shelf, tmp_path / "model")
    put(hub, getattr(shelf, kind))
    options = ("--public-key", shelf.public) if kind == "signed" else ()
    done = verify("--against", NAME, "--json", *options, name=model)
    assert done.code == 0, done.stderr
    assert done.json["against"].endswith("/rebuilt.SHA256SUMS")
    assert done.json["signature"]["status"] == ("signed" if options else "unsigned")
    # Weights of the release need not be there for that.
    assert hub.asked("^GET /cdn/") == []
    flip(model / "model.safetensors")
    done = verify("--against", NAME, "--json", *options, name=model)
    assert done.code == 5
    assert statuses(done)["model.safetensors"] == "wrong"


def test_a_rebuilt_model_whose_release_must_be_signed(
    hub: FakeHub, shelf: Shelf, tmp_path: Path
) -> None:
    model = rebuilt(shelf, tmp_path / "model")
    put(hub, shelf.plain)
    good("trust", "add", "acme", shelf.public, "--require-signature")
    assert verify("--against", NAME, name=model).code == 6
    assert verify("--against", "acme/none", name=model).code == 8


def test_a_rebuilt_model_against_what_is_no_release(
    hub: FakeHub, shelf: Shelf, plain: dict[str, Any], tmp_path: Path
) -> None:
    model = rebuilt(shelf, tmp_path / "model")
    hub.put(NAME, plain)
    done = verify("--against", NAME, name=model)
    assert done.code == 2, done.stderr

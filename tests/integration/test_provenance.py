"""Where a release says that it comes from: true, complete, and the same for everybody."""

from __future__ import annotations

import json
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from releasekit import (
    Add,
    Policy,
    PrivateKey,
    Progress,
    PublicKey,
    Ulp,
    UsageError,
    convert,
    import_delta,
    make_delta,
    sign,
    verify,
)
from releasekit.signing.keys import write_pair
from tests.builders import model_folder
from tests.fakehub import FakeHub
from tests.foreign import model, save, subtract, tuned
from tests.integration.test_signatures import files_of, require_deterministic
from tests.integration.tools import digests, here, releasekit, small_pair
from tests.llama import Llama

EPOCH = "1735689600"  # 2025-01-01T00:00:00Z
#: Files that vouch for the others, provenance.json among them.
VOUCHING = {
    *("provenance.json", "SHA256SUMS", "model.sig", "rebuilt.model.sig"),
    "key-succession.jsonl",
}
CODECS = pytest.mark.parametrize("codec", [Ulp(), Add()], ids=["ulp", "add"])


def statement(release: Path) -> dict[str, Any]:
    """The document, once its form was found right.

    As the specifications of in-toto's Statement v1 and SLSA's Provenance v1 have it: fields
    of these names and types, those that are required, and no others.
    """
    found = json.loads((release / "provenance.json").read_text())
    assert isinstance(found, dict)
    assert found.keys() == {"_type", "subject", "predicateType", "predicate"}
    assert found["_type"] == "https://in-toto.io/Statement/v1"
    assert found["predicateType"] == "https://slsa.dev/provenance/v1"
    predicate = found["predicate"]
    assert predicate.keys() == {"buildDefinition", "runDetails"}
    definition, run = predicate["buildDefinition"], predicate["runDetails"]
    required = {"buildType", "externalParameters"}
    optional = {"internalParameters", "resolvedDependencies"}
    assert required <= definition.keys() <= required | optional
    assert definition["buildType"].startswith("urn:")
    assert isinstance(definition["externalParameters"], dict)
    assert {"builder"} <= run.keys() <= {"builder", "metadata", "byproducts"}
    assert {"id"} <= run["builder"].keys() <= {"id", "builderDependencies", "version"}
    assert run["builder"]["id"].startswith("urn:")
    assert all(isinstance(text, str) for text in run["builder"]["version"].values())
    assert run["metadata"].keys() <= {"invocationId", "startedOn", "finishedOn"}
    for resource in [*found["subject"], *definition["resolvedDependencies"]]:
        assert {"name", "digest"} <= resource.keys() <= {"name", "digest", "uri"}
        assert resource["digest"].keys() == {"sha256"}
    return found


def subjects(release: Path) -> dict[str, str]:
    found = {
        item["name"]: item["digest"]["sha256"] for item in statement(release)["subject"]
    }
    assert len(found) == len(statement(release)["subject"])
    return found


def materials(release: Path) -> dict[str, str]:
    """SHA-256 of what went in, by role and path."""
    listed = statement(release)["predicate"]["buildDefinition"]["resolvedDependencies"]
    found = {item["name"]: item["digest"]["sha256"] for item in listed}
    assert len(found) == len(listed)
    return found


def places(release: Path) -> set[tuple[str, str | None]]:
    """Where inputs can be had, by role."""
    listed = statement(release)["predicate"]["buildDefinition"]["resolvedDependencies"]
    return {(item["name"].partition("/")[0], item.get("uri")) for item in listed}


def under(role: str, folder: Path, *but: str) -> dict[str, str]:
    """All files of a folder as materials, but for some."""
    found = digests(folder)
    return {f"{role}/{name}": found[name] for name in found if name not in but}


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A sharded base, and a fine-tune with files beside its weights."""
    base, target = small_pair()
    tune = model_folder(tmp_path / "tune", target, shards=3)
    (tune / "config.json").write_text('{"model_type": "llama"}')
    (tune / "größe").mkdir()
    (tune / "größe" / "notes 1.txt").write_bytes(b"\xff\0")
    return model_folder(tmp_path / "base", base, shards=2), tune


def nameless(release: Path, root: Path) -> None:
    """No word of the release tells where on which machine it was made."""
    told = [str(root), root.name, str(Path.home()), os.uname().nodename]
    for name in digests(release):
        if name.endswith((".json", "SUMS")):
            text = (release / name).read_text()
            assert not any(word in text for word in told if len(word) > 5), name


@CODECS
def test_subjects_are_the_files_of_the_release(
    pair: tuple[Path, Path], tmp_path: Path, codec: Ulp
) -> None:
    out = tmp_path / "out"
    make_delta(*pair, out, codec=codec, sign_key=PrivateKey.generate())
    made = digests(out)
    wanted = {name: digest for name, digest in made.items() if name not in VOUCHING}
    assert subjects(out) == wanted
    assert made.keys() - wanted.keys() == VOUCHING - {"key-succession.jsonl"}
    assert list(subjects(out)) == sorted(wanted)
    assert (
        f"{made['provenance.json']}  provenance.json\n" in (out / "SHA256SUMS").read_text()
    )


def test_what_it_was_made_of_safetensors(pair: tuple[Path, Path], tmp_path: Path) -> None:
    base, tune = pair
    out = tmp_path / "out"
    (tune / "extra.bin").write_bytes(b"x")
    made = make_delta(base, tune, out, exclude=["*.bin"])
    index = "model.safetensors.index.json"
    wanted = under("base", base, index) | under("target", tune, "extra.bin")
    assert materials(out) in (wanted, wanted | under("base", base))
    assert places(out) == {("base", None), ("target", None)}
    definition = statement(out)["predicate"]["buildDefinition"]
    assert definition["externalParameters"]["command"] == "make-delta"
    assert definition["externalParameters"]["exclude"] == ["*.bin"]
    assert definition["externalParameters"]["codec"]["id"] == "ulp-v1"
    assert definition["internalParameters"]["identities"] == {
        "base": made.base_identity,
        "target": made.target_identity,
    }
    nameless(out, tmp_path)


@pytest.mark.parametrize("kind", ["bin", "legacy bin"])
def test_what_it_was_made_of_pytorchs_files(tmp_path: Path, kind: str) -> None:
    base = save(model(1), tmp_path / "base", kind)
    target = save(tuned(model(1)), tmp_path / "target")
    make_delta(base, target, tmp_path / "out")
    found = materials(tmp_path / "out")
    assert {name: found[name] for name in found if name.startswith("target/")} == under(
        "target", target
    )
    weights = {name: found[name] for name in found if name.endswith(".bin")}
    assert len(weights) == 2
    assert weights.items() <= under("base", base).items()
    assert set(found.values()) <= {*digests(base).values(), *digests(target).values()}
    nameless(tmp_path / "out", tmp_path)


def test_what_it_was_made_of_metas_files(tmp_path: Path) -> None:
    base = Llama(parts=2).save(tmp_path / "base")
    (base / "tokenizer.model").write_bytes(b"t")
    convert(base, tmp_path / "target")
    make_delta(base, tmp_path / "target", tmp_path / "out")
    found = materials(tmp_path / "out")
    # Parameters say how q and k lie, so they are of the weights.
    weights = {f"base/consolidated.0{n}.pth" for n in range(2)} | {"base/params.json"}
    assert {name for name in found if name.startswith("base/")} == weights
    assert found == {
        **{name: digests(base)[name.removeprefix("base/")] for name in weights},
        **under("target", tmp_path / "target"),
    }
    nameless(tmp_path / "out", tmp_path)


@pytest.mark.parametrize("revision", ["", "@main", "@v1.0"])
def test_what_it_was_made_of_on_the_hub(
    hub: FakeHub, pair: tuple[Path, Path], tmp_path: Path, revision: str
) -> None:
    base, tune = pair
    commit = hub.put("org/Base-7b", files_of(base))
    hub.tag("org/Base-7b", "v1.0")
    out = tmp_path / "out"
    make_delta(f"org/Base-7b{revision}", tune, out)
    found = materials(out)
    assert places(out) == {
        ("base", f"pkg:huggingface/org/Base-7b@{commit}"),
        ("target", None),
    }
    assert found.items() <= (under("base", base) | under("target", tune)).items()
    assert len([name for name in found if name.startswith("base/model-")]) == 2
    assert len(commit) == 40
    nameless(out, tmp_path)


def test_what_was_imported_was_made_of(hub: FakeHub, tmp_path: Path) -> None:
    base = model(1)
    save(base, tmp_path / "base", "bin")
    save(subtract(tuned(base), base), tmp_path / "delta", "bin")
    commit = hub.put("org/delta", files_of(tmp_path / "delta"))
    made = import_delta(tmp_path / "base", "org/delta", tmp_path / "out")
    found = materials(tmp_path / "out")
    known = under("base", tmp_path / "base") | under("delta", tmp_path / "delta")
    assert found.items() <= known.items()
    assert {"delta/config.json", "delta/tokenizer.model"} <= found.keys()
    assert len([name for name in found if name.endswith(".bin")]) == 4
    assert places(tmp_path / "out") == {
        ("base", None),
        ("delta", f"pkg:huggingface/org/delta@{commit}"),
    }
    given = statement(tmp_path / "out")["predicate"]["buildDefinition"][
        "externalParameters"
    ]
    assert (given["command"], given["recipe"], given["dtype"], given["order"]) == (
        *("import-delta", "fastchat", "float16"),
        "cast-add",
    )
    assert made.recipe == "fastchat"
    nameless(tmp_path / "out", tmp_path)


@CODECS
def test_the_same_inputs_give_the_same_bytes(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: Ulp
) -> None:
    """Whatever the folders, the threads, the memory, the time, and the umask."""
    require_deterministic()
    base, tune = pair
    key = PrivateKey.generate()
    make_delta(
        *(base, tune, tmp_path / "one"), codec=codec, sign_key=key, threads=1, version="1.2"
    )
    elsewhere = tmp_path / "else where" / "größe"
    shutil.copytree(base, elsewhere / "another base")
    shutil.copytree(tune, elsewhere / tune.name)
    for path in elsewhere.rglob("*"):
        os.utime(path, (1, 1))
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("TZ", "Pacific/Auckland")
    before = os.umask(0o077)
    try:
        make_delta(
            *("another base", tune.name, "two"),
            codec=codec,
            sign_key=key,
            threads=3,
            max_memory=1 << 29,
            version="1.2",
        )
    finally:
        os.umask(before)
    assert digests(elsewhere / "two") == digests(tmp_path / "one")
    # And another base in the same files, or another name, does not.
    make_delta(base, tune, tmp_path / "three", codec=codec, sign_key=key, name="other")
    differing = {
        name
        for name, digest in digests(tmp_path / "three").items()
        if digests(tmp_path / "one").get(name) != digest
    }
    assert {"release.json", "provenance.json", "model.sig"} <= differing


def test_the_same_import_gives_the_same_bytes(tmp_path: Path) -> None:
    require_deterministic()
    base = model(1)
    key = PrivateKey.generate()
    for number in (1, 2):
        folder = tmp_path / str(number)
        save(base, folder / "base", "bin")
        save(subtract(tuned(base), base), folder / "delta")
        import_delta(
            *(folder / "base", folder / "delta", folder / "out"),
            sign_key=key,
            threads=number,
        )
    assert digests(tmp_path / "1" / "out") == digests(tmp_path / "2" / "out")


class StoppedError(Exception):
    """What stops the work; stands for anything."""


@pytest.mark.parametrize("stage", ["encode", "hash inputs", "read back"])
def test_work_that_was_stopped_gives_the_same_bytes(
    pair: tuple[Path, Path], tmp_path: Path, stage: str
) -> None:
    """And is of use to another version, by another key, at another time."""
    require_deterministic()
    base, tune = pair
    old, new = PrivateKey.generate(), PrivateKey.generate()

    def stop(progress: Progress) -> None:
        if progress.stage == stage and progress.done == progress.total:
            raise StoppedError

    make_delta(base, tune, tmp_path / "whole", version="2", publisher="acme", sign_key=new)
    with pytest.raises(StoppedError):
        make_delta(base, tune, tmp_path / "out", progress=stop, threads=1, sign_key=old)
    assert not (tmp_path / "out").exists()
    again = make_delta(
        base, tune, tmp_path / "out", version="2", publisher="acme", sign_key=new
    )
    assert again.kept > 0
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")
    assert not (tmp_path / "out.partial").exists()


def test_no_time_is_told_but_that_of_the_environment(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_delta(*pair, tmp_path / "none")
    assert statement(tmp_path / "none")["predicate"]["runDetails"]["metadata"] == {}
    monkeypatch.setenv("SOURCE_DATE_EPOCH", EPOCH)
    make_delta(*pair, tmp_path / "some")
    time = "2025-01-01T00:00:00Z"
    metadata = statement(tmp_path / "some")["predicate"]["runDetails"]["metadata"]
    assert metadata == {"startedOn": time, "finishedOn": time}
    assert datetime.fromisoformat(time) == datetime.fromtimestamp(int(EPOCH), UTC)
    # Nothing else knows of it.
    none, some = digests(tmp_path / "none"), digests(tmp_path / "some")
    assert {name for name in some if some[name] != none[name]} == {
        "provenance.json",
        "SHA256SUMS",
    }
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "")
    make_delta(*pair, tmp_path / "empty")
    assert digests(tmp_path / "empty") == none


@pytest.mark.parametrize(
    ("epoch", "time"),
    [("0", "1970-01-01T00:00:00Z"), ("253402300799", "9999-12-31T23:59:59Z")],
)
def test_any_time_that_can_be_told_is(
    pair: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    epoch: str,
    time: str,
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
    make_delta(*pair, tmp_path / "out")
    metadata = statement(tmp_path / "out")["predicate"]["runDetails"]["metadata"]
    assert metadata["startedOn"] == metadata["finishedOn"] == time


@pytest.mark.parametrize("epoch", ["x", "1.5", "-1", " 1", "1e9", "253402300800", "\u0661"])
def test_a_time_that_is_none_is_refused_before_any_work(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epoch: str
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
    before = sorted(tmp_path.iterdir())
    arguments = ("--base", pair[0], "--target", pair[1], "--out", tmp_path / "out")
    done = here("make-delta", *arguments)
    assert done.code == 2
    assert done.error == f'SOURCE_DATE_EPOCH: expected seconds since 1970, found "{epoch}"'
    assert sorted(tmp_path.iterdir()) == before
    with pytest.raises(UsageError, match=r"^SOURCE_DATE_EPOCH: "):
        make_delta(*pair, tmp_path / "out")


def test_signing_later_leaves_it_as_it_is(pair: tuple[Path, Path], tmp_path: Path) -> None:
    make_delta(*pair, tmp_path / "out")
    before = digests(tmp_path / "out")["provenance.json"]
    sign(tmp_path / "out", PrivateKey.generate())
    assert digests(tmp_path / "out")["provenance.json"] == before


def test_it_is_signed(pair: tuple[Path, Path], tmp_path: Path) -> None:
    public = write_pair(PrivateKey.generate(), tmp_path / "key.pem", None)
    make_delta(*pair, tmp_path / "out", sign_key=PrivateKey.load(tmp_path / "key.pem"))
    path = tmp_path / "out" / "provenance.json"
    path.write_text(path.read_text().replace("make-delta", "make-deltas"))
    checked = verify(tmp_path / "out", policy=Policy(public_key=public))
    assert [file.path for file in checked.files if file.status.value != "good"] == [
        "provenance.json"
    ]
    assert PublicKey.load(public) == checked.authenticity.key


def test_the_command_itself_gives_the_same_bytes(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once in a process of its own, where hashes of strings are others."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", EPOCH)
    make_delta(*pair, tmp_path / "here")
    arguments = ("--base", pair[0], "--target", pair[1], "--out", tmp_path / "there")
    done = releasekit("make-delta", *arguments)
    assert done.returncode == 0, done.stderr
    assert digests(tmp_path / "there") == digests(tmp_path / "here")

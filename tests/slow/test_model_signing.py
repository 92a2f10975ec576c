"""The stock tool of OpenSSF Model Signing, `model_signing` 1.1.1, on its own command line.

It verifies what is signed here, and what it signs is verified here; and where it lets
something through, it is refused here.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import NoEncryption

from releasekit import (
    Add,
    FormatError,
    Policy,
    PrivateKey,
    SignatureError,
    Ulp,
    apply_delta,
    convert,
    make_delta,
    sign,
    verify,
)
from releasekit.digest import sha256_hex
from releasekit.signing import bundle
from releasekit.signing.keys import write_pair
from releasekit.signing.succession import vouch
from tests.builders import model_folder
from tests.integration.test_signatures import (
    PEM,
    PKCS8,
    as_the_hub_does,
    certify,
)
from tests.integration.tools import digests, small_pair

pytestmark = pytest.mark.slow

#: Names the program. Tests are skipped without it, and fail if it is none.
VARIABLE = "RELEASEKIT_MODEL_SIGNING"
CURVES = pytest.mark.parametrize("curve", ["P-256", "P-384", "P-521"])
Run = subprocess.CompletedProcess[str]


def program() -> Path:
    """The stock tool."""
    path = os.environ.get(VARIABLE)
    if path is None:
        pytest.skip(f"{VARIABLE} is not set: scripts/prove makes that environment")
    if not os.access(path, os.X_OK):
        pytest.fail(f"{VARIABLE}: {path} is no program: run scripts/prove again")
    return Path(path)


def run(*arguments: str | Path) -> Run:
    return subprocess.run(
        [program(), *arguments], capture_output=True, text=True, check=False, timeout=120
    )


def their_verdict(folder: Path, key: Path, *more: str | Path) -> str:
    """What the tool says of a folder, by its `model.sig` unless another one is named."""
    signature = () if "--signature" in more else ("--signature", folder / "model.sig")
    done = run("verify", "key", folder, "--public_key", key, *signature, *more)
    assert (done.returncode == 0) == ("Verification succeeded" in done.stdout)
    return "good" if done.returncode == 0 else done.stdout + done.stderr


def sign_theirs(folder: Path, key: Path, *more: str | Path) -> None:
    done = run("sign", "key", folder, "--private_key", key, "--signature", *more)
    assert done.returncode == 0, done.stdout + done.stderr


class Keys:
    """A pair on each curve, as files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for curve in ("P-256", "P-384", "P-521"):
            write_pair(PrivateKey.generate(curve), folder / f"{curve}.pem", None)

    def private(self, curve: str = "P-256") -> Path:
        return self.folder / f"{curve}.pem"

    def public(self, curve: str = "P-256") -> Path:
        return self.folder / f"{curve}.pub.pem"

    def load(self, curve: str = "P-256") -> PrivateKey:
        return PrivateKey.load(self.private(curve))

    def policy(self, curve: str = "P-256") -> Policy:
        return Policy(public_key=self.public(curve))


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A base, and a fine-tune with files whose names are of every kind."""
    base, target = small_pair()
    tune = model_folder(tmp_path / "tune", target, shards=3)
    for name in (
        "config.json",
        "a/b/c/d.txt",
        "größe/Ωμέγα 模型.txt",
        ".hidden",
        "a b#%&'.md",
    ):
        (tune / name).parent.mkdir(parents=True, exist_ok=True)
        (tune / name).write_text(name)
    (tune / "empty").write_bytes(b"")
    return model_folder(tmp_path / "base", base, shards=2), tune


@pytest.fixture
def release(pair: tuple[Path, Path], keys: Keys, tmp_path: Path) -> Path:
    make_delta(*pair, tmp_path / "release", sign_key=keys.load())
    return tmp_path / "release"


def test_the_program_is_the_one_that_is_meant() -> None:
    done = run("--version")
    assert "1.1.1" in done.stdout
    print(done.stdout.strip())


# It verifies what is signed here.


@CURVES
@pytest.mark.parametrize("codec", ["ulp", "add"])
def test_it_verifies_releases_and_what_they_rebuild(
    pair: tuple[Path, Path], keys: Keys, tmp_path: Path, curve: str, codec: str
) -> None:
    release, out, key = tmp_path / "release", tmp_path / "out", keys.public(curve)
    how = Add() if codec == "add" else Ulp()
    make_delta(*pair, release, sign_key=keys.load(curve), codec=how)
    assert their_verdict(release, key) == "good"
    apply_delta(pair[0], release, out)
    rebuilt = release / "rebuilt.model.sig"
    assert their_verdict(out, key, "--signature", rebuilt) == "good"
    # As a publisher would who uploads the model, too.
    shutil.copyfile(rebuilt, out / "model.sig")
    assert their_verdict(out, key) == "good"
    assert verify(out, policy=keys.policy(curve)).ok


def test_it_verifies_what_was_downloaded_from_the_hub(
    pair: tuple[Path, Path], release: Path, keys: Keys, tmp_path: Path
) -> None:
    as_the_hub_does(release)
    assert their_verdict(release, keys.public()) == "good"
    assert verify(release, policy=keys.policy()).ok
    out = tmp_path / "out"
    apply_delta(pair[0], release, out)
    shutil.copyfile(release / "rebuilt.model.sig", out / "model.sig")
    as_the_hub_does(out)
    assert their_verdict(out, keys.public()) == "good"
    assert verify(out, policy=keys.policy()).ok


def test_it_verifies_a_snapshot_of_links(release: Path, keys: Keys, tmp_path: Path) -> None:
    snapshot = tmp_path / "snapshot"
    for name in digests(release):
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).symlink_to(release / name)
    assert "symlink" in their_verdict(snapshot, keys.public())
    assert their_verdict(snapshot, keys.public(), "--allow_symlinks") == "good"
    assert verify(snapshot, policy=keys.policy()).ok


def test_it_verifies_plain_folders(
    pair: tuple[Path, Path], keys: Keys, tmp_path: Path
) -> None:
    base, tune = pair
    (tune / ".gitignore").write_text("*.bin")
    convert(tune, tmp_path / "converted")
    for folder in (base, tune, tmp_path / "converted"):
        sign(folder, keys.load())
        assert their_verdict(folder, keys.public()) == "good"
        assert verify(folder, policy=keys.policy()).ok


def test_it_verifies_a_model_with_files_of_git(
    pair: tuple[Path, Path], keys: Keys, tmp_path: Path
) -> None:
    base, tune = pair
    (tune / ".gitattributes").write_text("*.safetensors filter=lfs")
    (tune / ".gitignore").write_text("*.bin")
    release, out = tmp_path / "release", tmp_path / "out"
    make_delta(base, tune, release, sign_key=keys.load(), codec=Add())
    assert their_verdict(release, keys.public()) == "good"
    apply_delta(base, release, out)
    rebuilt = release / "rebuilt.model.sig"
    assert their_verdict(out, keys.public(), "--signature", rebuilt) == "good"
    assert verify(out, signature=rebuilt, policy=keys.policy()).ok


def many_files(folder: Path) -> Path:
    for number in range(3000):
        path = folder / f"{number % 7}" / f"{number % 31}" / f"file {number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(number))
    return folder


def test_it_verifies_many_files(keys: Keys, tmp_path: Path) -> None:
    folder = many_files(tmp_path / "many")
    sign(folder, keys.load())
    assert their_verdict(folder, keys.public()) == "good"


def test_it_verifies_after_a_change_of_keys(
    release: Path, keys: Keys, tmp_path: Path
) -> None:
    new = write_pair(PrivateKey.generate(), tmp_path / "new.pem", None)
    loaded = PrivateKey.load(tmp_path / "new.pem")
    (tmp_path / "links").write_bytes(vouch(keys.load(), loaded.public))
    sign(release, loaded, succession=tmp_path / "links", force=True)
    assert their_verdict(release, new) == "good"
    assert verify(release, policy=keys.policy()).ok


def change(release: Path) -> None:
    (release / "target" / "config.json").write_text("changed")


def add(release: Path) -> None:
    (release / "modeling.py").write_text("")


def remove(release: Path) -> None:
    (release / "target" / "empty").unlink()


@pytest.mark.parametrize(
    ("alter", "said"),
    [(change, "Hash mismatch"), (add, "Extra files"), (remove, "Missing files")],
)
def test_it_finds_what_was_altered(
    release: Path, keys: Keys, alter: Any, said: str
) -> None:
    alter(release)
    assert said in their_verdict(release, keys.public())
    assert not verify(release, policy=keys.policy()).ok


def test_it_takes_no_other_key(release: Path, keys: Keys) -> None:
    assert "Key mismatch" in their_verdict(release, keys.public("P-384"))


# What it signs is verified here.


@CURVES
def test_what_it_signs_is_verified(pair: tuple[Path, Path], keys: Keys, curve: str) -> None:
    tune = pair[1]
    sign_theirs(tune, keys.private(curve), tune / "model.sig")
    checked = verify(tune, policy=keys.policy(curve))
    assert checked.ok
    assert {file.path for file in checked.files} == digests(tune).keys() - {"model.sig"}
    (tune / "empty").write_bytes(b"\0")
    assert not verify(tune, policy=keys.policy(curve)).ok


def test_what_it_signs_of_a_release_is_verified(
    release: Path, pair: tuple[Path, Path], keys: Keys, tmp_path: Path
) -> None:
    sign_theirs(release, keys.private("P-384"), release / "model.sig")
    assert verify(release, policy=keys.policy("P-384")).ok
    apply_delta(pair[0], release, tmp_path / "out", policy=keys.policy("P-384"))
    assert digests(tmp_path / "out") == digests(pair[1])


def test_what_it_signs_is_verified_from_elsewhere(
    pair: tuple[Path, Path], keys: Keys, tmp_path: Path
) -> None:
    sign_theirs(pair[1], keys.private(), tmp_path / "x.sig")
    assert verify(pair[1], signature=tmp_path / "x.sig", policy=keys.policy()).ok


def test_what_it_signs_of_many_files_is_verified(keys: Keys, tmp_path: Path) -> None:
    folder = many_files(tmp_path / "many")
    sign_theirs(folder, keys.private(), folder / "model.sig")
    checked = verify(folder, policy=keys.policy())
    assert (checked.ok, len(checked.files)) == (True, 3000)


def test_what_it_signs_of_git_is_verified_as_far_as_it_does(
    pair: tuple[Path, Path], keys: Keys
) -> None:
    tune = pair[1]
    (tune / ".gitattributes").write_text("*.bin filter=lfs")
    (tune / ".gitignore").write_text("*.bin")
    for option in ("--ignore-git-paths", "--no-ignore-git-paths"):
        sign_theirs(tune, keys.private(), tune / "model.sig", option)
        assert verify(tune, policy=keys.policy()).ok


def test_what_it_signs_through_links_is_verified(
    pair: tuple[Path, Path], keys: Keys, tmp_path: Path
) -> None:
    snapshot = tmp_path / "snapshot"
    for name in digests(pair[1]):
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).symlink_to(pair[1] / name)
    sign_theirs(snapshot, keys.private(), snapshot / "model.sig", "--allow_symlinks")
    assert verify(snapshot, policy=keys.policy()).ok


@CURVES
def test_what_it_signs_with_certificates_is_verified(
    pair: tuple[Path, Path], tmp_path: Path, curve: str
) -> None:
    tune = pair[1]
    root = certify("root", curve="P-384")
    middle = certify("releases", root, ca=True)
    signer = certify("somebody", middle, curve=curve)
    for name, holder in (("root", root), ("middle", middle), ("signer", signer)):
        (tmp_path / f"{name}.pem").write_bytes(holder.pem)
    (tmp_path / "key.pem").write_bytes(signer.key.private_bytes(PEM, PKCS8, NoEncryption()))
    done = run(
        *("sign", "certificate", tune, "--private_key", tmp_path / "key.pem"),
        *("--signing_certificate", tmp_path / "signer.pem"),
        *("--certificate_chain", tmp_path / "middle.pem"),
        *("--signature", tune / "model.sig"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for trusted, good in (("root", True), ("other", False)):
        if trusted == "other":
            (tmp_path / "other.pem").write_bytes(certify("root", curve="P-384").pem)
        roots = tmp_path / f"{trusted}.pem"
        theirs = run(
            *("verify", "certificate", tune, "--signature", tune / "model.sig"),
            *("--certificate_chain", roots),
        )
        assert (theirs.returncode == 0) is good
        if good:
            assert verify(tune, policy=Policy(certificates=roots)).ok
            continue
        with pytest.raises(SignatureError, match="do not lead to one that is trusted"):
            verify(tune, policy=Policy(certificates=roots))


# Where it lets something through.


def stated(folder: Path, resources: list[tuple[str, str]], *ignored: str) -> None:
    """Signs any list of files, as a signer could who means harm, or errs."""
    digest = sha256_hex(b"".join(bytes.fromhex(digest) for _, digest in resources))
    document = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": folder.name, "digest": {"sha256": digest}}],
        "predicateType": "https://model_signing/signature/v1.0",
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": ["model.sig", *ignored],
            },
            "resources": [
                {"name": name, "algorithm": "sha256", "digest": digest}
                for name, digest in resources
            ],
        },
    }
    key = PrivateKey.load(folder.parent / "k.pem")
    (folder / "model.sig").write_bytes(bundle.sign(json.dumps(document).encode(), key))


@pytest.fixture
def model(tmp_path: Path) -> tuple[Path, Path]:
    """A folder with a model, and the key that it is signed with."""
    public = write_pair(PrivateKey.generate(), tmp_path / "k.pem", None)
    folder = model_folder(tmp_path / "model", small_pair()[1])
    (folder / "config.json").write_text("{}")
    stated(folder, sorted(digests(folder).items()))
    assert their_verdict(folder, public) == "good"
    assert verify(folder, policy=Policy(public_key=public)).ok
    return folder, public


def test_a_name_that_stands_twice_is_refused(model: tuple[Path, Path]) -> None:
    """Tools that keep the first and tools that keep the last would see two models."""
    folder, key = model
    (folder / "model.sig").unlink()
    listed = sorted(digests(folder).items())
    stated(folder, [("config.json", "0" * 64), *listed])
    assert their_verdict(folder, key) == "good"
    with pytest.raises(FormatError, match="appears twice"):
        verify(folder, policy=Policy(public_key=key))


def test_a_name_that_leads_elsewhere_is_refused(model: tuple[Path, Path]) -> None:
    folder, key = model
    (folder / "model.sig").unlink()
    (folder.parent / "x").write_text("not of the model")
    listed = sorted({"../x": sha256_hex(b"not of the model"), **digests(folder)}.items())
    stated(folder, listed)
    assert their_verdict(folder, key, "--ignore_unsigned_files") == "good"
    with pytest.raises(FormatError, match=r"\.\."):
        verify(folder, policy=Policy(public_key=key))


def test_weights_that_are_to_be_ignored_are_not(model: tuple[Path, Path]) -> None:
    folder, key = model
    (folder / "model.sig").unlink()
    weights = "model.safetensors"
    listed = sorted((n, d) for n, d in digests(folder).items() if n != weights)
    stated(folder, listed, weights)
    (folder / weights).write_bytes(b"anything at all")
    assert their_verdict(folder, key) == "good"
    checked = verify(folder, policy=Policy(public_key=key))
    assert [f.path for f in checked.files if f.status.value != "good"] == [weights]


def test_files_of_a_repository_are_not_passed_over(model: tuple[Path, Path]) -> None:
    folder, key = model
    (folder / ".git" / "hooks").mkdir(parents=True)
    (folder / ".git" / "hooks" / "post-checkout").write_text("#!/bin/sh\n")
    assert their_verdict(folder, key) == "good"
    checked = verify(folder, policy=Policy(public_key=key))
    assert [file.path for file in checked.files if file.status.value != "good"] == [
        ".git/hooks/post-checkout"
    ]


# Provenance, as the authors of in-toto's format read it.

PARSE = """
import json, sys
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.v1 import statement, statement_pb2
found = json.loads(sys.stdin.read())
read = json_format.ParseDict(found, statement_pb2.Statement())
statement.Statement.copy_from_pb(read).validate()
provenance = json_format.ParseDict(found["predicate"], provenance_pb2.Provenance())
print(provenance.build_definition.resolved_dependencies[0].name)
print(provenance.run_details.metadata.started_on.seconds)
"""


def test_provenance_is_read_by_their_library(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which refuses fields that it does not know."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1735689600")
    make_delta(*pair, tmp_path / "release")
    done = subprocess.run(
        [program().with_name("python"), "-c", PARSE],
        input=(tmp_path / "release" / "provenance.json").read_text(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["base/model-00001-of-00002.safetensors", "1735689600"]

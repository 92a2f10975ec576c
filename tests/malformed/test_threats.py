"""What somebody may do to a release on its way, and what whoever uses it is told.

One test, or one case of one, for each threat. Whatever it is, nothing is written where the
model was to be, nor anywhere else.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import signal
import struct
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

import releasekit
from releasekit import Policy, PrivateKey, PublicKey, SignatureError
from releasekit.cli import cli, shell
from releasekit.trust import default_path, load, updating
from tests.builders import model_folder, raw_header
from tests.fakehub import FakeHub
from tests.integration.tools import Model, digests, weights
from tests.malformed.test_bundles import (
    KEY,
    NEXT,
    ROOT,
    ROOT_KEY,
    certificate,
    enveloped,
    fingerprint,
    hint,
    link,
    packed,
    pem,
    stated,
)
from tests.torchfiles import call, dict_of, name, pickle, text, zip_file

Key = ec.EllipticCurvePrivateKey

ATTACKER: Final = ec.derive_private_key(66, ec.SECP256R1())
BOB: Final = ec.derive_private_key(77, ec.SECP256R1())
SHARD = "delta-00001-of-00001.safetensors"
CONFIG = "target/config.json"
EXTRA = {"config.json": b'{"model_type": "llama"}', "tokenizer/vocab.txt": b"abc"}
#: What `apply-delta` reads of a release, and what is in it beside that.
USED = [SHARD, "SHA256SUMS", "model.sig", "release.json", *(f"target/{n}" for n in EXTRA)]
UNUSED = ["config.json", "provenance.json", "rebuilt.SHA256SUMS", "rebuilt.model.sig"]
AGAIN = "download it again"
GET_KEY = (
    "get the publisher's key from where you would get their word, and give it with "
    "--public-key, or keep it with `releasekit trust add`"
)
CHANGED = (
    "is not what its key signed: the file is damaged or was changed; get the release anew "
    "from its publisher"
)


def model(seed: int) -> tuple[Model, Model]:
    """A base and a fine-tune of it, with a tensor that is new and one that is changed."""
    source = np.random.default_rng(seed)
    base: Model = {
        "embed": weights(source, "BF16", 50, 64),
        "layer": weights(source, "BF16", 64, 64),
    }
    target = base | {
        "layer": weights(source, "BF16", 64, 64),
        "new": weights(source, "BF16", 2, 64),
    }
    return base, target


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def key_files(folder: Path, called: str, key: Key) -> None:
    """`NAME.pem` and `NAME.pub.pem`, as OpenSSL would write them."""
    folder.mkdir(exist_ok=True)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / f"{called}.pem").touch(0o600)
    (folder / f"{called}.pem").write_bytes(private)
    (folder / f"{called}.pub.pem").write_text(pem(key))


class World:
    """A base, a tune, and releases of it that acme signed, made once."""

    def __init__(self, root: Path) -> None:
        base, target = model(1)
        self.base = model_folder(root / "base", base)
        self.other_base = model_folder(root / "other", model(2)[0])
        self.target = model_folder(root / "tune", target)
        for path, data in EXTRA.items():
            (self.target / path).parent.mkdir(exist_ok=True)
            (self.target / path).write_bytes(data)
        self.release = self.made(root / "release", version="2")
        self.older = self.made(root / "older", version="1.9")
        self.another = self.made(root / "another", name="another")
        self.keys = root / "keys"
        for called, key in {"acme": KEY, "attacker": ATTACKER, "bob": BOB}.items():
            key_files(self.keys, called, key)

    def made(self, out: Path, name: str = "tune", version: str = "1") -> Path:
        releasekit.make_delta(
            self.base,
            self.target,
            out,
            name=name,
            version=version,
            publisher="acme",
            sign_key=PrivateKey(KEY),
        )
        return out


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


def failed(done: Done, code: int, message: str) -> None:
    """A command has ended with these words alone."""
    assert (done.code, done.err) == (code, f"error: {message}\n")


class Scene:
    """A copy of the release, to be spoiled, and the commands that meet it."""

    def __init__(
        self, world: World, root: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.world = world
        self.root = root
        self.out = root / "out"
        self.partial = root / "out.partial"
        self.base = world.base
        self._capsys = capsys
        self.release = self.copy(world.release, "release")

    def copy(self, release: Path, called: str) -> Path:
        shutil.copytree(release, self.root / called)
        return self.root / called

    def key(self, called: str) -> Path:
        """The public key's file."""
        return self.world.keys / f"{called}.pub.pem"

    def trust(self, publisher: str, key: Key, *, require: bool = False) -> None:
        with updating(default_path()) as trust:
            trust.add(publisher, PublicKey(key.public_key()), require_signature=require)

    def run(self, *arguments: str | Path) -> Done:
        code = shell.run(cli, [str(argument) for argument in arguments])
        captured = self._capsys.readouterr()
        return Done(code, captured.out, captured.err)

    def apply(self, *options: str | Path, delta: str | Path | None = None) -> Done:
        return self.run(
            *("apply-delta", "--base", self.base, "--delta", delta or self.release),
            *("--out", self.out, *options),
        )

    def applied(self, *options: str | Path, delta: str | Path | None = None) -> str:
        """What is said of a rebuild that succeeds, which removes its output."""
        done = self.apply(*options, delta=delta)
        assert done.code == 0, done.err
        assert digests(self.out) == digests(self.world.target)
        shutil.rmtree(self.out)
        return done.err

    def refused(
        self,
        code: int,
        message: str,
        *options: str | Path,
        delta: str | Path | None = None,
        begun: bool = False,
    ) -> None:
        """A rebuild is refused with these words, and nothing is written.

        Args:
            code: the exit code.
            message: all of the error.
            options: more arguments.
            delta: by default the scene's release.
            begun: whether work has begun by then, and may be gone on with.
        """
        before, trust = digests(self.root), load(default_path()).pack()
        done = self.apply(*options, delta=delta)
        failed(done, code, message)
        assert done.out == ""
        assert not os.path.lexists(self.out)
        if begun:
            shutil.rmtree(self.partial)
        assert not os.path.lexists(self.partial)
        assert digests(self.root) == before
        assert load(default_path()).pack() == trust

    def verify(self, *options: str | Path) -> Done:
        return self.run("verify", self.release, *options)

    # What an attacker does.

    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.release / "release.json").read_bytes())
        return found

    def rewrite(self, change: Callable[[dict[str, Any]], object]) -> None:
        """Change the manifest."""
        document = self.document()
        change(document)
        (self.release / "release.json").write_bytes(packed(document))

    def list_anew(self) -> None:
        """Make SHA256SUMS fit."""
        found = digests(self.release)
        names = sorted(found.keys() - {"SHA256SUMS", "model.sig"})
        lines = [f"{found[name]}  {name}\n" for name in names]
        (self.release / "SHA256SUMS").write_text("".join(lines))

    def sign(
        self, key: Key, changes: Mapping[str, object] | None = None, *left_out: str
    ) -> None:
        """Sign what is there, as the stock tool would, with the statement changed."""
        found = digests(self.release)
        signed = {n: found[n] for n in found.keys() - {"model.sig", *left_out}}
        self.carry(packed(enveloped(packed(stated(signed, changes or {})), key)))

    def strip(self) -> None:
        """Take away the signature."""
        (self.release / "model.sig").unlink()

    def carry(self, bundle: bytes) -> None:
        """Put this in the signature's place."""
        (self.release / "model.sig").write_bytes(bundle)


@pytest.fixture
def scene(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Scene:
    """Acme's key is trusted."""
    made = Scene(world, tmp_path, capsys)
    made.trust("acme", KEY)
    return made


def test_the_release_that_the_cases_spoil_is_itself_good(scene: Scene) -> None:
    assert sorted(digests(scene.release)) == sorted([*USED, *UNUSED])
    assert scene.applied() == ""
    assert scene.verify().code == 0
    scene.sign(KEY)
    assert scene.applied() == ""
    assert scene.verify().code == 0


# Tampered mirror, and truncation: each file, in each way.

FAULTS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "flipped": lambda data: data[:-3] + bytes([data[-3] ^ 1]) + data[-2:],
    "cut": lambda data: data[:-1],
    "emptied": lambda data: b"",
    "longer": lambda data: data + b"\n",
}


def spoilt(scene: Scene, path: str, fault: str) -> tuple[int, str]:
    """Exit code and words for a release with a file that is not as it was signed."""
    file = scene.release / path
    old = file.read_bytes()
    new = FAULTS[fault](old)
    file.write_bytes(new)
    if path in ("release.json", "SHA256SUMS"):
        return 5, (
            f"{file}: expected sha256 {digest(old)}, which is signed, found {digest(new)}: "
            f"the release is damaged or was changed; {AGAIN}"
        )
    if len(new) != len(old):
        return 5, (
            f"{file}: expected {len(old)} bytes, found {len(new)}: the download is "
            "incomplete; download the file again"
        )
    if path == SHARD:
        return 5, (
            f"{file}: expected sha256 {digest(old)}, found {digest(new)}: the file is "
            f"damaged; {AGAIN}"
        )
    return 5, (
        f"{file}: expected sha256 {digest(old)}, found {digest(new)}; download the release "
        "again"
    )


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("path", [name for name in USED if name != "model.sig"])
def test_tampered_or_truncated(scene: Scene, path: str, fault: str) -> None:
    code, message = spoilt(scene, path, fault)
    # Sizes are known before work begins; digests of payloads only while it goes on.
    begun = fault == "flipped" and path not in ("release.json", "SHA256SUMS")
    scene.refused(code, message, begun=begun)
    done = scene.verify()
    assert done.code == 5
    assert f"wrong       {path}\n" in done.out
    assert done.err == (
        f"error: {scene.release}: 8 good, 1 wrong, 0 missing, 0 unexpected, compared with "
        f"{scene.release / 'model.sig'}: download or rebuild what is wrong or missing, "
        "remove what is unexpected\n"
    )


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("path", UNUSED)
def test_tampered_though_no_rebuild_reads_it(scene: Scene, path: str, fault: str) -> None:
    file = scene.release / path
    old = file.read_bytes()
    file.write_bytes(FAULTS[fault](old))
    scene.refused(
        5,
        f"{file}: expected sha256 {digest(old)}, which is signed, found "
        f"{digest(file.read_bytes())}: the release is damaged or was changed; {AGAIN}",
    )
    done = scene.verify()
    assert (done.code, f"wrong       {path}\n" in done.out) == (5, True)


@pytest.mark.parametrize("path", [*USED, *UNUSED])
def test_lost_on_the_way(scene: Scene, path: str) -> None:
    (scene.release / path).unlink()
    words = {
        "release.json": f"{scene.release}: is a release of releasekit without its "
        f"release.json: the download is incomplete; {AGAIN}",
        "SHA256SUMS": f"{scene.release}/SHA256SUMS: is missing: the release is incomplete; "
        f"{AGAIN}",
    }
    if path == "model.sig":
        assert scene.applied() == unsigned(scene)
    else:
        missing = f"{scene.release / path}: is missing; download the release again"
        scene.refused(5, words.get(path, missing))
    if path != "model.sig":
        done = scene.verify()
        assert (done.code, f"missing     {path}\n" in done.out) == (5, True)


def unsigned(scene: Scene) -> str:
    return (
        f"warning: {scene.release}: is not signed, so nothing shows whose it is; ask its "
        "publisher for a signed one\n"
    )


SIGNATURE_FAULTS = {
    "emptied": (b"", "not valid JSON: Expecting value at line 1, column 1 (byte 0)"),
    "html": (
        b"<!doctype html>",
        "not valid JSON: Expecting value at line 1, column 1 (byte 0)",
    ),
}


@pytest.mark.parametrize("fault", SIGNATURE_FAULTS)
def test_a_signature_that_is_none(scene: Scene, fault: str) -> None:
    data, message = SIGNATURE_FAULTS[fault]
    scene.carry(data)
    path = scene.release / "model.sig"
    scene.refused(3, f"{path}: {message}")
    assert scene.verify().err == f"error: {path}: {message}\n"


def test_a_signature_that_is_cut(scene: Scene) -> None:
    path = scene.release / "model.sig"
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    scene.refused(
        3,
        f"{path}: not valid JSON: Expecting ',' delimiter at line 1, column {len(data)} "
        f"(byte {len(data) - 1})",
    )


def test_a_signature_over_something_else(scene: Scene) -> None:
    path = scene.release / "model.sig"
    bundle = json.loads(path.read_bytes())
    payload = base64.b64decode(bundle["dsseEnvelope"]["payload"])
    payload = payload.replace(b'"name":"tune"', b'"name":"tuna"')
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    scene.carry(packed(bundle))
    scene.refused(6, f"{path}: {CHANGED}")
    done = scene.verify()
    failed(done, 6, f"{path}: {CHANGED}")


def test_altered_with_the_list_made_to_fit(scene: Scene) -> None:
    """Only the signature can tell."""
    old = digests(scene.release)["release.json"]
    scene.rewrite(lambda document: document.update(made_with="somebody else"))
    scene.list_anew()
    new = digests(scene.release)["release.json"]
    scene.refused(
        5,
        f"{scene.release}/release.json: expected sha256 {old}, which is signed, found "
        f"{new}: the release is damaged or was changed; {AGAIN}",
    )
    done = scene.verify()
    assert done.code == 5
    assert "wrong       SHA256SUMS\n" in done.out
    assert "wrong       release.json\n" in done.out
    scene.strip()
    assert scene.applied() == unsigned(scene)
    assert scene.verify().code == 0


def poisoned(scene: Scene) -> str:
    """A file of the target changed, with manifest and lists made to fit; its digest."""
    evil = b'{"auto_map": "evil"}'

    def change(document: dict[str, Any]) -> None:
        for entry in document["target"]["files"]:
            if entry["path"] == "config.json":
                entry.update(size=len(evil), sha256=digest(evil))

    (scene.release / CONFIG).write_bytes(evil)
    scene.rewrite(change)
    sums = scene.release / "rebuilt.SHA256SUMS"
    lines = sums.read_text().splitlines(keepends=True)
    lines = [f"{digest(evil)}  config.json\n" if "config" in x else x for x in lines]
    sums.write_text("".join(lines))
    scene.list_anew()
    return digest(evil)


def test_a_file_of_the_target_altered_with_all_lists_made_to_fit(scene: Scene) -> None:
    """Only the signature can tell."""
    old = digests(scene.release)["release.json"]
    evil = poisoned(scene)
    new = digests(scene.release)["release.json"]
    message = (
        f"{scene.release}/release.json: expected sha256 {old}, which is signed, found "
        f"{new}: the release is damaged or was changed; {AGAIN}"
    )
    scene.refused(5, message)
    scene.strip()
    assert scene.apply().err == unsigned(scene)
    assert digests(scene.out)["config.json"] == evil


def test_the_rebuilt_model_altered_with_the_lists_made_to_fit(scene: Scene) -> None:
    scene.apply()
    evil = poisoned(scene)
    (scene.out / "config.json").write_bytes((scene.release / CONFIG).read_bytes())
    done = scene.run("verify", scene.out, "--against", scene.release)
    sums = scene.release / "SHA256SUMS"
    assert evil in (scene.release / "rebuilt.SHA256SUMS").read_text()
    assert (done.code, done.out) == (5, "")
    assert done.err == (
        f"error: {sums}: expected sha256 "
        f"{digests(scene.world.release)['SHA256SUMS']}, which is signed, found "
        f"{digests(scene.release)['SHA256SUMS']}: the release is damaged or was changed; "
        f"{AGAIN}\n"
    )


# The manifest is never parsed before the signature, nor what a signature covers before it.


@pytest.mark.parametrize(
    "document",
    [b"{", b"\xff", b"[" * 100_000, b"{}", b'{"format": "releasekit-delta/9"}'],
    ids=["no_json", "no_text", "nested", "no_fields", "of_later"],
)
def test_a_manifest_that_is_not_the_signed_one_is_not_parsed(
    scene: Scene, document: bytes
) -> None:
    old = digests(scene.release)["release.json"]
    (scene.release / "release.json").write_bytes(document)
    scene.list_anew()
    scene.refused(
        5,
        f"{scene.release}/release.json: expected sha256 {old}, which is signed, found "
        f"{digest(document)}: the release is damaged or was changed; {AGAIN}",
    )


@pytest.mark.parametrize("path", ["SHA256SUMS", "rebuilt.SHA256SUMS"])
def test_a_list_that_is_not_the_signed_one_is_not_parsed(scene: Scene, path: str) -> None:
    scene.apply()
    old = digests(scene.release)[path]
    (scene.release / path).write_bytes(b"../../x")
    done = scene.run("verify", scene.out, "--against", scene.release)
    failed(
        done,
        5,
        f"{scene.release / path}: expected sha256 {old}, which is signed, found "
        f"{digest(b'../../x')}: the release is damaged or was changed; {AGAIN}",
    )


def test_a_statement_is_not_parsed_before_its_signature(scene: Scene) -> None:
    scene.carry(packed(enveloped(b"{", ATTACKER)))
    assert scene.applied() == not_checked(scene)
    bundle = enveloped(b"{", ATTACKER)
    bundle["verificationMaterial"]["publicKey"]["hint"] = hint(KEY)
    scene.carry(packed(bundle))
    scene.refused(6, f"{scene.release}/model.sig: {CHANGED}")


def not_checked(scene: Scene) -> str:
    return (
        f"warning: {scene.release}/model.sig: was not checked: no key is trusted that made "
        f"it; {GET_KEY}\n"
    )


# Swapped base.


def test_swapped_base(scene: Scene) -> None:
    scene.base = scene.world.other_base
    identity = scene.document()["base"]["identity"]
    scene.refused(
        4,
        f"{scene.base}: the tensors have the right shapes, but 2 of the 2 sampled have "
        'other values than the delta\'s base: "embed", "layer": this is another model of '
        "the architecture, as Llama-2-7B is to LLaMA-7B, or another fine-tune; expected "
        f"the base with identity {identity}; get that base, in the revision that the "
        "release names",
    )


# Rollback.


def older_than_seen(scene: Scene, release: Path) -> str:
    return (
        f"{release}: expected version 2 of tune or a later one, which was rebuilt here "
        "before, found 1.9: get the latest one; to use this one all the same, give "
        "--allow-downgrade"
    )


def test_rollback(scene: Scene) -> None:
    scene.applied()
    older = scene.copy(scene.world.older, "older")
    scene.refused(6, older_than_seen(scene, older), delta=older)
    scene.refused(6, older_than_seen(scene, older), "--dry-run", delta=older)
    assert scene.applied("--allow-downgrade", delta=older) == ""
    # That it was allowed once does not make it the latest.
    scene.refused(6, older_than_seen(scene, older), delta=older)
    assert scene.applied() == ""


def test_rollback_with_the_key_named(scene: Scene) -> None:
    scene.applied()
    older = scene.copy(scene.world.older, "older")
    key = "--public-key", scene.key("acme")
    scene.refused(6, older_than_seen(scene, older), *key, delta=older)


def test_rollback_into_memory(scene: Scene) -> None:
    scene.applied()
    older = scene.copy(scene.world.older, "older")
    for attempt in (
        lambda: releasekit.open_delta(older, scene.base),
        lambda: releasekit.plan_apply(scene.base, older, scene.out),
    ):
        with pytest.raises(SignatureError) as caught:
            attempt()
        assert str(caught.value) == older_than_seen(scene, older)


def test_rollback_is_told_in_preflight(scene: Scene) -> None:
    scene.applied()
    older = scene.copy(scene.world.older, "older")
    done = scene.run("preflight", "--base", scene.base, "--delta", older)
    failed(done, 6, f"{older_than_seen(scene, older)}")


def test_rollback_after_the_key_was_changed(scene: Scene) -> None:
    scene.applied()
    links = scene.root / "keys.jsonl"
    links.write_bytes(link(KEY, NEXT))
    older = scene.copy(scene.world.older, "older")
    releasekit.sign(older, PrivateKey(NEXT), succession=links, force=True)
    scene.refused(6, older_than_seen(scene, older), delta=older)


def test_another_release_of_the_same_version(scene: Scene) -> None:
    scene.applied()
    scene.rewrite(lambda document: document.update(made_with="releasekit 9"))
    scene.list_anew()
    scene.sign(KEY)
    assert scene.applied() == (
        f"warning: {scene.release}: is version 2 of tune, but not the same as the one of "
        "that version that was rebuilt here before; ask its publisher\n"
    )


def test_a_name_that_somebody_else_uses_holds_nobody_back(scene: Scene) -> None:
    scene.trust("bob", BOB)
    theirs = scene.copy(scene.world.release, "theirs")
    kept, scene.release = scene.release, theirs
    scene.rewrite(lambda document: document.update(version="99", publisher="bob"))
    scene.list_anew()
    scene.sign(BOB)
    scene.applied()
    scene.release = kept
    assert scene.applied() == ""


def test_only_what_was_rebuilt_was_seen(scene: Scene) -> None:
    """A newer version that fails does not lock out the one before it."""
    scene.base = scene.world.other_base
    assert scene.apply().code == 4
    scene.base = scene.world.base
    assert scene.apply("--dry-run").code == 0
    assert load(default_path()).seen == {}
    assert scene.applied(delta=scene.copy(scene.world.older, "older")) == ""


# Path traversal.

CLIMBS = [
    pytest.param("../evil", 'path "../evil" has a ".." segment', id="climbs"),
    pytest.param("a/../../evil", 'path "a/../../evil" has a ".." segment', id="inside"),
    pytest.param(
        "/tmp/evil",
        'path "/tmp/evil" is absolute; expected one relative to the release',
        id="absolute",
    ),
    pytest.param(
        "..\\evil",
        r'path "..\\evil" holds a backslash, which separates folders on Windows',
        id="backslash",
    ),
    pytest.param(
        "C:evil",
        'path "C:evil" holds a colon, which names a drive or a stream on Windows',
        id="colon",
    ),
    pytest.param(
        "evil\0.json",
        r'path "evil\u0000.json" holds the control character U+0000',
        id="nul",
    ),
    pytest.param("", 'path "" is empty', id="empty"),
]
PLACES = {
    "target_files": ("target", "files", 0),
    "target_weights": ("target", "weights", 0),
    "shards": ("shards", 0),
}


# The publisher's own key does not make such a release any better.
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("path", "message"), CLIMBS)
def test_path_traversal_in_the_manifest(
    scene: Scene, place: str, path: str, message: str
) -> None:
    def change(entry: Any) -> None:
        for step in PLACES[place]:
            entry = entry[step]
        entry["path"] = path

    scene.rewrite(change)
    scene.list_anew()
    scene.sign(KEY)
    scene.refused(3, f"release.json: {message}")


@pytest.mark.parametrize(("path", "message"), CLIMBS)
def test_path_traversal_in_the_list(scene: Scene, path: str, message: str) -> None:
    sums = scene.release / "SHA256SUMS"
    sums.write_text(f"{'00' * 32}  {path}\n{sums.read_text()}")
    scene.sign(KEY)
    scene.refused(3, f"{sums}: line 1: {message}")


@pytest.mark.parametrize(("path", "message"), CLIMBS)
def test_path_traversal_in_the_signature(scene: Scene, path: str, message: str) -> None:
    found = digests(scene.release) | {path: "00" * 32}
    scene.carry(packed(enveloped(packed(stated(found)), KEY)))
    message = f"{scene.release}/model.sig: payload: {message}"
    scene.refused(3, message)
    done = scene.verify()
    failed(done, 3, message)


@pytest.mark.parametrize(("path", "message"), CLIMBS)
def test_path_traversal_in_the_index_of_the_base(
    scene: Scene, path: str, message: str
) -> None:
    scene.base = scene.root / "base"
    shutil.copytree(scene.world.base, scene.base)
    index = scene.base / "model.safetensors.index.json"
    shutil.copy(scene.base / "model.safetensors", scene.root / "evil")
    index.write_bytes(packed({"weight_map": {"embed": path, "layer": path}}))
    scene.refused(3, f"{index}: weight_map: {message}")


# Decompression bombs.


def payloads(scene: Scene, change: Callable[[dict[str, bytes]], object]) -> None:
    """Change payloads in a release that is right in all else, and signed."""
    file = scene.release / SHARD
    data = file.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    found = {
        name: data[end:][slice(*entry["data_offsets"])]
        for name, entry in json.loads(data[8:end]).items()
        if name != "__metadata__"
    }
    change(found)
    header, at = {}, 0
    for tensor, payload in found.items():
        places = [at, at + len(payload)]
        header[tensor] = {"dtype": "U8", "shape": [len(payload)], "data_offsets": places}
        at = places[1]
    replace_shard(scene, raw_header(header, b"".join(found.values())))


def replace_shard(scene: Scene, data: bytes) -> None:
    (scene.release / SHARD).write_bytes(data)
    scene.rewrite(
        lambda document: document["shards"][0].update(size=len(data), sha256=digest(data))
    )
    scene.list_anew()
    scene.sign(KEY)


def framed(*frames: bytes) -> bytes:
    return b"".join(frames) + struct.pack(f"<{len(frames)}I", *map(len, frames))


@contextmanager
def little_memory() -> Iterator[None]:
    """No more is taken than the largest manifest could need."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1 << 30, peak


GROUP = struct.pack("<HII", 511, 0xFFFFFFFF, 1)
BOMBS = {
    # Tensor "new" has 128 words.
    "frame_longer_than_its_tensor": (
        framed(b"\0" + bytes(1 << 20)),
        "[0]: expected 256 raw bytes, found 1048576",
    ),
    "frame_that_claims_more_words": (
        framed(struct.pack("<BBHI", 2, 0, 1, 0) + GROUP + b"x"),
        "[0]: group counts: expected at most 128 words in all, found 4294967295",
    ),
    "frame_that_claims_more_groups": (
        framed(struct.pack("<BBHI", 2, 0, 0xFFFF, 0) + GROUP + b"x"),
        "[0]: frame ends within its table of 65535 groups",
    ),
    "frame_that_claims_more_bytes": (
        framed(struct.pack("<BBHI", 2, 0, 0, 0xFFFFFFFF)),
        "[0]: expected 4294967303 bytes, found 8",
    ),
    "table_that_claims_more_bytes": (
        b"\1" + struct.pack("<I", 0xFFFFFFFF),
        ": expected frames to end at byte 1, found 4294967295",
    ),
    "more_frames_than_the_tensor_has": (
        framed(*[b"\1"] * 1000),
        ": expected frames to end at byte 4996, found 1",
    ),
    "no_table": (b"", ": expected a table of 4 bytes, found 0 bytes in all"),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_decompression_bomb_in_a_payload(scene: Scene, bomb: str) -> None:
    payload, message = BOMBS[bomb]
    payloads(scene, lambda found: found.update(new=payload))
    with little_memory():
        scene.refused(3, f'{scene.release}: payload "new"{message}', begun=True)


def test_numbers_that_decode_to_more_than_was_declared(scene: Scene) -> None:
    """The numbers of a longer chunk in a shorter one's place."""

    def change(found: dict[str, bytes]) -> None:
        found["new"] = found["layer"]

    payloads(scene, change)
    with little_memory():
        scene.refused(
            3,
            f'{scene.release}: payload "new"[0]: group counts: expected at most 128 words '
            "in all, found 4096",
            begun=True,
        )


@pytest.mark.parametrize(
    ("length", "message"),
    [
        (
            2**63,
            "header length: expected 1 to 100000000 bytes, found 9223372036854775808",
        ),
        (
            100_000_000,
            "header length: expected at most 12, the bytes that follow it, found "
            "100000000; the file may be cut short",
        ),
    ],
)
def test_a_shard_whose_header_claims_more_than_there_is(
    scene: Scene, length: int, message: str
) -> None:
    replace_shard(scene, raw_header(b'{"w":"12345"}'[:12], length=length))
    with little_memory():
        scene.refused(3, f"{scene.release / SHARD}: {message}")


def test_a_manifest_that_claims_a_petabyte(scene: Scene) -> None:
    """A thousand bytes to download, and no disk that would hold the result."""

    def change(document: dict[str, Any]) -> None:
        entry = document["target"]["weights"][0]
        header = json.loads(entry["header"])
        nbytes = 1 << 50
        begin = max(header[n]["data_offsets"][1] for n in header if n != "__metadata__")
        header["bomb"] = {
            "dtype": "U8",
            "shape": [nbytes],
            "data_offsets": [begin, begin + nbytes],
        }
        entry["header"] = json.dumps(header)
        entry["size"] = 8 + len(entry["header"]) + begin + nbytes
        document["tensors"].append({"name": "bomb", "op": "new", "digest": "00" * 32})
        document["target"]["identity"] = identity(document)

    payloads(scene, lambda found: found.update(bomb=framed(b"\1")))
    scene.rewrite(change)
    scene.list_anew()
    scene.sign(KEY)
    with little_memory():
        done = scene.apply()
    assert done.code == 1
    assert digits(done.err) == (
        f"error: {scene.partial}: expected # bytes free, found #: free some space, or "
        "choose an --out on another disk\n"
    )
    assert not scene.out.exists()
    done = scene.run(
        *("preflight", "--base", scene.base, "--delta", scene.release, "--out", scene.out)
    )
    assert done.code == 1
    assert digits(done.err) == (
        f"error: {scene.partial}: expected # bytes free, found #: free some space, or "
        "choose an --out on another disk\n"
    )


def digits(text: str) -> str:
    """A text without its large numbers."""
    return re.sub(r"\b[0-9]{1,3}(,[0-9]{3})+\b", "#", text)


def identity(document: dict[str, Any]) -> str:
    """The identity of a manifest's target, by the format's own words."""
    header = json.loads(document["target"]["weights"][0]["header"])
    base = {item["name"]: item["digest"] for item in document["base"]["tensors"]}
    given = {item["name"]: item.get("digest") for item in document["tensors"]}
    lines = [
        [n, header[n]["dtype"], header[n]["shape"], given[n] or base[n]]
        for n in sorted(header)
        if n != "__metadata__"
    ]
    hasher = blake3(b"releasekit checkpoint identity v1\n")
    for line in lines:
        hasher.update(json.dumps(line, separators=(",", ":")).encode() + b"\n")
    return str(hasher.hexdigest())


def test_a_small_release_takes_little_memory(scene: Scene) -> None:
    tracemalloc.start()
    try:
        assert scene.apply("--dry-run").code == 0
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 64 << 20


def test_a_manifest_of_huge_counts(scene: Scene) -> None:
    document = b'{"format":[' + b"0," * 6_000_000 + b"0]}"
    (scene.release / "release.json").write_bytes(document)
    scene.list_anew()
    scene.sign(KEY)
    scene.refused(
        3, "release.json: expected at most 6,000,000 values, found about 6,000,003"
    )


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("release.json", "expected at most 268435456 bytes, found 1099511627776"),
        ("SHA256SUMS", "expected at most 268435456 bytes, found 1099511627776"),
        ("model.sig", "expected at most 33554432 bytes, found 1099511627776"),
    ],
)
def test_a_file_of_a_terabyte_is_not_read(scene: Scene, path: str, message: str) -> None:
    os.truncate(scene.release / path, 1 << 40)
    before = load(default_path()).pack()
    done = scene.apply()
    failed(done, 3, f"{scene.release / path}: {message}")
    assert not scene.out.exists()
    assert not scene.partial.exists()
    assert load(default_path()).pack() == before


# Symlink writes.

VICTIM = b"not yours"


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Path]:
    """A file that stays as it is, whatever leads to it."""
    path = tmp_path / "victim"
    path.write_bytes(VICTIM)
    yield path
    assert path.read_bytes() == VICTIM
    assert not path.is_symlink()


def plant(path: Path, victim: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(victim)
    return path


def test_a_link_at_the_output(scene: Scene, victim: Path) -> None:
    plant(scene.out, victim)
    done = scene.apply()
    failed(
        done,
        2,
        f"{scene.out}: exists already; choose another --out, or replace it with --force",
    )
    done = scene.apply("--force")
    failed(done, 2, f"{scene.out}: is not a folder; --force replaces folders only")
    assert scene.out.readlink() == victim


def test_a_link_to_nowhere_at_the_output(scene: Scene) -> None:
    plant(scene.out, scene.root / "nowhere")
    done = scene.apply()
    failed(
        done,
        2,
        f"{scene.out}: exists already; choose another --out, or replace it with --force",
    )
    assert not (scene.root / "nowhere").exists()


def test_a_link_at_the_partial_folder(scene: Scene, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    plant(scene.partial, elsewhere)
    done = scene.apply()
    failed(done, 2, f"{scene.partial}: is in the way; move or remove it")
    assert [*elsewhere.iterdir()] == []


def test_a_link_at_the_state_of_the_partial_folder(scene: Scene, victim: Path) -> None:
    plant(scene.partial / "state.json", victim)
    done = scene.apply()
    failed(
        done,
        2,
        f"{scene.partial}: is in the way and was not made by releasekit; move or remove it",
    )


@pytest.mark.parametrize(
    "path",
    [
        *("config.json", "model.safetensors", "model.safetensors.part"),
        *("tokenizer", "tokenizer/vocab.txt"),
    ],
)
def test_a_link_in_the_partial_folder(scene: Scene, victim: Path, path: str) -> None:
    """It is replaced, and what it leads to is not."""
    state = {"work": f"apply {digests(scene.release)['release.json']}"}
    plant(scene.partial / "new" / path, victim)
    (scene.partial / "state.json").write_bytes(packed(state))
    assert scene.applied() == ""


def test_a_link_at_the_folder_of_new_files(scene: Scene, tmp_path: Path) -> None:
    state = {"work": f"apply {digests(scene.release)['release.json']}"}
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    plant(scene.partial / "new", elsewhere)
    (scene.partial / "state.json").write_bytes(packed(state))
    assert scene.applied() == ""
    assert [*elsewhere.iterdir()] == []


def test_a_link_in_the_target_folder_of_a_release(scene: Scene, victim: Path) -> None:
    """What it leads to does not become a file of the model."""
    plant(scene.release / "target" / "stolen", victim)
    scene.refused(5, strays(scene, "target/stolen"))
    (scene.release / CONFIG).unlink()
    (scene.release / "target" / "stolen").rename(scene.release / CONFIG)
    scene.refused(
        5,
        f"{scene.release / CONFIG}: expected 23 bytes, found 9: the download is "
        "incomplete; download the file again",
    )


def test_a_link_for_the_target_folder_of_a_release(scene: Scene) -> None:
    shutil.move(scene.release / "target", scene.root / "elsewhere")
    plant(scene.release / "target", scene.root / "elsewhere")
    scene.refused(5, strays(scene, "target"))
    done = scene.verify()
    assert (done.code, "unexpected  target\n" in done.out) == (5, True)


def strays(scene: Scene, *names: str) -> str:
    listed = ", ".join(f'"{name}"' for name in names)
    return (
        f"{scene.release}: holds files that are not signed: {listed}: remove them, or get "
        "the release anew"
    )


def signing(scene: Scene, *options: str) -> Done:
    key = scene.world.keys / "acme.pem"
    return scene.run("sign", scene.release, "--key", key, *options)


@pytest.mark.parametrize("path", [".model.sig.new", ".SHA256SUMS.new"])
def test_a_link_where_a_signature_is_written(scene: Scene, victim: Path, path: str) -> None:
    """It is taken away, and what it leads to stays as it is."""
    plant(scene.release / path, victim)
    assert signing(scene).code == 0
    assert digests(scene.release) == digests(scene.world.release)
    assert scene.verify().code == 0


@pytest.mark.parametrize("path", ["model.sig.new", "config.json", "target/stolen"])
def test_a_link_among_what_is_signed(scene: Scene, victim: Path, path: str) -> None:
    (scene.release / path).unlink(missing_ok=True)
    link = plant(scene.release / path, victim)
    before = digests(scene.release)
    failed(
        signing(scene), 2, f"{link}: is a link, or no regular file, and cannot be signed"
    )
    assert digests(scene.release) == before


@pytest.mark.parametrize("path", ["model.sig", "rebuilt.model.sig"])
def test_a_link_in_the_place_of_a_signature(scene: Scene, path: str) -> None:
    """It is replaced, and what it leads to is not."""
    elsewhere = scene.root / "elsewhere"
    shutil.move(scene.release / path, elsewhere)
    old = elsewhere.read_bytes()
    plant(scene.release / path, elsewhere)
    assert signing(scene).code == 0
    assert not (scene.release / path).is_symlink()
    assert elsewhere.read_bytes() == old
    assert scene.verify().code == 0


@pytest.mark.parametrize("path", ["new.pem", "new.pub.pem"])
def test_a_link_where_a_key_is_written(scene: Scene, victim: Path, path: str) -> None:
    link = plant(scene.root / path, victim)
    done = scene.run("keygen", scene.root / "new.pem", "--no-passphrase")
    failed(
        done, 2, f"{link}: exists already, and keys are never replaced; choose another name"
    )
    assert sorted(p.name for p in scene.root.glob("new*")) == [path]


def test_a_link_to_nowhere_where_a_key_is_written(scene: Scene) -> None:
    link = plant(scene.root / "new.pem", scene.root / "nowhere")
    done = scene.run("keygen", link, "--no-passphrase")
    failed(
        done, 2, f"{link}: exists already, and keys are never replaced; choose another name"
    )
    assert not (scene.root / "nowhere").exists()


def test_a_link_where_a_succession_is_written(scene: Scene, victim: Path) -> None:
    plant(scene.root / ".keys.jsonl.new", victim)
    done = scene.run(
        *("rotate-key", "--old", scene.world.keys / "acme.pem"),
        *("--new", scene.key("bob"), "--out", scene.root / "keys.jsonl"),
    )
    assert done.code == 0
    assert not (scene.root / "keys.jsonl").is_symlink()


def test_a_link_where_the_trust_file_is_written(scene: Scene, victim: Path) -> None:
    plant(default_path().with_name(".trust.json.new"), victim)
    scene.trust("bob", BOB)
    assert not default_path().is_symlink()


# Pickle base.


def test_pickle_base(scene: Scene, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    malice = dict_of({"layer": call(name("posix", "system"), text(f"touch {ran}"))})
    scene.base = scene.root / "base"
    scene.base.mkdir()
    file = scene.base / "pytorch_model.bin"
    file.write_bytes(zip_file(pickle(malice), {}))
    scene.refused(
        3,
        f'{file}: names "posix.system", which is no part of a state dict of tensors; '
        "loading this file with pickle could run any code; nothing of it was run; get the "
        "model as safetensors, or from a source you trust",
    )
    assert not ran.exists()


# The signature of the wrong thing.


def link_of_acme() -> bytes:
    return link(KEY, NEXT).removesuffix(b"\n")


def not_the_type(data: bytes, kind: str) -> bytes:
    """A bundle over some text of another type, said to be of the right one."""
    bundle = enveloped(data, KEY, kind=kind)
    bundle["dsseEnvelope"]["payloadType"] = "application/vnd.in-toto+json"
    return packed(bundle)


def test_the_signature_of_another_release(scene: Scene) -> None:
    scene.carry((scene.world.another / "model.sig").read_bytes())
    expected = digests(scene.world.another)["release.json"]
    found = digests(scene.release)["release.json"]
    scene.refused(
        5,
        f"{scene.release}/release.json: expected sha256 {expected}, which is signed, found "
        f"{found}: the release is damaged or was changed; {AGAIN}",
    )
    done = scene.verify()
    assert (done.code, "wrong       release.json\n" in done.out) == (5, True)


def test_the_signature_of_the_rebuilt_model(scene: Scene) -> None:
    shutil.copy(scene.release / "rebuilt.model.sig", scene.release / "model.sig")
    scene.refused(
        5,
        f'{scene.release}: holds files that are not signed: "SHA256SUMS", "{SHARD}", '
        '"provenance.json" and 5 more: remove them, or get the release anew',
    )
    done = scene.verify()
    assert (done.code, "unexpected  release.json\n" in done.out) == (5, True)


def test_the_signature_of_the_rebuilt_model_to_verify_against(scene: Scene) -> None:
    scene.apply()
    shutil.copy(scene.release / "rebuilt.model.sig", scene.release / "model.sig")
    done = scene.run("verify", scene.out, "--against", scene.release)
    failed(
        done,
        5,
        f"{scene.release}/SHA256SUMS: is not signed: the release is damaged or was "
        f"changed; {AGAIN}",
    )


def test_a_signature_of_other_payloads(scene: Scene) -> None:
    found = digests(scene.release) | {SHARD: "00" * 32}
    del found["model.sig"]
    scene.carry(packed(enveloped(packed(stated(found)), KEY)))
    scene.refused(5, f"{scene.release}: model.sig and release.json disagree over {SHARD}")


def test_a_signed_list_of_other_files(scene: Scene) -> None:
    sums = scene.release / "SHA256SUMS"
    lines = sums.read_text().splitlines(keepends=True)
    sums.write_text("".join(line for line in lines if "provenance" not in line))
    scene.sign(KEY)
    done = scene.verify()
    failed(
        done,
        5,
        f"{scene.release}: SHA256SUMS does not list provenance.json, which is signed",
    )
    lines = [f"{'00' * 32}  {n[66:]}" if "provenance" in n else n for n in lines]
    sums.write_text("".join(lines))
    scene.sign(KEY)
    done = scene.verify()
    failed(
        done, 5, f"{scene.release}: SHA256SUMS and model.sig disagree over provenance.json"
    )


OMS = "https://model_signing/signature/v1.0"
WRONG: dict[str, tuple[Callable[[Scene], bytes], int, str]] = {
    "succession_link": (
        lambda scene: link_of_acme(),
        3,
        f'payload: predicateType: expected one of "{OMS}", found '
        '"urn:releasekit:key-succession:v1"',
    ),
    "provenance": (
        lambda scene: packed(
            enveloped((scene.release / "provenance.json").read_bytes(), KEY)
        ),
        3,
        f'payload: predicateType: expected one of "{OMS}", found '
        '"https://slsa.dev/provenance/v1"',
    ),
    "manifest": (
        lambda scene: packed(enveloped((scene.release / "release.json").read_bytes(), KEY)),
        3,
        'payload: missing field "_type"',
    ),
    "payload_type_that_is_another": (
        lambda scene: packed(
            enveloped(packed(stated(digests(scene.release))), KEY, kind="application/json")
        ),
        3,
        'dsseEnvelope.payloadType: expected one of "application/vnd.in-toto+json", found '
        '"application/json"',
    ),
    "payload_type_that_was_another": (
        lambda scene: not_the_type(
            packed(stated(digests(scene.release))), "application/json"
        ),
        6,
        CHANGED,
    ),
    "text_signed_without_its_type": (
        lambda scene: without_type(packed(stated(digests(scene.release)))),
        6,
        CHANGED,
    ),
}


def without_type(payload: bytes) -> bytes:
    bundle = enveloped(payload, KEY)
    signature = KEY.sign(payload, ec.ECDSA(SHA256()))
    bundle["dsseEnvelope"]["signatures"][0]["sig"] = base64.b64encode(signature).decode()
    return packed(bundle)


@pytest.mark.parametrize("what", WRONG)
def test_the_signature_of_something_else(scene: Scene, what: str) -> None:
    made, code, message = WRONG[what]
    scene.carry(made(scene))
    scene.refused(code, f"{scene.release}/model.sig: {message}")
    done = scene.verify()
    failed(done, code, f"{scene.release}/model.sig: {message}")


def test_a_signature_of_files_for_a_succession(scene: Scene) -> None:
    links = scene.release / "key-succession.jsonl"
    links.write_bytes((scene.release / "model.sig").read_bytes() + b"\n")
    scene.sign(ATTACKER)
    scene.refused(
        3,
        f"{links}: line 1: payload: predicateType: expected one of "
        f'"urn:releasekit:key-succession:v1", found "{OMS}"',
    )


# Key substitution.


def by_another(scene: Scene, whose: str) -> str:
    return (
        f"{scene.release}/model.sig: is signed by another key than {whose}: somebody else "
        f"may have made it; {GET_KEY}"
    )


def test_the_attackers_key_is_not_taken_from_the_release(scene: Scene) -> None:
    for path in ("acme.pub.pem", "target/acme.pub.pem", "trust.json"):
        (scene.release / path).write_text(pem(ATTACKER))
    scene.list_anew()
    scene.sign(ATTACKER)
    assert scene.applied() == not_checked(scene)
    assert load(default_path()).seen == {}
    whose = "one that is trusted here"
    scene.refused(6, by_another(scene, whose), "--require-signature")
    key = scene.key("acme")
    whose = f"that of {key}, {fingerprint(KEY)}"
    scene.refused(6, by_another(scene, whose), "--public-key", key)


def test_a_key_that_lies_in_the_release_proves_nothing(scene: Scene) -> None:
    key = scene.release / "acme.pub.pem"
    key.write_text(pem(ATTACKER))
    scene.list_anew()
    scene.sign(ATTACKER)
    scene.refused(
        2,
        f"{key}: lies in the release that it is to prove, where whoever made that may have "
        "put it: get the publisher's key from where you would get their word",
        *("--public-key", key),
    )


def test_the_hint_of_the_victims_key(scene: Scene) -> None:
    scene.sign(ATTACKER)
    bundle = json.loads((scene.release / "model.sig").read_bytes())
    bundle["verificationMaterial"]["publicKey"]["hint"] = hint(KEY)
    scene.carry(packed(bundle))
    scene.refused(6, f"{scene.release}/model.sig: {CHANGED}")
    scene.refused(
        6, f"{scene.release}/model.sig: {CHANGED}", "--public-key", scene.key("acme")
    )


def test_the_hint_of_the_attackers_key(scene: Scene) -> None:
    """A good signature that names another key is no file that acme made."""
    bundle = json.loads((scene.release / "model.sig").read_bytes())
    bundle["verificationMaterial"]["publicKey"]["hint"] = hint(ATTACKER)
    scene.carry(packed(bundle))
    scene.refused(
        6,
        f"{scene.release}/model.sig: names another key than made it: the file is damaged "
        "or was changed; get the release anew from its publisher",
    )


def certified(scene: Scene, *certificates: bytes) -> None:
    """Put the attacker's signature with these certificates in the signature's place."""
    found = {n: d for n, d in digests(scene.release).items() if n != "model.sig"}
    chain = [{"rawBytes": base64.b64encode(der).decode()} for der in certificates]
    material = {"x509CertificateChain": {"certificates": chain}, "tlogEntries": []}
    scene.carry(
        packed(
            enveloped(packed(stated(found)), ATTACKER, {"verificationMaterial": material})
        )
    )


def test_certificates_of_the_attackers(scene: Scene) -> None:
    root = scene.root / "root.pem"
    root.write_bytes(ROOT.public_bytes(Encoding.PEM))
    public = ATTACKER.public_key()
    # As acme's own, but that another key has signed it.
    forged = certificate("leaf", public, "root", ATTACKER)
    certified(scene, forged.public_bytes(Encoding.DER))
    message = (
        f"{scene.release}/model.sig: its certificates do not lead to one that is trusted: "
        "validation failed: candidates exhausted: signature does not match"
    )
    scene.refused(6, message, "--certificates", root)
    # With a root of their own, which calls itself what acme's is called.
    own = certificate("root", public, "root", ATTACKER, ca=True)
    certified(scene, *(c.public_bytes(Encoding.DER) for c in (forged, own)))
    scene.refused(6, message, "--certificates", root)
    assert scene.applied() == not_checked(scene)
    key = scene.key("acme")
    whose = f"that of {key}, {fingerprint(KEY)}"
    scene.refused(6, by_another(scene, whose), "--public-key", key)


def test_the_certificates_of_somebody_else(scene: Scene) -> None:
    """Acme's own certificate proves acme's key, and that has not signed."""
    root = scene.root / "root.pem"
    root.write_bytes(ROOT.public_bytes(Encoding.PEM))
    leaf = certificate("leaf", KEY.public_key(), "root", ROOT_KEY)
    certified(scene, leaf.public_bytes(Encoding.DER))
    scene.refused(6, by_another(scene, "that of its certificates"), "--certificates", root)


def test_certificates_that_are_not_there(scene: Scene) -> None:
    root = scene.root / "root.pem"
    root.write_bytes(ROOT.public_bytes(Encoding.PEM))
    scene.refused(
        6,
        f"{scene.release}/model.sig: carries no certificates; give the key with "
        "--public-key",
        *("--certificates", root),
    )


def test_another_public_key(scene: Scene) -> None:
    key = scene.key("bob")
    whose = f"that of {key}, {fingerprint(BOB)}"
    scene.refused(6, by_another(scene, whose), "--public-key", key)
    done = scene.verify("--public-key", key)
    failed(done, 6, f"{by_another(scene, whose)}")


def test_a_key_is_pinned_only_if_it_proves_right(scene: Scene) -> None:
    default_path().unlink()
    scene.sign(ATTACKER)
    key = scene.key("acme")
    whose = f"that of {key}, {fingerprint(KEY)}"
    pin = "--public-key", key, "--pin", "acme"
    scene.refused(6, by_another(scene, whose), *pin)
    (scene.release / "release.json").write_bytes(b"{}")
    scene.sign(KEY)
    assert scene.apply(*pin).code == 5
    assert not default_path().exists()
    scene.refused(
        2, "--pin: pins the key that --public-key names; give that too", "--pin", "acme"
    )


def test_the_attackers_succession(scene: Scene) -> None:
    """Links that do not begin at a trusted key lead nowhere, whatever they name."""
    links = scene.release / "key-succession.jsonl"
    forged = json.loads(link(ATTACKER, ATTACKER))
    forged["verificationMaterial"]["publicKey"]["hint"] = hint(KEY)
    links.write_bytes(link(ATTACKER, NEXT) + packed(forged) + b"\n" + link(NEXT, ATTACKER))
    scene.sign(ATTACKER)
    assert scene.applied() == not_checked(scene)
    scene.refused(6, by_another(scene, "one that is trusted here"), "--require-signature")


def test_a_true_succession_that_leads_to_another_key(scene: Scene) -> None:
    (scene.release / "key-succession.jsonl").write_bytes(link(KEY, NEXT))
    scene.sign(ATTACKER)
    scene.refused(6, by_another(scene, "one that is trusted here"), "--require-signature")
    assert load(default_path()).owner(PublicKey(NEXT.public_key())) is None


# Crash mid-write.


class Crash(BaseException):
    """The machine stops."""


@pytest.mark.parametrize("written", [0, 1, 2])
@pytest.mark.parametrize("was_signed", [True, False])
def test_a_crash_between_the_files_of_a_signature(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, written: int, was_signed: bool
) -> None:
    """Nobody takes it for signed as it should be; signing it again mends it."""
    if was_signed:
        releasekit.sign(scene.release, PrivateKey(BOB), force=True)
    else:
        for path in ("model.sig", "rebuilt.model.sig"):
            (scene.release / path).unlink()
        scene.list_anew()
    replaced: list[Path] = []

    def crash(old: Path, new: Path) -> None:
        if len(replaced) == written:
            raise Crash
        replaced.append(Path(new))
        os.rename(old, new)

    with monkeypatch.context() as patch:
        patch.setattr("releasekit.writing.os.replace", crash)
        with pytest.raises(Crash):
            releasekit.sign(scene.release, PrivateKey(KEY), force=True)
    assert [path.name for path in replaced] == ["rebuilt.model.sig", "SHA256SUMS"][:written]
    done = scene.apply("--public-key", scene.key("acme"))
    assert done.code == 6
    assert not scene.out.exists()
    assert not scene.partial.exists()
    assert signing(scene, "--force").code == 0
    done = scene.verify("--public-key", scene.key("acme"))
    assert (done.code, done.err) == (0, "")
    assert sorted(digests(scene.release)) == sorted([*USED, *UNUSED])
    assert scene.applied("--public-key", scene.key("acme")) == ""


@pytest.mark.parametrize(
    "place", ["notary.sign_rebuilt", "notary.sign_files", "making.maker.Maker.read_back"]
)
def test_a_crash_before_a_release_is_signed(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    def crash(*arguments: object) -> None:
        raise Crash

    made = scene.root / "made"
    with monkeypatch.context() as patch:
        patch.setattr(f"releasekit.delta.{place}", crash)
        with pytest.raises(Crash):
            scene.world.made(made)
    assert not made.exists()
    scene.world.made(made)
    assert not made.with_name("made.partial").exists()
    assert releasekit.verify(made, policy=Policy(require_signature=True)).ok


def test_a_crash_while_the_trust_file_is_written(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*arguments: object) -> None:
        raise Crash

    before = default_path().read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("releasekit.writing.os.replace", crash)
        with pytest.raises(Crash):
            scene.trust("bob", BOB)
    assert default_path().read_bytes() == before
    scene.trust("bob", BOB)
    assert [p.name for p in load(default_path()).publishers] == ["acme", "bob"]


def test_a_crash_while_keys_are_written(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def crash(path: str | Path, flags: int, mode: int = 0o777) -> int:
        if str(path).endswith(".pub.pem"):
            raise Crash
        return real(path, flags, mode)

    with monkeypatch.context() as patch:
        patch.setattr("releasekit.signing.keys.os.open", crash)
        with pytest.raises(Crash):
            scene.run("keygen", scene.root / "new.pem", "--no-passphrase")
    assert [*scene.root.glob("new*")] == []


# Ignored weights.


@pytest.mark.parametrize(
    "ignored", [SHARD, ".", f"{SHARD[:-12]}*", "*.safetensors", "./", "target"]
)
def test_ignored_weights(scene: Scene, ignored: str) -> None:
    """Whoever signs may say what to pass over; none of it is passed over here."""
    left_out = "target/config.json" if ignored == "target" else SHARD
    scene.sign(
        KEY,
        {"predicate/serialization/ignore_paths": [ignored, "model.sig"]},
        left_out,
    )
    scene.refused(5, strays(scene, left_out))
    done = scene.verify()
    assert (done.code, f"unexpected  {left_out}\n" in done.out) == (5, True)


def test_ignored_weights_of_a_model(scene: Scene) -> None:
    shutil.rmtree(scene.release)
    shutil.copytree(scene.world.target, scene.release)
    scene.sign(
        KEY,
        {"predicate/serialization/ignore_paths": ["model.safetensors"]},
        "model.safetensors",
    )
    done = scene.verify()
    assert (done.code, done.out) == (
        5,
        "good        config.json\n"
        "unexpected  model.safetensors\n"
        "good        tokenizer/vocab.txt\n"
        "2 good, 0 wrong, 0 missing, 1 unexpected\n"
        f"signature: signed by acme {fingerprint(KEY)}\n",
    )


# Unsigned extra files.


@pytest.mark.parametrize(
    "path",
    [
        *("evil.py", "target/evil.py", "target/tokenizer/evil.py", "evil/evil.py"),
        *("model.safetensors", "pytorch_model.bin", ".evil", ".hidden/evil.py"),
        *(".model.sig.new", "target/model.sig", "target/.gitignore", ".github/evil.py"),
        *(".git", ".cache", "target/.git/hooks/evil", "target/.cache/huggingface/evil"),
        *(".GIT/evil", ".cache.py", ".gitattributes.py"),
    ],
)
def test_unsigned_extra_files(scene: Scene, path: str) -> None:
    (scene.release / path).parent.mkdir(parents=True, exist_ok=True)
    (scene.release / path).write_bytes(b"evil")
    scene.refused(5, strays(scene, path))
    done = scene.verify()
    assert (done.code, f"unexpected  {path}\n" in done.out) == (5, True)


@pytest.mark.parametrize("path", [".git/hooks/evil", ".cache/evil.py"])
def test_unsigned_extra_files_of_tools(scene: Scene, path: str) -> None:
    """No rebuild reads them, so they do not hinder one; `verify` tells of them."""
    (scene.release / path).parent.mkdir(parents=True)
    (scene.release / path).write_bytes(b"evil")
    assert scene.applied() == ""
    done = scene.verify()
    assert (done.code, f"unexpected  {path}\n" in done.out) == (5, True)


@pytest.mark.parametrize("path", [".gitattributes", ".gitignore"])
def test_settings_of_git_are_no_extra_files(scene: Scene, path: str) -> None:
    """The Hub adds them, and nothing loads them."""
    (scene.release / path).write_bytes(b"* -text\n")
    assert scene.applied() == ""
    assert scene.verify().code == 0


def test_many_unsigned_extra_files(scene: Scene) -> None:
    for number in range(100):
        (scene.release / f"evil{number:02}").touch()
    scene.refused(
        5,
        f'{scene.release}: holds files that are not signed: "evil00", "evil01", '
        '"evil02" and 97 more: remove them, or get the release anew',
    )


def test_an_extra_file_whose_name_writes_on_the_terminal(scene: Scene) -> None:
    (scene.release / "evil\x1b[2J\n").touch()
    scene.refused(5, strays(scene, r"evil\u001b[2J\n"))
    assert scene.verify().code == 5


def test_an_extra_file_in_a_folder_that_cannot_be_listed(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loader that knows its name may read it all the same."""
    closed = scene.release / "closed"
    closed.mkdir()
    (closed / "evil.py").touch()
    real = os.scandir

    def scandir(path: Any) -> Any:
        if Path(path) == closed:
            raise PermissionError(13, "Permission denied", str(closed))
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", scandir)
        for done in (scene.apply(), scene.verify()):
            failed(done, 1, f"{closed}: Permission denied")
    assert not scene.out.exists()


# Special files.


def pipe(path: Path) -> None:
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.mkdir()


def zeros_without_end(path: Path) -> None:
    path.symlink_to("/dev/zero")


def link_to_itself(path: Path) -> None:
    path.symlink_to(path)


KINDS = [pipe, folder, zeros_without_end, link_to_itself]


class Waited(BaseException):
    """It would have gone on for ever."""


@contextmanager
def not_waiting_for(path: Path) -> Iterator[None]:
    """Whoever waits for a special file is let go after a while, and the test has failed."""

    def late(*arguments: object) -> None:
        if path.is_fifo():
            os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))
        raise Waited(path)

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(10)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("path", [*USED, *UNUSED])
def test_special_files(scene: Scene, path: str, kind: Callable[[Path], None]) -> None:
    (scene.release / path).unlink()
    kind(scene.release / path)
    key = "--public-key", scene.key("acme")
    message = f"{scene.release / path}: is missing; download the release again"
    if path == "release.json":
        message = (
            f"{scene.release}: is a release of releasekit without its release.json: the "
            f"download is incomplete; {AGAIN}"
        )
    if path == "SHA256SUMS":
        message = f"{scene.release / path}: is missing: the release is incomplete; {AGAIN}"
    if path == "model.sig":
        message = (
            f"{scene.release}: is not signed, and a key was given to check it with: get it "
            "anew from its publisher, and model.sig with it"
        )
    with not_waiting_for(scene.release / path):
        done = scene.apply(*key)
        failed(done, 6 if path == "model.sig" else 5, message)
        assert not scene.out.exists()
        assert not scene.partial.exists()
        done = scene.verify(*key)
        if path == "model.sig":
            failed(done, 6, message)
        else:
            assert (done.code, f"missing     {path}\n" in done.out) == (5, True)


@pytest.mark.parametrize("kind", KINDS)
def test_special_files_beside_a_payload_that_is_malformed(
    scene: Scene, kind: Callable[[Path], None]
) -> None:
    """Why a payload cannot be read is asked of the other files as well."""
    replace_shard(scene, raw_header(b"[]"))
    (scene.release / CONFIG).unlink()
    kind(scene.release / CONFIG)
    with not_waiting_for(scene.release / CONFIG):
        done = scene.apply("--public-key", scene.key("acme"))
    failed(done, 5, f"{scene.release / CONFIG}: is missing; download the release again")


@pytest.mark.parametrize("kind", [pipe, zeros_without_end, link_to_itself])
@pytest.mark.parametrize("path", ["extra", "target/extra", "key-succession.jsonl"])
def test_extra_special_files(scene: Scene, path: str, kind: Callable[[Path], None]) -> None:
    kind(scene.release / path)
    with not_waiting_for(scene.release / path):
        assert scene.apply().err == f"error: {strays(scene, path)}\n"
        done = scene.verify()
    assert (done.code, f"unexpected  {path}\n" in done.out) == (5, True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("path", [SHARD, "release.json", "SHA256SUMS", CONFIG])
def test_special_files_cannot_be_signed(
    scene: Scene, path: str, kind: Callable[[Path], None]
) -> None:
    file = scene.release / path
    expected = digest(file.read_bytes())
    file.unlink()
    kind(file)
    before = digests(scene.world.release)
    code = 2
    message = f"{file}: is a link, or no regular file, and cannot be signed"
    if kind is folder and path != "SHA256SUMS":
        code = 5
        message = (
            f"{file}: expected sha256 {expected} as in SHA256SUMS, which is missing: the "
            "release was damaged since it was made; make it again"
        )
    with not_waiting_for(file):
        done = signing(scene)
    failed(done, code, message)
    for called in before.keys() - {path}:
        assert digest((scene.release / called).read_bytes()) == before[called]


@pytest.mark.parametrize("kind", [pipe, zeros_without_end, link_to_itself])
@pytest.mark.parametrize("path", ["model.sig", "rebuilt.model.sig"])
def test_special_files_where_a_signature_is_written(
    scene: Scene, path: str, kind: Callable[[Path], None]
) -> None:
    (scene.release / path).unlink()
    kind(scene.release / path)
    with not_waiting_for(scene.release / path):
        assert signing(scene).code == 0
    assert scene.verify().code == 0
    assert digests(scene.release) == digests(scene.world.release)


def test_a_folder_where_a_signature_is_written(scene: Scene) -> None:
    (scene.release / "model.sig").unlink()
    (scene.release / "model.sig").mkdir()
    before = digests(scene.release)
    done = signing(scene)
    failed(
        done,
        2,
        f"{scene.release}/model.sig: is a folder, where the signature is to be; remove it",
    )
    assert digests(scene.release) == before


# Case-fold clashes.


def test_a_file_that_is_another_where_case_is_not_kept_apart(scene: Scene) -> None:
    (scene.release / "RELEASE.JSON").write_bytes(b"{}")
    scene.refused(5, strays(scene, "RELEASE.JSON"))


def test_signed_files_that_are_one_where_case_is_not_kept_apart(scene: Scene) -> None:
    (scene.release / "RELEASE.JSON").write_bytes(b"{}")
    scene.sign(KEY)
    scene.refused(
        3,
        f'{scene.release}/model.sig: payload: paths "RELEASE.JSON" and "release.json" are '
        "one file where case or Unicode form is not kept apart",
    )


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (
            "Model.safetensors",
            'target: paths "model.safetensors" and "Model.safetensors" are one file where '
            "case or Unicode form is not kept apart",
        ),
        (
            "TOKENIZER",
            'target: path "TOKENIZER" is a file, and also the folder of '
            '"tokenizer/vocab.txt"',
        ),
    ],
)
def test_files_of_the_target_that_are_one_where_case_is_not_kept_apart(
    scene: Scene, path: str, message: str
) -> None:
    def change(document: dict[str, Any]) -> None:
        document["target"]["files"][0]["path"] = path

    scene.rewrite(change)
    scene.list_anew()
    scene.sign(KEY)
    scene.refused(3, f"release.json: {message}")


@pytest.mark.parametrize("path", ["MODEL.SIG", "Release.json", "target", "sha256sums"])
def test_a_payload_where_another_file_is(scene: Scene, path: str) -> None:
    taken = {"MODEL.SIG": "model.sig", "Release.json": "release.json"}
    taken |= {"target": "target", "sha256sums": "SHA256SUMS"}
    scene.rewrite(lambda document: document["shards"][0].update(path=path))
    scene.list_anew()
    scene.sign(KEY)
    other = taken[path]
    clash = f'path "{path}" appears twice'
    if other != path:
        clash = (
            f'paths "{path}" and "{other}" are one file where case or Unicode form is not '
            "kept apart"
        )
    scene.refused(3, f"release.json: shards: {clash}")


# The signature taken away.


def test_stripped(scene: Scene) -> None:
    scene.strip()
    assert scene.applied() == unsigned(scene)
    assert scene.verify().out.endswith(
        "8 good, 0 wrong, 0 missing, 0 unexpected\nsignature: none\n"
    )


def not_signed(scene: Scene, why: str, subject: str | Path = "") -> str:
    return (
        f"{subject or scene.release}: is not signed, and {why}: get it anew from its "
        "publisher, and model.sig with it"
    )


def test_stripped_where_a_signature_is_required(scene: Scene) -> None:
    scene.strip()
    message = not_signed(scene, "a signature is required")
    scene.refused(6, message, "--require-signature")
    done = scene.verify("--require-signature")
    failed(done, 6, message)
    message = not_signed(scene, "a key was given to check it with")
    scene.refused(6, message, "--public-key", scene.key("acme"))
    for attempt in (
        lambda: releasekit.open_delta(scene.release, scene.base, policy=REQUIRED),
        lambda: releasekit.plan_apply(
            scene.base, scene.release, scene.out, policy=REQUIRED
        ),
    ):
        with pytest.raises(SignatureError) as caught:
            attempt()
        assert str(caught.value) == not_signed(scene, "a signature is required")


REQUIRED: Final = Policy(require_signature=True)


def must_be_signed(scene: Scene) -> str:
    return (
        f"{scene.release}: says to be by acme, whose releases must be signed, but no key "
        "of theirs has signed it: get it anew from acme"
    )


def test_stripped_where_the_publisher_signs(scene: Scene) -> None:
    scene.trust("acme", KEY, require=True)
    scene.strip()
    scene.refused(6, must_be_signed(scene))


def test_stripped_where_the_publisher_signs_is_told_by_verify(scene: Scene) -> None:
    scene.trust("acme", KEY, require=True)
    scene.strip()
    done = scene.verify()
    failed(done, 6, f"{must_be_signed(scene)}")


def test_stripped_where_the_publisher_signs_is_told_by_verify_against_it(
    scene: Scene,
) -> None:
    scene.trust("acme", KEY, require=True)
    scene.apply()
    scene.strip()
    done = scene.run("verify", scene.out, "--against", scene.release)
    failed(done, 6, f"{must_be_signed(scene)}")


def test_stripped_where_the_publisher_signs_is_told_in_preflight(scene: Scene) -> None:
    scene.trust("acme", KEY, require=True)
    scene.strip()
    done = scene.run("preflight", "--base", scene.base, "--delta", scene.release)
    failed(done, 6, f"{must_be_signed(scene)}")


def test_stripped_after_it_was_seen_signed(scene: Scene) -> None:
    scene.applied()
    scene.strip()
    assert scene.applied() == unsigned(scene) + signed_before(scene)


def signed_before(scene: Scene) -> str:
    return (
        f"warning: {scene.release}: tune was signed when it was rebuilt here before; ask "
        "its publisher why this one is not\n"
    )


def test_signed_anew_where_the_publisher_signs(scene: Scene) -> None:
    scene.trust("acme", KEY, require=True)
    scene.sign(ATTACKER)
    scene.refused(6, must_be_signed(scene))


# On the Hub, the organisation says whose it is.


def put(hub: FakeHub, scene: Scene, called: str = "acme/tune-delta") -> Path:
    """Publish the release; returns where the cache will keep it."""
    files = {path: scene.release / path for path in digests(scene.release)}
    commit = hub.put(called, {**files, ".gitattributes": b"* -text\n"})
    cache = scene.root / "hf" / "hub" / f"models--{called.replace('/', '--')}"
    return cache / "snapshots" / commit


def on_hub(scene: Scene, *options: str | Path) -> Done:
    return scene.apply(*options, delta="acme/tune-delta")


def test_from_the_hub(hub: FakeHub, scene: Scene) -> None:
    scene.trust("ACME", KEY, require=True)
    put(hub, scene)
    done = on_hub(scene)
    assert (done.code, done.err) == (0, "")
    assert digests(scene.out) == digests(scene.world.target)


def test_stripped_on_the_hub(hub: FakeHub, scene: Scene) -> None:
    scene.strip()
    scene.rewrite(lambda document: document.pop("publisher"))
    scene.list_anew()
    folder = put(hub, scene)
    done = on_hub(scene)
    assert (done.code, done.err) == (0, unsigned(scene).replace(*moved(scene, folder)))
    shutil.rmtree(scene.out)
    scene.trust("acme", KEY, require=True)
    done = on_hub(scene)
    message = not_signed(scene, "releases of acme must be", folder)
    failed(done, 6, message)
    assert not scene.out.exists()
    assert not scene.partial.exists()


def moved(scene: Scene, folder: Path) -> tuple[str, str]:
    return str(scene.release), str(folder)


@pytest.mark.parametrize(
    ("key", "require"),
    [
        pytest.param(ATTACKER, True, id="unknown_and_required"),
        pytest.param(ATTACKER, False, id="unknown"),
        pytest.param(BOB, False, id="bobs"),
    ],
)
def test_signed_by_somebody_else_on_the_hub(
    hub: FakeHub, scene: Scene, key: Key, require: bool
) -> None:
    """Releases of an organisation that is known are held against its keys alone."""
    scene.trust("bob", BOB)
    scene.trust("acme", KEY, require=require)
    scene.rewrite(lambda document: document.pop("publisher"))
    scene.list_anew()
    scene.sign(key)
    folder = put(hub, scene)
    done = on_hub(scene)
    message = by_another(scene, "one of acme").replace(*moved(scene, folder))
    failed(done, 6, message)
    assert not scene.out.exists()


@pytest.fixture
def additive(scene: Scene) -> Path:
    """A delta of another tool's, which nobody has signed."""
    source = np.random.default_rng(3)
    base = {f"layer.{n}": weights(source, "F16", 64, 64) for n in range(2)}
    delta = {name: weights(source, "F16", 64, 64, scale=1e-3) for name in base}
    scene.base = model_folder(scene.root / "additive-base", base)
    made = model_folder(scene.root / "additive", delta)
    (made / "config.json").write_bytes(b"{}")
    return made


def test_the_delta_of_another_tool_is_itself_good(scene: Scene, additive: Path) -> None:
    done = scene.apply(delta=additive)
    assert (done.code, done.err) == (0, "")


def test_another_tools_delta_where_the_publisher_signs(
    hub: FakeHub, scene: Scene, additive: Path
) -> None:
    """Whoever can take the signature away can take the format away, too."""
    scene.trust("acme", KEY, require=True)
    hub.put("acme/tune-delta", {path: additive / path for path in digests(additive)})
    message = (
        "acme/tune-delta: is another tool's delta, which is not signed as a release is, "
        "and releases of acme must be: get it anew from its publisher"
    )
    done = on_hub(scene)
    failed(done, 6, message)
    assert not scene.out.exists()
    done = scene.run("preflight", "--base", scene.base, "--delta", "acme/tune-delta")
    failed(done, 6, message)


def test_another_tools_delta_where_a_signature_is_required(
    scene: Scene, additive: Path
) -> None:
    message = (
        f"{additive}: is another tool's delta, which is not signed as a release is; if its "
        "publisher signed the files, check them with `releasekit verify`"
    )
    for option in (["--require-signature"], ["--public-key", scene.key("acme")]):
        scene.refused(6, message, *option, delta=additive)


def test_another_tools_delta_where_a_signature_is_required_in_preflight(
    scene: Scene, additive: Path
) -> None:
    done = scene.run(
        *("preflight", "--base", scene.base, "--delta", additive, "--require-signature")
    )
    failed(
        done,
        6,
        f"{additive}: is another tool's delta, which is not signed as a release is; if "
        "its publisher signed the files, check them with `releasekit verify`",
    )


# Releases that claim another publisher, and keys that others took the place of.


def test_a_release_that_claims_another_publisher(scene: Scene) -> None:
    scene.trust("bob", BOB)
    scene.sign(BOB)
    scene.refused(
        6,
        f"{scene.release}: says to be by acme, but is signed by a key of bob: get it from "
        "acme",
    )


def test_a_release_that_claims_another_publisher_is_told_by_verify(scene: Scene) -> None:
    scene.trust("bob", BOB)
    scene.sign(BOB)
    done = scene.verify()
    failed(
        done,
        6,
        f"{scene.release}: says to be by acme, but is signed by a key of bob: get "
        "it from acme",
    )


def test_a_publisher_that_is_written_otherwise(scene: Scene) -> None:
    scene.trust("bob", BOB)
    scene.rewrite(lambda document: document.update(publisher="ACME"))
    scene.list_anew()
    scene.sign(BOB)
    scene.refused(
        6,
        f"{scene.release}: says to be by acme, but is signed by a key of bob: get it from "
        "acme",
    )


def followed(scene: Scene) -> None:
    """Acme's key was followed by another, as a release told us."""
    kept = scene.copy(scene.world.release, "kept")
    links = scene.root / "keys.jsonl"
    links.write_bytes(link(KEY, NEXT))
    releasekit.sign(scene.release, PrivateKey(NEXT), succession=links, force=True)
    assert scene.applied() == (
        f"warning: {scene.release}/model.sig: key {fingerprint(KEY)} was followed by "
        f"{fingerprint(NEXT)}, which it vouches for; the new one is to be trusted from now "
        "on\n"
    )
    assert scene.applied() == ""
    shutil.rmtree(scene.release)
    kept.rename(scene.release)


def superseded(scene: Scene) -> str:
    return (
        f"{scene.release}/model.sig: is signed by a key of acme that a later one has "
        "replaced; get a release that is signed by that one"
    )


def test_a_superseded_key(scene: Scene) -> None:
    followed(scene)
    scene.refused(6, superseded(scene))
    scene.refused(6, superseded(scene), "--require-signature")
    done = scene.verify()
    failed(done, 6, f"{superseded(scene)}")


def test_a_superseded_key_that_vouches_for_the_attackers(scene: Scene) -> None:
    """Whoever stole the old key comes too late."""
    followed(scene)
    (scene.release / "key-succession.jsonl").write_bytes(link(KEY, ATTACKER))
    scene.sign(ATTACKER)
    assert scene.applied() == not_checked(scene) + signed_before(scene)
    scene.refused(6, by_another(scene, "one that is trusted here"), "--require-signature")


def test_a_key_between_the_trusted_one_and_the_last_is_superseded_as_well(
    scene: Scene,
) -> None:
    kept = scene.copy(scene.world.release, "kept")
    links = scene.root / "keys.jsonl"
    links.write_bytes(link(KEY, BOB) + link(BOB, NEXT))
    releasekit.sign(scene.release, PrivateKey(NEXT), succession=links, force=True)
    scene.applied()
    shutil.rmtree(scene.release)
    kept.rename(scene.release)
    scene.sign(BOB)
    scene.refused(6, superseded(scene))


def test_a_succession_of_which_the_last_link_is_taken_away(scene: Scene) -> None:
    followed(scene)
    (scene.release / "key-succession.jsonl").write_bytes(b"")
    scene.sign(KEY)
    scene.refused(6, superseded(scene))

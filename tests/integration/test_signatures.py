"""Signed releases as publishers make them and users check them: who is let in, who not."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import pty
import select
import shlex
import shutil
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import pytest
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from releasekit import (
    Add,
    Policy,
    PrivateKey,
    PublicKey,
    SignatureError,
    Ulp,
    UsageError,
    apply_delta,
    convert,
    load_into,
    make_delta,
    open_delta,
    plan_apply,
    preflight,
    sign,
    verify,
)
from releasekit.authenticity import Status
from releasekit.cli import cli
from releasekit.signing.keys import write_pair
from releasekit.signing.statement import Statement
from releasekit.signing.succession import vouch
from releasekit.trust import default_path, load
from tests import foreign
from tests.builders import model_folder
from tests.fakehub import FakeHub
from tests.integration.tools import (
    COMMAND,
    TRACEBACK,
    Done,
    digests,
    good,
    here,
    releasekit,
    small_pair,
)

CURVES = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}
HASHES: dict[int, hashes.SHA256 | hashes.SHA384 | hashes.SHA512] = {
    256: hashes.SHA256(),
    384: hashes.SHA384(),
    521: hashes.SHA512(),
}
SECRET = "correct horse, größer"
PEM = serialization.Encoding.PEM
DER = serialization.Encoding.DER
PKCS8 = serialization.PrivateFormat.PKCS8
SEC1 = serialization.PrivateFormat.TraditionalOpenSSL
INFO = serialization.PublicFormat.SubjectPublicKeyInfo


# What the tests here are made of.


@dataclass(frozen=True)
class World:
    """A base, a fine-tune, and releases of it by acme: unsigned, and signed with key a.

    Keys are files in `root`: `a.pem` and `a.pub.pem`, likewise b, c and d.
    """

    root: Path
    base: Path
    tune: Path
    plain: Path
    signed: Path

    def key(self, name: str = "a") -> Path:
        return self.root / f"{name}.pem"

    def public(self, name: str = "a") -> Path:
        return self.root / f"{name}.pub.pem"

    def private(self, name: str = "a") -> PrivateKey:
        return PrivateKey.load(self.key(name))

    def fingerprint(self, name: str = "a") -> str:
        return PublicKey.load(self.public(name)).fingerprint

    def release(
        self,
        out: Path,
        key: str | None = "a",
        *,
        version: str = "1",
        publisher: str | None = "acme",
        succession: Path | None = None,
    ) -> Path:
        """Another release of the fine-tune."""
        make_delta(
            self.base,
            self.tune,
            out,
            version=version,
            publisher=publisher,
            sign_key=self.private(key) if key else None,
            succession=succession,
        )
        return out

    def apply(self, release: str | Path, out: Path, *more: str | Path) -> Done:
        """What comes of a rebuild; its output is gone afterwards."""
        arguments = ("--base", self.base, "--delta", release, "--out", out)
        done = here("apply-delta", *arguments, *more)
        assert out.exists() == (done.code == 0 and "--dry-run" not in more)
        shutil.rmtree(out, ignore_errors=True)
        shutil.rmtree(f"{out}.partial", ignore_errors=True)
        return done


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("world")
    base, target = small_pair()
    model_folder(root / "base", base, shards=2)
    model_folder(root / "tune", target, shards=2)
    (root / "tune" / "config.json").write_text('{"model_type": "llama"}')
    (root / "tune" / "größe").mkdir()
    (root / "tune" / "größe" / "notes.txt").write_bytes(b"\xff\0")
    for name in "abcd":
        write_pair(PrivateKey.generate(), root / f"{name}.pem", None)
    made = World(
        root=root,
        base=root / "base",
        tune=root / "tune",
        plain=root / "plain",
        signed=root / "signed",
    )
    made.release(made.plain, None)
    made.release(made.signed)
    return made


@pytest.fixture
def release(world: World, tmp_path: Path) -> Path:
    """The unsigned release once more, to be signed or spoiled."""
    return Path(shutil.copytree(world.plain, tmp_path / "release"))


@pytest.fixture
def signed(world: World, tmp_path: Path) -> Path:
    """The signed release once more, to be spoiled."""
    return Path(shutil.copytree(world.signed, tmp_path / "signed"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A plain folder with a model."""
    folder = model_folder(tmp_path / "model", small_pair()[1])
    (folder / "config.json").write_text("{}")
    return folder


def require_deterministic() -> None:
    """Skip where OpenSSL draws nonces at random, so that signatures differ."""
    try:
        ec.ECDSA(hashes.SHA256(), deterministic_signing=True)
    except UnsupportedAlgorithm:
        pytest.skip("OpenSSL before 3.2")


def append(path: Path, data: bytes = b" ") -> None:
    path.write_bytes(path.read_bytes() + data)


def signature_of(done: Done) -> tuple[str, str | None, str | None]:
    found = done.json["signature"]
    return found["status"], found["key"], found["publisher"]


# Making keys.


@pytest.mark.parametrize("curve", CURVES)
def test_keygen_makes_a_pair_that_others_can_read(tmp_path: Path, curve: str) -> None:
    key, secret = tmp_path / "new" / "acme.pem", tmp_path / "secret"
    secret.write_text(f"{SECRET}\nnot this line\n")
    done = good("keygen", key, "--curve", curve, "--passphrase-file", secret, "--json")
    assert done.stderr == ""
    public = tmp_path / "new" / "acme.pub.pem"
    theirs = serialization.load_pem_private_key(key.read_bytes(), SECRET.encode())
    assert isinstance(theirs, ec.EllipticCurvePrivateKey)
    assert theirs.curve.name == CURVES[curve].name
    assert theirs.public_key().public_bytes(PEM, INFO) == public.read_bytes()
    assert done.json == {
        "private_key": str(key),
        "public_key": str(public),
        "curve": curve,
        "fingerprint": hashlib.sha256(
            theirs.public_key().public_bytes(DER, INFO)
        ).hexdigest(),
        "encrypted": True,
    }
    assert key.read_bytes().startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n")
    assert sorted(path.name for path in key.parent.iterdir()) == [key.name, public.name]


def test_keygen_in_words(tmp_path: Path) -> None:
    key = tmp_path / "acme.pem"
    done = good("keygen", key, "--no-passphrase")
    lines = [line.split(maxsplit=2) for line in done.stdout.splitlines()]
    assert lines == [
        ["private", "key", f"{key} (not encrypted; keep a copy in a safe place)"],
        ["public", "key", f"{tmp_path / 'acme.pub.pem'} (for your users)"],
        ["fingerprint", PublicKey.load(tmp_path / "acme.pub.pem").fingerprint],
    ]
    assert done.stderr == ""
    serialization.load_pem_private_key(key.read_bytes(), None)


@pytest.mark.parametrize("umask", [0, 0o022, 0o077])
def test_only_its_owner_may_read_a_key(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        good("keygen", tmp_path / "acme.pem", "--no-passphrase", "-q")
    finally:
        os.umask(before)
    assert (tmp_path / "acme.pem").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "acme.pub.pem").stat().st_mode & 0o777 == 0o644 & ~umask


@pytest.mark.parametrize("there", ["acme.pem", "acme.pub.pem"])
@pytest.mark.parametrize("kind", ["file", "link to nothing"])
def test_keygen_replaces_nothing(tmp_path: Path, there: str, kind: str) -> None:
    if kind == "file":
        (tmp_path / there).write_text("mine")
    else:
        (tmp_path / there).symlink_to(tmp_path / "gone")
    before = digests(tmp_path)
    done = here("keygen", tmp_path / "acme.pem", "--no-passphrase", "--json")
    message = (
        f"{tmp_path / there}: exists already, and keys are never replaced; choose another "
        "name"
    )
    error = {"type": "UsageError", "message": message, "exit_code": 2}
    assert (done.code, done.json) == (2, {"error": error})
    assert digests(tmp_path) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "no passphrase: type one at a terminal, give --passphrase-file, or leave "),
        (["--passphrase-file", "gone"], "gone: no such file"),
        (["--passphrase-file", "."], ".: "),
        (["--passphrase-file", "empty"], "empty: expected a passphrase in its first line"),
        (["--passphrase-file", "long"], "long: expected a passphrase of at most"),
        (["--curve", "P-192"], "Invalid value for '--curve': 'P-192' is not one of"),
        (
            ["--passphrase-file", "empty", "--no-passphrase"],
            "--passphrase-file and --no-passphrase: give one of them",
        ),
    ],
)
def test_keygen_says_what_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").write_text("\nsecond line\n")
    (tmp_path / "long").write_bytes(b"x" * 2000)
    done = here("keygen", "acme.pem", *options, "--json")
    assert done.code == 2
    assert done.error.startswith(message)
    assert done.json["error"]["message"] == done.error
    assert sorted(os.listdir()) == ["empty", "long"]


@pytest.mark.parametrize("name", [".", "..", "/", ""])
def test_a_key_needs_a_name(tmp_path: Path, name: str) -> None:
    assert here("keygen", name, "--no-passphrase").code == 2


# Passphrases.


def options_of(
    command: click.Command, name: str = ""
) -> Iterator[tuple[str, click.Parameter]]:
    """Every option and argument of the command line, with its command."""
    for parameter in command.params:
        yield name, parameter
    for part in command.commands.values() if isinstance(command, click.Group) else ():
        yield from options_of(part, f"{name} {part.name}".strip())


def test_no_option_takes_a_passphrase_itself() -> None:
    found = {
        (parameter.name, isinstance(parameter.type, click.Path) or parameter.is_flag)
        for _, parameter in options_of(cli)
        if isinstance(parameter, click.Option)
        and any(word in str(parameter.name) for word in ("pass", "secret", "pin_", "pwd"))
    }
    assert found == {("passphrase_file", True), ("no_passphrase", True)}


def at_a_terminal(*arguments: str | Path, answers: Sequence[tuple[str, str]]) -> Done:
    """Runs the command line on a terminal of its own, and types: (prompt, answer).

    stdout and stderr are one there. What was typed must not be seen on it, nor in the list
    of processes.
    """
    terminal, line = pty.openpty()
    shown, command = "", [*COMMAND, *map(str, arguments)]
    with subprocess.Popen(
        command, stdin=line, stdout=line, stderr=line, start_new_session=True
    ) as process:
        os.close(line)
        waiting, read = list(answers), 0
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if select.select([terminal], [], [], 0.05)[0]:
                try:
                    data = os.read(terminal, 4096)
                except OSError:  # the other side is closed
                    break
                shown += data.decode()
            asked = waiting and waiting[0][0] in shown[read:]
            # What is typed before the echo is off is thrown away.
            if asked and not termios.tcgetattr(terminal)[3] & termios.ECHO:
                read = len(shown)
                os.write(terminal, f"{waiting.pop(0)[1]}\n".encode())
        else:
            process.kill()
    os.close(terminal)
    assert not waiting, shown
    assert TRACEBACK not in shown, shown
    for _, answer in answers:
        assert not answer or answer not in shown
    return Done(process.returncode, shown.replace("\r\n", "\n"), "")


def test_a_passphrase_is_asked_for_and_confirmed(tmp_path: Path, model: Path) -> None:
    key = tmp_path / "acme.pem"
    made = at_a_terminal(
        *("keygen", key),
        answers=[
            ("Passphrase for the new key", SECRET),
            ("Repeat for confirmation", "something else"),
            ("Passphrase for the new key", SECRET),
            ("Repeat for confirmation", SECRET),
        ],
    )
    assert made.code == 0, made.stdout
    assert "do not match" in made.stdout
    serialization.load_pem_private_key(key.read_bytes(), SECRET.encode())
    signing = at_a_terminal(
        *("sign", model, "--key", key), answers=[(f"Passphrase of {key}", SECRET)]
    )
    assert signing.code == 0, signing.stdout
    assert verify(model, policy=Policy(public_key=tmp_path / "acme.pub.pem")).ok


def test_an_empty_passphrase_is_none(tmp_path: Path) -> None:
    answers = [("Passphrase for the new key", ""), ("Repeat for confirmation", "")]
    done = at_a_terminal("keygen", tmp_path / "acme.pem", answers=answers)
    assert done.code == 2
    assert "no passphrase: type one at a terminal" in done.stdout
    assert not list(tmp_path.iterdir())


def test_where_there_is_no_standard_input_nothing_is_asked(
    tmp_path: Path, model: Path
) -> None:
    """As under some schedulers, which close it."""
    key = tmp_path / "acme.pem"
    write_pair(PrivateKey.generate(), key, SECRET.encode())
    for arguments in (("keygen", tmp_path / "new.pem"), ("sign", model, "--key", key)):
        line = shlex.join([*COMMAND, *map(str, arguments)])
        done = subprocess.run(
            ["sh", "-c", f"exec {line} <&-"], capture_output=True, text=True, check=False
        )
        assert TRACEBACK not in done.stderr
        assert done.returncode == 2
        assert "--passphrase-file" in done.stderr
    assert not (tmp_path / "new.pem").exists()


@pytest.mark.parametrize("how", ["wrong", "none", "no file"])
def test_a_key_needs_its_passphrase(tmp_path: Path, model: Path, how: str) -> None:
    key, secret = tmp_path / "acme.pem", tmp_path / "secret"
    write_pair(PrivateKey.generate(), key, SECRET.encode())
    secret.write_text("wrong\n")
    options: dict[str, list[str | Path]] = {
        "wrong": ["--passphrase-file", secret],
        "none": [],
        "no file": ["--passphrase-file", tmp_path / "gone"],
    }
    done = here("sign", model, "--key", key, *options[how])
    assert done.code == 2
    wanted = {
        "wrong": f"{key}: cannot be decrypted: the passphrase is wrong, or the file is "
        "damaged",
        "none": f"{key}: the key has a passphrase; give it with --passphrase-file, or type "
        "it at a terminal",
        "no file": f"{tmp_path / 'gone'}: no such file",
    }
    assert done.error.startswith(wanted[how])
    assert not (model / "model.sig").exists()


# Keys of other programs.

OPENSSL = {
    "PKCS#8": "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:{curve} -out {key}",
    "PKCS#8, encrypted": "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:{curve} "
    "-aes-256-cbc -pass file:{secret} -out {key}",
    "SEC1": "ecparam -name {curve} -genkey -noout -out {key}",
    "SEC1 after its curve": "ecparam -name {curve} -genkey -out {key}",
    "SEC1, encrypted": "ec -in {plain} -aes256 -passout file:{secret} -out {key}",
}


def other_key(folder: Path, form: str, maker: str, curve: str) -> Path:
    """A private key in `other.pem`, its public one in `other.pub.pem`."""
    key, plain, secret = folder / "other.pem", folder / "plain.pem", folder / "secret"
    secret.write_text(f"{SECRET}\n")
    encrypted = "encrypted" in form
    if maker == "openssl":
        openssl = shutil.which("openssl")
        if openssl is None:
            pytest.skip("openssl is not installed")
        name = {"P-256": "prime256v1", "P-384": "secp384r1", "P-521": "secp521r1"}[curve]
        given = {"curve": name, "key": key, "plain": plain, "secret": secret}
        public = f"pkey -in {key} -passin file:{secret} -pubout -out {folder}/other.pub.pem"
        for line in (OPENSSL["SEC1"].replace("{key}", "{plain}"), OPENSSL[form], public):
            command = [openssl, *line.format(**given).split()]
            subprocess.run(command, check=True, capture_output=True)
    else:
        made = ec.generate_private_key(CURVES[curve])
        encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if encrypted:
            encryption = serialization.BestAvailableEncryption(SECRET.encode())
        data = made.private_bytes(PEM, SEC1 if "SEC1" in form else PKCS8, encryption)
        if form == "SEC1 after its curve":
            oid = "BggqhkjOPQMBBw=="  # P-256, as `openssl ecparam` writes it
            data = b"-----BEGIN EC PARAMETERS-----\n%b\n-----END EC PARAMETERS-----\n%b" % (
                oid.encode(),
                data,
            )
        key.write_bytes(data)
        (folder / "other.pub.pem").write_bytes(made.public_key().public_bytes(PEM, INFO))
    key.chmod(0o600)
    assert (b"ENCRYPTED" in key.read_bytes()) == encrypted
    assert (b"EC PRIVATE KEY" in key.read_bytes()) == ("SEC1" in form)
    return key


@pytest.mark.parametrize("maker", ["openssl", "cryptography"])
@pytest.mark.parametrize("form", OPENSSL)
def test_keys_of_other_programs_sign(
    tmp_path: Path, model: Path, maker: str, form: str
) -> None:
    curve = {"PKCS#8": "P-521", "SEC1": "P-384"}.get(form, "P-256")
    key = other_key(tmp_path, form, maker, curve)
    secret = ("--passphrase-file", tmp_path / "secret")
    signing = good("sign", model, "--key", key, *secret)
    assert signing.stderr == ""
    checked = good("verify", model, "--public-key", tmp_path / "other.pub.pem", "--json")
    assert signature_of(checked)[0] == "signed"
    assert PublicKey.load(tmp_path / "other.pub.pem").curve == curve


def test_the_fingerprint_is_what_openssl_makes_of_it(world: World) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    reading = ("pkey", "-pubin", "-outform", "der", "-in", str(world.public()))
    command = [openssl, *reading]
    der = subprocess.run(command, check=True, capture_output=True).stdout
    assert hashlib.sha256(der).hexdigest() == world.fingerprint()


def wrong_kind(kind: str) -> Any:
    if kind == "RSA":
        return rsa.generate_private_key(65537, 2048)
    if kind == "Ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    return ec.generate_private_key(ec.SECP256K1())


@pytest.mark.parametrize("kind", ["RSA", "Ed25519", "secp256k1"])
def test_keys_of_other_kinds_are_refused(
    tmp_path: Path, model: Path, signed: Path, kind: str
) -> None:
    key, public = tmp_path / "key.pem", tmp_path / "key.pub.pem"
    made = wrong_kind(kind)
    key.write_bytes(made.private_bytes(PEM, PKCS8, serialization.NoEncryption()))
    public.write_bytes(made.public_key().public_bytes(PEM, INFO))
    wanted = "expected an elliptic-curve key on P-256, P-384 or P-521, found another kind"
    done = here("sign", model, "--key", key)
    assert done.code == 2
    assert done.error == f"{key}: {wanted}; `releasekit keygen` makes one"
    for command in (("verify", signed, "--public-key"), ("trust", "add", "acme")):
        done = here(*command, public)
        assert (done.code, done.error) == (2, f"{public}: {wanted}")
    assert not load(default_path()).publishers


def test_keys_are_not_taken_for_each_other(world: World, model: Path, signed: Path) -> None:
    done = here("sign", model, "--key", world.public())
    assert done.code == 2
    assert done.error.startswith(f"{world.public()}: is a public key; give the private one")
    for command in (
        ("verify", signed, "--public-key"),
        ("trust", "add", "acme"),
        ("rotate-key", "--old", world.key("b"), "--out", model / "links", "--new"),
    ):
        done = here(*command, world.key())
        assert done.code == 2
        assert done.error.startswith(
            f"{world.key()}: is a private key; give the public one, and nobody this one"
        )
    assert not (model / "links").exists()


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (None, 2),
        (b"", 3),
        (b"ssh-ed25519 AAAA me@here\n", 3),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", 3),
        (b"x" * 70_000, 3),
    ],
)
def test_what_is_no_private_key_is_refused(
    tmp_path: Path, model: Path, content: bytes | None, code: int
) -> None:
    key = tmp_path / "key.pem"
    if content is not None:
        key.write_bytes(content)
    done = here("sign", model, "--key", key)
    assert done.code == code
    assert done.error.startswith(f"{key}: ")
    assert not (model / "model.sig").exists()


def test_what_is_no_public_key_is_refused(tmp_path: Path, signed: Path) -> None:
    key = tmp_path / "key.pub.pem"
    key.write_bytes(b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
    done = here("verify", signed, "--public-key", key)
    assert done.code == 3
    assert done.error.startswith(f"{key}: expected a public key in PEM, which begins with ")
    assert here("verify", signed, "--public-key", tmp_path / "gone").code == 2
    assert here("verify", signed, "--public-key", tmp_path).code == 2


def test_a_key_that_others_can_read_is_used_with_a_warning(
    tmp_path: Path, world: World, model: Path
) -> None:
    key = tmp_path / "open.pem"
    shutil.copyfile(world.key(), key)
    key.chmod(0o640)
    done = good("sign", model, "--key", key, "--json")
    assert done.json["key"] == world.fingerprint()
    warning = f"warning: {key}: others may read this private key; chmod 600 {key}\n"
    assert done.stderr == warning
    assert good("sign", model, "--key", key, "-q") == Done(0, "", warning)


def test_a_key_may_come_through_a_pipe(tmp_path: Path, world: World, model: Path) -> None:
    reading, writing = os.pipe()
    os.write(writing, world.key().read_bytes())
    os.close(writing)
    try:
        good("sign", model, "--key", f"/dev/fd/{reading}")
    finally:
        os.close(reading)
    good("verify", model, "--public-key", world.public())


# Signing.


def test_a_release_is_signed(world: World, release: Path) -> None:
    before = digests(release)
    done = good("sign", release, "--key", world.key(), "--json")
    after = digests(release)
    assert done.stderr == ""
    found = done.json
    assert found.pop("files") == {n: d for n, d in after.items() if n != "model.sig"}
    assert [stage["name"] for stage in found.pop("stages")] == ["hash"]
    assert found == {
        "path": str(release),
        "kind": "release",
        "name": "tune",
        "key": world.fingerprint(),
        "added": [],
        "replaced": False,
    }
    assert after.keys() - before.keys() == {"model.sig", "rebuilt.model.sig"}
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"SHA256SUMS"}
    checked = ["sha256sum", "--check", "--quiet", "--strict", "SHA256SUMS"]
    subprocess.run(checked, cwd=release, check=True)
    good("verify", release, "--public-key", world.public())


def test_what_a_release_rebuilds_is_signed(world: World, tmp_path: Path) -> None:
    out = tmp_path / "out"
    apply_delta(world.base, world.signed, out)
    key = ("--public-key", world.public(), "--json")
    signature = world.signed / "rebuilt.model.sig"
    done = good("verify", out, "--signature", signature, *key)
    assert signature_of(done) == ("signed", world.fingerprint(), None)
    assert done.json["against"] == str(signature)
    assert {file["path"]: file["found"] for file in done.json["files"]} == digests(
        world.tune
    )
    # As a publisher of the rebuilt model would ship it.
    shutil.copyfile(signature, out / "model.sig")
    good("verify", out, *key)
    append(out / "größe" / "notes.txt")
    assert here("verify", out, *key).code == 5


@pytest.mark.parametrize("codec", [Ulp(), Add()], ids=["ulp", "add"])
def test_making_and_signing_is_making_signed(
    world: World, tmp_path: Path, codec: Ulp
) -> None:
    require_deterministic()
    links = tmp_path / "links"
    good("rotate-key", "--old", world.key("b"), "--new", world.public(), "--out", links)
    make_delta(world.base, world.tune, tmp_path / "later", codec=codec)
    signing = ("--key", world.key(), "--succession", links)
    good("sign", tmp_path / "later", *signing)
    good(
        *("make-delta", "--base", world.base, "--target", world.tune),
        *("--out", tmp_path / "once", "--sign-key", world.key(), "--succession", links),
        *("--codec", "add" if isinstance(codec, Add) else "ulp"),
    )
    assert digests(tmp_path / "once") == digests(tmp_path / "later")
    assert (tmp_path / "once" / "key-succession.jsonl").read_bytes() == links.read_bytes()
    # Once more, and once more without the links, which it has.
    for more in (signing, signing[:2]):
        done = good("sign", tmp_path / "later", *more, "--json")
        assert done.json["replaced"] is True
        assert digests(tmp_path / "once") == digests(tmp_path / "later")


def test_a_plain_folder_is_signed(world: World, model: Path) -> None:
    done = good("sign", model, "--key", world.key(), "--json")
    assert (done.json["kind"], done.json["name"]) == ("folder", "model")
    assert sorted(path.name for path in model.iterdir()) == [
        "config.json",
        "model.safetensors",
        "model.sig",
    ]
    assert done.json["files"] == {
        n: d for n, d in digests(model).items() if n != "model.sig"
    }
    good("verify", model, "--public-key", world.public())


def test_a_folder_is_called_by_its_name_whatever_it_is_given_as(
    world: World, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(model)
    assert good("sign", ".", "--key", world.key(), "--json").json["name"] == "model"


def test_what_convert_made_is_signed(world: World, tmp_path: Path) -> None:
    out = tmp_path / "out"
    convert(world.base, out)
    before = digests(out)
    done = good("sign", out, "--key", world.key(), "--json")
    assert done.json["files"] == before
    assert "SHA256SUMS" in before
    good("verify", out, "--public-key", world.public())
    good("verify", out)  # by its list
    append(out / "model.safetensors")
    spoiled = here("sign", out, "--key", world.key())
    assert spoiled.code == 5
    assert spoiled.error.startswith(f"{out / 'model.safetensors'}: expected sha256 ")


@pytest.mark.parametrize("name", [".gitattributes", ".gitignore", ".github/workflow.yml"])
def test_what_is_made_of_a_repository_can_be_signed_and_verified(
    world: World, tmp_path: Path, name: str
) -> None:
    """The stock tool passes over git's files, so that no signature of ours names them."""
    tune = shutil.copytree(world.tune, tmp_path / "tune")
    (tune / name).parent.mkdir(exist_ok=True)
    (tune / name).write_text("*.bin")
    key = ("--public-key", world.public())
    make_delta(world.base, tune, tmp_path / "d", sign_key=world.private())
    apply_delta(world.base, tmp_path / "d", tmp_path / "out")
    good("verify", tmp_path / "out", "--against", tmp_path / "d", *key)
    signature = tmp_path / "d" / "rebuilt.model.sig"
    good("verify", tmp_path / "out", "--signature", signature, *key)
    convert(tune, tmp_path / "converted")
    for folder in (tmp_path / "out", tmp_path / "converted"):
        signing = good("sign", folder, "--key", world.key(), "--json")
        assert name not in signing.json["files"]
        good("verify", folder, *key)


def test_another_publishers_signature_is_not_replaced(world: World, signed: Path) -> None:
    before = digests(signed)
    done = here("sign", signed, "--key", world.key("b"))
    assert done.code == 2
    assert done.error == (
        f"{signed / 'model.sig'}: is a signature by another key; replace it with --force"
    )
    assert digests(signed) == before
    good("sign", signed, "--key", world.key("b"), "--force")
    good("verify", signed, "--public-key", world.public("b"))
    assert here("verify", signed, "--public-key", world.public()).code == 6


@pytest.mark.parametrize("file", ["release.json", "target/config.json", "provenance.json"])
@pytest.mark.parametrize("what", ["changed", "missing"])
def test_what_was_damaged_is_not_signed(
    world: World, release: Path, file: str, what: str
) -> None:
    if what == "changed":
        append(release / file)
    else:
        (release / file).unlink()
    before = digests(release)
    done = here("sign", release, "--key", world.key())
    if (file, what) == ("release.json", "missing"):
        assert done.code == 5  # and not signed as any folder is
    assert done.code == 5
    assert digests(release) == before


def test_a_list_that_is_itself_wrong_is_not_signed(world: World, release: Path) -> None:
    shard = release / "delta-00001-of-00001.safetensors"
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    sums = release / "SHA256SUMS"
    old = digests(world.plain)[shard.name]
    sums.write_text(sums.read_text().replace(old, digests(release)[shard.name]))
    done = here("sign", release, "--key", world.key())
    assert done.code == 5
    assert "disagree over" in done.error


def test_added_files_are_signed_and_named(world: World, release: Path) -> None:
    (release / "README.md").write_text("# A fine-tune\n")
    done = good("sign", release, "--key", world.key(), "--json")
    assert done.json["added"] == ["README.md"]
    assert "  README.md\n" in (release / "SHA256SUMS").read_text()
    again = good("sign", release, "--key", world.key())
    assert "new" not in [line.partition(" ")[0] for line in again.stdout.splitlines()]
    key = ("--public-key", world.public())
    good("verify", release, *key)
    good("verify", release)
    (release / "README.md").write_text("# Another\n")
    assert here("verify", release, *key).code == 5
    (release / "README.md").unlink()
    assert here("verify", release, *key).code == 5


def test_what_the_hub_adds_is_not_signed(world: World, release: Path) -> None:
    as_the_hub_does(release)
    done = good("sign", release, "--key", world.key(), "--json")
    assert done.json["added"] == []
    good("verify", release, "--public-key", world.public())


def as_the_hub_does(folder: Path) -> None:
    """Adds what a download from the Hub has beside the publisher's files."""
    (folder / ".gitattributes").write_text("*.safetensors filter=lfs\n")
    cache = folder / ".cache" / "huggingface"
    (cache / "download").mkdir(parents=True)
    (cache / ".gitignore").write_text("*")
    (cache / "download" / "release.json.metadata").write_text("0\n0\n0.0\n")


def make_link(folder: Path) -> None:
    (folder / "link").symlink_to(folder / "release.json")


def make_folder_link(folder: Path) -> None:
    (folder / "link").symlink_to("/etc")


def make_pipe(folder: Path) -> None:
    os.mkfifo(folder / "pipe")


def make_repository(folder: Path) -> None:
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("")


def make_bad_name(folder: Path) -> None:
    (folder / "NUL.txt").write_text("")


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (make_link, 2),
        (make_folder_link, 2),
        (make_pipe, 2),
        (make_repository, 2),
        (make_bad_name, 3),
    ],
)
@pytest.mark.parametrize("kind", ["release", "folder"])
def test_what_cannot_be_signed_is_refused(
    world: World, release: Path, model: Path, spoil: Any, code: int, kind: str
) -> None:
    folder = release if kind == "release" else model
    spoil(folder)
    before = sorted(folder.rglob("*"))
    done = here("sign", folder, "--key", world.key())
    assert done.code == code
    assert done.error.startswith(f"{folder}")
    assert sorted(folder.rglob("*")) == before


def test_only_a_folder_with_files_is_signed(world: World, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "gone", world.key()):
        assert here("sign", path, "--key", world.key()).code == 2


class Stop(KeyboardInterrupt):
    """As a user's Ctrl-C, at a place of the test's choice."""


@pytest.mark.parametrize("earlier", [None, "b"])
@pytest.mark.parametrize("files", [1, 2, 3, 4])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_signing_that_was_stopped_is_completed(
    world: World,
    release: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    earlier: str | None,
    files: int,
    moment: str,
) -> None:
    """Stopped `before` or `after` the n-th file takes its place."""
    require_deterministic()
    links = tmp_path / "links"
    good("rotate-key", "--old", world.key("b"), "--new", world.public(), "--out", links)
    arguments = ("sign", release, "--key", world.key(), "--succession", links, "--force")
    wanted = shutil.copytree(release, tmp_path / "wanted" / "release")
    good("sign", wanted, *arguments[2:])
    if earlier:
        good("sign", release, "--key", world.key(earlier))
    left, real = [files], os.replace

    def stop(source: Path, target: Path) -> None:
        left[0] -= 1
        if left[0] or moment == "after":
            real(source, target)
        if not left[0]:
            raise Stop

    monkeypatch.setattr(os, "replace", stop)
    done = here(*arguments)
    monkeypatch.undo()
    assert done.code == 130
    assert done.error == (
        "interrupted; run the same command again, which completes what was begun"
    )
    complete = (files, moment) == (4, "after")
    key = ("--public-key", world.public())
    assert here("verify", release, *key).code == (0 if complete else 6)
    good(*arguments)
    assert digests(release) == digests(wanted)
    good("verify", release, *key)


def test_the_library_signs(world: World, release: Path, model: Path) -> None:
    made = sign(release, world.private())
    assert (made.kind, made.name, made.key) == ("release", "tune", world.fingerprint())
    assert verify(release, policy=Policy(public_key=world.public())).ok
    assert sign(model, world.private()).kind == "folder"
    with pytest.raises(UsageError, match="replace it with --force"):
        sign(model, world.private("b"))
    assert sign(model, world.private("b"), force=True).replaced


# Verifying.


def test_who_signed_is_told(world: World, signed: Path) -> None:
    fingerprint = world.fingerprint()
    done = good("verify", signed)
    assert done.stdout.splitlines()[-1] == "signature: not checked"
    warning = f"warning: {signed / 'model.sig'}: was not checked: no key is trusted that"
    assert done.stderr.startswith(warning)
    done = good("verify", signed, "--json")
    assert signature_of(done) == ("unchecked", None, None)
    assert done.json["against"] == str(signed / "SHA256SUMS")
    done = good("verify", signed, "--public-key", world.public())
    assert done.stdout.splitlines()[-1] == f"signature: signed by key {fingerprint}"
    assert done.stderr == ""
    good("trust", "add", "acme", world.public())
    done = good("verify", signed)
    assert done.stdout.splitlines()[-1] == f"signature: signed by acme {fingerprint}"
    done = good("verify", signed, "--json")
    assert signature_of(done) == ("signed", fingerprint, "acme")
    assert done.json["against"] == str(signed / "model.sig")
    listed = {file["path"] for file in done.json["files"]}
    assert listed == digests(signed).keys() - {"model.sig"}
    done = good("verify", world.plain)
    assert done.stdout.splitlines()[-1] == "signature: none"
    assert signature_of(good("verify", world.plain, "--json")) == ("unsigned", None, None)


def test_a_rebuilt_model_is_held_against_a_signed_release(
    world: World, signed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    apply_delta(world.base, signed, out)
    against = ("verify", out, "--against", signed, "--json")
    assert signature_of(good(*against))[0] == "unchecked"
    done = good(*against, "--public-key", world.public())
    assert signature_of(done) == ("signed", world.fingerprint(), None)
    assert here(*against, "--public-key", world.public("b")).code == 6
    assert here("verify", out, "--against", world.plain, "--require-signature").code == 6
    append(signed / "rebuilt.SHA256SUMS", b"\n")
    assert here(*against, "--public-key", world.public()).code in (3, 5)
    both = ("--against", signed, "--signature", signed / "rebuilt.model.sig")
    assert here("verify", out, *both).code == 2


def test_a_folder_with_only_a_signature_needs_its_key(world: World, model: Path) -> None:
    sign(model, world.private())
    done = here("verify", model)
    assert done.code == 6
    assert "was not checked: no key is trusted that made it" in done.error
    good("verify", model, "--public-key", world.public())


def test_a_signature_may_lie_elsewhere(world: World, model: Path, tmp_path: Path) -> None:
    sign(model, world.private())
    (model / "model.sig").rename(tmp_path / "elsewhere.sig")
    key = ("--public-key", world.public())
    good("verify", model, "--signature", tmp_path / "elsewhere.sig", *key)
    assert here("verify", model, "--signature", tmp_path / "gone.sig", *key).code == 2
    assert here("verify", model, *key).code in (2, 6)
    (model / "sigs").mkdir()
    shutil.copyfile(tmp_path / "elsewhere.sig", model / "sigs" / "one.sig")
    good("verify", model, "--signature", model / "sigs" / "one.sig", *key)
    assert here("verify", model, "--signature", tmp_path / "elsewhere.sig", *key).code == 5


def add_file(folder: Path) -> None:
    (folder / "modeling_evil.py").write_text("import os")


def add_hidden(folder: Path) -> None:
    (folder / ".git").mkdir()
    (folder / ".git" / "model.safetensors").write_bytes(b"")


def add_near_the_hubs(folder: Path) -> None:
    (folder / ".cache" / "huggingface2").mkdir(parents=True)
    (folder / ".cache" / "huggingface2" / "model.safetensors").write_bytes(b"")


def add_below(folder: Path) -> None:
    (folder / "target" / ".gitattributes").write_text("")


def change_config(folder: Path) -> None:
    append(folder / "target" / "config.json")


def change_sums(folder: Path) -> None:
    append(folder / "SHA256SUMS", b"0" * 64 + b"  gone\n")


def change_provenance(folder: Path) -> None:
    append(folder / "provenance.json")


def remove_config(folder: Path) -> None:
    (folder / "target" / "config.json").unlink()


def remove_rebuilt_signature(folder: Path) -> None:
    (folder / "rebuilt.model.sig").unlink()


def change_signature(folder: Path) -> None:
    bundle = json.loads((folder / "model.sig").read_text())
    envelope = bundle["dsseEnvelope"]
    payload = base64.b64decode(envelope["payload"]).replace(b'"tune"', b'"TUNE"')
    envelope["payload"] = base64.b64encode(payload).decode()
    (folder / "model.sig").write_text(json.dumps(bundle))


def swap_signatures(folder: Path) -> None:
    (folder / "rebuilt.model.sig").replace(folder / "model.sig")


def cut_signature(folder: Path) -> None:
    data = (folder / "model.sig").read_bytes()
    (folder / "model.sig").write_bytes(data[:-1])


FORGERIES = [
    (add_file, 5),
    (add_hidden, 5),
    (add_near_the_hubs, 5),
    (add_below, 5),
    (change_config, 5),
    (change_sums, 5),
    (change_provenance, 5),
    (remove_config, 5),
    (remove_rebuilt_signature, 5),
    (change_signature, 6),
    (swap_signatures, 5),
    (cut_signature, 3),
]


@pytest.mark.parametrize(
    ("forge", "code"), FORGERIES, ids=[forge.__name__ for forge, _ in FORGERIES]
)
def test_what_was_changed_after_signing_is_found(
    world: World, signed: Path, tmp_path: Path, forge: Any, code: int
) -> None:
    forge(signed)
    done = here("verify", signed, "--public-key", world.public(), "--json")
    assert done.code == code
    if forge in (add_hidden, add_near_the_hubs):
        return  # no rebuild reads these
    if forge is change_provenance or forge is remove_rebuilt_signature:
        return  # nor these
    used = world.apply(signed, tmp_path / "out", "--public-key", world.public())
    assert used.code == code


def test_a_download_from_the_hub_is_as_it_was_signed(world: World, signed: Path) -> None:
    as_the_hub_does(signed)
    good("verify", signed, "--public-key", world.public())


def test_a_folder_of_links_is_as_it_was_signed(
    world: World, signed: Path, tmp_path: Path
) -> None:
    """As the Hub's cache has it."""
    snapshot = tmp_path / "snapshot"
    for name in digests(signed):
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).symlink_to(signed / name)
    good("verify", snapshot, "--public-key", world.public())
    done = world.apply(snapshot, tmp_path / "out", "--public-key", world.public())
    assert done.code == 0


def test_a_signature_that_is_required_must_be_there(world: World, signed: Path) -> None:
    unsigned = here("verify", world.plain, "--require-signature")
    assert unsigned.code == 6
    assert unsigned.error.startswith(
        f"{world.plain}: is not signed, and a signature is required: "
    )
    keyed = here("verify", world.plain, "--public-key", world.public())
    assert keyed.code == 6
    assert "a key was given to check it with" in keyed.error
    untrusted = here("verify", signed, "--require-signature", "--json")
    assert untrusted.code == 6
    assert untrusted.json["error"]["type"] == "SignatureError"
    assert "is signed by another key than one that is trusted here" in untrusted.error


def test_another_key_is_told_from_damage(world: World, signed: Path) -> None:
    done = here("verify", signed, "--public-key", world.public("b"))
    assert done.code == 6
    assert "is signed by another key than that of" in done.error
    assert world.fingerprint("b") in done.error
    change_signature(signed)
    done = here("verify", signed, "--public-key", world.public())
    assert done.code == 6
    assert "is not what its key signed: the file is damaged or was changed" in done.error
    good("trust", "add", "acme", world.public())
    assert here("verify", signed).code == 6


def test_the_keys_name_in_a_signature_is_held_against_the_key(
    world: World, signed: Path
) -> None:
    bundle = json.loads((signed / "model.sig").read_text())
    bundle["verificationMaterial"]["publicKey"]["hint"] = "0" * 64
    (signed / "model.sig").write_text(json.dumps(bundle))
    done = here("verify", signed, "--public-key", world.public())
    assert (done.code, "names another key than made it" in done.error) == (6, True)
    for hint in ("", None):
        bundle["verificationMaterial"]["publicKey"] = {} if hint is None else {"hint": hint}
        (signed / "model.sig").write_text(json.dumps(bundle))
        good("verify", signed, "--public-key", world.public())


def test_signatures_by_an_identity_say_what_to_do(model: Path) -> None:
    """Sigstore's own, with a certificate of minutes and a log: not supported."""
    bundle = {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {
            "certificate": {"rawBytes": "AAAA"},
            "tlogEntries": [{"logIndex": "1"}],
            "timestampVerificationData": {"rfc3161Timestamps": []},
        },
        "dsseEnvelope": {
            "payload": "AAAA",
            "payloadType": "application/vnd.in-toto+json",
            "signatures": [{"sig": "AAAA"}],
        },
    }
    (model / "model.sig").write_text(json.dumps(bundle))
    done = here("verify", model)
    assert done.code == 3
    assert "a signature by a Sigstore identity is not supported" in done.error


def test_a_claim_of_a_publisher_who_signs_is_held_against_them(
    world: World, tmp_path: Path
) -> None:
    good("trust", "add", "acme", world.public(), "--require-signature")
    done = world.apply(world.plain, tmp_path / "out")
    assert done.code == 6
    assert done.error == (
        f"{world.plain}: says to be by acme, whose releases must be signed, but no key of "
        "theirs has signed it: get it anew from acme"
    )
    assert here("verify", world.plain).code == 6
    forged = world.release(tmp_path / "forged", "b", publisher="ACME")
    assert here("verify", forged).code == 6
    assert world.apply(forged, tmp_path / "out").code == 6
    good("trust", "add", "beta", world.public("b"))
    done = world.apply(forged, tmp_path / "out")
    assert done.code == 6
    assert "says to be by acme, but is signed by a key of beta" in done.error
    assert here("verify", forged).code == 6


# Using a release.


def test_a_release_is_used_with_its_key(world: World, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = world.apply(world.signed, out, "--public-key", world.public(), "--json")
    assert done.stderr == ""
    assert signature_of(done) == ("signed", world.fingerprint(), None)
    done = world.apply(world.signed, out, "--public-key", world.public())
    assert f"signature  signed by key {world.fingerprint()}\n" in done.stdout
    plan = world.apply(
        world.signed, out, "--public-key", world.public(), "--dry-run", "--json"
    )
    assert signature_of(plan) == ("signed", world.fingerprint(), None)
    checked = good(
        *("preflight", "--base", world.base, "--delta", world.signed),
        *("--public-key", world.public(), "--json"),
    )
    assert signature_of(checked) == ("signed", world.fingerprint(), None)


@pytest.mark.parametrize("command", ["apply-delta", "apply-delta --dry-run", "preflight"])
@pytest.mark.parametrize("fault", ["another key", "unsigned", "stray file"])
def test_a_release_that_is_not_as_it_should_be_is_refused(
    world: World, signed: Path, tmp_path: Path, command: str, fault: str
) -> None:
    key, delta = world.public(), signed
    if fault == "another key":
        key = world.public("b")
    elif fault == "unsigned":
        delta = world.plain
    else:
        add_file(signed)
    name, *options = command.split()
    done = here(
        *(name, "--base", world.base, "--delta", delta, "--out", tmp_path / "out"),
        *("--public-key", key),
        *options,
    )
    assert done.code == (5 if fault == "stray file" else 6)
    assert not list(tmp_path.glob("out*"))


def test_what_is_unsigned_or_unchecked_is_used_with_a_warning(
    world: World, tmp_path: Path
) -> None:
    done = world.apply(world.plain, tmp_path / "out", "-q")
    assert (done.code, done.stdout) == (0, "")
    assert done.stderr.startswith(
        f"warning: {world.plain}: is not signed, so nothing shows"
    )
    done = world.apply(world.signed, tmp_path / "out", "--json")
    assert (done.code, signature_of(done)) == (0, ("unchecked", None, None))
    assert done.json["signature"]["warnings"] == [
        done.stderr.removeprefix("warning: ").rstrip("\n")
    ]
    assert not default_path().exists()  # nothing was learnt


def test_a_key_is_pinned_once_it_proved_right(world: World, tmp_path: Path) -> None:
    out, pin = tmp_path / "out", ("--pin", "acme")
    wrong = world.apply(world.signed, out, "--public-key", world.public("b"), *pin)
    assert wrong.code == 6
    assert not load(default_path()).publishers
    good(
        *("apply-delta", "--base", world.base, "--delta", world.signed, "--out", out),
        *("--public-key", world.public(), *pin, "--dry-run"),
    )
    assert not load(default_path()).publishers  # nothing is written
    done = world.apply(world.signed, out, "--public-key", world.public(), *pin, "--json")
    assert signature_of(done) == ("signed", world.fingerprint(), "acme")
    done = world.apply(world.signed, out, "--require-signature", "--json")
    assert signature_of(done) == ("signed", world.fingerprint(), "acme")
    # A second time is no error.
    done = world.apply(world.signed, out, "--public-key", world.public(), *pin)
    assert done.code == 0


@pytest.mark.parametrize("pin", ["beta", "no name", ""])
def test_a_pin_that_cannot_be_is_refused_before_the_work(
    world: World, tmp_path: Path, pin: str
) -> None:
    good("trust", "add", "acme", world.public())
    before = default_path().read_bytes()
    key = ("--public-key", world.public())
    done = world.apply(world.signed, tmp_path / "out", *key, "--pin", pin)
    assert done.code == 2
    assert default_path().read_bytes() == before


def test_a_pin_needs_a_key(world: World, tmp_path: Path) -> None:
    done = world.apply(world.signed, tmp_path / "out", "--pin", "acme")
    assert (done.code, done.error) == (
        2,
        "--pin: pins the key that --public-key names; give that too",
    )
    both = ("--public-key", world.public(), "--certificates", world.public())
    assert world.apply(world.signed, tmp_path / "out", *both).code == 2


def test_an_older_version_is_noticed(world: World, tmp_path: Path) -> None:
    old = world.release(tmp_path / "old", version="1.9")
    new = world.release(tmp_path / "new", version="1.10")
    key, out = ("--public-key", world.public()), tmp_path / "out"
    assert world.apply(old, out, *key).code == 0
    assert world.apply(new, out, *key).code == 0
    for more in (key, (*key, "--dry-run")):
        done = world.apply(old, out, *more)
        assert done.code == 6
        assert done.error == (
            f"{old}: expected version 1.10 of tune or a later one, which was rebuilt here "
            "before, found 1.9: get the latest one; to use this one all the same, give "
            "--allow-downgrade"
        )
    checking = ("preflight", "--base", world.base, "--delta", old, *key)
    assert here(*checking).code == 6
    good(*checking, "--allow-downgrade")
    assert world.apply(old, out, *key, "--allow-downgrade").code == 0
    assert world.apply(old, out, *key).code == 6  # the later one is not forgotten
    assert world.apply(new, out, *key).code == 0
    good("verify", old, *key)  # its files are what they were
    # Another key is another publisher, and knows of no later version.
    other = world.release(tmp_path / "other", "b", version="1")
    assert world.apply(other, out, "--public-key", world.public("b")).code == 0
    seen = good("trust", "list", "--json").json["seen"]
    assert {(s["release"], s["version"], s["key"]) for s in seen} == {
        ("tune", "1.10", world.fingerprint()),
        ("tune", "1", world.fingerprint("b")),
    }


def test_a_version_with_other_content_is_noticed(world: World, tmp_path: Path) -> None:
    key = ("--public-key", world.public())
    assert world.apply(world.signed, tmp_path / "out", *key).code == 0
    tune = shutil.copytree(world.tune, tmp_path / "tune")
    append(tune / "config.json")
    make_delta(
        world.base, tune, tmp_path / "again", sign_key=world.private(), version="1.0"
    )
    done = world.apply(tmp_path / "again", tmp_path / "out", *key)
    assert done.code == 0
    assert done.stderr == (
        f"warning: {tmp_path / 'again'}: is version 1.0 of tune, but not the same as the "
        "one of that version that was rebuilt here before; ask its publisher\n"
    )


def test_a_release_that_is_no_longer_signed_is_noticed(
    world: World, tmp_path: Path
) -> None:
    key = ("--public-key", world.public())
    assert world.apply(world.signed, tmp_path / "out", *key).code == 0
    done = world.apply(world.plain, tmp_path / "out")
    assert done.code == 0
    assert "tune was signed when it was rebuilt here before" in done.stderr


def test_another_tools_delta_is_not_signed(world: World, tmp_path: Path) -> None:
    base = foreign.model(1)
    delta = foreign.subtract(foreign.tuned(base), base)
    foreign.save(base, tmp_path / "base")
    foreign.save(delta, tmp_path / "delta", "bin")
    given = ("--base", tmp_path / "base", "--delta", tmp_path / "delta")
    arguments = ("apply-delta", *given, "--out", tmp_path / "out")
    for more in (("--public-key", world.public()), ("--require-signature",)):
        done = here(*arguments, *more)
        assert done.code == 6
        assert "is another tool's delta, which is not signed as a release is" in done.error
    good(*arguments)


def test_the_library_checks(world: World, tmp_path: Path) -> None:
    right, wrong = Policy(public_key=world.public()), Policy(public_key=world.public("b"))
    out = tmp_path / "out"
    told: list[str] = []
    asking = Policy(public_key=world.public(), warn=told.append)
    for call in (
        lambda policy: apply_delta(world.base, world.signed, out, policy=policy),
        lambda policy: plan_apply(world.base, world.signed, tmp_path / "o", policy=policy),
        lambda policy: open_delta(world.signed, world.base, policy=policy),
        lambda policy: verify(world.signed, policy=policy),
    ):
        with pytest.raises(SignatureError):
            call(wrong)
        done = call(right)
        assert done.authenticity.status is Status.SIGNED
        assert done.authenticity.key == PublicKey.load(world.public())
        if hasattr(done, "close"):
            done.close()
    state: dict[str, Any] = {}
    with pytest.raises(SignatureError):
        load_into(state, world.base, world.signed, policy=wrong)
    checked = preflight(world.base, world.signed, policy=wrong)
    assert [finding.fatal for finding in checked.findings] == [True]
    assert preflight(world.base, world.signed, policy=asking).ok
    assert told == []
    with open_delta(world.plain, world.base, policy=Policy(warn=told.append)) as opened:
        assert opened.authenticity.status is Status.UNSIGNED
        assert list(opened.authenticity.warnings) == told
    assert told[0].startswith(f"{world.plain}: is not signed")
    with pytest.raises(SignatureError):
        open_delta(world.plain, world.base, policy=Policy(require_signature=True))


# The trust file.


def publishers(done: Done) -> list[dict[str, Any]]:
    found = done.json["publishers"]
    assert isinstance(found, list)
    return found


def test_publishers_are_added_listed_and_removed(world: World) -> None:
    empty = good("trust", "list")
    assert empty.stdout == "no key is trusted\n"
    assert not default_path().exists()
    acme = {
        "name": "acme",
        "require_signature": False,
        "keys": [world.fingerprint()],
        "superseded": [],
    }
    assert good("trust", "add", "acme", world.public(), "--json").json == {
        "publishers": [acme]
    }
    assert default_path().stat().st_mode & 0o777 == 0o600
    # A second key, by the name in another case, and a wish that is kept.
    more = ("--require-signature", "--json")
    done = good("trust", "add", "Acme", world.public("b"), *more)
    acme |= {
        "require_signature": True,
        "keys": [world.fingerprint(), world.fingerprint("b")],
    }
    assert publishers(done) == [acme]
    assert publishers(good("trust", "add", "acme", world.public("b"), "--json")) == [acme]
    good("trust", "add", "beta", world.public("c"))
    done = good("trust", "list", "--json")
    assert done.json["path"] == str(default_path())
    assert [publisher["name"] for publisher in publishers(done)] == ["acme", "beta"]
    rows = [line.split() for line in good("trust", "list").stdout.splitlines()]
    assert rows[0] == ["publisher", "key", "curve", "status", "releases"]
    assert rows[1][:4] == ["acme", world.fingerprint(), "P-256", "trusted"]
    assert rows[1][4:] == ["must", "be", "signed"]
    assert rows[3] == ["beta", world.fingerprint("c"), "P-256", "trusted"]
    done = good("trust", "remove", "ACME", "--json")
    assert done.json == {"removed": acme}
    left = good("trust", "remove", "beta")
    assert left.stdout == f"removed beta: {world.fingerprint('c')}\n"
    assert publishers(good("trust", "list", "--json")) == []
    missing = here("trust", "remove", "acme", "--json")
    assert missing.code == 2
    assert missing.error == (f'{default_path()}: has no publisher "acme"; it has: none')


def test_any_of_a_publishers_keys_will_do(world: World, tmp_path: Path) -> None:
    good("trust", "add", "acme", world.public())
    good("trust", "add", "acme", world.public("b"))
    for key in "ab":
        made = world.release(tmp_path / key, key)
        done = world.apply(made, tmp_path / "out", "--require-signature", "--json")
        assert signature_of(done) == ("signed", world.fingerprint(key), "acme")
    other = world.release(tmp_path / "c", "c")
    assert world.apply(other, tmp_path / "out", "--require-signature").code == 6


def test_a_key_is_one_publishers(world: World) -> None:
    good("trust", "add", "acme", world.public())
    before = default_path().read_bytes()
    done = here("trust", "add", "beta", world.public())
    assert done.code == 2
    assert done.error.startswith(f"{world.fingerprint()}: is trusted as a key of acme; ")
    assert default_path().read_bytes() == before


@pytest.mark.parametrize("name", ["", "a b", "-x", "a/b", "x" * 97, "grün", "a\nb"])
def test_a_publisher_is_called_as_on_the_hub(world: World, name: str) -> None:
    done = here("trust", "add", "--", name, world.public())
    assert done.code == 2
    assert done.error.startswith("publisher ")
    assert not default_path().exists()


def test_a_folder_for_settings_that_is_relative_is_ignored(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", "settings")
    good("trust", "add", "acme", world.public())
    trusted = tmp_path / "home" / ".config" / "releasekit" / "trust.json"
    assert good("trust", "list", "--json").json["path"] == str(trusted)
    assert trusted.is_file()
    assert not (tmp_path / "settings").exists()


def no_folder(config: Path) -> None:
    """What should be a folder is none, as `HOME=/dev/null` makes it."""
    config.rmdir()
    config.write_text("")


def no_lock(config: Path) -> None:
    """Nothing can be written, whoever asks."""
    (config / "releasekit" / "trust.json.lock").mkdir(parents=True)


def no_right(config: Path) -> None:
    config.chmod(0o500)


@pytest.mark.parametrize("spoil", [no_folder, no_lock, no_right])
def test_a_rebuild_does_not_fail_for_want_of_a_trust_file(
    world: World, tmp_path: Path, config: Path, spoil: Any
) -> None:
    if spoil is no_right and os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    spoil(config)
    done = world.apply(world.plain, tmp_path / "out")
    assert done.code == 0, done.stderr
    done = world.apply(world.signed, tmp_path / "out", "--public-key", world.public())
    assert done.code == 0, done.stderr
    assert done.stderr.startswith("warning: ")
    assert "an older version of it would not be noticed" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    good("verify", world.signed, "--public-key", world.public())
    # Where the file is all that is asked for, it is an error.
    assert here("trust", "add", "acme", world.public()).code == 1


def test_without_a_home_nobody_is_trusted(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in containers that run under a number which no list of users has."""
    import pwd

    def unknown(number: int) -> Any:
        raise KeyError(number)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.delenv("HOME")
    monkeypatch.delenv("XDG_CONFIG_HOME")
    good("verify", world.signed, "--public-key", world.public())
    good("verify", world.plain)


def test_a_trust_file_that_others_may_write_proves_nothing(world: World) -> None:
    good("trust", "add", "acme", world.public())
    default_path().chmod(0o666)
    done = here("verify", world.signed)
    assert done.code == 2
    assert done.error.startswith(f"{default_path()}: ")
    assert "may write to it, so that it proves nothing" in done.error
    assert f"chmod 600 {default_path()}" in done.error


def test_a_damaged_trust_file_is_not_passed_over(world: World, tmp_path: Path) -> None:
    good("trust", "add", "acme", world.public())
    append(default_path(), b"x")
    for command in (
        ("verify", world.signed),
        ("trust", "list"),
        ("trust", "add", "beta", world.public("b")),
    ):
        done = here(*command)
        assert (done.code, str(default_path()) in done.error) == (3, True)
    assert world.apply(world.signed, tmp_path / "out").code == 3


ADDING = """
import sys
from releasekit.signing.keys import PrivateKey
from releasekit.trust import default_path, updating
for number in range(20):
    with updating(default_path()) as trust:
        trust.add(f"{sys.argv[1]}-{number}", PrivateKey.generate().public)
"""


def test_two_processes_that_change_the_trust_file_lose_nothing() -> None:
    processes = [
        subprocess.Popen([sys.executable, "-c", ADDING, name]) for name in ("acme", "beta")
    ]
    assert [process.wait(timeout=60) for process in processes] == [0, 0]
    names = {publisher.name for publisher in load(default_path()).publishers}
    assert names == {f"{name}-{n}" for name in ("acme", "beta") for n in range(20)}


# New keys in place of old.


@pytest.fixture
def links(world: World, tmp_path: Path) -> Path:
    """From key a to b, and from b to c."""
    file = tmp_path / "links" / "acme-keys.jsonl"
    for old, new in ("ab", "bc"):
        keys = ("--old", world.key(old), "--new", world.public(new))
        good("rotate-key", *keys, "--out", file)
    return file


def test_keys_are_rotated(world: World, tmp_path: Path) -> None:
    file = tmp_path / "links"
    first = ("--old", world.key(), "--new", world.public("b"), "--out", file)
    done = good("rotate-key", *first, "--json")
    assert done.json == {
        "out": str(file),
        "old": world.fingerprint(),
        "new": world.fingerprint("b"),
        "links": 1,
    }
    one = file.read_bytes()
    second = ("--old", world.key("b"), "--new", world.public("c"), "--out", file)
    assert good("rotate-key", *second, "--json").json["links"] == 2
    assert file.read_bytes().startswith(one)
    again = here("rotate-key", *second)
    assert again.code == 2
    assert again.error == (
        f"{file}: leads to key {world.fingerprint('c')}, not to the old one, "
        f"{world.fingerprint('b')}; name another file"
    )
    same = ("--old", world.key("c"), "--new", world.public("c"), "--out", file)
    assert here("rotate-key", *same).code == 2
    assert sorted(tmp_path.iterdir()) == [file]


def test_links_that_were_cut_short_are_not_added_to(
    world: World, release: Path, links: Path
) -> None:
    """As by an editor that ends no line."""
    cut = links.read_bytes().rstrip(b"\n")
    links.write_bytes(cut)
    keys = ("--old", world.key("c"), "--new", world.public("d"))
    assert here("rotate-key", *keys, "--out", links).code == 3
    assert links.read_bytes() == cut
    signing = ("sign", release, "--key", world.key("c"), "--succession", links)
    assert here(*signing).code == 3
    assert not (release / "model.sig").exists()


@pytest.mark.parametrize("start", ["a", "b"])
def test_trust_moves_on_to_the_new_key(
    world: World, links: Path, tmp_path: Path, start: str
) -> None:
    """Over two links, or the second of them."""
    out = tmp_path / "out"
    good("trust", "add", "acme", world.public(start), "--require-signature")
    old = world.release(tmp_path / "old", start, version="2")
    assert world.apply(old, out).code == 0
    new = world.release(tmp_path / "new", "c", version="3", succession=links)
    plan = world.apply(new, out, "--dry-run", "--json")
    assert signature_of(plan) == ("signed", world.fingerprint("c"), "acme")
    done = world.apply(new, out, "--json")
    assert signature_of(done) == ("signed", world.fingerprint("c"), "acme")
    assert f"was followed by {world.fingerprint('c')}, which it vouches for" in done.stderr
    (acme,) = publishers(good("trust", "list", "--json"))
    assert acme["keys"] == [world.fingerprint("c")]
    assert world.fingerprint(start) in acme["superseded"]
    assert acme["require_signature"] is True
    status = [line.split()[3] for line in good("trust", "list").stdout.splitlines()[1:2]]
    assert status == ["trusted"]
    # From now on the new one is trusted without the links, and the old ones no more.
    unlinked = world.release(tmp_path / "unlinked", "c", version="4")
    done = world.apply(unlinked, out, "--json")
    assert (signature_of(done)[0], done.stderr) == ("signed", "")
    done = world.apply(old, out, "--allow-downgrade")
    assert done.code == 6
    assert "is signed by a key of acme that a later one has replaced" in done.error
    later = world.release(tmp_path / "later", start, version="5")
    assert world.apply(later, out).code == 6
    assert here("verify", later).code == 6
    # What was seen under the old key is known under the new.
    back = world.release(tmp_path / "back", "c", version="1", succession=links)
    done = world.apply(back, out)
    assert done.code == 6
    assert "expected version 4 of tune or a later one" in done.error


def test_a_version_is_remembered_over_a_change_of_keys(
    world: World, links: Path, tmp_path: Path
) -> None:
    good("trust", "add", "acme", world.public())
    old = world.release(tmp_path / "old", version="2")
    assert world.apply(old, tmp_path / "out").code == 0
    new = world.release(tmp_path / "new", "c", version="1.9", succession=links)
    assert world.apply(new, tmp_path / "out").code == 6


def test_an_older_version_by_the_old_key_is_noticed(
    world: World, links: Path, tmp_path: Path
) -> None:
    """Whoever names the first key each time is led to the new one, and not back."""
    key = ("--public-key", world.public())
    old = world.release(tmp_path / "old", version="1")
    new = world.release(tmp_path / "new", "c", version="2", succession=links)
    for release in (old, new):
        assert world.apply(release, tmp_path / "out", *key).code == 0
    assert world.apply(old, tmp_path / "out", *key).code == 6


@pytest.mark.parametrize("given", ["a", "b", "c"])
def test_links_lead_from_a_key_that_is_given(
    world: World, links: Path, tmp_path: Path, given: str
) -> None:
    new = world.release(tmp_path / "new", "c", succession=links)
    key, pin = ("--public-key", world.public(given)), ("--pin", "acme")
    assert signature_of(good("verify", new, *key, "--json"))[1] == world.fingerprint("c")
    done = world.apply(new, tmp_path / "out", *key, *pin, "--json")
    assert signature_of(done) == ("signed", world.fingerprint("c"), "acme")
    (acme,) = publishers(good("trust", "list", "--json"))
    assert acme["keys"] == [world.fingerprint("c")]
    assert not (new / "model.sig.new").exists()


def test_links_lead_to_no_earlier_key(world: World, links: Path, tmp_path: Path) -> None:
    old = world.release(tmp_path / "old", "a")
    shutil.copyfile(links, old / "key-succession.jsonl")
    assert here("verify", old, "--public-key", world.public("c")).code == 6


def test_links_of_somebody_else_lead_nowhere(
    world: World, links: Path, tmp_path: Path
) -> None:
    """Key d vouches for c, as anybody could."""
    stolen = tmp_path / "stolen"
    stolen.write_bytes(vouch(world.private("d"), PublicKey.load(world.public("c"))))
    new = world.release(tmp_path / "new", "c", succession=stolen)
    good("trust", "add", "acme", world.public(), "--require-signature")
    assert world.apply(new, tmp_path / "out").code == 6
    assert here("verify", new, "--public-key", world.public()).code == 6
    # Nor does a link that was changed to name another key.
    first, second = links.read_bytes().splitlines(keepends=True)
    bundle = json.loads(first)
    envelope = bundle["dsseEnvelope"]
    other = vouch(world.private("d"), PublicKey.load(world.public("c")))
    envelope["payload"] = json.loads(other)["dsseEnvelope"]["payload"]
    forged = world.release(tmp_path / "forged", "c", succession=links)
    changed = json.dumps(bundle).encode() + b"\n" + second
    (forged / "key-succession.jsonl").write_bytes(changed)
    assert world.apply(forged, tmp_path / "out").code in (3, 6)
    assert here("verify", forged, "--public-key", world.public()).code in (3, 6)


def test_links_must_lead_to_the_key_that_signs(
    world: World, links: Path, release: Path, tmp_path: Path
) -> None:
    done = here("sign", release, "--key", world.key("b"), "--succession", links)
    assert done.code == 2
    assert done.error == (
        f"{links}: leads to key {world.fingerprint('c')}, not to the one that signs, "
        f"{world.fingerprint('b')}"
    )
    making = ("make-delta", "--base", world.base, "--target", world.tune)
    out = ("--out", tmp_path / "out", "--succession", links)
    assert here(*making, *out, "--sign-key", world.key()).code == 2
    assert here(*making, *out).code == 2
    gone = ("--key", world.key("c"), "--succession", tmp_path / "gone")
    assert here("sign", release, *gone).code == 2
    assert not (tmp_path / "out").exists()
    assert digests(release) == digests(world.plain)


def test_a_new_key_that_is_trusted_under_another_name_does_no_harm(
    world: World, tmp_path: Path, hub: FakeHub
) -> None:
    """A user added it by hand, before a release of the first publisher's led to it."""
    file = tmp_path / "links"
    keys = ("--old", world.key(), "--new", world.public("b"))
    good("rotate-key", *keys, "--out", file)
    good("trust", "add", "acme", world.public())
    good("trust", "add", "beta", world.public("b"))
    new = world.release(tmp_path / "new", "b", succession=file, publisher=None)
    hub.put("acme/tune", files_of(new))
    world.apply("acme/tune", tmp_path / "out")
    good("trust", "list")
    good("verify", new)


# Certificates.


@dataclass(frozen=True)
class Holder:
    """Somebody with a certificate, and the key in it."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(PEM)


NOW = datetime.now(UTC).replace(microsecond=0)
USAGES = (
    *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment"),
    *("key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
)


def certify(
    name: str,
    issuer: Holder | None = None,
    *,
    ca: bool = False,
    usage: str = "digitalSignature",
    curve: str = "P-256",
    start: int = -10,
    end: int = 100,
) -> Holder:
    """A certificate, by default a root's; times are days from now."""
    key = ec.generate_private_key(CURVES[curve])
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signer = issuer.key if issuer else key
    root = ca or issuer is None
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + timedelta(days=start))
        .not_valid_after(NOW + timedelta(days=end))
        .add_extension(x509.BasicConstraints(ca=root, path_length=None), critical=True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), False
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
    )
    if root or usage in ("digitalSignature", "keyAgreement"):
        wanted = dict.fromkeys(USAGES, False)
        if root:
            wanted["key_cert_sign"] = True
        else:
            wanted["digital_signature"] = usage == "digitalSignature"
            wanted["key_agreement"] = usage == "keyAgreement"
        builder = builder.add_extension(x509.KeyUsage(**wanted), critical=True)
    elif usage == "codeSigning":
        purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING])
        builder = builder.add_extension(purpose, critical=False)
    algorithm = HASHES[signer.curve.key_size]
    return Holder(builder.sign(signer, algorithm), key)


def sign_with(folder: Path, *chain: Holder) -> None:
    """Signs a folder as the stock tool does with certificates, the signer's first."""
    statement = Statement(
        name=folder.name,
        files={n: d for n, d in digests(folder).items() if n != "model.sig"},
    )
    payload, kind = statement.pack(), "application/vnd.in-toto+json"
    message = f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload
    key = chain[0].key
    signature = key.sign(message, ec.ECDSA(HASHES[key.curve.key_size]))
    certificates = [
        {"rawBytes": base64.b64encode(h.certificate.public_bytes(DER)).decode()}
        for h in chain
    ]
    bundle = {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {
            "x509CertificateChain": {"certificates": certificates},
            "tlogEntries": [],
        },
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": kind,
            "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
        },
    }
    (folder / "model.sig").write_text(json.dumps(bundle))


@pytest.fixture(scope="module")
def root() -> Holder:
    return certify("acme root", curve="P-384", start=-1000, end=1000)


@pytest.fixture(scope="module")
def middle(root: Holder) -> Holder:
    return certify("acme releases", root, ca=True, start=-500, end=500)


def roots_in(folder: Path, *holders: Holder) -> tuple[str, Path]:
    """The option that trusts these."""
    (folder / "roots.pem").write_bytes(b"".join(holder.pem for holder in holders))
    return "--certificates", folder / "roots.pem"


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("usage", ["digitalSignature", "codeSigning"])
def test_certificates_lead_to_a_root(
    root: Holder, middle: Holder, model: Path, tmp_path: Path, curve: str, usage: str
) -> None:
    signer = certify("somebody", middle, curve=curve, usage=usage)
    sign_with(model, signer, middle)
    other = certify("another root")
    done = good("verify", model, *roots_in(tmp_path, other, root), "--json")
    public = signer.key.public_key().public_bytes(DER, INFO)
    wanted = ("signed", hashlib.sha256(public).hexdigest(), None)
    assert signature_of(done) == wanted
    # The root may come along, and is not trusted for that.
    sign_with(model, signer, middle, root)
    good("verify", model, *roots_in(tmp_path, root))
    assert here("verify", model, *roots_in(tmp_path, other)).code == 6
    append(model / "config.json")
    assert here("verify", model, *roots_in(tmp_path, root)).code == 5


def test_a_certificate_that_has_expired_since_is_good(
    root: Holder, middle: Holder, model: Path, tmp_path: Path
) -> None:
    """A model outlives certificates; the chain is judged as of the signer's first day."""
    sign_with(model, certify("somebody", middle, start=-30, end=-1), middle)
    good("verify", model, *roots_in(tmp_path, root))


@pytest.mark.parametrize(
    "fault",
    [
        *("expired root", "expired middle", "wrong root", "no middle", "middle is no ca"),
        *("keyAgreement", "no usage", "not the key"),
    ],
)
def test_certificates_that_do_not_lead_to_a_root_are_refused(
    root: Holder, middle: Holder, model: Path, tmp_path: Path, fault: str
) -> None:
    trusted = root
    signer = certify("somebody", middle)
    match fault:
        case "expired root":
            trusted = certify("acme root", start=-1000, end=-500)
            middle = certify("acme releases", trusted, ca=True, start=-600, end=100)
            signer = certify("somebody", middle)
        case "expired middle":
            middle = certify("acme releases", root, ca=True, start=-500, end=-100)
            signer = certify("somebody", middle)
        case "wrong root":
            trusted = certify("acme root", curve="P-384", start=-1000, end=1000)
        case "middle is no ca":
            middle = certify("somebody", middle)
            signer = certify("somebody else", middle)
        case "keyAgreement" | "no usage":
            signer = certify("somebody", middle, usage=fault)
        case "not the key":
            signer = Holder(signer.certificate, certify("mallory").key)
    sign_with(model, signer, *([] if fault == "no middle" else [middle]))
    done = here("verify", model, *roots_in(tmp_path, trusted))
    assert done.code == 6
    wanted = "its certificates do not lead to one that is trusted"
    if fault in ("keyAgreement", "no usage"):
        wanted = "expected the key usage digitalSignature"
    elif fault == "not the key":
        wanted = "is signed by another key than that of its certificates"
    assert wanted in done.error


def test_keys_and_certificates_are_not_taken_for_each_other(
    world: World, root: Holder, middle: Holder, model: Path, signed: Path, tmp_path: Path
) -> None:
    roots = roots_in(tmp_path, root)
    done = here("verify", signed, *roots)
    assert done.code == 6
    assert "carries no certificates; give the key with --public-key" in done.error
    signer = certify("somebody", middle)
    sign_with(model, signer, middle)
    assert here("verify", model).code == 6
    assert here("verify", model, "--public-key", world.public()).code == 6
    # The signer's key, known from elsewhere, is as good as a certificate.
    public = tmp_path / "signer.pub.pem"
    public.write_bytes(signer.key.public_key().public_bytes(PEM, INFO))
    good("verify", model, "--public-key", public)
    assert here("verify", model, "--certificates", tmp_path / "gone").code == 2
    assert here("verify", model, "--certificates", world.public()).code == 3


def test_a_release_is_used_with_certificates(
    world: World, root: Holder, middle: Holder, release: Path, tmp_path: Path
) -> None:
    sign_with(release, certify("somebody", middle), middle)
    done = world.apply(release, tmp_path / "out", *roots_in(tmp_path, root), "--json")
    assert (done.code, done.json["signature"]["status"]) == (0, "signed")
    assert done.stderr == ""
    other = roots_in(tmp_path, certify("mallory"))
    assert world.apply(release, tmp_path / "out", *other).code == 6


# From the Hub.


def files_of(folder: Path) -> dict[str, bytes | Path]:
    return {name: folder / name for name in digests(folder)}


def test_a_signed_release_on_the_hub(world: World, hub: FakeHub, tmp_path: Path) -> None:
    hub.put("acme/tune", files_of(world.signed) | {".gitattributes": b"*.bin"})
    key = ("--public-key", world.public())
    done = world.apply("acme/tune", tmp_path / "out", *key, "--pin", "acme", "--json")
    assert signature_of(done) == ("signed", world.fingerprint(), "acme")
    done = world.apply("acme/tune@main", tmp_path / "out", "--require-signature", "--json")
    assert signature_of(done) == ("signed", world.fingerprint(), "acme")
    out = tmp_path / "again"
    apply_delta(world.base, "acme/tune", out, policy=Policy(require_signature=True))
    assert digests(out) == digests(world.tune)
    with open_delta("acme/tune", world.base) as opened:
        assert opened.authenticity.publisher == "acme"


@pytest.mark.parametrize("required", [False, True])
def test_an_organisations_releases_are_held_against_its_own_keys(
    world: World, hub: FakeHub, tmp_path: Path, required: bool
) -> None:
    out = tmp_path / "out"
    option = ["--require-signature"] if required else []
    good("trust", "add", "Acme", world.public(), *option)
    good("trust", "add", "beta", world.public("b"))
    by_beta = world.release(tmp_path / "by-beta", "b", publisher=None)
    unsigned = world.release(tmp_path / "unsigned", None, publisher=None)
    hub.put("acme/tune", files_of(by_beta))
    hub.put("acme/unsigned", files_of(unsigned))
    hub.put("other/unsigned", files_of(unsigned))
    assert world.apply(by_beta, out).code == 0  # as beta's
    for name, code in (("acme/tune", 6), ("acme/unsigned", 6 if required else 0)):
        done = world.apply(name, out, "--json")
        assert done.code == code
        assert code == 6 or done.json["signature"]["status"] == "unsigned"
        assert code == 6 or done.stderr.startswith("warning: ")
        checked = here("preflight", "--base", world.base, "--delta", name)
        assert checked.code == code
    assert world.apply("other/unsigned", out).code == 0


# Other commands that sign.


def test_what_was_imported_is_signed(world: World, tmp_path: Path) -> None:
    base = foreign.model(1)
    foreign.save(base, tmp_path / "base", "bin")
    foreign.save(foreign.subtract(foreign.tuned(base), base), tmp_path / "delta", "bin")
    secret, key = tmp_path / "secret", tmp_path / "locked.pem"
    secret.write_text(SECRET)
    write_pair(PrivateKey.generate(), key, SECRET.encode())
    done = good(
        *("import-delta", "--base", tmp_path / "base", "--delta", tmp_path / "delta"),
        *("--out", tmp_path / "out", "--sign-key", key, "--passphrase-file", secret),
        *("--publisher", "acme", "--version", "2", "--json"),
    )
    public = PublicKey.load(tmp_path / "locked.pub.pem")
    found = done.json.get("release", done.json)
    assert (found["key"], found["publisher"], found["version"]) == (
        public.fingerprint,
        "acme",
        "2",
    )
    trusted = ("--public-key", tmp_path / "locked.pub.pem")
    good("verify", tmp_path / "out", *trusted)
    rebuilding = ("--base", tmp_path / "base", "--delta", tmp_path / "out", *trusted)
    good("apply-delta", *rebuilding, "--out", tmp_path / "model")
    signature = ("--signature", tmp_path / "out" / "rebuilt.model.sig")
    good("verify", tmp_path / "model", *signature, *trusted)


def test_plain_differences_are_signed(world: World, tmp_path: Path) -> None:
    made = good(
        *("make-delta", "--base", world.base, "--target", world.tune, "--codec", "add"),
        *("--out", tmp_path / "d", "--sign-key", world.key(), "--json"),
    )
    assert (made.json["codec"], made.json["key"]) == ("add-v1", world.fingerprint())
    key = ("--public-key", world.public())
    listed = good("verify", tmp_path / "d", *key, "--json").json["files"]
    plain = [f["path"] for f in listed if f["path"].startswith("model-0000")]
    assert len(plain) == 2
    assert world.apply(tmp_path / "d", tmp_path / "out", *key).code == 0
    append(tmp_path / "d" / plain[0])
    assert world.apply(tmp_path / "d", tmp_path / "out", *key).code == 5


def test_what_a_release_says_of_itself(world: World, tmp_path: Path) -> None:
    found = good("inspect", world.signed, "--json").json
    assert (found["version"], found["publisher"]) == ("1", "acme")
    making = ("make-delta", "--base", world.base, "--target", world.tune)
    out = ("--out", tmp_path / "out")
    for option, value in (
        ("--version", "1.0-rc1"),
        ("--version", "01"),
        ("--version", ""),
        ("--publisher", "a b"),
        ("--publisher", ""),
        ("--name", "two\nlines"),
    ):
        done = here(*making, *out, option, value)
        assert done.code == 2, (option, value)
        assert not (tmp_path / "out").exists()
    alone = ("--passphrase-file", tmp_path / "secret")
    assert here(*making, *out, *alone).code == 2


def test_the_command_itself_verifies(world: World) -> None:
    """Once in a process of its own, as people run it."""
    done = releasekit("verify", world.signed, "--public-key", world.public(), "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["signature"]["status"] == "signed"
    done = releasekit("verify", world.signed, "--public-key", world.public("b"))
    assert done.returncode == 6
    assert done.stdout == ""

"""What was made before, here and by others, is good forever: files that never change.

`tests/compat` says how each was made.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from releasekit import (
    Policy,
    PublicKey,
    SignatureError,
    apply_delta,
    identify,
    inspect,
    open_delta,
    verify,
)
from releasekit.sums import parse_sums
from tests.builders import stock_tensors
from tests.integration.tools import digests

COMPAT = Path(__file__).parents[1] / "compat"
STOCK = COMPAT / "model_signing"
V1 = COMPAT / "v1"
CURVES = pytest.mark.parametrize("curve", ["P-256", "P-384", "P-521"])
CODECS = pytest.mark.parametrize("codec", ["ulp", "add"])


# Models that the stock tool signed.


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The model once more, to be altered."""
    return Path(shutil.copytree(STOCK / "model", tmp_path / "model"))


def key(curve: str) -> Policy:
    return Policy(public_key=STOCK / f"{curve}.pub.pem")


def root(path: Path = STOCK / "root.pem") -> Policy:
    return Policy(certificates=path)


HOW = [
    *((STOCK / f"{curve}.sig", key(curve)) for curve in ("P-256", "P-384", "P-521")),
    (STOCK / "certificate.sig", root()),
]
SIGNATURES = pytest.mark.parametrize(
    ("signature", "policy"), HOW, ids=[signature.stem for signature, _ in HOW]
)


@SIGNATURES
def test_what_the_stock_tool_signed_is_good(
    model: Path, signature: Path, policy: Policy
) -> None:
    checked = verify(model, signature=signature, policy=policy)
    assert checked.ok
    assert {file.path for file in checked.files} == {
        *("config.json", "empty", "model.safetensors", "nested/some notes.txt"),
    }
    assert checked.authenticity.key is not None
    if policy.public_key is not None:
        assert checked.authenticity.key == PublicKey.load(Path(policy.public_key))
    shutil.copyfile(signature, model / "model.sig")
    assert verify(model, policy=policy).ok


@CURVES
def test_the_stock_tool_calls_keys_as_we_do(curve: str) -> None:
    bundle = json.loads((STOCK / f"{curve}.sig").read_text())
    hint = bundle["verificationMaterial"]["publicKey"]["hint"]
    assert PublicKey.load(STOCK / f"{curve}.pub.pem").hint == hint


def change_weights(model: Path) -> None:
    data = bytearray((model / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (model / "model.safetensors").write_bytes(data)


def add_file(model: Path) -> None:
    (model / "nested" / "more.py").write_text("")


def remove_file(model: Path) -> None:
    (model / "nested" / "some notes.txt").unlink()


def fill_file(model: Path) -> None:
    (model / "empty").write_bytes(b"\0")


@SIGNATURES
@pytest.mark.parametrize("alter", [change_weights, add_file, remove_file, fill_file])
def test_a_model_that_was_altered_is_not(
    model: Path, signature: Path, policy: Policy, alter: Any
) -> None:
    alter(model)
    assert not verify(model, signature=signature, policy=policy).ok


def change_payload(bundle: dict[str, Any]) -> None:
    """As if another digest had been signed."""
    payload = base64.b64decode(bundle["dsseEnvelope"]["payload"])
    empty = hashlib.sha256(b"").hexdigest().encode()
    assert empty in payload
    changed = payload.replace(empty, empty[::-1])
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(changed).decode()


def change_white_space(bundle: dict[str, Any]) -> None:
    """The same document in other bytes."""
    payload = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    changed = base64.b64encode(json.dumps(payload).encode()).decode()
    bundle["dsseEnvelope"]["payload"] = changed


def change_signature(bundle: dict[str, Any]) -> None:
    signature = bytearray(base64.b64decode(bundle["dsseEnvelope"]["signatures"][0]["sig"]))
    signature[-1] ^= 1
    changed = base64.b64encode(signature).decode()
    bundle["dsseEnvelope"]["signatures"][0]["sig"] = changed


@SIGNATURES
@pytest.mark.parametrize("alter", [change_payload, change_white_space, change_signature])
def test_a_signature_that_was_altered_is_none(
    model: Path, tmp_path: Path, signature: Path, policy: Policy, alter: Any
) -> None:
    bundle = json.loads(signature.read_text())
    alter(bundle)
    altered = tmp_path / "altered.sig"
    altered.write_text(json.dumps(bundle))
    with pytest.raises(SignatureError):
        verify(model, signature=altered, policy=policy)


@CURVES
def test_a_signature_by_another_key_is_none(model: Path, curve: str) -> None:
    others = {"P-256": "P-384", "P-384": "P-521", "P-521": "P-256"}
    with pytest.raises(SignatureError):
        verify(model, signature=STOCK / f"{curve}.sig", policy=key(others[curve]))
    with pytest.raises(SignatureError):
        verify(model, signature=STOCK / f"{curve}.sig", policy=root())


def test_the_signer_alone_is_no_root(model: Path, tmp_path: Path) -> None:
    """A certificate that comes along proves nothing, nor does half of the chain."""
    bundle = json.loads((STOCK / "certificate.sig").read_text())
    chain = bundle["verificationMaterial"]["x509CertificateChain"]["certificates"]
    assert len(chain) == 2
    del chain[1]
    (tmp_path / "cut.sig").write_text(json.dumps(bundle))
    with pytest.raises(SignatureError, match="do not lead to one that is trusted"):
        verify(model, signature=tmp_path / "cut.sig", policy=root())
    with pytest.raises(SignatureError):
        verify(model, signature=STOCK / "certificate.sig", policy=key("P-256"))


# Releases of format 1.


def publisher(name: str = "new") -> Policy:
    return Policy(public_key=V1 / f"{name}.pub.pem")


def test_the_frozen_files_are_what_they_were() -> None:
    found = digests(V1)
    sums = (V1 / "SHA256SUMS").read_bytes()
    assert {n: d for n, d in found.items() if n != "SHA256SUMS"} == parse_sums(sums, "v1")
    assert sum((V1 / name).stat().st_size for name in found) < 100_000


@CODECS
@pytest.mark.parametrize("trusted", ["new", "old"])
def test_a_release_of_format_1_is_its_publishers(codec: str, trusted: str) -> None:
    checked = verify(V1 / codec, policy=publisher(trusted))
    assert checked.ok
    assert checked.authenticity.key == PublicKey.load(V1 / "new.pub.pem")
    assert len(checked.authenticity.replaced) == (trusted == "old")
    assert "provenance.json" in {file.path for file in checked.files}


@CODECS
def test_a_release_of_format_1_is_rebuilt(codec: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    made = apply_delta(V1 / "base", V1 / codec, out, policy=publisher())
    assert digests(out) == digests(V1 / "target")
    assert made.identity == identify(V1 / "target").identity
    assert verify(out, against=V1 / codec, policy=publisher()).ok
    assert verify(out, signature=V1 / codec / "rebuilt.model.sig", policy=publisher()).ok


@CODECS
def test_a_release_of_format_1_is_rebuilt_in_memory(codec: str) -> None:
    wanted = {
        name: tensor
        for path in sorted((V1 / "target").glob("*.safetensors"))
        for name, tensor in stock_tensors(path.read_bytes()).items()
    }
    import torch

    with open_delta(V1 / codec, V1 / "base", policy=publisher()) as opened:
        found = opened.state_dict()
    assert found.keys() == wanted.keys()
    for name, tensor in found.items():
        data = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        assert data == wanted[name][2], name


@CODECS
def test_the_frozen_releases_cover_the_format(codec: str) -> None:
    found = inspect(V1 / codec)
    assert found.manifest is not None
    operations = {op for op, count in found.operations.items() if count}
    wanted = {"same", "delta", "resize", "new", "alias", "dropped"}
    # Other tools would not know an alias among plain differences.
    assert operations == (wanted if codec == "ulp" else wanted - {"alias"})
    listed = json.loads((V1 / codec / "release.json").read_text())["tensors"]
    casts = [made["name"] for made in listed if "cast" in made]
    assert sorted(casts) == ["cast.bf16", "cast.f32"]
    dtypes = {spec.dtype.label for spec in found.manifest.target.values()}
    assert dtypes == {"BF16", "BOOL", "F16", "F32", "F64", "F8_E4M3", "I32", "I64"}
    assert len(found.manifest.shards) > 1
    assert found.manifest.codec.id == f"{codec}-v1"
    assert (found.manifest.name, found.manifest.version) == ("Frozen", "1.0")

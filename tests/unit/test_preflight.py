"""What is said of a base before work starts: each fault in a sentence of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from releasekit import layout
from releasekit.codec import Ulp
from releasekit.delta.base import check_base, examine
from releasekit.delta.diagnosis import Finding
from releasekit.digest import blake3
from releasekit.errors import (
    BaseMismatchError,
    FormatError,
    HubError,
    IntegrityError,
    ReleaseKitError,
    UsageError,
)
from releasekit.manifest import FileEntry, Manifest, WeightEntry
from releasekit.operations import BaseTensor, Op, Operation
from releasekit.tensors import DTYPES, TensorSpec
from tests.builders import RawTensor
from tests.integration.tools import Model, as_raw, fine_tuned, llama, numbers, weights

Q0 = "model.layers.0.self_attn.q_proj.weight"
K0 = "model.layers.0.self_attn.k_proj.weight"
K1 = "model.layers.1.self_attn.k_proj.weight"
EMBED, HEAD, NORM = "model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"
NORM0 = "model.layers.0.input_layernorm.weight"
FREQS = [f"model.layers.{n}.self_attn.rotary_emb.inv_freq" for n in (0, 1)]


class Held:
    """A checkpoint in memory, which remembers what was read of it."""

    def __init__(self, tensors: Mapping[str, RawTensor], subject: str = "BASE") -> None:
        self.subject = subject
        self.specs = {name: spec_of(name, tensor) for name, tensor in tensors.items()}
        self.touched: list[str] = []
        self._tensors = tensors

    def read(self, name: str, start: int, out: NDArray[np.uint8]) -> None:
        if name not in self.touched:
            self.touched.append(name)
        data = self._tensors[name][2][start : start + out.size]
        out[:] = np.frombuffer(data, np.uint8)

    def close(self) -> None:
        pass

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *exc: Any) -> None:
        pass


def spec_of(name: str, tensor: RawTensor) -> TensorSpec:
    return TensorSpec(name=name, dtype=DTYPES[tensor[0]], shape=tuple(tensor[1]))


def manifest_of(base: Model, target: Model) -> Manifest:
    """The manifest of a release: what `make-delta` would record of these two."""
    specs = [spec_of(name, tensor) for name, tensor in target.items()]
    placed = layout.build(specs, None)
    return Manifest(
        name="my-tune",
        made_with="a test",
        codec=Ulp(),
        base={
            name: BaseTensor(spec=spec_of(name, t), digest=blake3(t[2]).hexdigest())
            for name, t in base.items()
        },
        weights=(
            WeightEntry(
                file=FileEntry(path="model.safetensors", size=1, sha256="0" * 64),
                layout=placed,
            ),
        ),
        files=(),
        operations={
            name: Operation(op=op_of(base.get(name), t), digest=blake3(t[2]).hexdigest())
            for name, t in target.items()
        },
        shards=(),
    )


def op_of(base: RawTensor | None, target: RawTensor) -> Op:
    if base is None:
        return Op.NEW
    if base == target:
        return Op.SAME
    return Op.DELTA if base[1] == target[1] else Op.RESIZE


def model(seed: int = 1, label: str = "F16") -> Model:
    """Two layers of four heads of 32 rows, and one head of keys."""
    return llama(np.random.default_rng(seed), label=label, hidden=128)


@pytest.fixture(scope="module")
def base() -> Model:
    return model()


@pytest.fixture(scope="module")
def target(base: Model) -> Model:
    return fine_tuned(np.random.default_rng(2), base)


@pytest.fixture(scope="module")
def manifest(base: Model, target: Model) -> Manifest:
    return manifest_of(base, target)


def said(manifest: Manifest, found: Mapping[str, RawTensor]) -> list[tuple[str, str]]:
    """Kinds and messages, of which the end that all share is cut off."""
    end = (
        f"; expected the base with identity {manifest.base_identity}; get that base, in "
        "the revision that the release names"
    )
    findings = examine(manifest, Held(found))
    for finding in findings:
        assert finding.message.endswith(end) is finding.fatal
        assert finding.message.isprintable()
    assert findings == sorted(findings, key=lambda finding: not finding.fatal)
    return [(finding.kind, finding.message.removesuffix(end)) for finding in findings]


def test_the_right_base_has_no_findings(manifest: Manifest, base: Model) -> None:
    assert said(manifest, base) == []
    assert check_base(manifest, Held(base)) == ()


def test_the_first_fault_is_raised(manifest: Manifest) -> None:
    other = Held(model(seed=3))
    first = examine(manifest, other)[0]
    with pytest.raises(BaseMismatchError) as caught:
        check_base(manifest, other)
    assert str(caught.value) == first.message


def test_notes_are_returned(manifest: Manifest, base: Model) -> None:
    more = base | {"more": ("U8", [1], b"x"), "and more": ("U8", [1], b"x")}
    assert check_base(manifest, Held(more)) == (
        'BASE: has 2 tensors that the delta\'s base has not: "more", "and more": they '
        "are ignored",
    )


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("vocabulary", BaseMismatchError),
        ("other-model", BaseMismatchError),
        ("memory", UsageError),
        ("disk", ReleaseKitError),
        ("UsageError", UsageError),
        ("FormatError", FormatError),
        ("IntegrityError", IntegrityError),
        ("HubError", HubError),
    ],
)
def test_a_finding_is_an_error(kind: str, error: type[ReleaseKitError]) -> None:
    made = Finding(kind=kind, message="x: is wrong").error()
    assert type(made) is error
    assert str(made) == "x: is wrong"


# Which tensors are read.


def test_samples_are_small_and_one_is_rotated(base: Model, target: Model) -> None:
    large: RawTensor = ("F16", (4100, 2049), bytes(4100 * 2049 * 2))  # above 16 MiB
    layer = "model.layers.0"
    found = {n: t for n, t in base.items() if "proj" not in n} | {
        f"{layer}.mlp.up_proj.weight": large,
        f"{layer}.self_attn.q_proj.weight": large,
        f"{layer}.self_attn.k_proj.weight": large,
    }
    held = Held(found)
    assert examine(manifest_of(found, found), held) == []
    assert held.touched[-1] == f"{layer}.self_attn.q_proj.weight"  # after the small ones
    assert all("proj" not in name for name in held.touched[:-1])


def test_few_of_many_tensors_are_read() -> None:
    found: Model = {f"w.{n}": ("U8", [1], bytes([n])) for n in range(200)}
    held = Held(found)
    assert examine(manifest_of(found, found), held) == []
    assert len(held.touched) == 8
    assert max(int(name[2:]) for name in held.touched) > 160


def test_a_tensor_that_the_delta_changes_is_read() -> None:
    # The others would not tell the target from the base.
    found: Model = {f"w.{n}": ("U8", [1], bytes([n])) for n in range(200)}
    tuned = found | {"w.7": ("U8", [1], b"x")}
    held = Held(found)
    assert examine(manifest_of(found, tuned), held) == []
    assert "w.7" in held.touched
    (kind, _), *_ = said(manifest_of(found, tuned), tuned)
    assert kind == "fine-tune"


def test_a_delta_that_needs_no_base_takes_any(base: Model) -> None:
    manifest = manifest_of({}, {"w": ("U8", [1], b"x")})
    assert [kind for kind, _ in said(manifest, base)] == ["extra"]
    assert said(manifest, {}) == []


def test_a_model_of_large_tensors_alone_is_sampled_too() -> None:
    large: Model = {"w": ("U8", [1 << 25], bytes(1 << 25))}
    assert said(manifest_of(large, large), large) == []
    changed: Model = {"w": ("U8", [1 << 25], bytes((1 << 25) - 1) + b"x")}
    assert said(manifest_of(large, large), changed) == [
        (
            "other-model",
            "BASE: the tensors have the right shapes, but 1 of the 1 sampled have other "
            'values than the delta\'s base: "w": this is another model of the '
            "architecture, as Llama-2-7B is to LLaMA-7B, or another fine-tune",
        )
    ]


# 1. Names and shapes.


def test_missing_tensors_are_named(manifest: Manifest, base: Model) -> None:
    less = {n: t for n, t in base.items() if "layers.1.mlp" not in n and n != Q0}
    assert said(manifest, less) == [
        (
            "missing",
            "BASE: 4 of the 21 base tensors that the delta needs are missing: "
            f'"{Q0}", "model.layers.1.mlp.gate_proj.weight", '
            '"model.layers.1.mlp.up_proj.weight" and 1 more: some of its files are missing '
            "too, or it is another model",
        )
    ]


def test_a_model_with_no_name_in_common_is_another(manifest: Manifest, base: Model) -> None:
    renamed = {n.replace("model.", "transformer."): t for n, t in base.items()}
    del renamed[HEAD]
    assert said(manifest, renamed)[0] == (
        "missing",
        "BASE: has none of the 21 base tensors that the delta needs, such as "
        f'"{EMBED}", but 20 others, such as "transformer.embed_tokens.weight": this is '
        "another architecture, or the names are another library's",
    )
    assert said(manifest, {})[0][1].startswith(
        f'BASE: has none of the 21 base tensors that the delta needs, such as "{EMBED}", '
        "but 0 others: this is "
    )


def test_misshapen_tensors_are_counted(manifest: Manifest) -> None:
    larger = llama(np.random.default_rng(1), label="F16", hidden=192)
    assert said(manifest, larger) == [
        (
            "shape",
            f'BASE: tensor "{EMBED}": expected F16[320, 128], found F16[320, 192] (21 of '
            "21 tensors differ in dtype or shape): this is another model, or another size "
            "of it",
        )
    ]


def test_one_misshapen_tensor_and_one_of_another_dtype(
    manifest: Manifest, base: Model
) -> None:
    wrong = base | {
        K1: as_raw(numbers(base[K1])[:16], "F16"),
        NORM: ("F32", [128], bytes(512)),
    }
    assert said(manifest, wrong) == [
        (
            "shape",
            f'BASE: tensor "{K1}": expected F16[32, 128], found F16[16, 128] (2 of 21 '
            "tensors differ in dtype or shape): this is another model, or another size "
            "of it",
        )
    ]


def test_one_tensor_of_another_dtype(manifest: Manifest, base: Model) -> None:
    wrong = base | {HEAD: as_raw(numbers(base[HEAD]), "F32")}
    assert said(manifest, wrong) == [
        (
            "dtype",
            f'BASE: tensor "{HEAD}": expected F16[320, 128], found F32[320, 128] (1 of 21 '
            "tensors differ in dtype or shape): this was converted in part",
        )
    ]


# 2. The vocabulary.


def resized(model: Model, rows: int) -> Model:
    """The model with more or fewer tokens."""
    source = np.random.default_rng(5)
    changed: Model = {}
    for name in (EMBED, HEAD):
        old = numbers(model[name])
        new = numbers(weights(source, "F16", max(rows - len(old), 0), old.shape[1]))
        changed[name] = as_raw(np.concatenate([old[:rows], new]), "F16")
    return model | changed


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        (321, "1 token, such as [PAD], was added to this base"),
        (384, "64 tokens, such as [PAD], were added to this base"),
        (319, "this base lacks 1 token, such as [PAD], that the delta's base has"),
        (256, "this base lacks 64 tokens, such as [PAD], that the delta's base has"),
        (2000, "this base has another vocabulary, and so is another model"),
    ],
)
def test_a_token_more_or_less_is_said(
    manifest: Manifest, base: Model, rows: int, why: str
) -> None:
    assert said(manifest, resized(base, rows)) == [
        (
            "vocabulary",
            f'BASE: expected 320 rows in "{EMBED}", "{HEAD}", found {rows}: {why}',
        )
    ]


def test_a_token_more_in_another_model_is_another_model_first(manifest: Manifest) -> None:
    kinds = [kind for kind, _ in said(manifest, resized(model(seed=3), 321))]
    assert kinds == ["other-model", "vocabulary"]


def test_rows_in_the_layers_are_no_vocabulary(manifest: Manifest, base: Model) -> None:
    cut = {n: as_raw(numbers(base[n])[:16], "F16") for n in (K0, K1)}
    assert [kind for kind, _ in said(manifest, base | cut)] == ["shape"]


# 3. The dtype.


def in_dtype(model: Model, label: str) -> Model:
    return {name: as_raw(numbers(tensor), label) for name, tensor in model.items()}


@pytest.mark.parametrize(
    ("wanted", "label"), [("F16", "BF16"), ("F32", "BF16"), ("F32", "F16")]
)
def test_a_base_that_was_rounded_is_of_no_use(wanted: str, label: str) -> None:
    base = model(label=wanted)
    manifest = manifest_of(base, fine_tuned(np.random.default_rng(2), base))
    assert said(manifest, in_dtype(base, label)) == [
        (
            "dtype",
            f"BASE: expected {wanted}, found {label} throughout: some converters write "
            "another dtype than they read, and round the values to it, which cannot be "
            f"undone: download the base in {wanted}",
        )
    ]


@pytest.mark.parametrize(
    ("wanted", "label", "name"), [("F16", "F32", "float16"), ("BF16", "F32", "bfloat16")]
)
def test_a_base_that_was_widened_can_be_converted(
    wanted: str, label: str, name: str
) -> None:
    base = model(label=wanted)
    manifest = manifest_of(base, fine_tuned(np.random.default_rng(2), base))
    assert said(manifest, in_dtype(base, label)) == [
        (
            "dtype",
            f"BASE: expected {wanted}, found {label} throughout: rounded to {wanted} it is "
            "the delta's base, as far as was sampled: write that with `releasekit convert "
            f"BASE NEW_FOLDER --dtype {name}`, and give NEW_FOLDER with --base",
        )
    ]
    assert said(manifest, model(seed=3, label=label)) == [
        (
            "dtype",
            f"BASE: expected {wanted}, found {label} throughout: rounded to {wanted} the "
            "values are others, so this is another model",
        )
    ]


def test_the_source_of_a_rounded_base_can_be_converted(base: Model) -> None:
    # A delta on what a new converter wrote; the user has what it read.
    rounded = in_dtype(base, "BF16")
    manifest = manifest_of(rounded, fine_tuned(np.random.default_rng(2), rounded))
    ((kind, message),) = said(manifest, base)
    assert kind == "dtype"
    assert "--dtype bfloat16`" in message


def test_another_dtype_and_a_token_more_are_both_said(
    manifest: Manifest, base: Model
) -> None:
    found = in_dtype(resized(base, 321), "F32")
    assert [kind for kind, _ in said(manifest, found)] == ["dtype", "vocabulary"]


# 4. The values.


def test_another_model_of_the_same_shape_is_told(manifest: Manifest) -> None:
    ((kind, message),) = said(manifest, model(seed=3))
    assert kind == "other-model"
    assert message.startswith(
        "BASE: the tensors have the right shapes, but 8 of the 8 sampled have other values "
        f'than the delta\'s base: "{EMBED}", "{K0}", '
    )
    assert message.endswith(
        ": this is another model of the architecture, as Llama-2-7B is to LLaMA-7B, or "
        "another fine-tune"
    )


def test_another_model_may_have_a_tensor_in_common(manifest: Manifest, base: Model) -> None:
    ((kind, message),) = said(manifest, model(seed=3) | {NORM: base[NORM], K0: base[K0]})
    assert kind == "other-model"
    assert message.startswith(
        "BASE: the tensors have the right shapes, but 7 of the 8 sampled have other values "
    )


def test_what_was_edited_is_named(manifest: Manifest, base: Model) -> None:
    label, shape, data = base[K0]
    edited = base | {K0: (label, shape, data[:-1] + bytes([data[-1] ^ 1]))}
    assert said(manifest, edited) == [
        (
            "edited",
            "BASE: 1 of the 8 tensors sampled have other values than the delta's base, "
            f'and the others are right: "{K0}": it was edited, fine-tuned or damaged',
        )
    ]


# 5. The order of rows.


def renamed_only(
    model: Mapping[str, RawTensor], heads: Mapping[str, int], *, inverse: bool = False
) -> Model:
    """The model with q and k as Meta's files have them; or as if it had them from there."""
    changed: Model = dict(model)
    for name, tensor in model.items():
        for ending, count in heads.items():
            if name.endswith(ending):
                values = numbers(tensor)
                rows, columns = values.shape
                half = rows // count // 2
                split = (count, half, 2) if inverse else (count, 2, half)
                swapped = values.reshape(*split, columns).swapaxes(1, 2)
                changed[name] = as_raw(swapped.reshape(rows, columns), tensor[0])
    return changed


HEADS = {"q_proj.weight": 4, "k_proj.weight": 1}


def test_rows_in_metas_order_are_recognised(manifest: Manifest, base: Model) -> None:
    assert said(manifest, renamed_only(base, HEADS)) == [
        (
            "row-order",
            "BASE: the rows of q_proj and k_proj are in Meta's order, not that of "
            "transformers: it was converted without permuting them; give the folder with "
            "Meta's own files and params.json with --base, or what `releasekit convert` "
            f'makes of it (by "{K0}"; all else that was sampled is right)',
        )
    ]


def test_rows_in_the_order_of_transformers_are_recognised(
    manifest: Manifest, base: Model
) -> None:
    assert said(manifest, renamed_only(base, HEADS, inverse=True)) == [
        (
            "row-order",
            "BASE: the rows of q_proj and k_proj are in the order of transformers, those "
            "of the delta's base in Meta's: get the base from where the publisher had it "
            f'(by "{K0}"; all else that was sampled is right)',
        )
    ]


@pytest.mark.parametrize("folder", ["base", "target"])
@pytest.mark.parametrize(
    "config",
    [
        {"num_attention_heads": 9},
        {"num_attention_heads": 18, "num_key_value_heads": 9},
        {"num_attention_heads": 18, "hidden_size": 252},
        {"head_dim": 14, "num_attention_heads": 1},
    ],
)
def test_heads_of_an_unusual_size_are_found_by_a_config(
    tmp_path: Path, config: dict[str, int], folder: str
) -> None:
    source = np.random.default_rng(1)
    base: Model = {NORM: as_raw(np.ones(9), "F32"), K0: weights(source, "F16", 126, 20)}
    manifest = manifest_of(base, fine_tuned(source, base))
    found = renamed_only(base, {"k_proj.weight": 9})
    held = Held(found, str(tmp_path / "base"))
    for name in ("base", "release/target"):
        (tmp_path / name).mkdir(parents=True)
    assert examine(manifest, held, tmp_path / "release")[0].kind == "edited"
    at = "base" if folder == "base" else "release/target"
    (tmp_path / at / "config.json").write_text(json.dumps(config))
    assert examine(manifest, held, tmp_path / "release")[0].kind == "row-order"


def test_a_config_that_makes_no_sense_is_no_fault(tmp_path: Path, base: Model) -> None:
    manifest = manifest_of(base, base)
    held = Held(base | {K0: base[K1]}, str(tmp_path))
    for text in (
        '{"head_dim": -2, "num_attention_heads": "x", "quantization_config": 3}',
        '{"head_dim": 1e400, "quantization_config": {"quant_method": null}}',
        '{"head_dim": 3, "num_attention_heads": 0, "num_key_value_heads": true}',
        "[]",
        "\xff",
    ):
        (tmp_path / "config.json").write_text(text, encoding="latin-1")
        assert [finding.kind for finding in examine(manifest, held)] == ["edited"]


# 6. Buffers of rotary embeddings.


def test_buffers_more_are_a_note(manifest: Manifest, base: Model) -> None:
    freqs = dict.fromkeys(FREQS, as_raw(np.ones(8), "F32"))
    assert said(manifest, base | freqs) == [
        (
            "extra-inv-freq",
            "BASE: has 2 rotary_emb.inv_freq buffers that the delta's base has not: they "
            "are ignored, since model libraries compute them",
        )
    ]
    other = said(manifest, model(seed=3) | freqs)
    assert [kind for kind, _ in other] == ["other-model", "extra-inv-freq"]


def test_buffers_that_the_delta_needs_are_named(base: Model, target: Model) -> None:
    freqs = dict.fromkeys(FREQS, as_raw(np.ones(8), "F32"))
    assert said(manifest_of(base | freqs, target | freqs), base) == [
        (
            "missing-inv-freq",
            "BASE: 2 rotary_emb.inv_freq buffers that the delta needs are missing: "
            "converters of transformers 4.32 and later leave them out; get the base as an "
            "earlier one wrote it, or ask the publisher for a delta from a base without "
            "them",
        )
    ]


# 8. Quantised models.


def quantised(model: Model, endings: Mapping[str, RawTensor]) -> Model:
    """The model with tensors of such endings in place of its layers' matrices."""
    found: Model = {}
    for name, tensor in model.items():
        if "_proj" in name:
            stem = name.removesuffix(".weight")
            found |= {stem + ending: made for ending, made in endings.items()}
        else:
            found[name] = tensor
    return found


INTEGERS: RawTensor = ("I32", [2, 2], bytes(16))
SCALES: RawTensor = ("F16", [2], bytes(4))
BYTES: RawTensor = ("U8", [4, 1], bytes(4))


@pytest.mark.parametrize(
    ("endings", "method"),
    [
        (
            {
                ".qweight": INTEGERS,
                ".qzeros": INTEGERS,
                ".scales": SCALES,
                ".g_idx": INTEGERS,
            },
            "GPTQ",
        ),
        ({".qweight": INTEGERS, ".qzeros": INTEGERS, ".scales": SCALES}, "GPTQ or AWQ"),
        ({".weight": ("I8", [4], bytes(4)), ".SCB": SCALES}, "bitsandbytes"),
        (
            {".weight": BYTES, ".weight.absmax": BYTES, ".weight.quant_map": BYTES},
            "bitsandbytes",
        ),
    ],
)
def test_a_quantised_model_is_told_by_its_names(
    manifest: Manifest, base: Model, endings: dict[str, RawTensor], method: str
) -> None:
    stem = "model.layers.0.self_attn.q_proj"
    first = next(end for end in endings if end != ".weight")
    assert said(manifest, quantised(base, endings)) == [
        (
            "quantised",
            f'BASE: its weights are quantised with {method}, as "{stem}{first}" shows: '
            "that rounded them, which cannot be undone; get the original weights, of 16 "
            "bits or more",
        )
    ]


@pytest.mark.parametrize(
    ("quant_method", "method"),
    [
        ("gptq", "GPTQ"),
        ("awq", "AWQ"),
        ("bitsandbytes", "bitsandbytes"),
        ("eetq", '"eetq"'),
    ],
)
def test_a_quantised_model_is_told_by_its_config(
    manifest: Manifest, base: Model, tmp_path: Path, quant_method: str, method: str
) -> None:
    config = {"quantization_config": {"quant_method": quant_method}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    packed = {n: t if "_proj" not in n else INTEGERS for n, t in base.items()}
    (found,) = examine(manifest, Held(packed, str(tmp_path)))
    assert found.kind == "quantised"
    assert found.message.startswith(
        f"{tmp_path}: its weights are quantised with {method}, as its config.json says: "
    )
    # A config alone is no fault where the tensors are right.
    assert examine(manifest, Held(base, str(tmp_path))) == []


def test_a_delta_on_a_quantised_base_takes_it(base: Model) -> None:
    found = quantised(base, {".qweight": INTEGERS, ".scales": SCALES})
    manifest = manifest_of(found, found)
    assert said(manifest, found) == []
    del found[NORM]
    assert [kind for kind, _ in said(manifest, found)] == ["missing"]


# 9. Not a base at all.


def test_payloads_in_place_of_the_base_are_recognised(manifest: Manifest) -> None:
    payloads: Model = {K0: ("U8", [9], bytes(9)), Q0: ("U8", [3], bytes(3))}
    assert said(manifest, payloads) == [
        (
            "release",
            "BASE: is a delta itself, which holds no model: give the base model with "
            "--base",
        )
    ]


def test_the_target_in_place_of_the_base_is_recognised(
    manifest: Manifest, target: Model
) -> None:
    assert said(manifest, target) == [
        (
            "fine-tune",
            "BASE: is the fine-tuned model my-tune itself: of the tensors sampled, "
            f'"{EMBED}", "{K0}", "model.layers.0.mlp.gate_proj.weight" and 5 more have '
            "the values that the delta is there to rebuild: use it as it is, or give its "
            "base with --base",
        )
    ]


def test_a_target_that_differs_in_few_places_is_recognised(base: Model) -> None:
    # As after LoRA on the attention, with a token more.
    tuned = fine_tuned(np.random.default_rng(2), base)
    target = resized(base | {n: t for n, t in tuned.items() if "k_proj" in n}, 321)
    manifest = manifest_of(base, target)
    assert said(manifest, base) == []
    assert [kind for kind, _ in said(manifest, target)] == ["fine-tune"]


def test_a_target_of_another_dtype_is_recognised(base: Model) -> None:
    wide = in_dtype(base, "F32")
    target = in_dtype(fine_tuned(np.random.default_rng(2), wide), "BF16")
    manifest = manifest_of(wide, target)
    assert [kind for kind, _ in said(manifest, target)] == ["fine-tune"]
    # Neither is a base that was rounded to the target's dtype.
    assert [kind for kind, _ in said(manifest, in_dtype(base, "BF16"))] == [
        "other-model",
        "dtype",
    ]


@pytest.mark.parametrize("label", ["F16", "BF16", "F32"])
def test_what_is_to_be_added_is_no_base(
    manifest: Manifest, base: Model, target: Model, label: str
) -> None:
    delta = {n: as_raw(numbers(target[n]) - numbers(base[n]), label) for n in base}
    assert said(manifest, delta) == [
        (
            "additive-delta",
            'BASE: the weights of its norms are around 0, such as "model.layers.0.'
            'input_layernorm.weight", those of a model around 1: this is a delta, to be '
            "added to a model: give the base model with --base",
        )
    ]


Change = Callable[[Model], Model]


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model | {NORM: as_raw(np.zeros(128), "F16")},  # one norm of several
        lambda model: {n: t for n, t in model.items() if "norm" not in n},
        lambda model: (
            {n: t for n, t in model.items() if "norm" not in n or n == NORM}
            | {NORM: as_raw(np.zeros(128), "F16")}
        ),  # too few to say
        lambda model: model | {"norm.bias": SCALES, "other_norm.bias": SCALES},
        lambda model: model | {NORM: as_raw(np.full(128, np.nan), "F16")},
    ],
)
def test_other_models_are_not_taken_for_deltas(manifest: Manifest, change: Change) -> None:
    kinds = [kind for kind, _ in said(manifest, change(model(seed=3)))]
    assert "additive-delta" not in kinds
    assert kinds

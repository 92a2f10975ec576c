"""Meta's LLaMA checkpoints, read as the Hugging Face checkpoint that they convert to.

Each `consolidated.NN.pth` holds one processor's part of every tensor, and `params.json`
says how many heads there are. The parts are joined as they are read, by range; the rows of
wq and wk come in transformers' order (see `rotary`). No value changes. `rope.freqs` follow
from the parameters, and are passed over.

The axis along which a tensor is joined is fixed, but for the token embeddings: LLaMA 1 and
2 cut their columns, Llama 3 their rows, and the shapes tell which.

Norms lie whole in every part. The first part's count, as in transformers' converter. The
others must have their shape, but may differ in value: copies can drift apart in parallel
training, and nobody could say which is right.

Heads that are repeated, because there are more parts than heads, are refused: neither
Meta's own code nor the converter reads them. (Llama 3.1 405B in 16 parts has its 8 heads
twice, but says that it has 16, and that can be read.)
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from releasekit.checkpoint.discover import PARAMS
from releasekit.checkpoint.files import Opener
from releasekit.checkpoint.llama.params import Params, read_params
from releasekit.checkpoint.llama.rotary import rotary
from releasekit.checkpoint.pytorch import TorchFile
from releasekit.checkpoint.strided import Joined
from releasekit.errors import FormatError
from releasekit.names import shown
from releasekit.tensors import DType, TensorSpec

#: The dtypes that weights may have, as transformers calls them.
_TORCH_DTYPES: Final = {
    DType.F16: "float16",
    DType.BF16: "bfloat16",
    DType.F32: "float32",
    DType.F64: "float64",
}
_FREQS: Final = re.compile(r"(layers\.\d+\.attention\.inner_attention\.)?rope\.freqs")


@dataclass(frozen=True, slots=True)
class _Rule:
    """How the parts of a tensor make the one of transformers.

    Attributes:
        name: in transformers.
        sizes: of the whole: "dim", "heads" and "kv" (the rows of all such heads), "ffn",
            "vocab".
        axis: along which the parts are joined; None if each is the whole.
        rotated: whether its rows are in Meta's order.
    """

    name: str
    sizes: tuple[str, ...]
    axis: int | None = None
    rotated: bool = False


_EMBEDDINGS: Final = "tok_embeddings.weight"
_OUTPUT: Final = "output.weight"
_LAYER: Final = {
    "attention_norm": _Rule("input_layernorm", ("dim",)),
    "attention.wq": _Rule("self_attn.q_proj", ("heads", "dim"), 0, rotated=True),
    "attention.wk": _Rule("self_attn.k_proj", ("kv", "dim"), 0, rotated=True),
    "attention.wv": _Rule("self_attn.v_proj", ("kv", "dim"), 0),
    "attention.wo": _Rule("self_attn.o_proj", ("dim", "heads"), 1),
    "ffn_norm": _Rule("post_attention_layernorm", ("dim",)),
    "feed_forward.w1": _Rule("mlp.gate_proj", ("ffn", "dim"), 0),
    "feed_forward.w2": _Rule("mlp.down_proj", ("dim", "ffn"), 1),
    "feed_forward.w3": _Rule("mlp.up_proj", ("ffn", "dim"), 0),
}


class MetaCheckpoint:
    """Tensors of Meta's files under transformers' names; see `StoredCheckpoint`.

    Attributes:
        params: what `params.json` says.
    """

    def __init__(
        self, subject: str, root: Path, names: Sequence[str], opener: Opener
    ) -> None:
        self.subject = subject
        self._kept = opener.kept
        self.params = read_params(root / PARAMS)
        self._check_numbers(names)
        self._parts = [TorchFile.open(root / name, name, opener) for name in names]
        self.file_sizes: Mapping[str, int] = {p.name: p.file.size for p in self._parts}
        tensors = {spec.name: (spec, joined) for spec, joined in self._join_all()}
        # As they lie in the first part; the others are alike.
        order = sorted(tensors, key=lambda name: tensors[name][1].views[0].offset)
        self.specs: Mapping[str, TensorSpec] = {name: tensors[name][0] for name in order}
        self._tensors = {name: tensors[name][1] for name in order}

    @classmethod
    def open(cls, subject: str, root: Path, files: Sequence[str]) -> Self:
        """Open all parts of a checkpoint, and hold their shapes against `params.json`.

        Args:
            subject: what messages call it.
            root: the folder of the files, and of `params.json`.
            files: their names, sorted; at least one.

        Raises:
            FormatError: if a file is malformed, or they are not one whole checkpoint.
        """
        with ExitStack() as kept:
            checkpoint = cls(subject, root, files, Opener(kept=kept))
            checkpoint._kept = kept.pop_all()
        return checkpoint

    def read(self, name: str, start: int, out: NDArray[np.uint8]) -> None:
        """Fill `out` with the tensor's bytes from byte `start` on; see `Checkpoint`."""
        self._tensors[name].read(start, out)

    def home(self, name: str) -> str:
        """The file that holds a tensor, or the first and the last of those that do."""
        first, last = self._parts[0].name, self._parts[-1].name
        return first if len(self._tensors[name].views) == 1 else f"{first} to {last}"

    def close(self) -> None:
        """Close all files."""
        self._kept.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: Any) -> None:
        self.close()

    def _check_numbers(self, names: Sequence[str]) -> None:
        for number, name in enumerate(names):
            expected = f"consolidated.{number:02}.pth"
            if name != expected:
                raise FormatError(
                    f"{self.subject}: expected {expected}, found {shown(name)}: get the "
                    "files that are missing from where the others came from"
                )
        for field in ("n_heads", "n_kv_heads"):
            heads = getattr(self.params, field)
            if heads % len(names):
                raise FormatError(
                    f"{self.subject}: expected whole heads in each of {len(names)} files, "
                    f"found {field} {heads} in {PARAMS}: files are missing, or hold heads "
                    "repeatedly, which cannot be read"
                )

    def _join_all(self) -> Iterator[tuple[TensorSpec, Joined]]:
        params = self.params
        sizes = {
            "dim": params.dim,
            "heads": params.n_heads * params.head_dim,
            "kv": params.n_kv_heads * params.head_dim,
        }
        if params.vocab_size is not None:
            sizes["vocab"] = params.vocab_size
        known = set()
        for name, rule in self._rules():
            known.add(name)
            yield self._join(name, rule, sizes)
        for part in self._parts:
            for name in part.specs:
                if name not in known:
                    self._check_other(part, name)

    def _rules(self) -> Iterator[tuple[str, _Rule]]:
        """The tensors that there must be, by Meta's names."""
        first = self._parts[0].specs.get(_EMBEDDINGS)
        rows = first is not None and first.shape[1:] == (self.params.dim,)
        sizes = ("vocab", "dim")
        yield _EMBEDDINGS, _Rule("model.embed_tokens.weight", sizes, 0 if rows else 1)
        for layer in range(self.params.n_layers):
            for name, rule in _LAYER.items():
                to = f"model.layers.{layer}.{rule.name}.weight"
                yield f"layers.{layer}.{name}.weight", replace(rule, name=to)
        yield "norm.weight", _Rule("model.norm.weight", ("dim",))
        if any(_OUTPUT in part.specs for part in self._parts):  # else tied
            yield _OUTPUT, _Rule("lm_head.weight", sizes, 0)

    def _join(
        self, name: str, rule: _Rule, sizes: dict[str, int]
    ) -> tuple[TensorSpec, Joined]:
        """Join a tensor; if it is the first to have one of `sizes`, it says what it is."""
        for part in self._parts:
            self._check_part(part, name)
        spec = self._parts[0].specs[name]
        views = [part.views[name] for part in self._parts]
        shape = list(spec.shape)
        if rule.axis is None:
            views = views[:1]
        elif rule.axis < len(shape):
            shape[rule.axis] *= len(views)
        expected = [sizes.get(size, size) for size in rule.sizes]
        if len(shape) != len(expected) or any(
            size not in (found, label)
            for size, found, label in zip(expected, shape, rule.sizes, strict=True)
        ):
            parts = len(self._parts)
            raise FormatError(
                f"{self.subject}: tensor {shown(name)}: expected "
                f"[{', '.join(map(str, expected))}] by {PARAMS} and other tensors, found "
                f"{shape} in {parts} file{'s' if parts > 1 else ''}: some are missing, or "
                "of another model"
            )
        sizes.update(zip(rule.sizes, shape, strict=True))
        if rule.rotated:
            heads = views[0].shape[0] // self.params.head_dim
            views = [rotary(view, heads) for view in views]
        joined = Joined(views=tuple(views), axis=rule.axis or 0)
        return TensorSpec(name=rule.name, dtype=spec.dtype, shape=tuple(shape)), joined

    def _check_part(self, part: TorchFile, name: str) -> None:
        """Each part has the same dtype and shape, and is not quantised."""
        where, spec = f"{part.file.path}: tensor {shown(name)}", part.specs.get(name)
        if spec is None:
            raise FormatError(f"{where} is missing")
        first = self._parts[0].specs[name]
        if (spec.dtype, spec.shape) != (first.dtype, first.shape):
            raise FormatError(
                f"{where}: expected {first.describe()} as in {self._parts[0].name}, found "
                f"{spec.describe()}"
            )
        if spec.dtype not in _TORCH_DTYPES:
            raise FormatError(
                f"{where}: expected {', '.join(d.label for d in _TORCH_DTYPES)}, found "
                f"{spec.describe()}: get the original weights"
            )

    def _check_other(self, part: TorchFile, name: str) -> None:
        """What is not joined are frequencies, and of heads of the right size."""
        where, params = f"{part.file.path}: tensor {shown(name)}", self.params
        if not _FREQS.fullmatch(name):
            raise FormatError(
                f"{where}: expected only those of a LLaMA with n_layers {params.n_layers}, "
                f"as {PARAMS} says"
            )
        if part.specs[name].shape != (params.head_dim // 2,):
            raise FormatError(
                f"{where}: expected {params.head_dim // 2} frequencies, found "
                f"{part.specs[name].describe()}: {PARAMS} is of another model"
            )


def hf_config(params: Params, specs: Mapping[str, TensorSpec]) -> dict[str, Any]:
    """What `params.json` and the shapes say of transformers' `config.json`.

    Left out, since they say nothing of it: `max_position_embeddings`, the ids of the tokens
    that begin and end a text, and the factors of `rope_scaling`, without which a model with
    `use_scaled_rope` is another. `torch_dtype` is left out if there are several.

    Args:
        params: the parameters.
        specs: the tensors, under transformers' names.
    """
    config: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": params.dim,
        "intermediate_size": specs["model.layers.0.mlp.gate_proj.weight"].shape[0],
        "model_type": "llama",
        "num_attention_heads": params.n_heads,
        "num_hidden_layers": params.n_layers,
        "num_key_value_heads": params.n_kv_heads,
        "rms_norm_eps": params.norm_eps,
        "rope_theta": params.rope_theta,
        "tie_word_embeddings": "lm_head.weight" not in specs,
        "vocab_size": specs["model.embed_tokens.weight"].shape[0],
    }
    if params.head_dim * params.n_heads != params.dim:
        config["head_dim"] = params.head_dim
    dtypes = {spec.dtype for spec in specs.values()}
    if len(dtypes) == 1:
        config["torch_dtype"] = _TORCH_DTYPES[dtypes.pop()]
    return dict(sorted(config.items()))

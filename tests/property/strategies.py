"""Hypothesis strategies for the values that releasekit works on."""

import math

from hypothesis import strategies as st

from releasekit.tensors import DType, TensorSpec

_CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0/\\")
_COMMON = st.sampled_from(
    ["model.embed_tokens.weight", "layers.0.q_proj.weight", "größe", "重み", "w:0", " "]
)

unicode_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)

tensor_names = _COMMON | st.lists(
    st.text(_CHARACTERS, min_size=1, max_size=12).filter(lambda part: part != ".."),
    min_size=1,
    max_size=3,
).map("/".join).filter(lambda name: name[1:3] != ":/" and name != "__metadata__")
"""Names that a tensor may have; half of them are ordinary ones."""

dtypes = st.sampled_from(DType)

metadata = st.none() | st.dictionaries(unicode_text, unicode_text, max_size=4)


@st.composite
def shapes(draw: st.DrawFn, dtype: DType, max_size: int = 5) -> tuple[int, ...]:
    """Shapes that fill whole bytes, scalars and empty ones among them."""
    shape = draw(st.lists(st.integers(0, max_size), max_size=4))
    if math.prod(shape) * dtype.bits % 8:
        shape.append(8 // math.gcd(8, dtype.bits))
    return tuple(shape)


@st.composite
def specs(draw: st.DrawFn) -> TensorSpec:
    """Specs of small tensors of any dtype."""
    dtype = draw(dtypes)
    return TensorSpec(name=draw(tensor_names), dtype=dtype, shape=draw(shapes(dtype)))


spec_lists = st.lists(specs(), max_size=6, unique_by=lambda spec: spec.name)
"""Specs that one file may hold."""

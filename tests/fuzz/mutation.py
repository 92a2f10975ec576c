"""Documents that are nearly right: what fuzz tests of parsers start from."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st


@st.composite
def mutated(draw: st.DrawFn, *valid: bytes, tokens: Sequence[bytes]) -> bytes:
    """Bytes of one of `valid` after a few cuts, copies and insertions.

    `tokens` are what faults are made of: syntax, escapes, numbers at the edges.
    """
    data = draw(st.sampled_from(valid))
    for _ in range(draw(st.integers(0, 4))):
        begin = draw(st.integers(0, len(data)))
        end = min(len(data), begin + draw(st.sampled_from([0, 0, 1, 2, 5, 30])))
        kind = draw(st.sampled_from(["token", "bytes", "copy"]))
        if kind == "token":
            new = draw(st.sampled_from(tokens))
        elif kind == "bytes":
            new = draw(st.binary(max_size=3))
        else:
            start = draw(st.integers(0, len(data)))
            new = data[start : start + draw(st.integers(0, 60))]
        data = data[:begin] + new + data[end:]
    return data

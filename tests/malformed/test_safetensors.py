"""Safetensors files that must be refused: one case a threat, with the words it meets.

Those marked "stock reader: accepted" are read without complaint by safetensors 0.8.
"""

import pytest

from releasekit.errors import FormatError
from releasekit.layout import Layout, header_length, parse
from tests.builders import raw_header

GOOD = {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}
DTYPES = (
    "BOOL, F4, F6_E2M3, F6_E3M2, U8, I8, F8_E5M2, F8_E4M3, F8_E8M0, F8_E4M3FNUZ, "
    "F8_E5M2FNUZ, I16, U16, F16, BF16, I32, U32, F32, C64, F64, I64, U64"
)


def read(file: bytes) -> Layout:
    length = header_length(file[:8], len(file), "m.safetensors")
    return parse(file[8 : 8 + length], len(file), "m.safetensors")


def entry(**changes: object) -> bytes:
    """A file of one tensor "w", four bytes U8, with some of its fields changed."""
    return raw_header({"w": GOOD | changes}, b"data")


def two(first: list[int], second: list[int], size: int) -> bytes:
    """A file of `size` bytes of data that claims tensors "a" and "b" in these places."""
    header = {
        name: {"dtype": "U8", "shape": [end - begin], "data_offsets": [begin, end]}
        for name, (begin, end) in (("a", first), ("b", second))
    }
    return raw_header(header, bytes(size))


def text(header: str, data: bytes = b"") -> bytes:
    return raw_header(header.encode(), data)


LENGTH = [
    (
        "empty_file",
        b"",
        "expected a header length of 8 bytes, found a file of 0 bytes",
    ),
    (
        "seven_byte_file",
        b"\x02\0\0\0\0\0\0",
        "expected a header length of 8 bytes, found a file of 7 bytes",
    ),
    (
        "header_length_0",
        raw_header(b""),
        "header length: expected 1 to 100000000 bytes, found 0",
    ),
    (
        "header_length_beyond_file",
        raw_header(b"{}", length=3),
        "header length: expected at most 2, the bytes that follow it, found 3; "
        "the file may be cut short",
    ),
    (
        "header_length_2_63",
        raw_header(b"{}", length=2**63),
        "header length: expected 1 to 100000000 bytes, found 9223372036854775808",
    ),
    (
        "header_length_2_64_minus_1",
        raw_header(b"{}", length=2**64 - 1),
        "header length: expected 1 to 100000000 bytes, found 18446744073709551615",
    ),
    (
        "header_length_100_000_001",
        raw_header(b"{}", length=100_000_001),
        "header length: expected 1 to 100000000 bytes, found 100000001",
    ),
]

JSON = [
    ("header_not_utf8", raw_header(b'{"\xff":1}'), "header: not UTF-8 at byte 2"),
    (
        "header_byte_order_mark",
        raw_header(b"\xef\xbb\xbf{}"),
        "header: begins with a byte order mark; expected none",
    ),
    (
        "header_trailing_nul",
        raw_header(b"{}\0"),
        "header: not valid JSON: Extra data at line 1, column 3 (byte 2)",
    ),
    (
        "header_trailing_garbage",
        raw_header(b"{} {}"),
        "header: not valid JSON: Extra data at line 1, column 4 (byte 3)",
    ),
    (
        "header_all_spaces",
        raw_header(b"    "),
        "header begins with white space; expected {",
    ),
    (
        "header_leading_white_space",  # stock reader: accepted
        raw_header(b" {}"),
        "header begins with white space; expected {",
    ),
    (
        "header_root_an_array",
        raw_header(b"[]"),
        "header: expected an object, found an array of 0",
    ),
    ("header_root_null", raw_header(b"null"), "header: expected an object, found null"),
    (
        "header_nan",
        text('{"w":NaN}'),
        "header: expected finite numbers, found NaN",
    ),
    (
        "header_lone_surrogate",
        text('{"\\ud800":1}'),
        r'header: a string holds "\ud800", half of a surrogate pair',
    ),
    (
        "header_nested_100k",
        text('{"w":' + "[" * 100_000),
        "header: nested deeper than 64 levels",
    ),
]

COVERAGE = [
    (
        "trailing_bytes",
        entry() + b"!",
        "expected the file to end at the 4 bytes of data of its tensors, "
        "found 5 bytes of data",
    ),
    (
        "trailing_bytes_without_tensors",
        raw_header(b"{}", b"!"),
        "expected the file to end at the 0 bytes of data of its tensors, "
        "found 1 bytes of data",
    ),
    (
        "cut_by_2_bytes",
        entry()[:-2],
        'tensor "w": data_offsets: expected an end of at most 2, the bytes of data in the '
        "file, found [0, 4]; the file may be cut short",
    ),
    (
        "cut_by_a_tensor",
        two([0, 4], [4, 8], size=4),
        'tensor "b": data_offsets: expected an end of at most 4, the bytes of data in the '
        "file, found [4, 8]; the file may be cut short",
    ),
    (
        "hole_at_start",
        two([1, 4], [4, 8], size=8),
        'tensor "a": data_offsets: expected to begin at 0, where data begins, found 1; '
        "a hole lies before it",
    ),
    (
        "hole_in_the_middle",
        two([0, 4], [6, 8], size=8),
        'tensor "b": data_offsets: expected to begin at 4, where tensor "a" ends, found 6; '
        "a hole lies before it",
    ),
    (
        "full_overlap",
        two([0, 4], [0, 4], size=4),
        'tensor "b": data_offsets: expected to begin at 4, where tensor "a" ends, found 0; '
        "the two overlap",
    ),
    (
        "partial_overlap",
        two([0, 4], [2, 6], size=6),
        'tensor "b": data_offsets: expected to begin at 4, where tensor "a" ends, found 2; '
        "the two overlap",
    ),
    (
        "tensor_inside_another",
        two([0, 8], [2, 4], size=8),
        'tensor "b": data_offsets: expected to begin at 8, where tensor "a" ends, found 2; '
        "the two overlap",
    ),
    (
        "empty_tensor_inside_another",
        two([0, 8], [4, 4], size=8),
        'tensor "b": data_offsets: expected to begin at 8, where tensor "a" ends, found 4; '
        "the two overlap",
    ),
    (
        "begin_after_end",
        entry(data_offsets=[4, 0]),
        'tensor "w": data_offsets: expected begin <= end, found [4, 0]',
    ),
    (
        "size_is_not_that_of_the_shape",
        entry(shape=[3]),
        'tensor "w": data_offsets: expected 3 bytes for U8[3], found [0, 4], which are 4',
    ),
    (
        "shape_larger_than_its_data",
        entry(dtype="F64"),
        'tensor "w": data_offsets: expected 32 bytes for F64[4], found [0, 4], which are 4',
    ),
]

OFFSETS = [
    (
        "offset_negative",
        entry(data_offsets=[-4, 0]),
        'tensor "w": data_offsets: expected integers of at least 0, found -4',
    ),
    (
        "offset_float",
        entry(data_offsets=[0, 4.0]),
        'tensor "w": data_offsets: expected integers of at least 0, found 4.0',
    ),
    (
        "offset_string",
        entry(data_offsets=["0", 4]),
        'tensor "w": data_offsets: expected integers of at least 0, found "0"',
    ),
    (
        "offset_bool",
        entry(data_offsets=[False, 4]),
        'tensor "w": data_offsets: expected integers of at least 0, found false',
    ),
    (
        "offset_minus_zero",
        text('{"w":{"dtype":"U8","shape":[1],"data_offsets":[-0,1]}}', b"x"),
        "header: expected 0, found -0",
    ),
    (
        "offsets_of_1_item",
        entry(data_offsets=[4]),
        'tensor "w": data_offsets: expected [begin, end], found an array of 1',
    ),
    (
        "offsets_of_3_items",
        entry(data_offsets=[0, 4, 4]),
        'tensor "w": data_offsets: expected [begin, end], found an array of 3',
    ),
    (
        "offsets_an_object",
        entry(data_offsets={"begin": 0, "end": 4}),
        'tensor "w": data_offsets: expected [begin, end], found an object',
    ),
    (
        "offset_2_64",
        entry(data_offsets=[2**64, 2**64 + 4]),
        'tensor "w": data_offsets: expected an end of at most 4, the bytes of data in the '
        "file, found [18446744073709551616, 18446744073709551620]; "
        "the file may be cut short",
    ),
    (
        "offset_10_30",
        entry(data_offsets=[0, 10**30]),
        "header: expected integers of at most 20 digits, found 10000000000000000000… of 31",
    ),
]

SHAPE = [
    (
        "shape_product_overflows",
        entry(shape=[2**32, 2**32]),
        'tensor "w": shape: U8[4294967296, 4294967296] overflows: '
        "more than 9223372036854775807 bytes",
    ),
    (
        "shape_product_wraps_to_its_size",  # (2**62 + 1) * 4 is 4 modulo 2**64
        entry(shape=[2**62 + 1, 4]),
        'tensor "w": shape: U8[4611686018427387905, 4] overflows: '
        "more than 9223372036854775807 bytes",
    ),
    (
        "shape_times_element_size_overflows",
        entry(dtype="F64", shape=[2**60]),
        'tensor "w": shape: F64[1152921504606846976] overflows: '
        "more than 9223372036854775807 bytes",
    ),
    (
        "shape_overflow_hidden_by_a_zero",
        raw_header(
            {"w": {"dtype": "U8", "shape": [0, 2**32, 2**32], "data_offsets": [0, 0]}}
        ),
        'tensor "w": shape: U8[0, 4294967296, 4294967296] overflows: '
        "more than 9223372036854775807 bytes",
    ),
    (
        "shape_negative",
        entry(shape=[-2, -2]),
        'tensor "w": shape: expected sizes of 0 or more, found -2',
    ),
    (
        "shape_float",
        entry(shape=[4.0]),
        'tensor "w": shape: expected sizes of 0 or more, found 4.0',
    ),
    (
        "shape_bool",
        entry(shape=[4, True]),
        'tensor "w": shape: expected sizes of 0 or more, found true',
    ),
    (
        "shape_null",
        entry(shape=None),
        'tensor "w": shape: expected an array of sizes, found null',
    ),
    (
        "shape_of_rank_100k",
        entry(shape=[4] + [1] * 99_999),
        'tensor "w": shape: expected a rank up to 64, found 100000',
    ),
    (
        "shape_of_half_a_byte",
        entry(dtype="F4", shape=[7]),
        'tensor "w": shape: F4[7] is 28 bits, not whole bytes',
    ),
    (
        "dtype_unknown",
        entry(dtype="F31"),
        f'tensor "w": dtype: expected one of {DTYPES}, found "F31"',
    ),
    (
        "dtype_lower_case",
        entry(dtype="u8"),
        f'tensor "w": dtype: expected one of {DTYPES}, found "u8"',
    ),
    (
        "dtype_an_array",
        entry(dtype=["U8"]),
        f'tensor "w": dtype: expected one of {DTYPES}, found an array of 1',
    ),
]

KEYS = [
    (
        "tensor_twice",  # stock reader: accepted
        text(
            '{"w":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},'
            '"w":{"dtype":"I8","shape":[4],"data_offsets":[0,4]}}',
            b"data",
        ),
        'header: key "w" appears twice',
    ),
    (
        "tensor_twice_by_an_escape",  # stock reader: accepted
        text(
            '{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},'
            '"\\u0061":{"dtype":"I8","shape":[4],"data_offsets":[0,4]}}',
            b"data",
        ),
        'header: key "a" appears twice',
    ),
    (
        "metadata_key_twice",  # stock reader: accepted
        text('{"__metadata__":{"format":"pt","format":"np"}}'),
        'header: key "format" appears twice',
    ),
    (
        "metadata_twice",
        text('{"__metadata__":{},"__metadata__":{}}'),
        'header: key "__metadata__" appears twice',
    ),
    (
        "entry_field_twice",
        text('{"w":{"dtype":"U8","dtype":"I8","shape":[4],"data_offsets":[0,4]}}', b"data"),
        'header: key "dtype" appears twice',
    ),
    (
        "entry_field_unknown",  # stock reader: accepted
        entry(strides=[1]),
        'tensor "w": unknown field "strides"',
    ),
    (
        "entry_field_missing",
        raw_header({"w": {"dtype": "U8", "data_offsets": [0, 4]}}, b"data"),
        'tensor "w": missing field "shape"',
    ),
    (
        "entry_field_misspelt",
        raw_header({"w": {"dtype": "U8", "Shape": [4], "data_offsets": [0, 4]}}, b"data"),
        'tensor "w": missing field "shape"',
    ),
    (
        "entry_not_an_object",
        raw_header({"w": ["U8", [4], [0, 4]]}, b"data"),
        'tensor "w": expected an object, found an array of 3',
    ),
    (
        "metadata_value_not_a_string",
        raw_header({"__metadata__": {"format": 1}}),
        '__metadata__["format"]: expected a string, found 1',
    ),
    (
        "metadata_nested",
        raw_header({"__metadata__": {"format": {"a": "b"}}}),
        '__metadata__["format"]: expected a string, found an object',
    ),
    (
        "metadata_null",  # stock reader: accepted
        raw_header({"__metadata__": None}),
        "__metadata__: expected an object, found null",
    ),
    (
        "name_empty",  # stock reader: accepted
        raw_header({"": GOOD}, b"data"),
        'tensor name "" is empty',
    ),
    (
        "name_climbs",  # stock reader: accepted
        raw_header({"../../.ssh/authorized_keys": GOOD}, b"data"),
        'tensor name "../../.ssh/authorized_keys" has a ".." segment',
    ),
    (
        "name_climbs_by_backslash",  # stock reader: accepted
        raw_header({"a\\..\\..\\b": GOOD}, b"data"),
        r'tensor name "a\\..\\..\\b" has a ".." segment',
    ),
    (
        "name_absolute",  # stock reader: accepted
        raw_header({"/etc/passwd": GOOD}, b"data"),
        'tensor name "/etc/passwd" is an absolute path',
    ),
    (
        "name_with_nul",  # stock reader: accepted
        raw_header({"w\0.weight": GOOD}, b"data"),
        r'tensor name "w\u0000.weight" holds a NUL character',
    ),
]


@pytest.mark.parametrize(
    ("file", "message"),
    [
        pytest.param(file, message, id=threat)
        for threat, file, message in LENGTH + JSON + COVERAGE + OFFSETS + SHAPE + KEYS
    ],
)
def test_refused(file: bytes, message: str) -> None:
    with pytest.raises(FormatError) as caught:
        read(file)
    assert str(caught.value) == f"m.safetensors: {message}"


def test_the_file_that_the_cases_change_is_itself_accepted() -> None:
    assert read(entry()).file_size == len(entry())
    assert read(two([0, 4], [4, 8], size=8)).file_size == len(two([0, 4], [4, 8], size=8))

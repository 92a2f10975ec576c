"""The pickles in PyTorch's files: what they say, and what is refused of them."""

from __future__ import annotations

import ast
import io
import pickle as stock
import re
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import releasekit.checkpoint
from releasekit.checkpoint.torchfile.pickled import NAMES, kind_of
from releasekit.checkpoint.torchfile.pickles import CutShortError, load
from releasekit.checkpoint.torchfile.statedict import Tensor, state_dict
from releasekit.errors import FormatError
from releasekit.tensors import DType
from tests.torchfiles import (
    FALSE,
    NONE,
    ORDERED,
    call,
    dict_of,
    list_of,
    name,
    number,
    pickle,
    storage,
    tensor,
    text,
    tuple_of,
)

READERS = (
    "pytorch",
    *(f"torchfile/{name}" for name in ("archive", "pickled", "pickles", "statedict")),
)
WARNING = (
    "loading this file with pickle could run any code; nothing of it was run; get the "
    "model as safetensors, or from a source you trust"
)


def tensors(value: bytes) -> dict[str, Tensor]:
    return state_dict(load(pickle(value), "x"), "x")


def one(value: bytes) -> Tensor:
    return tensors(dict_of({"w": value}))["w"]


def refusal(value: bytes) -> str:
    """Why a pickle is refused that makes this value."""
    with pytest.raises(FormatError) as caught:
        tensors(value)
    assert str(caught.value).startswith("x: ")
    assert str(caught.value).isprintable()
    return str(caught.value)[3:]


@pytest.mark.parametrize("module", READERS)
def test_readers_import_neither_pickle_nor_torch(module: str) -> None:
    source = Path(releasekit.checkpoint.__file__).parent / f"{module}.py"
    names = set()
    for node in ast.walk(ast.parse(source.read_bytes())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(str(node.module))
    roots = {name.partition(".")[0] for name in names}
    assert (
        roots & {"pickle", "_pickle", "pickletools", "copyreg", "shelve", "torch"} == set()
    )
    assert roots & {"importlib", "builtins", "marshal"} == set()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    "value",
    [
        *(None, True, False, 0, 255, 256, 65535, 65536, -1, 2**31, -(2**31), 2**64 - 1),
        *(-(2**71), 1.5, float("inf"), "", "é😀", "x" * 300, (), (1,), (1, 2), (1, 2, 3)),
        *((1, 2, 3, 4), [], [1], [1, 2], {}, {"a": 1}, {"a": 1, 2: [{}]}, ["a", "a"]),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_plain_values_are_those_of_the_stock_reader(value: object, protocol: int) -> None:
    data = stock.dumps(value, protocol)
    loaded = load(data + b"more", "x")
    assert (loaded.value, loaded.end) == (value, len(data))


def test_long_pickles_of_all_protocols() -> None:
    value = {f"name {i}": [i, float(i), (str(i), "x" * (i % 700))] for i in range(2000)}
    for protocol in (2, 3, 4, 5):
        assert load(stock.dumps(value, protocol), "x").value == value


def test_a_string_of_eight_byte_length() -> None:
    assert load(b"\x80\x04\x8d" + struct.pack("<Q", 3) + b"abc.", "x").value == "abc"


@pytest.mark.parametrize("opcodes", [b"U\x03abc", b"T\x03\0\0\0abc"])
def test_strings_of_python_2(opcodes: bytes) -> None:
    assert load(pickle(opcodes), "x").value == "abc"


def test_an_ordered_dict_of_python_2() -> None:
    items = list_of(list_of(text("w"), tensor()), tuple_of(text("v"), tensor()))
    assert list(tensors(call(name("collections", "OrderedDict"), items))) == ["w", "v"]


def test_an_integer_of_no_bytes_is_0() -> None:
    assert load(pickle(b"\x8a\0"), "x").value == 0
    assert load(pickle(b"\x8b\0\0\0\0"), "x").value == 0


def test_memoised_values() -> None:
    loaded = load(
        pickle(b"]q\x00(h\x00j\x00\x00\x00\x00\x94r\xff\xff\xff\xffj\xff\xff\xff\xffe"), "x"
    )
    assert isinstance(loaded.value, list)
    assert all(item is loaded.value for item in loaded.value)
    assert len(loaded.value) == 3


def test_a_tensor() -> None:
    loaded = load(pickle(dict_of({"w": tensor()})), "x")
    found = state_dict(loaded, "x")["w"]
    assert found.storage is loaded.storages["0"]
    assert (found.storage.key, found.storage.numel, found.storage.nbytes) == ("0", 4, 16)
    assert (found.dtype, found.offset, found.shape, found.strides) == (
        *(DType.F32, 0, (4,)),
        (1,),
    )


def test_a_tensor_of_the_first_kind() -> None:
    function = name("torch._utils", "_rebuild_tensor")
    sizes = tuple_of(number(2))
    assert one(call(function, storage(), number(1), sizes, sizes)).shape == (2,)


def test_a_tensor_of_bytes_that_are_words() -> None:
    words = tensor(
        *(storage("UntypedStorage", numel=9), 1, (3,), (1,), name("torch", "uint16")),
        rebuild="_rebuild_tensor_v3",
    )
    assert (one(words).dtype, one(words).storage.nbytes) == (DType.U16, 9)


def test_bits_that_are_not_set() -> None:
    assert one(tensor(b"", 0, (4,), (1,), b"}")).shape == (4,)


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (3, (), ()),
        (0, (2, 2), (1, 2)),
        (3, (1, 1), (9, 9)),
        (0, (5, 4), (0, 1)),
        (3, (2**40, 2**20), (0, 0)),
        (9, (0, 7), (7, 1)),
        (0, (2, 2), (2, 1)),
        (1, (2, 2), (1, 1)),
        (0, (1,) * 64, (1,) * 64),
    ],
)
def test_views(offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
    found = one(tensor(b"", offset, shape, strides))
    assert (found.shape, found.strides) == (shape, strides)
    assert found.offset == (0 if 0 in shape else offset)


def test_a_size_is_a_tuple() -> None:
    size = call(name("torch", "Size"), tuple_of(number(2)))
    assert one(tensor(b"", 0, size, (1,))).shape == (2,)


def test_parameters_and_attributes_are_what_is_in_them() -> None:
    parameter = call(name("torch._utils", "_rebuild_parameter"), tensor(), FALSE, ORDERED)
    assert one(parameter) == one(tensor())
    stated = call(
        *(name("torch._utils", "_rebuild_parameter_with_state"), parameter),
        *(FALSE, ORDERED, dict_of({"tag": text("x")})),
    )
    assert one(stated) == one(tensor())
    inner = tuple_of(
        storage(), number(0), tuple_of(number(4)), tuple_of(number(1)), FALSE, ORDERED
    )
    for module, function in (
        ("torch._tensor", "_rebuild_from_type_v2"),
        ("torch.tensor", "_rebuild_from_type"),
    ):
        typed = call(
            *(name(module, function), name("torch._utils", "_rebuild_tensor_v2")),
            *(name("torch", "Tensor"), inner, dict_of({"tag": text("x")})),
        )
        assert one(typed) == one(tensor())


def test_attributes_of_the_dict_do_not_matter() -> None:
    metadata = dict_of({"_metadata": dict_of({"": dict_of({"version": number(1)})})})
    value = ORDERED + b"(" + text("w") + tensor() + b"u" + metadata + b"b"
    assert list(tensors(value)) == ["w"]


def test_other_values_that_are_no_tensors_can_be_named() -> None:
    value = dict_of(
        {
            "device": call(name("torch", "device"), text("cpu")),
            "dtype": name("torch", "float32"),
            "storage": storage(),
            "type": name("torch", "FloatStorage"),
        }
    )
    found = load(pickle(value), "x").value
    assert isinstance(found, dict)
    assert [kind_of(item) for item in found.values()] == [
        'the name "torch.device"',
        "the dtype F32",
        "a storage without a tensor",
        "a storage type",
    ]


def test_all_storages_are_told_in_order() -> None:
    value = list_of(storage(key="b"), storage(key="a"), storage(key="b"))
    assert list(load(pickle(value), "x").storages) == ["b", "a"]


NOT_A_STATE_DICT = {
    "empty": (b"}", "holds no tensors: its state dict is empty"),
    "empty_ordered": (ORDERED, "holds no tensors: its state dict is empty"),
    "a_list": (
        list_of(tensor()),
        "expected a dict of tensors by name, found a list of 1: save the model's "
        "state_dict() alone, torch.save(model.state_dict(), NEW)",
    ),
    "a_tensor": (
        tensor(),
        "expected a dict of tensors by name, found a tensor: save the model's "
        "state_dict() alone, torch.save(model.state_dict(), NEW)",
    ),
    "key_a_number": (
        b"}" + number(7) + tensor() + b"s",
        "expected names of tensors as the dict's keys, found the number 7: save the "
        "model's state_dict() alone",
    ),
    "a_number_beside_tensors": (
        dict_of({"w": tensor(), "epoch": number(3)}),
        'expected nothing but tensors, but "epoch" is the number 3: save the tensors '
        "alone, torch.save({k: v for k, v in torch.load(FILE, weights_only=True).items() "
        "if isinstance(v, torch.Tensor)}, NEW)",
    ),
    "training_checkpoint": (
        dict_of(
            {
                "epoch": number(3),
                "model": dict_of({"w": tensor()}),
                "optimizer": dict_of({"state": b"}"}),
            }
        ),
        'expected nothing but tensors, but "epoch" is the number 3: save the state dict '
        'alone, torch.save(torch.load(FILE, weights_only=True)["model"], NEW)',
    ),
    "state_dict_in_a_dict": (
        dict_of({"state_dict": dict_of({"w": tensor()})}),
        'expected nothing but tensors, but "state_dict" is a dict of 1: save the state '
        'dict alone, torch.save(torch.load(FILE, weights_only=True)["state_dict"], NEW)',
    ),
    "two_models": (
        dict_of({"encoder": dict_of({"w": tensor()}), "decoder": dict_of({"w": tensor()})}),
        'expected nothing but tensors, but "encoder" is a dict of 1: save the state dict '
        'alone, torch.save(torch.load(FILE, weights_only=True)["encoder"], NEW)',
    ),
    "none": (
        dict_of({"w": NONE}),
        'expected nothing but tensors, but "w" is None: save the tensors alone, '
        "torch.save({k: v for k, v in torch.load(FILE, weights_only=True).items() "
        "if isinstance(v, torch.Tensor)}, NEW)",
    ),
    "name_climbs": (
        dict_of({"../w": tensor()}),
        'tensor name "../w" has a ".." segment',
    ),
}

NAMED = {
    "system": (
        "posix",
        "system",
        f'names "posix.system", which is no part of a state dict of tensors; {WARNING}',
    ),
    "eval": (
        "__builtin__",
        "eval",
        f'names "__builtin__.eval", which is no part of a state dict of tensors; {WARNING}',
    ),
    "control_characters": (
        "a\x1b[2J",
        "b\u202e",
        r'names "a\u001b[2J.b\u202e", which is no part of a state dict of tensors; '
        + WARNING,
    ),
    "quantised": (
        *("torch._utils", "_rebuild_qtensor"),
        "expected plain tensors, found quantised tensors "
        '("torch._utils._rebuild_qtensor"): get the original weights',
    ),
    "quantised_storage": (
        *("torch", "QInt8Storage"),
        'expected plain tensors, found quantised tensors ("torch.QInt8Storage"): get the '
        "original weights",
    ),
    "sparse": (
        *("torch._utils", "_rebuild_sparse_tensor"),
        "expected plain tensors, found sparse tensors "
        '("torch._utils._rebuild_sparse_tensor"): save tensor.to_dense()',
    ),
    "nested": (
        *("torch._utils", "_rebuild_nested_tensor"),
        "expected plain tensors, found nested tensors "
        '("torch._utils._rebuild_nested_tensor"): save their parts one by one',
    ),
    "meta": (
        *("torch._utils", "_rebuild_meta_tensor_no_storage"),
        "expected plain tensors, found tensors on the device meta, which have no data "
        '("torch._utils._rebuild_meta_tensor_no_storage"): save the model after its '
        "weights were loaded",
    ),
    "subclass": (
        *("torch._utils", "_rebuild_wrapper_subclass"),
        "expected plain tensors, found tensors of a class of their own "
        '("torch._utils._rebuild_wrapper_subclass"): save plain tensors',
    ),
    "complex128": (
        *("torch", "ComplexDoubleStorage"),
        "expected plain tensors, found complex numbers of 128 bits, for which safetensors "
        'has no dtype ("torch.ComplexDoubleStorage"): save real and imaginary parts on '
        "their own",
    ),
    "module": (
        *("torch.nn.modules.linear", "Linear"),
        "expected plain tensors, found a whole module, which is code "
        '("torch.nn.modules.linear.Linear"): save the model\'s state_dict() alone; '
        + WARNING,
    ),
    "numpy": (
        *("numpy._core.multiarray", "_reconstruct"),
        "expected plain tensors, found numpy's arrays or numbers "
        '("numpy._core.multiarray._reconstruct"): save them as tensors, '
        f"torch.from_numpy(); {WARNING}",
    ),
    "torch_itself": (
        *("torch.jit.unsupported_tensor_ops", "execWrapper"),
        "expected plain tensors, found a TorchScript module, which is code "
        '("torch.jit.unsupported_tensor_ops.execWrapper"): save the model\'s state_dict() '
        f"alone; {WARNING}",
    ),
}


@pytest.mark.parametrize("case", NOT_A_STATE_DICT)
def test_what_is_no_state_dict_is_refused(case: str) -> None:
    value, message = NOT_A_STATE_DICT[case]
    assert refusal(value) == message


@pytest.mark.parametrize("case", NAMED)
def test_names_are_refused_wherever_they_stand(case: str) -> None:
    module, attribute, message = NAMED[case]
    assert refusal(dict_of({"w": call(name(module, attribute), text("x"))})) == message
    assert refusal(text(module) + text(attribute) + b"\x93)R") == message
    assert refusal(name(module, attribute)) == message
    assert refusal(b"(i" + f"{module}\n{attribute}\n".encode()) == message


def test_the_class_of_a_tensor_is_told_from_other_names() -> None:
    function = name("torch._tensor", "_rebuild_from_type_v2")
    inner = name("torch._utils", "_rebuild_tensor_v2")
    assert refusal(call(function, inner, name("__main__", "Mine"))) == (
        "expected plain tensors, found tensors of a class of their own "
        f'("__main__.Mine"): save plain tensors; {WARNING}'
    )


def test_names_that_are_accepted_do_nothing() -> None:
    for full in NAMES:
        module, _, attribute = full.rpartition(".")
        assert load(pickle(name(module, attribute)), "x").value is NAMES[full]


TENSORS = {
    "beyond_the_storage": (
        tensor(b"", 1),
        'expected all elements in storage "0" of 16 bytes, found F32[4] with strides [1] '
        "from element 1 on, which ends at byte 20",
    ),
    "strides_beyond_the_storage": (
        tensor(b"", 0, (2, 2), (3, 1)),
        'expected all elements in storage "0" of 16 bytes, found F32[2, 2] with strides '
        "[3, 1] from element 0 on, which ends at byte 20",
    ),
    "offset_wraps": (
        tensor(b"", 2**62, (1,)),
        'expected all elements in storage "0" of 16 bytes, found F32[1] with strides [1] '
        f"from element {2**62} on, which ends at byte {2**64 + 4}",
    ),
    "offset_negative": (tensor(b"", -1), "offset: expected 0 or more, found the number -1"),
    "offset_true": (tensor(b"", b"\x88"), "offset: expected 0 or more, found True"),
    "shape_negative": (
        tensor(b"", 0, (-1,)),
        "shape: expected 0 or more, found the number -1",
    ),
    "stride_negative": (
        tensor(b"", 3, (4,), (-1,)),
        "strides: expected 0 or more, found the number -1",
    ),
    "shape_a_list": (
        tensor(b"", 0, list_of(number(4))),
        "shape: expected a tuple, found a list of 1",
    ),
    "shape_a_float": (
        tensor(b"", 0, tuple_of(b"G" + struct.pack(">d", 4.0))),
        "shape: expected 0 or more, found the number 4.0",
    ),
    "shape_overflows": (
        tensor(b"", 0, (2**40, 2**40), (0, 0)),
        f"shape: F32[{2**40}, {2**40}] overflows: more than {2**63 - 1} bytes",
    ),
    "shape_overflow_hidden_by_a_zero": (
        tensor(b"", 0, (0, 2**40, 2**40), (0, 0, 0)),
        f"shape: F32[0, {2**40}, {2**40}] overflows: more than {2**63 - 1} bytes",
    ),
    "rank_65": (
        tensor(b"", 0, (1,) * 65, (1,) * 65),
        "shape: expected up to 64, found 65",
    ),
    "other_rank_of_strides": (
        tensor(b"", 0, (2, 2)),
        "expected 2 strides, found 1",
    ),
    "no_storage": (tensor(number(3)), "expected a storage, found the number 3"),
    "conjugate": (
        tensor(b"", 0, (4,), (1,), dict_of({"conj": b"\x88"})),
        "is a conjugate or negative view, whose data is that of another tensor: save "
        "tensor.resolve_conj().resolve_neg()",
    ),
    "bits_a_list": (
        tensor(b"", 0, (4,), (1,), b"]"),
        "metadata: expected a dict, found a list of 0",
    ),
    "arguments_too_few": (
        call(name("torch._utils", "_rebuild_tensor_v2"), storage()),
        "expected 6 arguments, found 1",
    ),
    "arguments_too_many": (
        tensor(b"", 0, (4,), (1,), b"}", b"}"),
        "expected 6 arguments, found 8",
    ),
    "dtype_missing": (
        tensor(b"", 0, (4,), (1,), NONE, rebuild="_rebuild_tensor_v3"),
        "expected a dtype, found None",
    ),
    "parameter_of_a_number": (
        call(name("torch._utils", "_rebuild_parameter"), number(1), FALSE, ORDERED),
        "expected a parameter made of a tensor",
    ),
    "type_of_a_storage": (
        call(
            *(name("torch._tensor", "_rebuild_from_type_v2"),),
            *(name("torch._utils", "_rebuild_tensor_v2"), name("torch", "FloatStorage")),
            *(tuple_of(), NONE),
        ),
        "expected a plain tensor, found a storage type",
    ),
    "type_without_arguments": (
        call(
            *(name("torch._tensor", "_rebuild_from_type_v2"),),
            *(name("torch._utils", "_rebuild_tensor_v2"), name("torch", "Tensor")),
            *(NONE, NONE),
        ),
        "expected arguments, found None",
    ),
    "type_with_a_function_that_makes_no_tensor": (
        call(
            *(name("torch._tensor", "_rebuild_from_type_v2"),),
            *(name("collections", "OrderedDict"), name("torch", "Tensor")),
            *(tuple_of(), NONE),
        ),
        'expected a tensor, found a call of "collections.OrderedDict"',
    ),
    "type_of_nothing": (
        call(name("torch._tensor", "_rebuild_from_type_v2")),
        "expected a function, a class, its arguments and a state",
    ),
}


@pytest.mark.parametrize("case", TENSORS)
def test_tensors_that_cannot_be_are_refused_by_name(case: str) -> None:
    value, message = TENSORS[case]
    assert refusal(dict_of({"w": value})) == f'tensor "w": {message}'


def test_a_parameter_of_a_parameter_of_a_parameter() -> None:
    """However deep, it is unwrapped a few times only: many may share what they wrap."""
    value = tensor()
    for _ in range(20):
        value = call(name("torch._utils", "_rebuild_parameter"), value, FALSE, ORDERED)
    assert refusal(dict_of({"w": value})) == (
        'tensor "w": expected a tensor, found 8 wrappers around it'
    )


MACHINE = {
    "nothing": (b"", "expected a value on the stack, found none"),
    "two_values": (
        b"NN",
        "expected one value at the end, found more",
    ),
    "open_mark": (
        b"(N",
        "expected one value at the end, found more",
    ),
    "memo_of_nothing": (
        b"q\0",
        "expected a value on the stack, found none",
    ),
    "memo_get_of_nothing": (
        b"h\x07",
        "expected a value in the memo at 7, found none",
    ),
    "mark_missing": (
        b"t",
        "expected a mark on the stack, found none",
    ),
    "tuple_of_too_few": (
        b"N\x86",
        "expected 2 values on the stack, found fewer",
    ),
    "append_to_a_tuple": (
        b")Na",
        "expected a list to append to, found a tuple of 0",
    ),
    "item_of_a_list": (
        b"]NNs",
        "expected a dict to fill, found a list of 0",
    ),
    "items_odd": (
        b"}(X\1\0\0\0au",
        "expected a value for each key, found one less",
    ),
    "key_a_tuple": (
        b"})Ns",
        "expected a string as a key, found a tuple of 0",
    ),
    "key_a_bool": (
        b"}\x88Ns",
        "expected a string as a key, found True",
    ),
    "key_of_72_bits": (
        b"}" + number(2**70) + b"Ns",
        f"expected a string as a key, found the number {2**70}",
    ),
    "key_twice": (
        b"}(K\1NK\1Nu",
        "key the number 1 appears twice in a dict",
    ),
    "call_of_a_dict": (
        b"})R",
        "expected a call of a function, found a dict of 0 and a tuple of 0",
    ),
    "call_of_a_class": (
        b"ctorch\nTensor\n)R",
        'expected a call of a function, found the name "torch.Tensor"',
    ),
    "call_with_a_list": (
        b"ccollections\nOrderedDict\n]R",
        "expected a call of a function, found the name "
        '"collections.OrderedDict" and a list of 0',
    ),
    "ordered_dict_of_a_number": (
        b"ccollections\nOrderedDict\nK\1\x85R",
        "expected an OrderedDict of a list of items",
    ),
    "ordered_dict_of_numbers": (
        b"ccollections\nOrderedDict\n]K\1a\x85R",
        "expected a key and its value, found the number 1",
    ),
    "attributes_of_a_dict": (
        b"}}b",
        "expected attributes of a dict, found of a dict of 0",
    ),
    "attributes_of_a_list": (
        b"]}b",
        "expected attributes of a dict, found of a list of 0",
    ),
    "name_of_numbers": (
        b"K\1K\2\x93",
        "expected a name, found the number 1 and the number 2",
    ),
    "storage_of_a_number": (
        b"K\1Q",
        "expected a storage, found the number 1: the file may hold "
        "a whole module, which is code; save the model's state_dict() alone",
    ),
    "storage_of_a_module": (
        tuple_of(text("module"), NONE, NONE, NONE, NONE) + b"Q",
        "expected a storage, found a tuple of 5: the file may hold "
        "a whole module, which is code; save the model's state_dict() alone",
    ),
    "storage_of_a_dtype": (
        storage("float32"),
        'expected a type and a key, found the dtype F32, the string "0"',
    ),
    "storage_negative": (
        storage(numel=-1),
        "expected a storage's size, found the number -1",
    ),
    "storage_too_large": (
        storage(numel=2**60),
        f"expected a storage's size, found the number {2**60}",
    ),
    "storage_view": (
        storage("FloatStorage", "0", 4, tuple_of(text("1"), number(0), number(2))),
        "expected a storage, found a part of one, as PyTorch before "
        "0.4 wrote: load the file with a newer one and save it again",
    ),
    "storage_of_two_sizes": (
        list_of(storage(), storage(numel=5)),
        'storage "0": expected 4 F32 as before, found 5 F32',
    ),
    "storage_of_two_dtypes": (
        list_of(storage(), storage("IntStorage")),
        'storage "0": expected 4 F32 as before, found 4 I32',
    ),
    "string_not_utf8": (
        b"X\1\0\0\0\xff",
        "expected a string in UTF-8, found other bytes",
    ),
    "string_half_a_pair": (
        text("\ud800"),
        "expected a string in UTF-8, found other bytes",
    ),
    "integer_of_200_bytes": (
        b"\x8a\xc8" + bytes(200),
        "expected an integer of at most 9 bytes, found 200",
    ),
    "integer_of_2_31_bytes": (
        b"\x8b\xff\xff\xff\x7f",
        "expected an integer of at most 9 bytes, found 2147483647",
    ),
    "protocol_6": (
        b"\x80\x06N",
        "expected pickle protocol 2 to 5, found 6",
    ),
    "string_of_2_64_bytes": (
        b"\x8d" + b"\xff" * 8,
        "expected at most 67108864 bytes, found 18446744073709551615",
    ),
    "frame_of_2_63_bytes": (
        b"\x95" + bytes(7) + b"\x80",
        "expected at most 67108864 bytes, found 9223372036854775808",
    ),
    "opcode_of_text": (
        b"S'x'\n",
        "expected an opcode that torch.save writes, found 0x53: the "
        "file is damaged, or holds something other than tensors",
    ),
    "opcode_of_bytes": (
        b"C\1x",
        "expected an opcode that torch.save writes, found 0x43: the "
        "file is damaged, or holds something other than tensors",
    ),
    "opcode_pop": (
        b"NN0",
        "expected an opcode that torch.save writes, found 0x30: the "
        "file is damaged, or holds something other than tensors",
    ),
    "newobj": (
        b"ctorch\nTensor\n)\x81",
        f"makes an object (NEWOBJ), which is no tensor; {WARNING}",
    ),
    "obj": (
        b"(ctorch\nTensor\no",
        f"makes an object (OBJ), which is no tensor; {WARNING}",
    ),
    "ext": (b"\x82\1", f"makes an object (EXT1), which is no tensor; {WARNING}"),
}


@pytest.mark.parametrize("case", MACHINE)
def test_what_no_pickler_writes_is_refused(case: str) -> None:
    value, message = MACHINE[case]
    assert re.sub(r"^pickle: byte \d+: ", "", refusal(value)) == message


def test_messages_say_where_in_the_pickle() -> None:
    assert refusal(b"NNt") == ("pickle: byte 4: expected a mark on the stack, found none")


@pytest.mark.parametrize("data", [b"", b"N.", b"(dp0\n.", b"PK\x03\x04"])
def test_other_bytes_are_no_pickle(data: bytes) -> None:
    with pytest.raises(FormatError, match=r"^x: expected a pickle, found other bytes$"):
        load(data, "x")


def test_a_pickle_that_is_cut_anywhere_asks_for_more() -> None:
    value = dict_of({"w": tensor(), "größe": list_of(number(2**40), b"G" + bytes(8), NONE)})
    for data in (pickle(value), stock.dumps({"a": ("b" * 300, [1, 70_000])}, 4)):
        load(data, "x")
        for length in range(1, len(data)):
            with pytest.raises(CutShortError):
                load(data[:length], "x")


NESTED = 100_000
BOMBS: dict[str, Callable[[int], bytes]] = {
    "tuples": lambda depth: b"N" + b"\x85" * depth,
    "lists": lambda depth: b"]" * depth + b"a" * (depth - 1),
    "dicts": lambda depth: b"}" + b"K\1}" * depth + b"s" * depth,
    "tuples_of_twice_the_same": lambda depth: b")" + b"q\0h\0\x86" * depth,
    "lists_of_twice_the_same": lambda depth: b"]" + b"q\0](h\0h\0e\x86" * depth,
    "memo_of_2_32": lambda depth: (
        b"N" + b"r\xff\xff\xff\xff" * depth + b"r\xff\xff\xff\x7f"
    ),
    "a_list_in_itself": lambda depth: b"]q\0" + b"h\0a" * depth,
    "keys_of_few_hashes": lambda depth: (
        b"}(" + b"".join(number(i << 40) + NONE for i in range(1, depth)) + b"u"
    ),
    "frames": lambda depth: (
        b"N" + b"".join(b"\x95" + struct.pack("<Q", 9 * i) for i in reversed(range(depth)))
    ),
    "marks": lambda depth: b"(" * depth + b"t" * depth,
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs_are_taken_apart_like_anything_else(bomb: str) -> None:
    """Loaded, named in a message, and thrown away, without following them down."""
    found = load(pickle(BOMBS[bomb](NESTED)), "x").value
    assert kind_of(found)
    del found
    less = BOMBS[bomb](NESTED // 10)
    assert len(refusal(b"}" + less + b"Ns")) < 300
    assert len(refusal(less + b"Q")) < 300
    assert len(refusal(dict_of({"w": tensor(b"", 0, less)}))) < 300


def test_calls_of_calls_of_calls() -> None:
    function = name("torch._utils", "_rebuild_parameter")
    deep = function + b"q\0" + b"h\0" * NESTED + b"N" + b"\x85R" * (NESTED + 1)
    assert refusal(dict_of({"w": deep})) == (
        'tensor "w": expected a parameter made of a tensor'
    )


def test_items_that_many_dicts_share_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("releasekit.checkpoint.torchfile.pickles._MAX_STEPS", 10_000)
    items = list_of(*(list_of(number(i), NONE) for i in range(900)))
    value = items + b"q\0" + name("collections", "OrderedDict") + b"q\1"
    assert refusal(list_of(value, b"h\1h\0\x85R" * 1000)) == (
        "pickle: byte 7179: expected at most 10000 items, found more"
    )


def test_a_pickle_without_end_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("releasekit.checkpoint.torchfile.pickles._MAX_STEPS", 1000)
    assert refusal(b"N" * 1000) == (
        "pickle: byte 1000: expected an end within 1000 opcodes, found none"
    )
    load(pickle(b"](" + b"N" * 990 + b"e"), "x")


class Runs:
    """What a malicious file holds: loading it writes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return exec, (f"open({str(self.marker)!r}, 'w').close()",)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_nothing_is_run(protocol: int, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    data = stock.dumps({"w": Runs(marker)}, protocol)
    before = set(sys.modules)
    with pytest.raises(FormatError) as caught:
        load(data, "x")
    module = "__builtin__" if protocol == 2 else "builtins"
    assert str(caught.value) == (
        f'x: names "{module}.exec", which is no part of a state dict of tensors; {WARNING}'
    )
    assert not marker.exists()
    assert set(sys.modules) == before
    stock.load(io.BytesIO(data))  # it is what it is said to be
    assert marker.exists()


@pytest.mark.parametrize(
    "opcodes",
    [
        "cposix\nsystem\nX{command}\x85R",
        "(X{command}iposix\nsystem\n",
        "(cposix\nsystem\nX{command}o",
        "ccollections\nOrderedDict\n)R}}X__setstate__cposix\nsystem\nsbX{command}b",
    ],
    ids=["reduce", "inst", "obj", "build"],
)
def test_no_opcode_runs_a_command(opcodes: str, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    parts = opcodes.replace("X__setstate__", text("__setstate__").decode()).split(
        "X{command}"
    )
    value = text(f"touch {marker}").join(part.encode("latin-1") for part in parts)
    assert refusal(value) == (
        f'names "posix.system", which is no part of a state dict of tensors; {WARNING}'
    )
    assert not marker.exists()

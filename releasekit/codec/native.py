"""Compiled loops without the compiler's start-up: machine code, kept in the user's cache.

numba compiles the codec's loops, but importing it and preparing its dispatch takes about
half a second and 60 MiB in every process, as long as rebuilding half a gigabyte. So each
loop is compiled once to an object file for this processor, which llvmlite, the small
library under numba, loads in a few milliseconds; numba itself is then never imported.

A loop is a plain Python function over arrays and numbers with a signature in C's types.
It may not allocate, raise or call back into Python, so that its object file stands alone;
one that does is refused when it is compiled. Calls release the GIL.

The cache is believed only where nobody else can write, and an object only with its digest;
its name holds the digest of all that shapes it. Where no cache can be written, loops are
compiled in each process: slower to start, but right.
"""

from __future__ import annotations

import ctypes
import hashlib
import inspect
import os
import stat
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import CellType, FunctionType
from typing import Any, Final

import llvmlite
import llvmlite.binding as llvm
import numpy as np
from numpy.typing import NDArray

_C_TYPES: Final[dict[str, Any]] = {
    "u1": ctypes.c_uint8,
    "u2": ctypes.c_uint16,
    "u4": ctypes.c_uint32,
    "u8": ctypes.c_uint64,
    "i8": ctypes.c_int64,
    "f8": ctypes.c_double,
}
#: What compiled code may call: the processor's own operations and libc's plain loops.
_ALLOWED: Final = ("llvm.", "memcpy", "memset", "memmove", "log2")
_DIGEST_NBYTES: Final = 32
_ENGINE: Final = threading.Lock()


class Kernel:
    """A loop that is loaded, or compiled, when it is first called."""

    def __init__(
        self,
        body: Callable[..., Any],
        signature: str,
        *,
        returns: str | None = None,
        helpers: tuple[Callable[..., Any], ...] = (),
        variant: str = "",
    ) -> None:
        """Describe a loop.

        Args:
            body: the function; nothing but arrays, numbers and `helpers`.
            signature: a type for each parameter, separated by spaces: `u1` to `u8`, `i8`,
                `f8`, and with `*` C-contiguous arrays of them in one dimension.
            returns: type of the result.
            helpers: functions that `body`, and helpers behind them, call: module-level
                ones, or variables of the functions around these.
            variant: tells apart loops that are built from one body with other constants.
        """
        self._body = body
        self._parameters = tuple(signature.split())
        self._dtypes = tuple(
            np.dtype(name[:-1]) if name[-1] == "*" else None for name in self._parameters
        )
        self._returns = returns
        self._helpers = helpers
        self._name = f"{body.__name__}{variant}"
        self._lock = threading.Lock()
        self._call: Callable[..., Any] | None = None

    def __call__(self, *args: Any) -> Any:
        """Run it. TypeError if an array is not what the signature says."""
        call = self._call
        if call is None:
            with self._lock:
                call = self._call = self._call or self._load()
        flat: list[Any] = []
        for value, dtype in zip(args, self._dtypes, strict=True):
            if dtype is None:
                flat.append(value)
                continue
            if value.dtype != dtype or not value.flags.c_contiguous:
                raise TypeError(f"{self._name}: expected {dtype}, found {value.dtype}")
            flat += (_address(value), value.size)
        return call(*flat)

    def _load(self) -> Callable[..., Any]:
        key = self._key()
        code = _read(key)
        if code is None:
            code = self._compile()
            _write(key, code)
        types: list[Any] = []
        for wanted in self._parameters:
            if wanted[-1] == "*":
                types += (ctypes.c_void_p, ctypes.c_ssize_t)
            else:
                types.append(_C_TYPES[wanted])
        result = None if self._returns is None else _C_TYPES[self._returns]
        return ctypes.CFUNCTYPE(result, *types)(_engine().add(code, self._name))

    def _key(self) -> str:
        """Names the object file by all that shapes it."""
        digest = hashlib.sha256()
        functions = (self._body, *self._helpers)
        sources = dict.fromkeys((*(f.__module__ for f in functions), __name__))
        for part in (
            self._name,
            *self._parameters,
            self._returns,
            _compiler_version(),
            llvmlite.__version__,
            sys.version,
            llvm.get_process_triple(),
            *_processor(),
            *(inspect.getsource(sys.modules[source]) for source in sources),
            *(constant for function in functions for constant in _constants(function)),
        ):
            digest.update(f"{part}\0".encode())
        return f"{self._name}-{digest.hexdigest()[:32]}.o"

    def _compile(self) -> bytes:
        """An object file with one function, under this loop's name."""
        import numba
        from numba import carray, cfunc, types

        options: Any = {"error_model": "numpy", "forceinline": True}
        jitted: dict[int, Any] = {}
        for helper in self._helpers:
            jitted[id(helper)] = numba.njit(**options)(_seeing(helper, jitted))
        body = _seeing(self._body, jitted)
        taken, passed = [], []
        kinds: list[Any] = []
        for number, wanted in enumerate(self._parameters):
            kind = getattr(types, wanted[:2])
            taken.append(f"p{number}")
            if wanted[-1] == "*":
                taken.append(f"n{number}")
                passed.append(f"carray(p{number}, (n{number},))")
                kinds += (types.CPointer(kind), types.intp)
            else:
                passed.append(f"p{number}")
                kinds.append(kind)
        space = {"carray": carray, "body": numba.njit(**options)(body)}
        # numba reads an entry's signature off its parameters, whose number varies here.
        entry = f"def entry({', '.join(taken)}):\n    return body({', '.join(passed)})"
        exec(entry, space)
        result = types.void if self._returns is None else getattr(types, self._returns)
        compiled = cfunc(result(*kinds), error_model="numpy")(space["entry"])
        return _emit(compiled.inspect_llvm(), compiled.native_name, self._name)


def _constants(function: Any) -> Iterator[str]:
    """Numbers from elsewhere that a function names, and that are compiled into its loop."""
    named = {name: function.__globals__.get(name) for name in function.__code__.co_names}
    named.update(inspect.getclosurevars(function).nonlocals)
    for name, value in named.items():
        if isinstance(value, (int, float, tuple, np.generic)):
            yield f"{name}={value!r}"


def _seeing(function: Any, jitted: dict[int, Any]) -> FunctionType:
    """A copy of a function that sees helpers as they were compiled, by their identity."""

    def seen(value: Any) -> Any:
        return jitted.get(id(value), value)

    space = {name: seen(value) for name, value in function.__globals__.items()}
    cells = function.__closure__ or ()
    closure = tuple(CellType(seen(cell.cell_contents)) for cell in cells)
    return FunctionType(function.__code__, space, closure=closure)


def _address(array: NDArray[Any]) -> int:
    """Where an array's memory begins."""
    if array.flags.writeable and array.size:
        # A third of the time that the array itself takes to tell it.
        return ctypes.addressof(ctypes.c_char.from_buffer(array.data))
    return int(array.__array_interface__["data"][0])


def _emit(code: str, entry: str, name: str) -> bytes:
    """Object code of one function out of numba's module, under the given name."""
    module = llvm.parse_assembly(code)
    for value in (*module.functions, *module.global_variables):
        if not value.is_declaration and value.name != entry:
            value.linkage = "internal"
    machine = _machine()
    builder = llvm.create_pass_builder(
        machine, llvm.create_pipeline_tuning_options(speed_level=3)
    )
    builder.getModulePassManager().run(module, builder)
    for function in module.functions:
        if function.name == entry:
            function.name = name
        elif function.is_declaration and not function.name.startswith(_ALLOWED):
            raise RuntimeError(f"{name}: the compiled loop calls {function.name}")
    return bytes(machine.emit_object(module))


class _Engine:
    """The process's loaded code."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _machine())

    def add(self, code: bytes, name: str) -> int:
        """Load object code; returns the address of its function."""
        with self._lock:
            self._engine.add_object_file(llvm.ObjectFileRef.from_data(code))
            self._engine.finalize_object()
            return int(self._engine.get_function_address(name))


def _engine() -> _Engine:
    """The one engine: a second would take its code with it when it goes."""
    with _ENGINE:
        return _only_engine()


@cache
def _only_engine() -> _Engine:
    return _Engine()


@cache
def _compiler_version() -> str:
    """What tells numba's releases apart, without importing it or all packages' metadata."""
    found = find_spec("numba")
    if found is None or found.origin is None:
        return ""
    return Path(found.origin).with_name("_version.py").read_text()


@cache
def _processor() -> tuple[str, str]:
    return llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()


@cache
def _machine() -> Any:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    cpu, features = _processor()
    # As numba does: position-independent code of LLVM's large model fails on x86.
    x86 = llvm.get_process_triple().startswith(("x86", "i386", "i686"))
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=cpu,
        features=features,
        opt=3,
        reloc="static" if x86 else "default",
        codemodel="jitdefault",
        jit=True,
    )


@cache
def _folder() -> Path | None:
    """A folder for object files that is ours alone, or None."""
    home = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    for folder in (
        Path(home) / "releasekit",
        Path(tempfile.gettempdir()) / f"releasekit-{os.geteuid()}",
    ):
        with suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = folder.lstat()
            ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
            if ours and not found.st_mode & 0o022 and os.access(folder, os.W_OK):
                return folder
    return None


def is_cold() -> bool:
    """Whether nothing was ever compiled here, or nothing could be kept."""
    folder = _folder()
    return folder is None or not any(folder.glob("*.o"))


def _read(name: str) -> bytes | None:
    """An object file from the cache, if it is there and whole."""
    folder = _folder()
    if folder is None:
        return None
    try:
        data = (folder / name).read_bytes()
    except OSError:
        return None
    digest, code = data[:_DIGEST_NBYTES], data[_DIGEST_NBYTES:]
    return code if hashlib.sha256(code).digest() == digest else None


def _write(name: str, code: bytes) -> None:
    """Keep an object file; whole, or not at all."""
    folder = _folder()
    if folder is None:
        return
    with suppress(OSError):
        handle, path = tempfile.mkstemp(dir=folder)
        try:
            with open(handle, "wb") as file:
                file.write(hashlib.sha256(code).digest() + code)
            os.replace(path, folder / name)
        except OSError:
            os.unlink(path)

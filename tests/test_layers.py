"""Which module may import which, read from the source, lazy imports included.

Each layer imports only itself and those above it in this list, and no module imports
itself through others.
"""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import releasekit
from tests.builders import model_folder

ROOT = Path(releasekit.__file__).parent
LAYERS = {
    "values": {
        *("errors", "findings", "tensors", "names", "digest", "progress", "sizes"),
        "versions",
    },
    "pure": {
        *("strictjson", "layout", "sums", "codec", "operations", "manifest", "folding"),
        *("evals", "licenses", "manifest_parser", "provenance", "sharding", "statistics"),
        *("redaction", "stages", "stricttoml"),
    },
    "effects": {
        *("blocks", "card", "charts", "checkpoint", "device", "hashing", "hub"),
        *("license_files", "model_writer", "output", "pictures", "pipeline", "received"),
        *("parts", "resources", "runs", "signing", "smallest", "storage", "trust"),
        "writing",
    },
    "workflows": {
        *("admission", "amending", "authenticity", "comparison", "conversion", "delta"),
        "fetching",
        *("foreign", "publication"),
        *("identification", "inspection", "licensing", "presentation", "sealing"),
        *("planning", "releasing", "reporting", "verification"),
    },
    "package": {"releasekit"},  # the names that it hands on
    "shell": {"cli", "__main__"},
}
# Heavy, or with effects: where they may be imported.
FOREIGN = {
    "click": "cli",
    "tqdm": "cli.shell",
    "torch": "device delta.open delta.load delta.swap delta.view",
    "llvmlite": "codec.native",
    "numba": "codec.native",
    "pcodec": "codec.ulp",
    "blake3": "digest",
    "fcntl": "output blocks trust",
    "fsspec": "storage.store",
    "cryptography": "signing",
    "hf_xet": "hub",
    "huggingface_hub": "hub",
    "jinja2": "card.pages pictures.page",
    "markdown_it": "card.checks",
    "matplotlib": "charts pictures.png",
    "ray": "parts.cluster",
    "spdx": "license_files",
    "yaml": "hub",
}


def name_of(path: Path) -> str:
    """`codec.ulp` for that module, `codec` for the package's own, `releasekit` for all."""
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    if parts[-1] == "__init__":
        parts.pop()
    return ".".join(parts) or "releasekit"


@cache
def trees() -> dict[str, ast.Module]:
    """The source of all modules, by their names here."""
    return {
        name_of(path): ast.parse(path.read_bytes()) for path in sorted(ROOT.rglob("*.py"))
    }


@cache
def imported(module: str) -> frozenset[str]:
    """Full names of all that a module imports, wherever in it."""
    return frozenset(_imported(trees()[module]))


def _imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@cache
def own_imports(module: str) -> frozenset[str]:
    """The modules of ours that a module imports, under their names here."""
    found = set()
    for name in imported(module):
        if name.partition(".")[0] == "releasekit":
            parts = name.split(".")[1:]
            known = [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
            found.add(next((part for part in known if part in trees()), "releasekit"))
    return frozenset(found)


def layer_of(module: str) -> int:
    room = module.partition(".")[0]
    found = [index for index, rooms in enumerate(LAYERS.values()) if room in rooms]
    assert found, f"{module} belongs to no layer"
    return found[0]


def test_the_source_was_found() -> None:
    assert own_imports("delta.apply") >= {
        "output",
        "manifest",
        "delta.rebuild",
        "delta.lineage",
    }
    assert "strictjson" in own_imports("manifest")  # `from releasekit import strictjson`
    assert "checkpoint.discover" in own_imports("checkpoint")  # inside a function


def test_imports_point_down() -> None:
    assert [
        f"{module} imports {other}"
        for module in trees()
        for other in own_imports(module)
        if layer_of(other) > layer_of(module)
    ] == []


def test_no_module_imports_itself_through_others() -> None:
    # The package only hands on names, when they are first used.
    graph = {module: own_imports(module) for module in trees() if module != "releasekit"}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" → ".join(error.args[1]))


@pytest.mark.parametrize("package", FOREIGN)
def test_some_packages_are_imported_in_one_place(package: str) -> None:
    users = {
        module
        for module in trees()
        if any(name.partition(".")[0] == package for name in imported(module))
    }
    places = tuple(f"{place}." for place in FOREIGN[package].split())
    assert users
    assert {user for user in users if not f"{user}.".startswith(places)} == set()


def swallows(handler: ast.ExceptHandler) -> bool:
    """Whether errors of all kinds may end here."""
    if handler.type is None:
        return True
    names = {part.id for part in ast.walk(handler.type) if isinstance(part, ast.Name)}
    last = handler.body[-1]
    raises_again = isinstance(last, ast.Raise) and last.exc is None
    return "Exception" in names or ("BaseException" in names and not raises_again)


def test_no_error_is_swallowed() -> None:
    assert [
        f"{module}, line {node.lineno}"
        for module, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ExceptHandler) and swallows(node)
    ] == []


def test_the_library_never_ends_the_process() -> None:
    ends = {"exit", "_exit", "quit", "abort", "SystemExit", "print"}
    assert [
        f"{module}, line {node.lineno}"
        for module, tree in trees().items()
        if module.partition(".")[0] not in LAYERS["shell"]
        for node in ast.walk(tree)
        if (isinstance(node, ast.Name) and node.id in ends)
        or (isinstance(node, ast.Attribute) and node.attr in ends)
    ] == []


HEAVY = ("click", "huggingface_hub", "numba", "numpy", "torch")


def loaded(code: str, *arguments: str | Path) -> list[str]:
    """Which heavy packages a fresh interpreter has loaded after running the code."""
    report = f"import json; print(json.dumps([n for n in {HEAVY} if n in sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\n{report}", *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(found, list)
    return found


COMMANDS = (
    "import json\n"
    "from releasekit.cli import cli\n"
    "from releasekit.cli.shell import run\n"
    "for arguments in json.loads(sys.argv[1]):\n"
    "    assert run(cli, arguments) == 0, arguments"
)


def test_importing_the_package_costs_nothing() -> None:
    assert loaded("import releasekit") == []
    assert loaded("import releasekit; dir(releasekit); releasekit.UsageError") == []


def test_help_loads_nothing_heavy() -> None:
    names = ("make-delta", "preflight", "apply-delta", "verify", "inspect")
    runs = [["--help"], *([name, "--help"] for name in names)]
    assert loaded(COMMANDS, json.dumps(runs)) == ["click"]


def test_commands_load_neither_torch_nor_the_hub(tmp_path: Path) -> None:
    base = model_folder(tmp_path / "base", {"w": ("BF16", [2], b"abcd")})
    target = model_folder(tmp_path / "target", {"w": ("BF16", [2], b"abce")})
    delta, out = tmp_path / "delta", tmp_path / "out"
    runs = [
        ["make-delta", "--base", base, "--target", target, "--out", delta],
        ["preflight", "--base", base, "--delta", delta, "--out", out],
        ["apply-delta", "--base", base, "--delta", delta, "--out", out],
        ["verify", out, "--against", delta],
        ["inspect", delta],
    ]
    found = loaded(COMMANDS, json.dumps(runs, default=str))
    assert {"torch", "huggingface_hub"}.isdisjoint(found)


def test_all_names_are_handed_on() -> None:
    assert releasekit.__all__ == sorted(releasekit.__all__)
    assert set(releasekit.__all__) <= set(dir(releasekit))
    for name in releasekit.__all__:
        assert getattr(releasekit, name).__name__ == name
    with pytest.raises(AttributeError, match=r"^module 'releasekit' has no attribute 'x'$"):
        _ = releasekit.x

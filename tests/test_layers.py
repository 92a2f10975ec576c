"""Which module may import which, read from the source, lazy imports included.

Each layer imports only itself and those above it in this list, and no module imports
itself through others.
"""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
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
        "stricttoml",
    },
    "effects": {
        *("blocks", "card", "charts", "checkpoint", "device", "hashing", "hub"),
        *("license_files", "model_writer", "output", "pictures", "pipeline", "received"),
        *("parts", "resources", "signing", "smallest", "storage", "trust", "writing"),
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


TREES = {name_of(path): ast.parse(path.read_bytes()) for path in sorted(ROOT.rglob("*.py"))}


def imported(tree: ast.AST) -> Iterator[str]:
    """Full names of all that a module imports, wherever in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(module: str) -> set[str]:
    """The modules of ours that a module imports, under their names here."""
    found = set()
    for name in imported(TREES[module]):
        if name.partition(".")[0] == "releasekit":
            parts = name.split(".")[1:]
            known = [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
            found.add(next((part for part in known if part in TREES), "releasekit"))
    return found


IMPORTS = {module: own_imports(module) for module in TREES}
LIBRARY = [module for module in TREES if module.partition(".")[0] not in LAYERS["shell"]]


def layer_of(module: str) -> int:
    room = module.partition(".")[0]
    found = [index for index, rooms in enumerate(LAYERS.values()) if room in rooms]
    assert found, f"{module} belongs to no layer"
    return found[0]


def test_the_source_was_found() -> None:
    assert IMPORTS["delta.apply"] >= {
        "output",
        "manifest",
        "delta.rebuild",
        "delta.lineage",
    }
    assert "strictjson" in IMPORTS["manifest"]  # `from releasekit import strictjson`
    assert "checkpoint.discover" in IMPORTS["checkpoint"]  # inside a function


@pytest.mark.parametrize("module", TREES)
def test_imports_point_down(module: str) -> None:
    layer = layer_of(module)
    assert {other for other in IMPORTS[module] if layer_of(other) > layer} == set()


def test_no_module_imports_itself_through_others() -> None:
    # The package only hands on names, when they are first used.
    graph = {module: others for module, others in IMPORTS.items() if module != "releasekit"}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" → ".join(error.args[1]))


@pytest.mark.parametrize("package", FOREIGN)
def test_some_packages_are_imported_in_one_place(package: str) -> None:
    users = {
        module
        for module, tree in TREES.items()
        if any(name.partition(".")[0] == package for name in imported(tree))
    }
    places = tuple(f"{place}." for place in FOREIGN[package].split())
    assert users
    assert {user for user in users if not f"{user}.".startswith(places)} == set()


@pytest.mark.parametrize("module", TREES)
def test_no_error_is_swallowed(module: str) -> None:
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"line {node.lineno}"
            names = {part.id for part in ast.walk(node.type) if isinstance(part, ast.Name)}
            assert "Exception" not in names, f"line {node.lineno}"
            if "BaseException" in names:
                last = node.body[-1]
                assert isinstance(last, ast.Raise), f"line {node.lineno}"
                assert last.exc is None, f"line {node.lineno}"


@pytest.mark.parametrize("module", LIBRARY)
def test_the_library_never_ends_the_process(module: str) -> None:
    names = {
        *(node.id for node in ast.walk(TREES[module]) if isinstance(node, ast.Name)),
        *(node.attr for node in ast.walk(TREES[module]) if isinstance(node, ast.Attribute)),
    }
    assert names.isdisjoint({"exit", "_exit", "quit", "abort", "SystemExit", "print"})


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


COMMAND = (
    "from releasekit.cli import cli\n"
    "from releasekit.cli.shell import run\n"
    "assert run(cli, sys.argv[1:]) == 0"
)


def test_importing_the_package_costs_nothing() -> None:
    assert loaded("import releasekit") == []
    assert loaded("import releasekit; dir(releasekit); releasekit.UsageError") == []


@pytest.mark.parametrize(
    "command", ["", "make-delta", "preflight", "apply-delta", "verify", "inspect"]
)
def test_help_loads_nothing_heavy(command: str) -> None:
    assert loaded(COMMAND, *filter(None, [command]), "--help") == ["click"]


def test_commands_load_neither_torch_nor_the_hub(tmp_path: Path) -> None:
    base = model_folder(tmp_path / "base", {"w": ("BF16", [2], b"abcd")})
    target = model_folder(tmp_path / "target", {"w": ("BF16", [2], b"abce")})
    delta, out = tmp_path / "delta", tmp_path / "out"
    runs: list[list[str | Path]] = [
        ["make-delta", "--base", base, "--target", target, "--out", delta],
        ["preflight", "--base", base, "--delta", delta, "--out", out],
        ["apply-delta", "--base", base, "--delta", delta, "--out", out],
        ["verify", out, "--against", delta],
        ["inspect", delta],
    ]
    for arguments in runs:
        assert {"torch", "huggingface_hub"}.isdisjoint(loaded(COMMAND, *arguments))


def test_all_names_are_handed_on() -> None:
    assert releasekit.__all__ == sorted(releasekit.__all__)
    assert set(releasekit.__all__) <= set(dir(releasekit))
    for name in releasekit.__all__:
        assert getattr(releasekit, name).__name__ == name
    with pytest.raises(AttributeError, match=r"^module 'releasekit' has no attribute 'x'$"):
        _ = releasekit.x

"""The allowed arrows between the folders, and the doors to the outside.

The walk reads every import of every module, also inside functions and type-checking blocks, relative ones, and names of
modules that stand in strings (``importlib``), and fails on an arrow that the design does not have.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import shiplap.cli.main

PACKAGE = Path(shiplap.cli.main.__file__).parents[1]

# folder → prefixes of what it may import of ours, itself included.
ALLOWED = {
    "core": ("shiplap.core",),
    "verity": ("shiplap.verity", "shiplap.core.errors", "shiplap.core.run"),
    "rootfs": ("shiplap.rootfs", "shiplap.verity", "shiplap.core"),
    "adapters": ("shiplap.adapters", "shiplap.rootfs", "shiplap.verity", "shiplap.core"),
    "audit": ("shiplap.audit", "shiplap.rootfs", "shiplap.verity", "shiplap.core"),
    "cli": ("shiplap",),
}
MODULE_NAME = re.compile(rf"shiplap\.({'|'.join(ALLOWED)})(\.[A-Za-z_]\w*)*")
# What is not in the standard library, and which modules may import it. `compression` is Python 3.14's.
THIRD_PARTY = {
    "yaml": ("core/manifest/",),
    # core/zstd.py looks for libzstd among what libarchive has loaded; it calls nothing of libarchive.
    "libarchive": ("core/libarchive.py", "core/zstd.py"),
    "compression": ("core/",),
    # The docker SDK and what it is made of: an extra, imported when an engine is asked.
    "docker": ("core/engine/client.py",),
    "requests": ("core/engine/client.py",),
    "urllib3": ("core/engine/client.py",),
}
# Only these may end the process or print. A hash worker is a process of its own, and this file is its program.
EXITS = ("cli/", "verity/blocks.py")


def modules_named(tree: ast.AST, package: str) -> Iterator[tuple[int, str]]:
    """(line, full name) of everything that a module imports; ``package``: the one that relative imports start from."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            # `from shiplap.core import errors` names a module, `from shiplap.core.errors import Refused` none: both
            # spellings are longer than the allowed prefix or equal to it.
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and MODULE_NAME.fullmatch(node.value):
            yield node.lineno, node.value


def forbidden_imports(package: Path) -> list[str]:
    """Every wrong arrow below ``package`` (the folder that holds core, rootfs…), as ``file:line: what``."""
    wrong = []
    for folder, allowed in ALLOWED.items():
        for path in sorted((package / folder).rglob("*.py")):
            name = path.relative_to(package).as_posix()
            inside = ".".join(["shiplap", *path.relative_to(package).parts[:-1]])
            for line, module in modules_named(ast.parse(path.read_bytes(), name), inside):
                top = module.split(".")[0]
                if top == "shiplap":
                    if not any(f"{module}.".startswith(f"{prefix}.") for prefix in allowed):
                        wrong.append(f"{name}:{line}: {module}")
                elif top in THIRD_PARTY:
                    if not name.startswith(THIRD_PARTY[top]):
                        wrong.append(f"{name}:{line}: {module}")
                elif top not in sys.stdlib_module_names and top != "__future__":
                    wrong.append(f"{name}:{line}: {module}")
    return sorted(wrong)


def exits(package: Path) -> list[str]:
    """Every place outside cli/ that ends the process or prints."""
    wrong = []
    for folder in ALLOWED:
        for path in sorted((package / folder).rglob("*.py")):
            name = path.relative_to(package).as_posix()
            if name.startswith(EXITS):
                continue
            for node in ast.walk(ast.parse(path.read_bytes(), name)):
                if isinstance(node, ast.Call) and ast.unparse(node.func) in ("print", "exit", "quit", "sys.exit", "os._exit"):
                    wrong.append(f"{name}:{node.lineno}: {ast.unparse(node.func)}")
                if isinstance(node, ast.Name) and node.id == "SystemExit":
                    wrong.append(f"{name}:{node.lineno}: SystemExit")
    return wrong


def test_no_module_imports_against_the_arrows() -> None:
    assert forbidden_imports(PACKAGE) == []


def test_nothing_outside_cli_prints_or_exits() -> None:
    assert exits(PACKAGE) == []


def test_every_folder_has_modules_to_look_at() -> None:
    for folder in ("core", "rootfs", "verity", "cli"):
        assert list((PACKAGE / folder).glob("*.py")), folder
    assert {path.name for path in PACKAGE.iterdir() if path.name != "__pycache__"} == set(ALLOWED)


@pytest.mark.parametrize(
    ("place", "code", "found"),
    [
        ("core/x.py", "import shiplap.rootfs.a", "core/x.py:1: shiplap.rootfs.a"),
        ("core/x.py", "from shiplap.cli import console", "core/x.py:1: shiplap.cli.console"),
        ("core/x.py", "from shiplap import verity", "core/x.py:1: shiplap.verity"),
        ("core/x.py", "import shiplap", "core/x.py:1: shiplap"),
        ("core/sub/x.py", "from ...rootfs import a", "core/sub/x.py:1: shiplap.rootfs.a"),
        ("core/x.py", "def f():\n    import shiplap.audit.report", "core/x.py:2: shiplap.audit.report"),
        ("core/x.py", "if TYPE_CHECKING:\n    from shiplap.cli.console import Console", "core/x.py:2: shiplap.cli.console.Console"),
        ("core/x.py", "import_module('shiplap.rootfs.sinks')", "core/x.py:1: shiplap.rootfs.sinks"),
        ("core/x.py", "import requests", "core/x.py:1: requests"),
        ("core/x.py", "import yaml", "core/x.py:1: yaml"),
        ("rootfs/x.py", "import libarchive.ffi", "rootfs/x.py:1: libarchive.ffi"),
        ("rootfs/x.py", "from shiplap.audit import verify", "rootfs/x.py:1: shiplap.audit.verify"),
        ("verity/x.py", "from shiplap.core.entries import Kind", "verity/x.py:1: shiplap.core.entries.Kind"),
        ("verity/x.py", "from shiplap.core import progress", "verity/x.py:1: shiplap.core.progress"),
        ("verity/x.py", "from shiplap.core.runtime import x", "verity/x.py:1: shiplap.core.runtime.x"),
        ("audit/x.py", "from shiplap.adapters import yocto", "audit/x.py:1: shiplap.adapters.yocto"),
        ("adapters/x.py", "from shiplap.audit import verify", "adapters/x.py:1: shiplap.audit.verify"),
    ],
)
def test_a_wrong_arrow_is_found_wherever_it_hides(place: str, code: str, found: str, tmp_path: Path) -> None:
    path = tmp_path / place
    path.parent.mkdir(parents=True)
    path.write_text(code + "\n")
    assert forbidden_imports(tmp_path) == [found]


@pytest.mark.parametrize(
    ("place", "code"),
    [
        ("core/x.py", "import os\nfrom shiplap.core.errors import Refused\nfrom .errors import Refused\nfrom . import entries"),
        ("core/manifest/x.py", "import yaml\nfrom ..errors import Refused"),
        ("verity/x.py", "from shiplap.core.errors import Refused\nfrom shiplap.core import run\nimport shiplap.verity.tree"),
        ("rootfs/x.py", "from shiplap.verity import tree\nfrom shiplap.core.image import Image"),
        ("cli/x.py", "import shiplap.audit.verify\nimport_module('shiplap.core.libarchive')"),
    ],
)
def test_the_arrows_of_the_design_are_allowed(place: str, code: str, tmp_path: Path) -> None:
    path = tmp_path / place
    path.parent.mkdir(parents=True)
    path.write_text(code + "\n")
    assert forbidden_imports(tmp_path) == []


def test_a_print_or_an_exit_in_the_core_is_found(tmp_path: Path) -> None:
    (tmp_path / "core").mkdir()
    (tmp_path / "core/x.py").write_text("import sys\nprint(1)\nsys.exit(2)\nraise SystemExit\n")
    assert exits(tmp_path) == ["core/x.py:2: print", "core/x.py:3: sys.exit", "core/x.py:4: SystemExit"]

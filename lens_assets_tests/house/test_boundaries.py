"""The arrows between the layers, proved by importing with the forbidden packages blocked."""

import ast
import subprocess
import sys
from pathlib import Path

import lens_assets

PACKAGE = Path(lens_assets.__file__).parent
SCIENCE = PACKAGE / "science"


def modules(folder: Path) -> list[str]:
    """Dotted names of all modules below a folder of the package."""
    names = []
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return names


def imported_by(path: Path) -> set[str]:
    """Dotted names that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def test_all_of_science_imports_with_dagster_blocked():
    program = (
        "import sys, importlib\n"
        "for name in ('dagster', 'dagster_aws', 'dagster_pyspark', 'dagster_pipes'): sys.modules[name] = None\n"
        f"for name in {modules(SCIENCE)!r}: importlib.import_module(name)\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_science_imports_nothing_from_the_layers_above_it():
    above = {"assets", "checks", "automation", "resources", "cli", "definitions", "partitions", "chain"}
    for path in SCIENCE.rglob("*.py"):
        for name in imported_by(path):
            parts = name.split(".")
            assert not (parts[0] == "lens_assets" and len(parts) > 1 and parts[1] in above), f"{path} imports {name}"
            assert parts[0] != "dagster", f"{path} imports {name}"


def test_only_the_audits_and_the_writer_know_the_folder_of_the_truth():
    allowed = {"audits", "mock", "workspace.py", "cli"}
    for path in PACKAGE.rglob("*.py"):
        if "truth_folder" in path.read_text():
            assert allowed & set(path.relative_to(PACKAGE).parts) or path.name == "audits.py", f"{path} opens the truth"


def test_importing_reads_no_environment_and_opens_no_socket():
    program = (
        "import importlib, os, socket\n"
        "def refuse(*a, **k): raise AssertionError('socket at import')\n"
        "socket.socket.connect = refuse\n"
        "class Env(dict):\n"
        "    def get(self, key, default=None):\n"
        "        assert not str(key).startswith('LENS_ASSETS'), key\n"
        "        return super().get(key, default)\n"
        "    def __getitem__(self, key):\n"
        "        assert not str(key).startswith('LENS_ASSETS'), key\n"
        "        return super().__getitem__(key)\n"
        f"names = {modules(SCIENCE)!r} + ['lens_assets.lookup']\n"
        "import numpy, torch, lightning, mlflow, sklearn, galsim, astropy.table, healpy, lenstronomy\n"
        "os.environ = Env(os.environ)\n"
        "for name in names: importlib.import_module(name)\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_look_up_needs_numpy_and_pyarrow_only():
    blocked = ["polars", "astropy", "scipy", "torch", "dagster", "pydantic", "healpy", "pandas", "matplotlib", "yaml"]
    program = f"import sys\nfor n in {blocked!r}: sys.modules[n] = None\nimport lens_assets.lookup\n"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_no_dagster_table_in_pyproject_shadows_the_workspace_file():
    text = (PACKAGE.parent / "pyproject.toml").read_text()
    assert "\n[tool.dg" not in text
    assert "\n[tool.dagster" not in text

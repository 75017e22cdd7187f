"""The boundaries between rooms, and what a bare import costs."""

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TRAINING = ("torch", "transformers")
PACKAGE = ROOT / "deepmlf"
FLOORS = [{"config"}, {"data"}, {"model"}, {"training"}, {"inference", "events"}, {"tune"}, {"analysis"}, {"cli"}]
"""Folders from the ground up; a file imports from its own folder and from lower floors. Files beside the folders are
on the ground: they import no folder."""
ENGINES = {"ray": {"tune"}, "optuna": {"tune", "analysis"}}
"""Folders that may know an engine."""
FACES = {"__init__.py", "__main__.py"}
"""Of the package itself: the one hands names on, the other is the command line."""


def imports_of(path: Path) -> set[str]:
    """Names that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def faults_of(package: Path) -> Iterator[str]:
    """What breaks the boundaries: an import of a higher floor, or of an engine where it is not known."""
    floor_of = {folder: level for level, folders in enumerate(FLOORS) for folder in folders}
    for path in sorted(package.rglob("*.py")):
        where = path.relative_to(package)
        if len(where.parts) == 1 and where.name in FACES:  # handing on and starting are what they are for
            continue
        own = where.parts[0] if len(where.parts) > 1 else ""
        for name in sorted(imports_of(path)):
            parts = name.split(".")
            if parts[0] == package.name and len(parts) > 1 and parts[1] in floor_of:
                is_lower = parts[1] == own or floor_of[parts[1]] < floor_of.get(own, 0)
                if not is_lower:
                    yield f"{where}: {name}"
            elif own not in ENGINES.get(parts[0], {own}):
                yield f"{where}: {name}"


def test_a_folder_imports_only_from_lower_floors() -> None:
    assert {path.name for path in PACKAGE.iterdir() if path.is_dir()} - {"__pycache__"} == set.union(*FLOORS)
    assert list(faults_of(PACKAGE)) == []


@pytest.mark.parametrize(
    ("file", "line", "fault"),
    [
        ("tune/decide/samplers.py", "from deepmlf.analysis.results import load", "deepmlf.analysis.results"),
        ("events/writer.py", "import deepmlf.inference.predictor", "deepmlf.inference.predictor"),
        ("training/stores/token_ids.py", "def f():\n    import ray", "ray"),
        ("inference/predictor.py", "import optuna.trial", "optuna.trial"),
        ("places.py", "from deepmlf.data import dataset", "deepmlf.data"),
    ],
)
def test_a_file_of_any_depth_is_looked_into(tmp_path: Path, file: str, line: str, fault: str) -> None:
    path = tmp_path / "deepmlf" / file
    path.parent.mkdir(parents=True)
    path.write_text(line)
    assert f"{file}: {fault}" in list(faults_of(tmp_path / "deepmlf"))


def modules_of(package: Path) -> dict[str, set[str]]:
    """Modules by name, and what of the package each imports."""
    names = {".".join(path.relative_to(package.parent).with_suffix("").parts): path for path in package.rglob("*.py")}
    modules = {name.removesuffix(".__init__"): path for name, path in names.items()}
    return {name: {found for found in imports_of(path) if found in modules} for name, path in modules.items()}


def order_of(graph: Mapping[str, set[str]]) -> list[str]:
    """The nodes, each after what it needs.

    Raises:
        CycleError: If there is none such.
    """
    return list(TopologicalSorter({node: needs - {node} for node, needs in graph.items()}).static_order())


def test_no_module_and_no_room_is_in_a_circle() -> None:
    faces = {PACKAGE.name, f"{PACKAGE.name}.__main__"}  # handing on and starting are what they are for
    modules = {name: needs - faces for name, needs in modules_of(PACKAGE).items() if name not in faces}
    order_of(modules)
    # A room is a folder; of `tune` and `analysis`, whose files beside their folders are their front, each file is one.
    rooms: dict[str, set[str]] = {}
    for name, needs in modules.items():
        rooms.setdefault(room_of(name), set()).update(map(room_of, needs))
    order_of(rooms)
    with pytest.raises(CycleError):
        order_of({"a": {"b"}, "b": {"a"}})


def room_of(module: str) -> str:
    path = ROOT.joinpath(*module.split("."))
    is_front = module.count(".") == 2 and module.split(".")[1] in ("tune", "analysis")
    return module if path.is_dir() or is_front else module.rpartition(".")[0]


def test_files_and_folders_stay_small() -> None:
    long = [str(p) for p in PACKAGE.rglob("*.py") if len(p.read_text().splitlines()) > 400]
    folders = {path.parent for path in PACKAGE.rglob("*.py")}
    full = [str(folder) for folder in folders if len(list(folder.glob("*.py"))) > 13]
    assert not long
    assert not full


def test_functions_of_tune_stay_short() -> None:
    functions = [
        (node.end_lineno - node.lineno + 1, f"{path.name}:{node.name}")
        for path in (PACKAGE / "tune").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.end_lineno is not None
    ]
    assert [name for lines, name in functions if lines > 50] == []


@pytest.mark.parametrize("module", ["deepmlf", "deepmlf.cli", "deepmlf.config.trial", "deepmlf.analysis.board"])
def test_import_is_light(module: str) -> None:
    code = f"import sys, {module}; print([m for m in ('torch', 'ray', 'optuna', 'transformers') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("deepmlf.cli", ("pyarrow", "numpy", "pandas")),
        ("deepmlf.tune.worker.trainable", TRAINING),
        ("deepmlf.tune.search", TRAINING),
        ("deepmlf.analysis.report.page", TRAINING),
    ],
    ids=["--help", "a worker that has no trial yet", "a driver", "a report"],
)
def test_what_starts_often_waits_for_little(module: str, heavy: tuple[str, ...]) -> None:
    """Torch and transformers' models take seven seconds of a slow processor, and 300 MB."""
    code = f"import sys, {module}; print([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stdout.strip() == "[]"


def test_no_test_imports_a_test_and_no_benchmark_does() -> None:
    """What two of them need stands in a module of its own."""
    benchmarks = {(path.name, name) for path in (ROOT / "benchmarks").rglob("*.py") for name in imports_of(path)}
    assert {(file, name) for file, name in benchmarks if name.split(".")[0] == "tests"} == set()
    tests = {(path.name, name) for path in (ROOT / "tests").rglob("*.py") for name in imports_of(path)}
    assert {(file, name) for file, name in tests if re.match(r"tests\b.*\b(test_\w+|conftest)\b", name)} == set()


def distributions_of(folder: str, without: Path | None = None) -> set[str]:
    """Distributions that the files of a folder import from, by their normalised names.

    Args:
        folder: In the project's.
        without: A folder in it whose files do not count.
    """
    paths = [path for path in (ROOT / folder).rglob("*.py") if path.parent != without]
    names = {name.split(".")[0] for path in paths for name in imports_of(path)}
    ours = {"deepmlf", "search_spaces", "benchmarks", "tests", "sitecustomize"}
    foreign = names - set(sys.stdlib_module_names) - ours
    known = importlib.metadata.packages_distributions()
    return {known[name][0].lower().replace("_", "-") for name in foreign - {"google"}} | (
        {"protobuf"} if "google" in foreign else set()  # several distributions share that name
    )


def test_what_is_imported_has_its_line_among_the_dependencies() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    def named(lines: list[str]) -> set[str]:
        return {re.split(r"[\[<>=!~; ]", line)[0].lower().replace("_", "-") for line in lines}

    needed = named(project["dependencies"])
    clips = named(project["optional-dependencies"]["extract"])  # imported in one folder, where it is asked for
    assert distributions_of("deepmlf", PACKAGE / "data" / "extract") | distributions_of("search_spaces") <= needed
    assert distributions_of("deepmlf/data/extract") <= needed | clips
    extras = named([line for lines in project["optional-dependencies"].values() for line in lines])
    assert distributions_of("tests") | distributions_of("benchmarks") <= needed | extras

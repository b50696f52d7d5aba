"""The house holds: few rooms, arrows down, no circle, short signatures, thin methods, a true map.

docs/architecture.md tells it to people; docs/rooms.py reads the imports.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import nlcourse
from nlcourse.methods import METHODS

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "nlcourse"
CORE = ("base", "datasets", "noise", "methods", "training")
BLOCKED = ("IPython", "ipykernel", "ipywidgets", "traitlets", "nbformat", "matplotlib")
IMPORTED_LATE = ("sklearn", "torchvision", "tqdm", "scipy")
MOST_LINES = 16_700  # of nlcourse/ without the catalogues of mistakes; the goal is 14,500
METHOD_LINES = dict.fromkeys(("co_teaching", "joint", "elr", "cdr"), 150) | {"dividemix": 180}
METHOD_FILES = sorted({Path(sys.modules[one.__module__].__file__) for one in METHODS.values()})
MOST_PARAMETERS = {"fit": 12}

spec = importlib.util.spec_from_file_location("rooms", ROOT / "docs" / "rooms.py")
rooms = importlib.util.module_from_spec(spec)
spec.loader.exec_module(rooms)
IMPORTS = rooms.imports()


def room_of(module: str) -> str:
    """``methods`` for ``nlcourse.methods.elr``; empty for the package itself."""
    return ".".join(module.split(".")[1:2])


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


# ---- rooms ---------------------------------------------------------------------------------------


def test_there_are_nine_rooms():
    names = {path.stem for path in PACKAGE.iterdir() if not path.name.startswith(("__", "."))}
    assert names - {"py"} == set(rooms.ROOMS)
    assert len(rooms.ROOMS) == 9


def test_imports_are_found():
    """A reader of imports that overlooks some would make all of the below worthless."""
    assert ("nlcourse.methods.elr", "nlcourse.base") in IMPORTS  # from ..module import Name
    assert ("nlcourse.course.cli", "nlcourse.course.paths") in IMPORTS  # from . import module
    assert len(IMPORTS) > 150


def test_every_import_between_rooms_points_down():
    floor = {room: k for k, room in enumerate(rooms.ROOMS)} | {"": -1}
    up = [(a, b) for a, b in IMPORTS if floor[room_of(a)] < floor[room_of(b)]]
    assert up == []


def circle(edges: list[tuple[str, str]]) -> list[str]:
    """The modules of the circles and what lies between them: empty when there is none."""
    below: dict[str, set[str]] = {name: set() for edge in edges for name in edge}
    above = {name: set() for name in below}
    for a, b in edges:
        below[a].add(b)
        above[b].add(a)
    # Take away who imports nothing or is imported by nobody, until that is all or nobody is left.
    while gone := {name for name in below if not below[name] or not above[name]}:
        for links in (below, above):
            for name in gone:
                del links[name]
            for others in links.values():
                others -= gone
    return sorted(below)


def test_no_modules_import_each_other_in_a_circle():
    assert circle(IMPORTS) == []
    assert circle([("a", "b"), ("b", "c"), ("c", "b"), ("c", "d")]) == ["b", "c"]


def test_a_lesson_owns_its_room():
    """What two lessons need lies below them."""

    def lesson(module: str) -> str:
        found = re.match(r"nlcourse\.lessons\.(l\d\d)\b", module)
        return found[1] if found else ""

    shared = [(a, b) for a, b in IMPORTS if lesson(a) and lesson(b) not in ("", lesson(a))]
    assert shared == []


def test_the_picture_is_what_the_script_makes():
    made = rooms.picture(rooms.arrows())
    assert rooms.PICTURE.read_text(encoding="utf-8") == made, "run: python docs/rooms.py"


def test_a_map_names_every_room():
    told = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert [room for room in rooms.ROOMS if f"| `{room}" not in told] == []


# ---- thin ----------------------------------------------------------------------------------------


def signatures(path: Path) -> Iterator[tuple[str, int]]:
    """The functions of a file with the number of their parameters, `self` and `cls` not counted."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            a = node.args
            names = [one.arg for one in (*a.posonlyargs, *a.args, *a.kwonlyargs)]
            names += [one.arg for one in (a.vararg, a.kwarg) if one]
            yield node.name, len([name for name in names if name not in ("self", "cls")])


def test_signatures_are_short():
    found = [
        (f"{path.relative_to(ROOT)} {name}", count)
        for path in PACKAGE.rglob("*.py")
        for name, count in signatures(path)
        if count > MOST_PARAMETERS.get(name, 8)
    ]
    assert found == []


@pytest.mark.parametrize("path", METHOD_FILES, ids=lambda path: path.stem)
def test_a_method_is_its_algorithm_box(path):
    assert lines(path) <= METHOD_LINES.get(path.stem, 170)


def test_the_package_stays_thin():
    files = [path for path in PACKAGE.rglob("*.py") if path.name != "exercises.py"]
    by_room = Counter()
    for path in files:
        by_room[path.relative_to(PACKAGE).parts[0]] += lines(path)
    assert by_room.total() <= MOST_LINES, by_room.most_common()


# ---- the core needs little -----------------------------------------------------------------------


def core_modules() -> list[str]:
    return [name for name in rooms.modules() if room_of(name) in CORE]


def run_python(code: str) -> str:
    """What a fresh Python prints; it fails when the code does."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_core_imports_and_trains_without_jupyter_and_matplotlib():
    """On a GPU server there is none of them; scikit-learn and tqdm load when they are needed."""
    assert set(CORE) == {room_of(name) for name in core_modules()}
    output = run_python(f"""
import importlib, sys
import torch, numpy

class Blocker:
    blocked = {BLOCKED + IMPORTED_LATE}
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.blocked or name.startswith("jupyter"):
            raise ModuleNotFoundError(f"blocked: {{name}}", name=name)

blocker = Blocker()
sys.meta_path.insert(0, blocker)
for name in [n for n in sys.modules if n.partition(".")[0] in blocker.blocked]:
    del sys.modules[name]
try:
    import matplotlib
except ModuleNotFoundError:
    print("blocking works")
for name in {core_modules()}:
    importlib.import_module(name)
Blocker.blocked = {BLOCKED}
from nlcourse import datasets, methods, noise, training
data = noise.inject(datasets.load("digits"), "symmetric", 0.4)
history = training.fit(methods.CrossEntropy(), data, epochs=1, device="cpu")
assert len(history) == 1
print("trained")
""")
    assert output.split("\n")[:1] == ["blocking works"]
    assert "trained" in output


def test_core_costs_little_beyond_torch():
    """Under 0.3 s; the best of five, since others may be using the machine."""
    code = f"""
import importlib, time
import torch, numpy
start = time.perf_counter()
for name in {core_modules()}:
    importlib.import_module(name)
print(time.perf_counter() - start)
"""
    seconds = []
    for _ in range(5):
        seconds.append(float(run_python(code)))
        if seconds[-1] < 0.3:
            return
    pytest.fail(f"expected the core to import within 0.3 s after torch, got {seconds}")


def test_package_itself_imports_nothing():
    assert Path(nlcourse.__file__).parent == PACKAGE
    run_python("import sys, nlcourse; assert not {'torch', 'numpy', 'IPython'} & set(sys.modules)")

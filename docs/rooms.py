"""Who imports whom in nlcourse, read from the source with `ast`, and the picture of it.

python docs/rooms.py

writes docs/rooms.svg. The rooms stand on the diagonal, the highest at the top left. An arrow leaves
a room to the right and falls on the room that it imports; the number in the bend says how many
import statements it stands for. tests/test_architecture.py holds that the committed picture is the
one that this script makes, and that no import points up.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "rooms.svg"
# From the ground up: a room imports only rooms that stand before it.
ROOMS = (
    "base",
    "datasets",
    "noise",
    "methods",
    "training",
    "panels",
    "experiments",
    "lessons",
    "course",
)
WIDTH, HEIGHT = 112, 52  # of a step of the stairs, in pixels
BOX = (100, 30)
STYLE = (
    "text{font:14px system-ui,sans-serif;text-anchor:middle;fill:#1d2733}"
    ".sheet{fill:#fbfaf6}.room{fill:#d9e6f2;stroke:#33567a}.bend{fill:#fbfaf6;stroke:#8a98a6}"
    "path{fill:none;stroke:#8a98a6}.head{fill:#33567a;stroke:none}"
)


def module_name(path: Path) -> str:
    """Return ``nlcourse.methods.elr`` for ``.../nlcourse/methods/elr.py``."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules() -> dict[str, Path]:
    """Return the file of every module of the package, by the module's name."""
    return {module_name(path): path for path in sorted((ROOT / "nlcourse").rglob("*.py"))}


def imports() -> list[tuple[str, str]]:
    """Return (importing module, imported module) for every import statement inside the package.

    Imports inside functions and for types alone count too: they need the other room as well.
    """
    known = modules()
    return [(name, target) for name, path in known.items() for target in _targets(path, known)]


def _targets(path: Path, known: dict[str, Path]) -> Iterator[str]:
    package = module_name(path.parent / "__init__.py").split(".")
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            start = ".".join([*above, *([node.module] if node.module else [])])
            # `from ..methods import elr` means the module elr, `... import ELR` the package.
            inside = {f"{start}.{alias.name}" for alias in node.names}
            names = sorted({name if name in known else start for name in inside})
        else:
            continue
        yield from (name for name in names if name in known and name != "nlcourse")


def arrows() -> Counter[tuple[str, str]]:
    """Return how many imports lead from one room to another."""
    pairs = [(above.split(".")[1:2], below.split(".")[1:2]) for above, below in imports()]
    return Counter((a[0], b[0]) for a, b in pairs if a and a != b)


def picture(counts: Counter[tuple[str, str]]) -> str:
    """Return the stairs as SVG; an import that points up is not drawn (a test refuses it)."""
    stairs = ROOMS[::-1]
    center = {
        room: (WIDTH // 2 + 8 + k * WIDTH, HEIGHT // 2 + 8 + k * HEIGHT)
        for k, room in enumerate(stairs)
    }
    down = {pair: n for pair, n in counts.items() if ROOMS.index(pair[0]) > ROOMS.index(pair[1])}
    paths, bends = [], []
    for (above, below), count in sorted(down.items()):
        (x, y), (to_x, to_y) = center[above], center[below]
        top = to_y - BOX[1] // 2
        paths.append(f'<path d="M{x + BOX[0] // 2} {y}H{to_x}V{top - 6}"/>')
        paths.append(f'<path class="head" d="M{to_x - 5} {top - 8}h10l-5 8z"/>')
        bends.append(f'<circle class="bend" cx="{to_x}" cy="{y}" r="13"/>')
        bends.append(f'<text x="{to_x}" y="{y + 5}">{count}</text>')
    for room, (x, y) in center.items():
        corner = f'x="{x - BOX[0] // 2}" y="{y - BOX[1] // 2}"'
        size = f'width="{BOX[0]}" height="{BOX[1]}"'
        bends.append(f'<rect class="room" {corner} {size} rx="4"/>')
        bends.append(f'<text x="{x}" y="{y + 5}">{room}</text>')
    width, height = len(ROOMS) * WIDTH + 16, len(ROOMS) * HEIGHT + 16
    told = "; ".join(f"{above} imports {below} ({n})" for (above, below), n in sorted(down.items()))
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
            f"<title>The rooms of nlcourse</title><desc>{told}</desc><style>{STYLE}</style>",
            f'<rect class="sheet" width="{width}" height="{height}" rx="8"/>',
            *paths,
            *bends,
            "</svg>\n",
        ]
    )


if __name__ == "__main__":
    PICTURE.write_text(picture(arrows()), encoding="utf-8", newline="\n")
    print(f"wrote {PICTURE.relative_to(ROOT)}")

"""The house style, as far as tools see it: ruff over everything, mypy over the package."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOOLS = ("ruff check --no-cache .", "ruff format --check --no-cache .", "mypy")


@pytest.mark.parametrize("tool", TOOLS)
def test_has_nothing_to_say(tool):
    """What each of them looks for, and how strictly where, stands in pyproject.toml."""
    command = [sys.executable, "-m", *tool.split()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr

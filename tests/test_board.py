"""The board: rows, many writers at once, damaged files, and the page with hostile names."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from nlcourse import datasets, noise
from nlcourse.course import cli
from nlcourse.lessons.l13 import board
from nlcourse.methods import CrossEntropy
from nlcourse.training import fit
from nlcourse.training.history import COLUMNS, History


@pytest.fixture(scope="module")
def noisy():
    return noise.inject(datasets.load("digits").subset(100), "symmetric", 0.4, seed=0)


@pytest.fixture(scope="module")
def run(noisy):
    return fit(CrossEntropy(), noisy, epochs=12, seed=4, progress=False, device="cpu")


def history_of(*accuracies: float, method="Mine()") -> History:
    rows = [
        dict.fromkeys(COLUMNS, 0.0) | {"epoch": i + 1, "seconds": 0.5, "test_accuracy": value}
        for i, value in enumerate(accuracies)
    ]
    return History(rows, {"method": method, "seed": 1, "network": "mlp", "augment": "None"})


# --- rows ---


def test_a_row_says_what_was_measured(run, noisy, tmp_path):
    path = tmp_path / "deep" / "board.csv"
    row = board.add(run, " Ada ", noisy, noise="symmetric 40 %", path=path)
    assert board.read(path) == [row]
    curve = run["test_accuracy"]
    assert row["name"] == "Ada"
    assert row["method"] == "CrossEntropy()"
    assert row["data"] == "digits"
    assert row["seed"] == "4"
    assert row["epochs"] == "12"
    assert row["best"] == f"{max(curve):.4f}"
    assert row["last"] == f"{curve[-1]:.4f}"
    assert row["mean_of_last_ten"] == f"{sum(curve[-10:]) / 10:.4f}"
    assert row["wrong_labels"] == f"{noisy.noise_rate:.4f}"
    assert row["seconds"] == f"{sum(run['seconds']):.4f}"
    assert "SGD(lr=0.05" in row["settings"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", row["at"])


def test_rows_come_in_order_and_the_heads_once(noisy, tmp_path):
    path = tmp_path / "board.csv"
    for name in ("Ada", "Émile", "7 of us", "李"):
        board.add(history_of(0.5), name, noisy, path=path)
    assert [row["name"] for row in board.read(path)] == ["Ada", "Émile", "7 of us", "李"]
    assert path.read_text(encoding="utf-8").count("mean_of_last_ten") == 1


def test_the_checksum_tells_given_labels_apart(noisy):
    same = noise.inject(noisy, "symmetric", 0.4, seed=0)
    other = noise.inject(noisy, "symmetric", 0.4, seed=1)
    assert board.fingerprint(noisy) == board.fingerprint(same)
    assert board.fingerprint(noisy) != board.fingerprint(other)
    assert re.fullmatch("[0-9a-f]{8}", board.fingerprint(noisy))


@pytest.mark.parametrize(
    "name", ["", "  ", "=1+1", "+1", "-1", "@x", "a\nb", "a\x07b", "x" * 61, "<b>"]
)
def test_names_that_are_none_are_refused(name, noisy, tmp_path):
    with pytest.raises(ValueError, match="begins with a letter or a digit"):
        board.add(history_of(0.5), name, noisy, path=tmp_path / "board.csv")
    assert not (tmp_path / "board.csv").exists()


def test_no_cell_is_a_formula_or_two_lines(noisy, tmp_path):
    path = tmp_path / "board.csv"
    row = board.add(
        history_of(0.5), "Ada", noisy, noise="=cmd()", method="@one\ntwo, three", path=path
    )
    assert row["noise"] == "'=cmd()"
    assert row["method"] == "'@one two, three"
    assert board.read(path) == [row]
    assert len(path.read_text().splitlines()) == 2


def test_a_run_without_an_epoch_has_no_place(noisy, tmp_path):
    with pytest.raises(ValueError, match="train first"):
        board.add(History(), "Ada", noisy, path=tmp_path / "board.csv")


# --- files that are no boards, and damaged ones ---


def test_another_file_is_left_as_it_is(noisy, tmp_path):
    path = tmp_path / "grades.csv"
    path.write_text("name,grade\nAda,A\n")
    for call in (
        lambda: board.add(history_of(0.5), "Ada", noisy, path=path),
        lambda: board.read(path),
        lambda: board.merge([], path),
    ):
        with pytest.raises(ValueError, match="is no board"):
            call()
    assert path.read_text() == "name,grade\nAda,A\n"


def test_a_damaged_line_is_named(noisy, tmp_path):
    path = tmp_path / "board.csv"
    for name in ("Ada", "Bo"):
        board.add(history_of(0.5), name, noisy, path=path)
    whole = path.read_text()
    path.write_text(whole.replace(",0.5000,", ",half,", 1))
    with pytest.raises(ValueError, match="Line 2 of .* is damaged"):
        board.read(path)
    path.write_text(whole + "Cy,too short\n")
    with pytest.raises(ValueError, match="Line 4 of"):
        board.read(path)


def test_after_a_line_cut_short_the_next_row_begins_anew(noisy, tmp_path):
    path = tmp_path / "board.csv"
    board.add(history_of(0.5), "Ada", noisy, path=path)
    whole = path.read_text()
    path.write_text(whole.rstrip("\n"))  # somebody's editor took the last newline away
    board.add(history_of(0.5), "Bo", noisy, path=path)
    assert [row["name"] for row in board.read(path)] == ["Ada", "Bo"]


def test_a_missing_board_is_said(tmp_path, capsys):
    with pytest.raises(FileNotFoundError):
        board.read(tmp_path / "none.csv")
    assert cli.main(["board", str(tmp_path / "none.csv")]) == 2
    assert re.search(r"nlcourse: .*No such file .*none\.csv", capsys.readouterr().err)


# --- many at once ---


# Writes through the board's own door, without training anything.
MANY = """
import sys
from pathlib import Path
from nlcourse.lessons.l13 import board
path, who, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
row = dict.fromkeys(board.COLUMNS, "0.5")
for number in range(count):
    board._append([row | {"name": f"{who} {number}", "noise": "x" * 3000}], path)
"""


def add_many(path, who, count):
    command = [sys.executable, "-c", MANY, str(path), who, str(count)]
    return subprocess.Popen(command)


def test_many_processes_lose_and_mix_no_row(tmp_path):
    path = tmp_path / "board.csv"
    workers = [add_many(path, f"team{who}", 100) for who in range(4)]
    assert [worker.wait(120) for worker in workers] == [0] * 4
    names = [row["name"] for row in board.read(path)]
    assert sorted(names) == sorted(f"team{who} {k}" for who in range(4) for k in range(100))
    for who in range(4):  # everybody's own come in their order
        own = [name for name in names if name.startswith(f"team{who} ")]
        assert own == [f"team{who} {k}" for k in range(100)]


HOLD = """
import sys, time
from pathlib import Path
from nlcourse.lessons.l13 import board
with board.lock_of(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(60)
"""


def test_others_wait_for_the_lock_and_a_dead_process_gives_it_back(noisy, tmp_path):
    path = tmp_path / "board.csv"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "locked\n"
    waiter = add_many(path, "team", 1)
    with pytest.raises(subprocess.TimeoutExpired):
        waiter.wait(8)  # it has long been ready to write
    assert not path.exists()
    holder.kill()
    assert waiter.wait(60) == 0
    assert [row["name"] for row in board.read(path)] == ["team 0"]


def test_merging_takes_each_row_once(noisy, tmp_path):
    one, two, whole = (tmp_path / f"{name}.csv" for name in ("one", "two", "whole"))
    board.add(history_of(0.5), "Ada", noisy, path=one)
    board.add(history_of(0.6), "Bo", noisy, path=two)
    assert board.merge([one, two, one], whole) == 2
    assert board.merge([one, two], whole) == 0
    board.add(history_of(0.7), "Ada", noisy, path=one)
    assert board.merge([one, two], whole) == 1
    assert [row["name"] for row in board.read(whole)] == ["Ada", "Bo", "Ada"]


# --- the page ---


class Page(HTMLParser):
    """Collects what a browser would make of the page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.alts, self.cells, self.loads = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append(tag)
        if tag == "img":
            self.alts.append(attributes["alt"])
        self.loads += [attributes[name] for name in ("src", "href") if name in attributes]
        if tag == "td" or (tag == "th" and attributes["scope"] == "row"):
            self.cells.append("")

    def handle_data(self, data):
        if self.cells and self.tags[-1] in ("td", "th") and data.strip():
            self.cells[-1] += data


HOSTILE = "x<script>alert(1)</script>\"'&amp; $\\frac$"


def test_names_and_methods_stay_text(noisy, tmp_path):
    path = tmp_path / "board.csv"
    board.add(history_of(0.5), HOSTILE, noisy, noise="<i>", method="<img src=x>", path=path)
    html = board.page(board.read(path), title="<b>class</b>")
    found = Page(html)
    assert found.tags.count("script") == 1  # the page's own
    assert found.tags.count("img") == 1
    assert not {"b", "i"} & set(found.tags)
    assert HOSTILE in found.cells[0]
    assert found.cells[1] == "<img src=x>"
    assert HOSTILE in found.alts[0]


def test_the_page_is_one_file_with_a_picture_in_words(noisy, tmp_path):
    path = tmp_path / "board.csv"
    board.add(history_of(0.5, 0.9, 0.7), "Ada", noisy, noise="symmetric 40 %", path=path)
    board.add(history_of(0.95), "Bo", noisy, noise="symmetric 40 %", path=path)
    to = board.write_page(path)
    assert to == tmp_path / "board.html"
    seen = sorted(each.name for each in tmp_path.glob("[!.]*"))
    assert seen == ["board.csv", "board.html"]
    found = Page(to.read_text(encoding="utf-8"))
    assert all(source.startswith("data:image/png") for source in found.loads)
    assert "Ada, Mine(): last ten 70.0, best 90.0." in found.alts[0]
    assert f"{100 * noisy.noise_rate:.1f} % of the labels wrong" in found.alts[0]
    rows = [found.cells[k : k + 9] for k in range(0, len(found.cells), 9)]
    assert [row[0] for row in rows] == ["Bo", "Ada"]  # by the mean of the last ten
    assert rows[1][2:6] == ["70.0", "70.0", "90.0", "3"]


def test_one_table_for_each_set_of_given_labels(noisy, tmp_path):
    path = tmp_path / "board.csv"
    other = noise.inject(noisy, "symmetric", 0.6, seed=0)
    for name, data in (("Ada", noisy), ("Bo", other), ("Cy", noisy)):
        board.add(history_of(0.5), name, data, path=path)
    found = Page(board.page(board.read(path)))
    assert found.tags.count("table") == found.tags.count("img") == 2
    assert [alt.count("last ten") for alt in found.alts] == [2, 1]


def test_an_empty_board_and_a_number_that_is_none():
    assert "No run yet" in board.page([])
    row = dict.fromkeys(board.COLUMNS, "") | dict.fromkeys(board.NUMBERS, "nan")
    low = row | dict.fromkeys(board.NUMBERS, "0.1000")
    assert board.ranked([row, low]) == [low, row]
    assert "–" in board.page([row, low])


def test_the_chart_has_a_line_a_row_and_no_formula(noisy, tmp_path):
    row = board.add(history_of(0.5, 0.8), "a$b_c$", noisy, path=tmp_path / "board.csv")
    figure = board.chart([row, row | {"name": "Bo"}])
    axes = figure.axes[0]
    last, best = (line.get_xdata() for line in axes.lines)
    assert list(last) == [65, 65]
    assert list(best) == [80, 80]
    assert axes.get_yticklabels()[0].get_text() == r"a\$b_c\$: Mine()"
    figure.canvas.draw()


@pytest.mark.filterwarnings("error:Glyph")
def test_letters_that_the_font_lacks_stand_in_the_table_alone(noisy, tmp_path):
    path = tmp_path / "board.csv"
    row = board.add(history_of(0.5), "李 Émile", noisy, path=path)
    figure = board.chart([row])
    figure.canvas.draw()
    assert figure.axes[0].get_yticklabels()[0].get_text() == "? Émile: Mine()"
    found = Page(board.page([row]))
    assert found.cells[0] == "李 Émile"
    assert "李 Émile, Mine()" in found.alts[0]


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")
def test_a_click_on_a_head_sorts(noisy, tmp_path):
    from playwright.sync_api import sync_playwright

    path = tmp_path / "board.csv"
    for name, value in (("Ada", 0.5), ("Bo", 0.95), ("Cy", 0.7), ("Di", 0.09)):
        board.add(history_of(value), name, noisy, path=path)
    to = board.write_page(path)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page()
        tab.goto(to.as_uri())

        def names():
            return tab.locator("tbody th").all_inner_texts()

        assert names() == ["Bo", "Cy", "Ada", "Di"]
        tab.get_by_role("button", name="last ten").click()
        tab.get_by_role("button", name="last ten").click()
        assert names() == ["Di", "Ada", "Cy", "Bo"]  # 9 below 50: by number, not by letter
        assert tab.locator("th[aria-sort=ascending]").inner_text().startswith("last ten")
        tab.get_by_role("button", name="name").click()
        assert names() == ["Di", "Cy", "Bo", "Ada"]
        browser.close()

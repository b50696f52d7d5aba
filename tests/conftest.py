"""What holds for all tests: threads, the rules of CI, hypothesis, and files kept out of the way."""

import os
import sys
from pathlib import Path

import hypothesis
import pytest

IN_CI = os.environ.get("CI", "").lower() not in ("", "0", "false")

if "PYTEST_XDIST_WORKER" in os.environ:
    # Two workers with two threads each on two cores only wait for each other. The environment
    # reaches torch when it is imported later, and every kernel that a test starts.
    os.environ["OMP_NUM_THREADS"] = "1"
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)

# A loaded machine is no reason to fail; in CI the same examples are drawn every time.
hypothesis.settings.register_profile("local", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if IN_CI else "local")


def pytest_xdist_make_scheduler(config, log):
    """Give each run of a lesson to whichever worker is free; all other files stay whole."""
    from xdist.scheduler import LoadFileScheduling

    class OneLessonAtATime(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            whole = super()._split_scope(nodeid)
            return nodeid if whole.endswith(("test_notebooks.py", "test_lessons.py")) else whole

    return OneLessonAtATime(config, log)


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what this machine cannot run: a skip would be an error in CI."""
    missing = set()
    if any(item.get_closest_marker("gpu") for item in items) and not _has_gpu():
        missing.add("gpu")
    if not os.environ.get("NLCOURSE_DATA"):
        missing.add("real_data")
    kept, dropped = [], []
    for item in items:
        out = any(item.get_closest_marker(name) for name in missing) or _lacks_data(item)
        (dropped if out else kept).append(item)
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = kept


def _lacks_data(item: pytest.Item) -> bool:
    """Say whether `real_data("folder")` names a folder that NLCOURSE_DATA does not hold."""
    root = Path(os.environ.get("NLCOURSE_DATA", ""))
    folders = [name for mark in item.iter_markers("real_data") for name in mark.args]
    return not all((root / name).is_dir() for name in folders)


def _fail_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    """In CI a skip is a test that silently stopped testing (an xfail is none)."""
    if IN_CI and report.outcome == "skipped" and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which counts as failed in CI: {report.longrepr}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    report = yield
    _fail_if_skipped(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report():
    report = yield
    _fail_if_skipped(report)
    return report


@pytest.fixture
def set_threads():
    """Give torch's setter, and put the number of threads back."""
    import torch

    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def offline(monkeypatch):
    """No test but those that serve files themselves may reach out, or read somebody's data."""

    def refuse(url, *_args, **_kwargs):
        raise OSError(f"no network in the tests: {url}")

    monkeypatch.setattr("torchvision.datasets.utils.download_url", refuse)
    monkeypatch.delenv("NLCOURSE_DATA", raising=False)


@pytest.fixture(scope="session", autouse=True)
def _own_progress_files(tmp_path_factory):
    """No test reads or writes the progress of whoever runs the tests."""
    folder = tmp_path_factory.mktemp("progress")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NLCOURSE_PROGRESS", str(folder / "progress.json"))
        patch.delenv("NLCOURSE_REPORT", raising=False)
        patch.delenv("NLCOURSE_STRICT", raising=False)
        yield

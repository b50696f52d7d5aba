"""Where a run computes: the device, its threads, its random state. Explained in lesson 00."""

from __future__ import annotations

import contextlib
import os
import platform
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

SMALL_IMAGE = 256  # values: up to here (digits) neither short numbers nor a second thread pay

RandomState = dict[str, Tensor]
_SETTING = threading.Lock()  # held while what all threads share is read and set again
# The random states that the runs now on found, the first run first.
_FOUND: dict[object, list[tuple[torch.device, RandomState]]] = {}


def find_device(wanted: torch.device | str | None = None) -> torch.device:
    """Return the wanted device; else NLCOURSE_DEVICE, or CUDA or MPS when torch can use it."""
    if wanted := wanted or os.environ.get("NLCOURSE_DEVICE"):
        return torch.device(wanted)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def name_of(device: torch.device | str) -> str:
    """Return what a table calls a device: "NVIDIA H200", "arm64 MPS", "x86_64 CPU, 1 thread".

    The threads are those of the calling thread.
    """
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return f"{platform.machine()} {device.type.upper()}"
    threads = torch.get_num_threads()
    return f"{platform.machine()} CPU, {threads} thread{'s' * (threads > 1)}"


@contextlib.contextmanager
def own_random_state(device: torch.device, seed: int) -> Iterator[None]:
    """Give the run its own global random state (dropout draws from it) and put the old one back.

    A run that ends while a later one is on hands what it found to that one: when two overlap, the
    last to end puts back what was there before the first.
    """
    run = object()
    with _SETTING:
        _FOUND[run] = [(device, random_state(device))]
    torch.manual_seed(seed)
    try:
        yield
    finally:
        with _SETTING:
            later = list(_FOUND)[list(_FOUND).index(run) + 1 :]
            found = _FOUND.pop(run)
            if later:
                _FOUND[later[0]] += found
            else:
                for where, state in found:
                    set_random_state(where, state)


def random_state(device: torch.device) -> RandomState:
    """Return torch's global random state, and that of the device."""
    state = {"cpu": torch.get_rng_state()}
    if device.type != "cpu":
        state[device.type] = torch.get_device_module(device).get_rng_state(device)
    return state


def set_random_state(device: torch.device, state: RandomState) -> None:
    """Put back what :func:`random_state` returned."""
    torch.set_rng_state(state["cpu"])
    if device.type in state and device.type != "cpu":
        torch.get_device_module(device).set_rng_state(state[device.type], device)


@contextlib.contextmanager
def one_thread_for_small(images: Tensor, device: torch.device) -> Iterator[None]:
    """Train on small images with one processor thread, then put the old number back.

    A batch of 8 x 8 digits is too little work to share. On two idle cores a second thread saves a
    fifth of the MLP's time (a third of the small CNN's), but as soon as other programs want the
    cores the two threads mostly wait for each other, and a run takes ten times as long or more: a
    bad trade on a laptop in class. One thread also gives the same numbers whatever the number of
    cores. The setting is that of the calling thread: a panel's run does not change the notebook's.
    """
    before = torch.get_num_threads()
    if device.type == "cpu" and images[0].numel() <= SMALL_IMAGE:
        _set_own_threads(1)
    try:
        yield
    finally:
        _set_own_threads(before)


def _set_own_threads(count: int) -> None:
    """Set the processor threads of the calling thread, and of no other.

    torch's setter also changes the default of threads that begin later: a new thread puts it back.
    """
    if count == torch.get_num_threads():
        return
    with _SETTING, ThreadPoolExecutor(1) as new_thread:
        default = new_thread.submit(torch.get_num_threads).result()
        torch.set_num_threads(count)
        new_thread.submit(torch.set_num_threads, default).result()

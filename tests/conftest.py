"""Fixtures of all tests: a service of their own, a runs' root of their own, and no key of the machine's."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from batchframe import testing
from batchframe.testing import Emulator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import openai


# A slow machine is no mistake. The slow tests are run with `--hypothesis-profile=thorough`, and with those tests of the
# others that draw their examples.
settings.register_profile("a few", settings.default, deadline=None, max_examples=25)
settings.register_profile("thorough", settings.default, deadline=None, max_examples=200)
settings.load_profile("a few")

# Each test here runs on both services, and what differs between them is little: Azure's turn is among the slow tests.
SLOW_ON_AZURE = {
    "test_admission",
    "test_adoption",
    "test_another_key",
    "test_any_history",
    "test_calls",
    "test_validation_codes",
    "test_endpoints",
    "test_keeping",
    "test_mixtures",
    "test_quirks",
    "test_rejection",
    "test_retry",
    "test_row_truth",
}


_numbers = itertools.count()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow the tests on Azure that have a twin on OpenAI."""
    names = {item.nodeid for item in items}
    for item in items:
        twin = re.sub(r"(?<=[\[-])azure(-v1)?(?=[\]-])", "openai", item.nodeid)
        if item.path.stem in SLOW_ON_AZURE and twin != item.nodeid and twin in names:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def batchframe_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test its own root of runs, and take the services of the environment away.

    Most tests make no run: the folder is made by the first.
    """
    for name in list(os.environ):
        if name.startswith(("OPENAI_", "AZURE_OPENAI_", "BATCHFRAME_")):
            monkeypatch.delenv(name)
    home = tmp_path_factory.getbasetemp() / f"of-test-{next(_numbers)}" / "batchframe-home"
    monkeypatch.setenv("BATCHFRAME_HOME", str(home))
    return home


@pytest.fixture(scope="session", autouse=True)
def unsynced() -> Iterator[None]:
    """Leave out what only outlives a power cut, which is most of the time that a short run takes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _handle: None)
        yield


class Emulators:
    """The services of a whole test run: each is started once, lent to one test after the other, and reset between."""

    def __init__(self, services: contextlib.ExitStack) -> None:
        self._services = services
        self._free: list[Emulator] = []

    @contextlib.contextmanager
    def __call__(self, dialect: str = "openai", **settings: Any) -> Iterator[Emulator]:
        """Lend a fresh service, as `batchframe.testing.emulator` starts one, but without a wait of its own.

        Batches end as fast as the work goes: a test of what happens on the way says ``progression="timed"``. What is
        no setting (``state_dir``, ``upstream``) and a service that stops need an emulator of their own. A reset by the
        test itself takes the settings back too. Two that are lent one after the other may have one address, and are
        one account to batchframe, which finds its run again; two at a time are two.
        """
        service = self._free.pop() if self._free else self._services.enter_context(testing.emulator())
        with contextlib.ExitStack() as clients:
            try:
                service.configure(**{"progression": "instant", "dialect": dialect, **settings})
                yield Emulator(service._server, clients)
            finally:
                service.reset()
        self._free.append(service)


@pytest.fixture(scope="session")
def emulate() -> Iterator[Emulators]:
    """Lend services: ``with emulate("azure", oddities="all") as service:``."""
    with contextlib.ExitStack() as services:
        yield Emulators(services)


@pytest.fixture
def emu(emulate: Emulators) -> Iterator[Emulator]:
    """A fresh service."""
    with emulate() as service:
        yield service


@pytest.fixture
def client(emu: Emulator) -> openai.OpenAI:
    """A client of the fresh service."""
    return emu.client()


@pytest.fixture
def clock() -> Iterator[testing.TestClock]:
    """A time in which runs wait without waiting."""
    with testing.clock() as made_up:
        yield made_up

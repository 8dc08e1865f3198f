"""Fixtures of all tests: a service of their own, a runs' root of their own, and no key of the machine's."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from batchframe.testing import Emulator, emulator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import openai


@pytest.fixture(autouse=True)
def batchframe_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test its own root of runs, and take the services of the environment away."""
    for name in list(os.environ):
        if name.startswith(("OPENAI_", "AZURE_OPENAI_", "BATCHFRAME_")):
            monkeypatch.delenv(name)
    home = tmp_path / "batchframe-home"
    monkeypatch.setenv("BATCHFRAME_HOME", str(home))
    return home


@pytest.fixture
def emu() -> Iterator[Emulator]:
    """A fresh service."""
    with emulator() as service:
        yield service


@pytest.fixture
def client(emu: Emulator) -> openai.OpenAI:
    """A client of the fresh service."""
    return emu.client()

"""What one pass of the loop saw."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from batchframe._core.exceptions import APICallError


@dataclass
class PassReport:
    """What one pass saw."""

    done: bool = False
    by_status: Counter[str] = field(default_factory=Counter)
    done_requests: int = 0
    admitted: int = 0
    trouble: APICallError | None = None
    is_brief: bool = False
    waiting_for: list[str] = field(default_factory=list)

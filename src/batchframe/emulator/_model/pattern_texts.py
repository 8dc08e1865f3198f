"""Makes a text that matches a regular expression, for ``pattern`` in schemas."""

from __future__ import annotations

import random
import re
import sys
from typing import Any

# The standard library's own parser; its module was renamed in 3.11.
if sys.version_info >= (3, 11):
    from re import _parser as sre_parser  # type: ignore[attr-defined]
else:
    import sre_parse as sre_parser

_CATEGORIES = {"CATEGORY_DIGIT": "0123456789", "CATEGORY_SPACE": " ", "CATEGORY_WORD": "abcdefghijklmnopqrstuvwxyz"}
_MAX_EXTRA = 3
_TRIES = 20


def matching_text(pattern: str, number: int) -> str:
    """Make a text that `pattern` matches; the empty text if a few random attempts fail."""
    try:
        tree = sre_parser.parse(pattern)
        expression = re.compile(pattern)
        for attempt in range(_TRIES):
            draw = random.Random(number + attempt)  # noqa: S311 - an example, not a secret
            text = _Writer(draw).write(tree)
            if expression.search(text):
                return text
    except (re.error, OverflowError, RecursionError):
        pass
    return ""


class _Writer:
    """Writes a text for a parsed expression; groups are kept for back references."""

    def __init__(self, draw: random.Random) -> None:
        self._draw = draw
        self._groups: dict[int, str] = {}

    def write(self, tree: Any) -> str:
        return "".join(self._node(str(kind), value) for kind, value in tree)

    def _node(self, kind: str, value: Any) -> str:  # noqa: PLR0911 - one per kind of node
        if kind == "LITERAL":
            return chr(value)
        if kind == "IN":
            return self._one_of(value)
        if kind in {"ANY", "NOT_LITERAL"}:
            return "b" if kind == "NOT_LITERAL" and value == ord("a") else "a"
        if kind in {"MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"}:
            minimum, maximum, inner = value
            repeats = self._draw.randint(minimum, min(int(maximum), minimum + _MAX_EXTRA))
            return "".join(self.write(inner) for _ in range(repeats))
        if kind == "SUBPATTERN":
            group, _, _, inner = value
            text = self.write(inner)
            if group is not None:
                self._groups[group] = text
            return text
        if kind == "ATOMIC_GROUP":
            return self.write(value)
        if kind == "BRANCH":
            return self.write(self._draw.choice(value[1]))
        if kind == "GROUPREF":
            return self._groups.get(value, "")
        # Anchors and assertions write nothing; a text that violates them is drawn again.
        return ""

    def _one_of(self, items: list[Any]) -> str:
        if str(items[0][0]) == "NEGATE":
            refused = re.compile("[" + "".join(_as_class(kind, value) for kind, value in items[1:]) + "]")
            return next((c for c in "abcdefghij0123456789 -_.XYZ" if not refused.match(c)), "~")
        kind, value = self._draw.choice(items)
        if str(kind) == "LITERAL":
            return chr(value)
        if str(kind) == "RANGE":
            return chr(self._draw.randint(*value))
        name = str(value)
        return self._draw.choice(_CATEGORIES.get(name, "~" if name != "CATEGORY_NOT_SPACE" else "a"))


def _as_class(kind: Any, value: Any) -> str:
    if str(kind) == "LITERAL":
        return re.escape(chr(value))
    if str(kind) == "RANGE":
        return f"{re.escape(chr(value[0]))}-{re.escape(chr(value[1]))}"
    classes = {"DIGIT": r"\d", "NOT_DIGIT": r"\D", "SPACE": r"\s", "NOT_SPACE": r"\S", "WORD": r"\w"}
    return classes.get(str(value).removeprefix("CATEGORY_"), r"\W")

"""Unit vectors of texts: texts that share words are nearer to one another. No understanding is claimed.

Each word has a pseudo-random direction, and a text has the sum of its words' directions. Sums are large integers, with
a lane of 16 bits per dimension, which keeps thousands of dimensions cheap without numpy.
"""

# ruff: noqa: SIM905 - a list of words reads better as a text

from __future__ import annotations

import functools
import hashlib
import math
import operator
import re
import struct

# Scripts without spaces between words are read character by character.
_CHARACTERS = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_WORD = re.compile(rf"[{_CHARACTERS}]|[^\W{_CHARACTERS}]+")
# Only the first words of a text count, each once, so that a lane cannot overflow: their weights times the largest
# nibble stay below 65,536.
_READ_WORDS = 800
_LANE_BYTES = 2
_WEIGHT, _STEM_WEIGHT, _COMMON_WEIGHT = 3, 2, 1
_STEM = 4
_NIBBLES = bytes(byte & 15 for byte in range(256))
_MIDDLE_TWICE = 15
_COMMON = frozenset(
    "a about an and are as at be but by can do does for from had has have he her his how i if in is it its me my no "
    "not of on or our she so that the their them there they this to was we were what when where which who will with "
    "you your".split()
)


def of_text(text: str, salt: str, full: int, dimensions: int) -> list[float]:
    """Embed a text.

    Parameters
    ----------
    text
        The text; case does not matter.
    salt
        The model; vectors of two models have nothing in common.
    full
        The dimensions of the model's vectors.
    dimensions
        How many of them to keep, from the first on.
    """
    words = list(dict.fromkeys(_WORD.findall(text.lower()))) or [text]
    return of_words(words, salt, full, dimensions)


def of_words(words: list[str], salt: str, full: int, dimensions: int) -> list[float]:
    """Embed words, or tokens written as words."""
    total, weights = 0, 0
    for word in words[:_READ_WORDS]:
        lanes, weight = _direction(word, salt, full)
        total += lanes
        weights += weight
    if weights % 2 == 0:
        # An odd number of odd deviations from the middle cannot cancel out, whichever dimensions are kept.
        total += _lanes("", salt, full)
        weights += 1
    values = struct.unpack_from(f"<{dimensions}H", total.to_bytes(full * _LANE_BYTES, "little"))
    # Nibbles are never negative, so their average is subtracted.
    middle = _MIDDLE_TWICE * weights
    squares = 4 * sum(map(operator.mul, values, values)) - 4 * middle * sum(values) + dimensions * middle**2
    length = math.sqrt(squares)
    # There are few distinct values, so each is scaled and rounded once, to the digits of single precision.
    scaled = {value: round((2 * value - middle) / length, 9) for value in set(values)}
    return list(map(scaled.__getitem__, values))


@functools.lru_cache(maxsize=2048)
def _direction(word: str, salt: str, full: int) -> tuple[int, int]:
    """Return the lanes of a word, and their weight. A long word shares part of them with its inflections."""
    if word in _COMMON:
        return _lanes(word, salt, full) * _COMMON_WEIGHT, _COMMON_WEIGHT
    stem = _lanes(f"{word[:_STEM]}-", salt, full)
    return _lanes(word, salt, full) * _WEIGHT + stem * _STEM_WEIGHT, _WEIGHT + _STEM_WEIGHT


def _lanes(feature: str, salt: str, full: int) -> int:
    seed = f"{salt}\n{feature}".encode("utf-8", "surrogatepass")
    spaced = bytearray(full * _LANE_BYTES)
    spaced[::_LANE_BYTES] = hashlib.shake_128(seed).digest(full).translate(_NIBBLES)
    return int.from_bytes(spaced, "little")

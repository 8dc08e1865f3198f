"""From a text to a unit vector: texts that share words lie nearer to one another. No understanding is claimed.

Each word stands for a pseudo-random direction, a text for the sum of its words'. Sums are made with large integers,
a lane of 16 bits for each dimension: that is what keeps thousands of dimensions cheap without numpy.
"""

# ruff: noqa: SIM905 - a list of words is kept as a text, which can be read

from __future__ import annotations

import functools
import hashlib
import math
import operator
import re
import struct

# Scripts without spaces between words are read sign by sign.
_SIGNS = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_WORD = re.compile(rf"[{_SIGNS}]|[^\W{_SIGNS}]+")
# Texts may be long, lanes are not: so many words of the beginning are read, each once. Their weights times the
# largest nibble stay below the 65,536 a lane can hold.
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
        What is embedded; upper and lower case are the same.
    salt
        The model: two models have nothing in common.
    full
        How many dimensions the model's vectors have.
    dimensions
        How many of these are kept, from the first on.
    """
    words = list(dict.fromkeys(_WORD.findall(text.lower()))) or [text]
    return of_words(words, salt, full, dimensions)


def of_words(words: list[str], salt: str, full: int, dimensions: int) -> list[float]:
    """Embed words, or the numbers of tokens written out."""
    total, weights = 0, 0
    for word in words[:_READ_WORDS]:
        lanes, weight = _direction(word, salt, full)
        total += lanes
        weights += weight
    if weights % 2 == 0:
        # An odd number of odd deviations from the middle cannot cancel, in whatever dimensions are kept.
        total += _lanes("", salt, full)
        weights += 1
    values = struct.unpack_from(f"<{dimensions}H", total.to_bytes(full * _LANE_BYTES, "little"))
    # Lanes count nibbles, which are never negative: what they come to on the average is taken off.
    middle = _MIDDLE_TWICE * weights
    squares = 4 * sum(map(operator.mul, values, values)) - 4 * middle * sum(values) + dimensions * middle**2
    length = math.sqrt(squares)
    # Dimensions share few values, so that each is scaled and rounded once; as many digits as single precision has.
    scaled = {value: round((2 * value - middle) / length, 9) for value in set(values)}
    return list(map(scaled.__getitem__, values))


@functools.lru_cache(maxsize=2048)
def _direction(word: str, salt: str, full: int) -> tuple[int, int]:
    """Return the lanes of a word, and its weight; a long word shares a part of them with its inflections."""
    if word in _COMMON:
        return _lanes(word, salt, full) * _COMMON_WEIGHT, _COMMON_WEIGHT
    stem = _lanes(f"{word[:_STEM]}-", salt, full)
    return _lanes(word, salt, full) * _WEIGHT + stem * _STEM_WEIGHT, _WEIGHT + _STEM_WEIGHT


def _lanes(feature: str, salt: str, full: int) -> int:
    seed = f"{salt}\n{feature}".encode("utf-8", "surrogatepass")
    spaced = bytearray(full * _LANE_BYTES)
    spaced[::_LANE_BYTES] = hashlib.shake_128(seed).digest(full).translate(_NIBBLES)
    return int.from_bytes(spaced, "little")

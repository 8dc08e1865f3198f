"""Answer texts → values of a strict schema. A value that does not match is reported with its path and the reason.

msgspec decodes and validates in one pass, into structs made for the schema. Their fields become Arrow arrays, column by
column. ``str.json_decode`` of Polars is as fast, but reads 3.7 as the integer 3 and true as 1, and ignores missing and
extra properties. A text that msgspec refuses is read again, node by node: either it is valid after all (3.0 is an
integer in JSON schema), or this finds where it is not.
"""

from __future__ import annotations

import math
import re
from itertools import accumulate, chain
from operator import attrgetter
from typing import TYPE_CHECKING, Annotated, Any, Optional

import msgspec
import polars as pl
import pyarrow as pa

from batchframe._core.lenient import read_json
from batchframe._schemas.from_dtype import MARK, marked_dtype
from batchframe._schemas.leaves import LEAVES, Leaf, MismatchError, Node, display, shorten
from batchframe._schemas.strict import definition

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# The garbage collector walks the decoded objects until they are columns: small slices are four times as fast as one.
_SLICE_ROWS = 512
_PLAIN_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)


class Decoder:
    """A decoder of the answers of a strict schema.

    Parameters
    ----------
    schema
        A strict schema, as `batchframe._schemas.response_format.answer_type` makes it.

    Attributes
    ----------
    dtype
        The dtype of the decoded answers, a Struct.
    """

    def __init__(self, schema: dict[str, Any]) -> None:
        self._root = _Compiler(schema).root()
        self._decode = msgspec.json.Decoder(self._root.type).decode
        self.dtype: pl.DataType = self._root.dtype

    def decode(self, texts: pl.Series) -> tuple[pl.Series, pl.Series]:
        """Return the values of answer texts, and the problem of each text that does not match.

        Parameters
        ----------
        texts
            Answers as the model wrote them, or null.

        Returns
        -------
        tuple of pl.Series
            The values, null where the text is null or does not match; and the problems as String, null for a valid
            text, such as ``$.items[2].price: expected number, got string "12"``.
        """
        problems: list[str | None] = []
        slices = [texts[start : start + _SLICE_ROWS] for start in range(0, len(texts), _SLICE_ROWS)] or [texts]
        arrays = [self._root.array(self._values(part.to_list(), problems)) for part in slices]
        values = pl.Series(texts.name, pl.from_arrow(pa.chunked_array(arrays)))
        # In two steps: Polars 1.37 takes the microseconds of a List for the milliseconds of an Array.
        return values.cast(_as_lists(self.dtype)).cast(self.dtype), pl.Series(problems, dtype=pl.String)

    def _values(self, texts: list[str | None], problems: list[str | None]) -> list[Any]:
        """Return the values of texts, and append the problem of each, or None, to ``problems``."""
        values: list[Any] = []
        first = len(problems)
        problems += [None] * len(texts)
        decode, is_exact, add = self._decode, self._root.is_exact, values.append
        for text in texts:
            if text is None:
                add(None)
                continue
            try:
                value = decode(text)
                if not is_exact:
                    self._root.read(msgspec.json.decode(text), "$")
            except (msgspec.MsgspecError, MismatchError, RecursionError):
                try:
                    value = self._read_node_by_node(text)
                except MismatchError as mismatch:
                    problems[first + len(values)] = str(mismatch)
                    value = None
            add(value)
        return values

    def _read_node_by_node(self, text: str) -> Any:
        try:
            return self._root.read(read_json(text, whole=True), "$")
        except msgspec.DecodeError as error:
            detail = str(error).removeprefix("JSON is malformed: ").split(" - at ")[0]
            raise MismatchError("$", f"not JSON ({detail}), got {display(text)}") from None
        except RecursionError:
            raise MismatchError("$", "nested too deeply") from None


class _Null(Node):
    """A value that is always null."""

    dtype = pl.String()
    type = None
    description = "null"

    def read(self, value: Any, path: str) -> Any:
        if value is not None:
            raise MismatchError(path, f"expected null, got {display(value)}")

    def array(self, values: Sequence[Any]) -> pa.Array:
        return pa.nulls(len(values), pa.large_string())


class _Nullable(Node):
    """A value of another node, or null."""

    def __init__(self, inner: Node) -> None:
        self._inner = inner
        self.dtype, self.is_exact, self.array = inner.dtype, inner.is_exact, inner.array  # type: ignore[method-assign]
        # A Raw accepts anything, including null.
        self.type = inner.type if inner.type is msgspec.Raw else Optional[inner.type]  # noqa: UP045  (evaluated here)
        self.description = f"{inner.description} or null"

    def read(self, value: Any, path: str) -> Any:
        if value is None or (isinstance(value, float) and not math.isfinite(value) and not self._inner.fits(value)):
            return None  # NaN and the infinities count as null where a float is not allowed
        return self._inner.read(value, path)


class _Text(Node):
    """A value without a single dtype, kept as JSON text: one of several types, or a recursive model."""

    dtype = pl.String()
    type = msgspec.Raw
    is_exact = False

    def __init__(self, options: Callable[[], list[Node]]) -> None:
        self._options = options

    def read(self, value: Any, path: str) -> Any:
        mismatches = []
        options = self._options()
        for option in options:
            try:
                option.read(value, path)
            except MismatchError as mismatch:  # noqa: PERF203
                mismatches.append(mismatch)
            else:
                return msgspec.Raw(msgspec.json.encode(value))
        nearest = max(mismatches, key=lambda mismatch: len(mismatch.path))
        if len(mismatches) == 1 or nearest.path != path:
            raise nearest
        expected = " or ".join(option.description for option in options)
        raise MismatchError(path, f"expected {expected}, got {display(value)}")

    def array(self, values: Sequence[Any]) -> pa.Array:
        # Encoded again, so that equal values are equal texts, whatever white space the model wrote.
        decoded = [None if value is None else msgspec.json.decode(value) for value in values]
        texts = [None if value is None else msgspec.json.encode(value).decode() for value in decoded]
        return pa.array(texts, pa.large_string())


class _List(Node):
    """An array."""

    description = "array"

    def __init__(self, inner: Node, schema: dict[str, Any]) -> None:
        self._inner = inner
        self._least, self._most = schema.get("minItems", 0), schema.get("maxItems", math.inf)
        self.dtype = marked_dtype(schema[MARK], inner.dtype, self._least) if MARK in schema else pl.List(inner.dtype)
        self.is_exact = inner.is_exact
        limits = {"min_length": schema.get("minItems"), "max_length": schema.get("maxItems")}
        limits = {name: limit for name, limit in limits.items() if limit is not None}
        plain = list[inner.type]  # type: ignore[name-defined]
        self.type = Annotated[plain, msgspec.Meta(**limits)] if limits else plain

    def read(self, value: Any, path: str) -> Any:
        if not isinstance(value, list):
            raise MismatchError(path, f"expected array, got {display(value)}")
        if not self._least <= len(value) <= self._most:
            limit = f"at least {self._least}" if len(value) < self._least else f"at most {self._most}"
            raise MismatchError(path, f"expected {limit} items, got {len(value)}")
        return [self._inner.read(item, f"{path}[{index}]") for index, item in enumerate(value)]

    def array(self, values: Sequence[Any]) -> pa.Array:
        is_null = [value is None for value in values]
        lists: Sequence[Any] = [value or () for value in values]
        offsets = pa.array([*accumulate(map(len, lists), initial=0)], pa.int64())
        mask = pa.array(is_null) if any(is_null) else None
        return pa.LargeListArray.from_arrays(offsets, self._inner.array([*chain.from_iterable(lists)]), mask=mask)


class _Struct(Node):
    """An object."""

    description = "object"

    def __init__(self, fields: dict[str, Node]) -> None:
        self._fields = fields
        self.dtype = pl.Struct({name: node.dtype for name, node in fields.items()})
        self.is_exact = all(node.is_exact for node in fields.values())
        # A property's name may be any text, a field's may not. `gc=False`: an answer cannot refer to itself.
        names = {f"f{index}": name for index, name in enumerate(fields)}
        typed = [(field, fields[name].type) for field, name in names.items()]
        self.type = msgspec.defstruct("Answer", typed, rename=names, forbid_unknown_fields=True, gc=False)
        self._getters = [attrgetter(field) for field in names]
        self._blank = self.type(*[None] * len(names))

    def read(self, value: Any, path: str) -> Any:
        if not isinstance(value, dict):
            raise MismatchError(path, f"expected object, got {display(value)}")
        for name in value:
            if name not in self._fields:
                raise MismatchError(_within(path, name), "is not a property of this object")
        for name in self._fields:
            if name not in value:
                raise MismatchError(_within(path, name), "is missing")
        return self.type(*[node.read(value[name], _within(path, name)) for name, node in self._fields.items()])

    def array(self, values: Sequence[Any]) -> pa.Array:
        is_null = [value is None for value in values]
        mask = None
        if any(is_null):
            mask = pa.array(is_null)
            values = [self._blank if value is None else value for value in values]
        columns = [
            node.array([*map(getter, values)])
            for getter, node in zip(self._getters, self._fields.values(), strict=True)
        ]
        fields = [pa.field(name, column.type) for name, column in zip(self._fields, columns, strict=True)]
        return pa.StructArray.from_arrays(columns, fields=fields, mask=mask)


class _Compiler:
    """The compiler of a schema into nodes."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self._schema = schema
        self._definitions: dict[str, Node] = {}

    def root(self) -> Node:
        self._definitions["#"] = node = self._node(self._schema, ("#",))
        return node

    def _node(self, schema: dict[str, Any], within: tuple[str, ...]) -> Node:
        if "$ref" in schema:
            return self._referred(schema["$ref"], within)
        if "anyOf" in schema:
            return self._any_of(schema["anyOf"], within)
        kind = schema["type"]
        if kind == "object":
            return _Struct({name: self._node(value, within) for name, value in schema["properties"].items()})
        if kind == "array":
            return _List(self._node(schema["items"], within), schema)
        return _Null() if kind == "null" else Leaf(schema)

    def _referred(self, reference: str, within: tuple[str, ...]) -> Node:
        if reference in within:
            return _Text(lambda: [self._definitions[reference]])
        node = self._node(self._schema["$defs"][definition(reference)], (*within, reference))
        self._definitions[reference] = node
        return node

    def _any_of(self, options: list[dict[str, Any]], within: tuple[str, ...]) -> Node:
        flat = [self._target(inner) for option in options for inner in option.get("anyOf", [option])]
        others = [option for option in flat if option != {"type": "null"}]
        kinds = {option.get("type", "") for option in others}
        node: Node
        if len(others) == 1:
            node = self._node(others[0], within)
        elif all({"type", "enum"} <= option.keys() and option["type"] == "string" for option in others):
            values = dict.fromkeys(value for option in others for value in option["enum"])
            node = Leaf({"type": "string", "enum": [*values]})
        elif kinds <= {"integer", "number"} or (len(kinds) == 1 and kinds <= {"string", "boolean"}):
            node = Leaf({"type": "number" if "number" in kinds else kinds.pop()}, [Leaf(option) for option in others])
        else:
            nodes = [self._node(option, within) for option in options if option != {"type": "null"}]
            node = _Text(lambda: nodes)
        return _Nullable(node) if len(others) < len(flat) else node

    def _target(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Return the target of a reference if that is a leaf, else the schema itself."""
        target = self._schema.get("$defs", {}).get(definition(schema.get("$ref")), schema)
        return target if target.get("type") in LEAVES else schema


def _as_lists(dtype: Any) -> Any:
    if isinstance(dtype, pl.Struct):
        return pl.Struct({field.name: _as_lists(field.dtype) for field in dtype.fields})
    return pl.List(_as_lists(dtype.inner)) if isinstance(dtype, (pl.List, pl.Array)) else dtype


def _within(path: str, name: str) -> str:
    return f"{path}.{name}" if _PLAIN_NAME.fullmatch(name) else f"{path}[{shorten(repr(name))}]"

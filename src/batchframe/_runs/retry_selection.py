"""What `Run.retry` was asked for: which requests, with which changes; recorded before anything of it is sent."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl

from batchframe._core.column_names import OURS
from batchframe._core.exceptions import OptionError, first_paragraph
from batchframe._core.json_values import json_text
from batchframe._core.option_names import OPTION_NAMES
from batchframe._endpoints import parameter_checks
from batchframe._requests import encode
from batchframe._requests.parameters import body_members, check_extra_body, check_model, check_names
from batchframe._schemas.response_format import requested_answer_type

if TYPE_CHECKING:
    from batchframe._store.run_folder import RunFolder

_PICKED, _CHANGES = OURS + "picked", OURS + "changes"
# They make the dtypes of the columns.
_FIXED = frozenset({"n", "dimensions"})
_ALLOWED = frozenset({"model", "extra_body", "response_format"})


def chosen(results: pl.LazyFrame, ids: pl.Series, condition: pl.Expr, changes: dict[str, pl.Expr]) -> pl.DataFrame:
    """Return the requests that were chosen, each once.

    Parameters
    ----------
    results
        The frame with its added columns.
    ids
        By row, the custom_id of its request; null where it has none.
    condition
        Which rows.
    changes
        By parameter, the expression of its JSON text.

    Returns
    -------
    pl.DataFrame
        ``custom_id: String`` of the request, ``changes: String``, a JSON object.

    Raises
    ------
    OptionError
        An expression cannot be evaluated, or gives another number of rows.
    """
    members = [pl.lit(f'"{name}":') + value for name, value in changes.items()]
    body = pl.concat_str(pl.lit("{"), *_separated(members), pl.lit("}"))
    columns = [condition.fill_null(value=False).alias(_PICKED), body.alias(_CHANGES)]
    try:
        picked = results.with_columns(columns).select(picked=_PICKED, changes=_CHANGES).collect()
    except pl.exceptions.PolarsError as problem:  # by its dtypes it could have fitted
        arguments = " or ".join(["where", *(f"the expression for {name}" for name in changes)])
        msg = f"{arguments} does not fit the result: {first_paragraph(problem)}"
        raise OptionError(msg) from problem
    requests = picked.with_columns(ids.alias("custom_id")).filter(pl.col("picked") & pl.col("custom_id").is_not_null())
    return requests.select("custom_id", "changes").unique("custom_id", keep="first", maintain_order=True)


def _separated(members: list[pl.Expr]) -> list[pl.Expr]:
    return [piece for index, member in enumerate(members) for piece in ([pl.lit(",")] * bool(index) + [member])]


def condition_of(results: pl.LazyFrame, error: str, where: Any, codes: list[str] | None) -> pl.Expr:
    """Return which rows are meant: those that ``where`` holds for, else those with an error; and of these codes.

    Raises
    ------
    OptionError
        ``where`` is not a Boolean expression that fits the result.
    """
    condition = pl.col(error).is_not_null() if where is None else _checked(results, where)
    if codes is None:
        return condition
    return condition & pl.col(error).struct.field("code").is_in(pl.Series(codes, dtype=pl.String).implode())


def _checked(results: pl.LazyFrame, where: Any) -> pl.Expr:
    if not isinstance(where, pl.Expr):
        msg = f"where must be an expression over the result, such as pl.col('finish_reason') == 'length', got {where!r}"
        raise OptionError(msg)
    dtypes = _dtypes(results, where, "where")
    if dtypes != [pl.Boolean()]:
        msg = f"where must give one Boolean column, got {', '.join(map(str, dtypes))}"
        raise OptionError(msg)
    return where


def _dtypes(results: pl.LazyFrame, expression: pl.Expr, called: str) -> list[pl.DataType]:
    try:
        return list(results.select(expression).collect_schema().values())
    except pl.exceptions.PolarsError as problem:
        columns = ", ".join(map(repr, results.collect_schema()))
        msg = f"{called} does not fit the result: {first_paragraph(problem)}. Columns: {columns}"
        raise OptionError(msg) from problem


def check_codes(codes: Any) -> list[str] | None:
    """Return error codes as a sorted list; a single code may be passed as text."""
    if codes is None:
        return None
    given = [codes] if isinstance(codes, str) else codes
    if not isinstance(given, (list, tuple, set, frozenset)) or not all(isinstance(code, str) for code in given):
        msg = f'codes must be a code or a list of them, such as ["missing", "http_500"], got {codes!r}'
        raise OptionError(msg)
    return sorted(set(given))


def check_changes(given: dict[str, Any], endpoint: str, results: pl.LazyFrame) -> dict[str, pl.Expr]:
    """Return an expression for the JSON text of each changed parameter.

    Raises
    ------
    OptionError
        A name is not a parameter of the endpoint or concerns the whole run, or an expression does not fit the result.
    """
    extra = given.get("extra_body")
    fixed = sorted(_FIXED & (given.keys() | (extra.keys() if isinstance(extra, dict) else set())))
    if fixed:
        msg = f"{fixed[0]} cannot be changed by retry: the type of response depends on it. Ask again with bf.run(...)"
        raise OptionError(msg)
    ours = sorted((OPTION_NAMES & given.keys()) - _ALLOWED)
    if ours:
        msg = f"{ours[0]} cannot be changed by retry: it takes request parameters, such as max_tokens, and model"
        raise OptionError(msg)
    parameters = {name: value for name, value in given.items() if name not in _ALLOWED}
    check_names(parameters, endpoint)
    new_model, extra_body = given.get("model"), {}
    if new_model is not None:
        check_model(new_model, endpoint)
    if given.get("extra_body") is not None:
        extra_body = check_extra_body("extra_body", given["extra_body"])
    response_format = given.get("response_format")
    body = body_members(endpoint, parameters, extra_body, response_format, requested_answer_type(response_format))
    values = dict.fromkeys((name for name, value in parameters.items() if value is None), None)
    values |= body | ({} if new_model is None else {"model": new_model})
    changes: dict[str, pl.Expr] = {}
    for name, value in sorted(values.items()):
        if isinstance(value, pl.Expr):
            (dtype,) = _dtypes(results, value.alias(_CHANGES), f"the expression for {name}")
            if name not in extra_body:
                parameter_checks.check_dtypes(endpoint, {name: dtype})
            changes[name] = encode.json(value, dtype, name).fill_null("null")
        else:
            changes[name] = pl.lit(json_text(value, name))
    return changes


def without_known(folder: RunFolder, key: str, requests: pl.DataFrame) -> pl.DataFrame:
    """Leave out requests that an identical call has retried already, so that none is paid for again."""
    for record in folder.retries():
        if record.key == key:
            known = folder.read_frame(folder.retry_path(record.generation))
            requests = requests.join(known, on=["custom_id", "changes"], how="anti", maintain_order="left")
    return requests


def key_of(codes: list[str] | None, name: str | None) -> str:
    """Return the part of a retry's identity that is neither its requests nor their changes."""
    return hashlib.blake2b(msgspec.json.encode([codes, name]), digest_size=16).hexdigest()

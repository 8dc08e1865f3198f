"""The settings that, with the rows of the frame, define the requests of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from batchframe._endpoints.registry import DEFAULT

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True, kw_only=True)
class RequestSpec:
    """Everything that defines the request of a row, already checked.

    Parameters
    ----------
    prompt
        A template, an expression, or a list of messages.
    model
        The model id or deployment name.
    endpoint
        The canonical path of the endpoint.
    system
        A template or an expression.
    images, image_detail
        Columns or expressions of images, and their ``detail``.
    custom_id
        The column of request ids; None for ``row-<index>``.
    on_null
        How to treat a row with a null in its prompt.
    body
        The parameters in the body by name, sorted. Each is a JSON value, or an expression with one value per row.
    unchecked
        The names in ``body`` that come from ``extra_body``. Their values are sent unchecked.
    max_slice_rows
        The maximum number of rows in a slice, for endpoints with large answers; None for the default.
    """

    prompt: Any
    model: str
    endpoint: str = DEFAULT.path
    system: Any = None
    images: tuple[str | pl.Expr, ...] = ()
    image_detail: str | None = None
    custom_id: str | None = None
    on_null: Literal["skip", "render", "raise"] = "skip"
    body: dict[str, Any] = field(default_factory=dict)
    unchecked: frozenset[str] = frozenset()
    max_slice_rows: int | None = None

    @property
    def parameters(self) -> dict[str, Any]:
        """The members of the body that are checked against the endpoint's parameters."""
        return {name: value for name, value in self.body.items() if name not in self.unchecked}

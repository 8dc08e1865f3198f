"""What the requests of a run are made of, beside the rows of the frame."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from batchframe._endpoints.registry import DEFAULT

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True, kw_only=True)
class RequestSpec:
    """Everything that makes a row's request, already checked.

    Parameters
    ----------
    prompt
        A template, an expression, or a list of messages.
    model
        The model id or deployment name.
    endpoint
        The path of the endpoint, as we spell it.
    system
        A template or an expression.
    images, image_detail
        Columns or expressions of images, and how closely the model looks at them.
    custom_id
        The column with the ids of the requests; None for ``row-<index>``.
    on_null
        What becomes of a row with a null in its prompt.
    body
        The other members of the body by name, sorted: each a JSON value or an expression with a value for each row.
    unchecked
        The names in ``body`` that came by ``extra_body``: they are sent as they are.
    max_slice_rows
        How many rows may be rendered together, where their answers are large; None for the usual number.
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
        """The part of the body that is checked against the endpoint's parameters."""
        return {name: value for name, value in self.body.items() if name not in self.unchecked}

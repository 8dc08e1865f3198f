"""One test of many cases, where each case would be a test of a few milliseconds."""

from __future__ import annotations

import contextlib
import functools
import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


@contextlib.contextmanager
def _naming(case: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise AssertionError(f"the case {case!r}: {error}") from error


def each(cases: Mapping[str, Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Run a test for every case, which is its first argument; the failure of one says which."""

    def decorated(check: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(check)

        @functools.wraps(check)
        def test(**fixtures: Any) -> None:
            assert cases
            for name, case in cases.items():
                with _naming(name):
                    check(case, **fixtures)

        test.__signature__ = signature.replace(parameters=list(signature.parameters.values())[1:])
        return test

    return decorated

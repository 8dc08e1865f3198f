"""What in the account is ours: a create in doubt is settled by the id of the input file, never by creating again."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batchframe._types import RemoteBatch

# The list is read back to the input file's own created_at, which is the service's clock and not ours; the margin is
# for two clocks within the service.
_MARGIN = dt.timedelta(minutes=5)


def batch_of_input_file(
    batches: Iterable[RemoteBatch], input_file_id: str, file_created_at: dt.datetime | None
) -> RemoteBatch | None:
    """Return the batch that was made of an input file, or None.

    Parameters
    ----------
    batches
        The account's batches, the newest first; read only as far back as is needed.
    input_file_id
        The file. Each upload serves one submission, so its batch is that submission's.
    file_created_at
        When the service received the file: no batch of it can be older. None: all batches are read.
    """
    for batch in batches:
        if batch.input_file_id == input_file_id:
            return batch
        if (
            file_created_at is not None
            and batch.created_at is not None
            and batch.created_at < file_created_at - _MARGIN
        ):
            return None
    return None

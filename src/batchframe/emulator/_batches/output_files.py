"""Adding files to the service: their objects, and result files."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from batchframe.emulator._batches.files import File, Handling

if TYPE_CHECKING:
    from pathlib import Path

    from batchframe.emulator._batches.host import Host


def add_output(host: Host, path: Path, filename: str, life_seconds: int | None, owner: str) -> File:
    """Add a result file; its bytes are moved."""
    dialect = host.settings.profile
    life_seconds = life_seconds or dialect.life_seconds
    file = file_object(host.draw_id(dialect.output_id), path, filename, "batch_output", life_seconds)
    return host.files.add(path, file, Handling(owner))


def file_object(file_id: str, path: Path, filename: str, purpose: str, life_seconds: int | None) -> File:
    """Make the object of a new file."""
    now = int(time.time())
    return File(
        id=file_id,
        bytes=path.stat().st_size,
        created_at=now,
        expires_at=None if life_seconds is None else now + life_seconds,
        filename=filename,
        purpose=purpose,
    )

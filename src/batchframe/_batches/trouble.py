"""The last error of a run, kept on disk, and the replies that can never be read."""

from __future__ import annotations

import datetime as dt
import functools
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import msgspec

from batchframe._core.exceptions import LeaseLostError, UnreadableReplyError
from batchframe._store.records import TroubleRecord, UnreadReply

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from batchframe._core.clock import Clock
    from batchframe._providers.client import BatchClient
    from batchframe._store.run_folder import RunFolder

_NOTE = "trouble.json"
# A service in trouble may reply in another shape for a while. If it always does, waiting does not help.
_TIMES, _SECONDS = 3, 300.0
# A call that was not repeated for so long is forgotten: another one has taken its place.
_FORGOTTEN = dt.timedelta(hours=1)
_LISTS = frozenset({"list", "list_matching", "list_files"})
_CALLS = _LISTS | {"upload", "retrieve_file", "delete_file", "create", "retrieve", "cancel", "download"}


def read_trouble(folder: RunFolder) -> TroubleRecord | None:
    """Return the last error of a run; None if there is none, or for a run of 0.1.0, which kept none."""
    note = folder.read_note(_NOTE)
    with suppress(msgspec.ValidationError):
        return None if note is None else msgspec.convert(note, TroubleRecord)
    return None


def keep_trouble(
    folder: RunFolder, error: Exception, unread: dict[str, UnreadReply], known: TroubleRecord | None, now: dt.datetime
) -> None:
    """Write an error to disk. If that fails, it must not hide the error itself."""
    message = str(error)
    at = known.at if known is not None and known.message == message else now
    record = TroubleRecord(message, at, bool(getattr(error, "is_transient", False)), dict(unread))
    if record != known:
        with suppress(OSError, LeaseLostError):
            folder.write_note(_NOTE, record)


def forget_trouble(folder: RunFolder, unread: dict[str, UnreadReply], known: TroubleRecord, now: dt.datetime) -> None:
    """Remove the error after a successful pass, unless a call with an unreadable reply was not repeated yet."""
    with suppress(OSError, LeaseLostError):
        if all(now - reply.last_at > _FORGOTTEN for reply in unread.values()):
            folder.remove_note(_NOTE)
        elif unread != known.unread:
            folder.write_note(_NOTE, msgspec.structs.replace(known, unread=dict(unread)))


class CountingClient:
    """A client that counts answered calls, and gives up a call whose reply can never be read.

    That is JSON of the wrong shape from the same call, three times within at least five minutes. A create is never
    given up: it may have been executed, so it counts as a lost reply.

    Attributes
    ----------
    answers
        The number of calls with a readable reply.
    unread
        The unreadable replies, by call.
    """

    def __init__(self, client: BatchClient, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._since: dict[str, float] = {}
        self.answers = 0
        self.unread: dict[str, UnreadReply] = {}

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        if name not in _CALLS:
            return method
        return functools.partial(self._list if name in _LISTS else self._call, name, method)

    def _call(self, name: str, call: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
        with self._heard(name, arguments):
            return call(*arguments, **more)

    def _list(self, name: str, call: Callable[..., Any], *arguments: Any, **more: Any) -> Iterator[Any]:
        with self._heard(name, arguments):
            yield from call(*arguments, **more)

    @contextmanager
    def _heard(self, name: str, arguments: tuple[Any, ...]) -> Iterator[None]:
        key = " ".join([name, *(argument for argument in arguments[:1] if isinstance(argument, str))])
        try:
            yield
        except UnreadableReplyError as error:
            if error.is_json and name != "create":
                self._count(key, error)
            raise
        except GeneratorExit:  # the caller does not need the rest of the list
            self._answered(key)
            raise
        else:
            self._answered(key)

    def _answered(self, key: str) -> None:
        self.answers += 1
        self.unread.pop(key, None)

    def _count(self, key: str, error: UnreadableReplyError) -> None:
        now, moment = self._clock.now(), self._clock.monotonic()
        reply = self.unread.get(key)
        if reply is None or reply.first_at > now:
            self.unread[key], self._since[key] = UnreadReply(now, now), moment
            return
        reply = self.unread[key] = UnreadReply(reply.first_at, now, reply.times + 1)
        # For what another process noted, the time of day is all there is.
        passed = moment - self._since[key] if key in self._since else (now - reply.first_at).total_seconds()
        if reply.times >= _TIMES and passed >= _SECONDS:
            error.is_transient = False
            message = f"{error}. This call was answered so {reply.times} times in {passed / 60:.0f} minutes"
            error.args = (f"{message}: the run goes on when the same call is made again and the service answers it",)

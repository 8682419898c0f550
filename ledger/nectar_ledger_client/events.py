"""What happens at a ledger, as it is committed: a stream of server-sent events, one for each entry of the log.

    id: INDEX LF | event: KIND LF | data: JSON LF | LF            lines that begin with a colon keep the link awake

Events are news, not evidence: check against the log what matters.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from nectar_protocol.errors import ProtocolError
from nectar_protocol.textual import parse_decimal

from nectar_ledger_client.call import Call
from nectar_ledger_client.errors import AnswerError

MEDIA_TYPE: Final = "text/event-stream"
MAX_EVENT_BYTES: Final = 64 << 10
MAX_KIND: Final = 64
# A ledger says something, if only a comment, more often than this.
SILENCE_S: Final = 60.0


@dataclass(frozen=True)
class Event:
    """Entry `index` of the log is of this kind; `data` is what the ledger says of it."""

    index: int
    kind: str
    data: Mapping[str, Any]


def listen(last: int | None) -> Call[NoReturn]:
    """Ask for what comes behind entry `last`, or from now on. The answer is a stream, which no call parses."""
    headers = {"Accept": MEDIA_TYPE} | ({} if last is None else {"Last-Event-ID": str(last)})
    return Call("/v1/events", _is_none, headers=headers)


class EventParser:
    """Makes events of a stream's bytes, however they are cut. `last` is the index of the newest event, which each must
    be above: what comes twice is passed over.
    """

    def __init__(self, last: int | None = None) -> None:
        self.last = last
        self._restart()

    def _restart(self) -> None:
        self._rest = b""
        self._size = 0
        self._fields: dict[str, list[str]] = {}

    def reconnected(self) -> None:
        """Forget what was begun: the stream starts anew."""
        self._restart()

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """The events that this chunk completes. Raises AnswerError for what is none, or over 64 KiB."""
        lines = (self._rest + chunk).replace(b"\r\n", b"\n").split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            event = self._line(line)
            if event is not None:
                yield event
        if self._size + len(self._rest) > MAX_EVENT_BYTES:
            raise AnswerError(f"an event of more than {MAX_EVENT_BYTES} bytes: is there a ledger at this address?")

    def _line(self, line: bytes) -> Event | None:
        if not line:
            fields, self._fields, self._size = self._fields, {}, 0
            return self._event(fields) if "data" in fields else None
        self._size += len(line)
        name, _, value = line.partition(b":")
        if name:
            try:
                self._fields.setdefault(name.decode(), []).append(value.removeprefix(b" ").decode())
            except UnicodeDecodeError as error:
                raise AnswerError("an event is not UTF-8: is there a ledger at this address?") from error
        return None

    def _event(self, fields: Mapping[str, list[str]]) -> Event | None:
        try:
            index = parse_decimal(fields["id"][-1], "an event's id")
            kind = fields["event"][-1]
            data = json.loads("\n".join(fields["data"]))
        except (KeyError, ProtocolError, ValueError, RecursionError) as error:
            raise AnswerError(f"an event is not as it must be ({error}): is this ledger of another version?") from error
        if not isinstance(data, dict) or len(kind) > MAX_KIND:
            raise AnswerError("an event is not as it must be: is this ledger of another version?")
        if self.last is not None and index <= self.last:
            return None
        self.last = index
        return Event(index, kind, data)


def _is_none(data: bytes) -> NoReturn:
    raise AnswerError("the answer is no stream of events: is this ledger of another version?")

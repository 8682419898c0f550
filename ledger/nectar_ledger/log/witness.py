"""Witnesses: others who check that the log only grows, and cosign its checkpoints (c2sp.org/tlog-witness).

Each is asked by itself and at its own pace. One that is away, slow or wrong is asked again later and less often; the
ledger waits for none. What they answer is believed under the keys that the operator has listed, and nothing else.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import httpx
from nectar_protocol.checkpoint import Checkpoint
from nectar_protocol.errors import ProtocolError
from nectar_protocol.note import MAX_VKEY, Kind, Note, NoteKey, NoteSignature
from nectar_protocol.textual import parse_decimal, to_base64

from nectar_ledger.errors import ForkError, LedgerError, WitnessError
from nectar_ledger.log.reader import LogReader
from nectar_ledger.store.cosignatures import put_cosignature
from nectar_ledger.store.database import Database
from nectar_ledger.store.reading import read_newest_checkpoint

MAX_WITNESSES = 32
MAX_URL = 1024
MAX_LIST_BYTES = MAX_WITNESSES * 2 * (MAX_VKEY + MAX_URL)
# Sixteen signatures of post-quantum size would fit.
MAX_ANSWER_BYTES = 128 << 10
ANSWER_S = 30.0
# What the public witness network lets a log ask for.
EVERY_S = 60.0
LONGEST_PAUSE_S = 3600.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Witness:
    """Its key for cosignatures, and the prefix under which it takes checkpoints."""

    key: NoteKey
    url: str

    def __post_init__(self) -> None:
        if self.key.kind is not Kind.COSIGNATURE:
            raise WitnessError(f"the key of {self.key.name!r} is not one for cosignatures (kind 4): ask for that one")
        try:
            url = httpx.URL(self.url)
        except httpx.InvalidURL as error:
            raise WitnessError(f"{self.url[:200]!r} is not the URL of a witness: {error}") from error
        if url.scheme not in ("http", "https") or not url.host or url.query or url.fragment or len(self.url) > MAX_URL:
            raise WitnessError(f"{self.url[:200]!r} is not the URL of a witness: write https://HOST/PREFIX")


def parse_witnesses(text: str) -> tuple[Witness, ...]:
    """A list of witnesses: a vkey and a URL a line; `#` begins a comment. Raises WitnessError."""
    witnesses = []
    for number, line in enumerate(text.splitlines(), 1):
        match line.split():
            case [vkey, url] if not vkey.startswith("#"):
                try:
                    witnesses.append(Witness(NoteKey.parse(vkey), url))
                except (ProtocolError, WitnessError) as error:
                    raise WitnessError(f"line {number} of the list of witnesses: {error}") from error
            case [word, *_] if not word.startswith("#"):
                raise WitnessError(f"line {number} of the list of witnesses is not a vkey and a URL")
    if len({witness.key.name for witness in witnesses}) < len(witnesses) or len(witnesses) > MAX_WITNESSES:
        raise WitnessError(f"a list has at most {MAX_WITNESSES} witnesses, each of another name")
    return tuple(witnesses)


def read_witnesses(path: Path) -> tuple[Witness, ...]:
    """Of a file; none if there is no file. Raises WitnessError."""
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MAX_LIST_BYTES + 1)
    except FileNotFoundError:
        return ()
    except (OSError, UnicodeDecodeError) as error:
        raise WitnessError(f"cannot read the list of witnesses {path}: {error}") from error
    if len(text) > MAX_LIST_BYTES:
        raise WitnessError(f"the list of witnesses {path} is too long: at most {MAX_WITNESSES} are asked")
    return parse_witnesses(text)


class Source(Protocol):
    """A ledger that runs."""

    @property
    def log(self) -> LogReader: ...

    @property
    def database(self) -> Database: ...


class Witnesses:
    """All that a ledger asks. `every_s`: how long to wait before each is asked again."""

    def __init__(self, witnesses: Sequence[Witness], every_s: float = EVERY_S) -> None:
        self._witnesses, self._every_s = tuple(witnesses), every_s

    async def run(self, source: Source) -> None:
        """Have the newest checkpoint cosigned again and again, until this is cancelled."""
        headers = {"Accept-Encoding": "identity"}
        async with httpx.AsyncClient(headers=headers, timeout=ANSWER_S) as client, asyncio.TaskGroup() as group:
            for witness in self._witnesses:
                group.create_task(Asking(witness, source, client).run(self._every_s))


class Asking:
    """One witness, and how far it has followed the log: it says so itself when it is asked for the first time."""

    def __init__(self, witness: Witness, source: Source, client: httpx.AsyncClient) -> None:
        self._witness, self._source, self._client = witness, source, client
        self._known = self._cosigned = 0

    async def run(self, every_s: float) -> None:
        failures = 0
        while True:
            try:
                await self.ask()
                failures = 0
            except ForkError as error:
                failures += 1
                logger.critical("%s", error)
            except (LedgerError, ProtocolError, httpx.HTTPError, TimeoutError) as error:
                failures += 1
                logger.warning("witness %s: %s", self._witness.key.name, str(error) or type(error).__name__)
            except Exception:
                failures += 1
                logger.exception("witness %s could not be asked", self._witness.key.name)
            await asyncio.sleep(max(every_s, min(every_s * 2.0 ** min(failures, 32), LONGEST_PAUSE_S)))

    async def ask(self) -> None:
        """Have the newest checkpoint cosigned, and keep the cosignature. Does nothing if that has been done.

        Raises WitnessError, ForkError if the witness has seen another log of this name, httpx.HTTPError, TimeoutError.
        """
        note = await asyncio.to_thread(self._newest)
        size = 0 if note is None else Checkpoint.parse(note.text).size
        if note is None or size <= self._cosigned:
            return
        status, answer = await self._post(note, size)
        if status == httpx.codes.CONFLICT:
            self._follow(_parse_size(answer), size)
            status, answer = await self._post(note, size)
        if status == httpx.codes.CONFLICT:
            self._follow(_parse_size(answer), size)
        if status == httpx.codes.UNPROCESSABLE_ENTITY:
            raise ForkError(f"to the witness {self._witness.key.name} this log does not continue what it has cosigned")
        if status != httpx.codes.OK:
            raise WitnessError(f"it answers {status} to a checkpoint over {size} entries")
        cosignature = self._read(note, answer)
        await asyncio.to_thread(put_cosignature, self._source.database, size, cosignature)
        self._known = self._cosigned = size

    def _follow(self, known: int, size: int) -> None:
        """Go on from where the witness says that it is. Raises ForkError if it cannot be of this log."""
        if known > size or known == self._known:
            raise ForkError(
                f"the witness {self._witness.key.name} has cosigned a checkpoint over {known} entries which is none of "
                f"this log of {size}: was an old database restored? Stop the ledger and find out"
            )
        self._known = known

    def _newest(self) -> Note | None:
        with self._source.database.reading.begin() as connection:
            return read_newest_checkpoint(connection)

    async def _post(self, note: Note, size: int) -> tuple[int, bytes]:
        """Its status and its answer, cut off where it is too long."""
        old = self._known
        proof = await asyncio.to_thread(self._source.log.consistency, old, size) if old else []
        lines = [f"old {old}", *map(to_base64, proof), "", ""]
        body = "\n".join(lines).encode() + note.pack()
        async with asyncio.timeout(ANSWER_S):
            url = f"{self._witness.url.rstrip('/')}/add-checkpoint"
            async with self._client.stream("POST", url, content=body) as response:
                answer = b""
                # Raw: a compressed answer would be larger than it looks.
                async for chunk in response.aiter_raw():
                    answer += chunk
                    if len(answer) > MAX_ANSWER_BYTES:
                        raise WitnessError(f"it answers with more than {MAX_ANSWER_BYTES} bytes")
        return response.status_code, answer

    def _read(self, note: Note, answer: bytes) -> NoteSignature:
        """The witness's own line. Raises WitnessError."""
        key = self._witness.key
        try:
            answered = Note.unpack(note.text.encode() + b"\n" + answer)
            if answered.text != note.text:
                raise WitnessError("its answer is not lines of signatures")
            answered.verify([key])
        except ProtocolError as error:
            raise WitnessError(f"its answer is not a cosignature of its key: {error}") from error
        return next(line for line in answered.signatures if (line.name, line.key_id) == (key.name, key.key_id))


def _parse_size(answer: bytes) -> int:
    """Raises WitnessError."""
    try:
        return parse_decimal(answer.decode("ascii").removesuffix("\n"), "the size")
    except (UnicodeDecodeError, ProtocolError) as error:
        raise WitnessError(f"it refuses the size of its own checkpoint, and does not say it ({error})") from error

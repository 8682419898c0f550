"""Sessions that send stored hidden states, each as soon as its last step is answered: without embeddings, without a
head, and without a thread for each.

    python -m benchmarks.economy.streams

takes an order, a JSON object, on its first line, and then `go`, `pause` or `count` on each; it answers every line with
a JSON object. `pause` is answered when no step is under way.
"""

import json
import sys
import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import torch
from nectar.blocks import RemoteBlocks, RemoteModel
from nectar.connection import Connection
from nectar.purse import Purse
from nectar.session import Session
from nectar.wallet import Wallet
from nectar_protocol.manifest import ModelID

PROMPT, LENGTH = 16, 256
AT_ONCE = 8  # are opened


class Stream:
    """One session, which goes back to its prompt when it is full. Lives in its connection's loop but for `open`."""

    def __init__(
        self, connection: Connection, session: Session, hidden: torch.Tensor, weight: int, done: Counter[int]
    ) -> None:
        self._connection, self._session, self._weight, self._done = connection, session, weight, done
        self._hidden, self._position = hidden, PROMPT
        self._goes = False
        self.is_busy = False
        self.error: BaseException | None = None

    def open(self) -> None:
        self._session.step(torch.randn(1, PROMPT, self._hidden.shape[2]), 0)

    def go(self) -> None:
        self._goes = True
        if not self.is_busy:
            self._next()

    def pause(self) -> None:
        self._goes = False

    def _next(self) -> None:
        self.is_busy = self._goes
        if self._goes:
            answer: Future[torch.Tensor] = Future()
            answer.add_done_callback(self._on_answer)
            self._session.begin(self._hidden, self._position, (), answer)

    def _on_answer(self, answer: Future[torch.Tensor]) -> None:
        self.error = answer.exception()
        if self.error is None:
            self._done[self._weight] += 1
            self._position += (tokens := self._hidden.shape[1])
            if self._position + tokens > LENGTH:
                self._position = PROMPT
            self._connection.call(self._next)  # when the session is done with this one


class Streams:
    """All of an order's."""

    def __init__(self, order: dict[str, Any], connection: Connection, stack: ExitStack) -> None:
        wallet = stack.enter_context(Wallet.open(order["ledger"], order["wallet"]))
        purse = Purse(connection.ledger(order["ledger"]), wallet.identity)
        model, width = ModelID(bytes.fromhex(order["model"])), order["width"]
        blocks = RemoteBlocks(RemoteModel(connection, model, order["blocks"], width, torch.float32, purse=purse))
        hidden = torch.randn(1, order["tokens"], width)
        self.steps: Counter[int] = Counter()
        self._connection = connection
        self._streams = [
            Stream(connection, stack.enter_context(blocks.session(LENGTH, weight=weight)), hidden, weight, self.steps)
            for weight, number in order["sessions"]
            for _ in range(number)
        ]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(Stream.open, self._streams))

    def obey(self, word: str) -> dict[str, Any]:
        if word in ("go", "pause"):
            for stream in self._streams:
                self._connection.call(stream.go if word == "go" else stream.pause)
        if word == "pause":
            self._await_pause()
        errors = [stream.error for stream in self._streams if stream.error]
        return {"error": f"a step has failed: {errors[0]!r}"} if errors else {"steps": self.steps}

    def _await_pause(self) -> None:
        while any(stream.is_busy and not stream.error for stream in self._streams):
            time.sleep(0.005)


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    order = json.loads(sys.stdin.readline())
    with ExitStack() as stack:
        connection = Connection.open([order["address"]])
        stack.callback(connection.close)
        streams = Streams(order, connection, stack)
        print(json.dumps({}), flush=True)
        for line in sys.stdin:
            print(json.dumps(streams.obey(line.strip())), flush=True)


if __name__ == "__main__":
    main()

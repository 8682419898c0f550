"""`nectar generate`"""

import statistics
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
from nectar_protocol.money import format_credits
from nectar_swarm.lean import importing

from nectar.cli import options
from nectar.cli.output import configure_logging, emit, say
from nectar.cli.settings import option
from nectar.home import data_folder


@click.command(short_help="Continue a text through the swarm.")
@click.argument("prompt")
@options.model
@options.revision
@options.all_of(options.hub)
@options.initial_peers
@option(
    "--max-new-tokens", "-n", type=click.IntRange(1), default=64, show_default=True, help="Stop after so many tokens."
)
@option("--temperature", type=click.FloatRange(0), default=0.0, show_default=True, help="0 takes the likeliest token.")
@option("--top-p", type=click.FloatRange(0, 1), default=1.0, show_default=True, help="Sample from this share only.")
@option("--seed", type=int, help="Make sampling repeatable.")
@option("--chat", is_flag=True, help="Treat the prompt as a user's message, by the model's chat template.")
@option(
    "--patience", type=click.FloatRange(0.1), default=6.0, show_default=True, help="Seconds to wait for lost blocks."
)
@options.ledger
@options.wallet
@option(
    "--weight",
    type=click.Choice(["0", "1", "2", "4", "8"]),
    default="0",
    show_default=True,
    help="Pay so many times the price to go before others; 0 is the free class.",
)
@option("--budget", metavar="CREDITS", help="Set aside no more than this.")
@options.trusted_peers
@options.allowed_peers
@options.client_key
@options.link_delay_ms
@options.json_output
@options.verbose
def command(
    prompt: str,
    model: str,
    revision: str,
    max_disk_bytes: int | None,
    offline: bool,
    initial_peers: tuple[str, ...],
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    seed: int | None,
    chat: bool,
    patience: float,
    ledger: str | None,
    wallet: Path | None,
    weight: str,
    budget: str | None,
    trusted_peer: tuple[str, ...],
    allowed_peers: tuple[str, ...],
    key: Path | None,
    link_delay_ms: float,
    as_json: bool,
    verbose: int,
) -> None:
    """Continue PROMPT through the swarm; tokens appear as they come. PROMPT `-` reads standard input."""
    configure_logging(verbose)
    peers, allowed = options.need_peers(initial_peers), options.parse_allowed(allowed_peers)
    trusted = options.parse_peer_ids(trusted_peer, "--trusted-peer")
    paying = how_to_pay(ledger, int(weight), budget)
    text = sys.stdin.read() if prompt == "-" else prompt
    if not text:
        raise click.UsageError("the prompt is empty")
    from nectar_swarm.hub import HubAccess
    from nectar_swarm.source import open_source

    source = open_source(model, revision, HubAccess(offline=offline))  # before PyTorch is imported, which takes seconds
    with importing():
        import torch

        from nectar.connection import Connection
        from nectar.model import AutoDistributedModelForCausalLM

    connection = Connection.open(peers, allowed=allowed, key_file=key, link_delay_s=link_delay_ms / 1e3)
    try:
        tokenizer = load_tokenizer(source)
        remote = AutoDistributedModelForCausalLM.from_pretrained(
            model,
            revision=revision,
            offline=offline,
            max_disk_bytes=max_disk_bytes,
            connection=connection,
            patience_s=patience,
            trusted_peers=trusted,
            ledger=ledger,
            wallet=(wallet or data_folder() / "wallet.key") if paying else None,
        )
        inputs = encode(tokenizer, text, chat)
        if seed is not None:
            torch.manual_seed(seed)
        sampling = (
            {"do_sample": True, "temperature": temperature, "top_p": top_p} if temperature else {"do_sample": False}
        )
        watch = Stopwatch(None if as_json else streamer(tokenizer))
        with remote.session(inputs["input_ids"].shape[1] + max_new_tokens, **paying) as session:
            out = remote.generate(
                **inputs,
                session=session,
                max_new_tokens=max_new_tokens,
                streamer=watch,
                **sampling,
            )
            report(tokenizer, out[0, inputs["input_ids"].shape[1] :], watch, session, as_json)
    finally:
        connection.close()


def how_to_pay(ledger: str | None, weight: int, budget: str | None) -> dict[str, Any]:
    """The options of a session that is paid for; none for one that is not. Raises click.UsageError."""
    if not weight:
        if budget is not None:
            raise click.UsageError("--budget goes with a --weight: what has none costs nothing")
        return {}
    if ledger is None:
        raise click.UsageError("--weight is paid on a ledger: give --ledger URL, or set ledger_url in nectar.toml")
    return {"weight": weight} if budget is None else {"weight": weight, "budget": budget}


def load_tokenizer(source: Any) -> Any:
    from nectar_swarm.errors import CheckpointError
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(source.folder)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{source.name} has no tokenizer that Transformers can read") from error


def encode(tokenizer: Any, text: str, chat: bool) -> Any:
    """Token ids and mask of the prompt."""
    if not chat:
        return tokenizer(text, return_tensors="pt", return_token_type_ids=False)
    if tokenizer.chat_template is None:
        raise click.UsageError("this model has no chat template; leave --chat out")
    return tokenizer.apply_chat_template(
        [{"role": "user", "content": text}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )


def streamer(tokenizer: Any) -> Any:
    from transformers import TextStreamer

    return TextStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)


class Stopwatch:
    """A streamer that keeps the time of each token, and hands all on to another, if there is one."""

    def __init__(self, shown: Any = None) -> None:
        self._shown = shown
        self._started_s = time.perf_counter()
        self._came_s: list[float] = []  # the first is the prompt

    def put(self, value: Any) -> None:
        self._came_s.append(time.perf_counter())
        if self._shown is not None:
            self._shown.put(value)

    def end(self) -> None:
        if self._shown is not None:
            self._shown.end()

    @property
    def seconds(self) -> float:
        """Until the last token, from before the session was opened."""
        return self._came_s[-1] - self._started_s

    @property
    def first_s(self) -> float:
        """Until the first token."""
        return self._came_s[min(1, len(self._came_s) - 1)] - self._started_s

    @property
    def token_ms(self) -> float:
        """The median wait for a token after the first; 0 where there is none."""
        waits = [after - before for before, after in pairwise(self._came_s[1:])]
        return 1e3 * statistics.median(waits) if waits else 0.0


def report(tokenizer: Any, tokens: Any, watch: Stopwatch, session: Any, as_json: bool) -> None:
    seconds = watch.seconds
    if as_json:
        emit(
            text=tokenizer.decode(tokens, skip_special_tokens=True),
            tokens=len(tokens),
            seconds=round(seconds, 3),
            first_token_s=round(watch.first_s, 3),
            token_ms=round(watch.token_ms, 1),
            route=[{"peer": span.peer, "start": span.start, "stop": span.stop} for span in session.route],
            units=session.spent.units,
            spent_ucr=str(session.spent.ucr),
            repairs=[{"lost": list(repair.lost), "seconds": round(repair.seconds, 3)} for repair in session.repairs],
        )
        return
    spans = " → ".join(f"{span.start}:{span.stop} on …{span.peer[-6:]}" for span in session.route)
    say(f"{len(tokens)} tokens, {len(tokens) / seconds:.1f} a second, through {spans}")
    if ucr := session.spent.ucr:
        say(f"{format_credits(ucr)} credits so far, for {session.spent.units} units of work")
    for repair in session.repairs:
        say(f"lost {'; '.join(repair.lost)}; went on after {repair.seconds:.2f} s")

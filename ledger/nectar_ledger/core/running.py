"""The usual settlement of a replay: a running total of a line, applied as the plain numbers that it is.

It does what `parse_entry` and `settling` do for what has nothing unusual about it, in half of the time: a log is mostly
this. Whatever is not so is left to them, and they say what is wrong with it.
"""

import struct

from nectar_protocol.entries import SETTLEMENT
from nectar_protocol.entry import FORMAT, HEADER, SETTLE_SIZE, Kind
from nectar_protocol.money import settle
from nectar_protocol.receipt import BODY, FINAL, MAGIC, PROFILES, SIZE
from nectar_protocol.record import MAX_COUNT

from nectar_ledger.core.hold import TOTALS_AT
from nectar_ledger.core.settling import move
from nectar_ledger.core.state import State

HEAD = bytes([FORMAT, Kind.SETTLE, 0, 0])
WORK_AT = 18  # of the fields of ENTRY: the receipt's counts, but for its units
ENTRY = struct.Struct(HEADER.format + SETTLEMENT.format[1:] + BODY.format[1:])
TOTALS_IN_ENTRY = slice(SETTLE_SIZE - SIZE + TOTALS_AT.start, SETTLE_SIZE - SIZE + TOTALS_AT.stop)


def apply(state: State, index: int, entry: bytes) -> bool:
    """False, and nothing is changed, for what is not usual. Raises as `settling.apply`."""
    if len(entry) != SETTLE_SIZE or entry[:4] != HEAD:
        return False
    fields = ENTRY.unpack_from(entry)
    (
        _, _, _, time_ms, hold_account, batch_account, paid_ucr, fee_ucr, magic, hold_id, server, session, _, seq,
        start, stop, profile, flags,
    ) = fields[:WORK_AT]  # fmt: skip
    work, units = fields[WORK_AT:-1], fields[-1]
    live = state.holds.get(hold_id)
    line = None if live is None else live.lines.get(server)
    if live is None or line is None or profile >= len(PROFILES):
        return False
    hold, batch = live.hold, line.node.batches.get(live.hold.model)
    if (
        batch is None
        or magic != MAGIC
        or flags & ~FINAL
        or line.final
        or not line.seq < seq <= MAX_COUNT
        or not line.units <= units <= line.cap_units
        or not state.time_ms <= time_ms <= hold.expires_ms
        or index != state.index + 1
        or session != hold.session
        or session == server
        or hold_account != live.account.id
        or batch_account != batch.account.id
        or not _goes_on(work, line.work)
    ):
        return False
    meter = line.meter
    if meter is None:
        if not start < stop or PROFILES[profile] not in hold.profiles:
            return False
        meter = state.meter(live, start, stop, PROFILES[profile])
    elif start != line.start or stop != line.stop or profile != line.profile:
        return False
    if meter.units(work) != units:
        return False
    moved = settle(line.units, units, hold.weight, live.policy.price, live.policy.fee_ppm)
    if moved.paid_ucr != paid_ucr or moved.fee_ucr != fee_ucr:
        return False
    state.begin(index, time_ms)
    move(state, live, line, batch, moved, units - line.units)
    line.receipt_index, line.totals = index, entry[TOTALS_IN_ENTRY]
    line.seq, line.units, line.final, line.work = seq, units, bool(flags), work
    line.start, line.stop, line.profile, line.meter = start, stop, PROFILES[profile], meter
    state.touch(line)
    return True


def _goes_on(work: tuple[int, ...], before: tuple[int, ...]) -> bool:
    """Whether these are counts that a receipt can have, none over its bound or of positions of no tokens, after those
    `before`."""
    reserved, prefill, prefill_context, decode, decode_context, backward, backward_context = work
    past, past_prefill, past_prefill_context, past_decode, past_decode_context, past_backward, past_context = before
    return bool(
        max(work) <= MAX_COUNT
        and reserved >= past
        and prefill >= past_prefill
        and prefill_context >= past_prefill_context
        and decode >= past_decode
        and decode_context >= past_decode_context
        and backward >= past_backward
        and backward_context >= past_context
        and (prefill or not prefill_context)
        and (decode or not decode_context)
        and (backward or not backward_context)
    )

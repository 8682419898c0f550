"""Why a node says no, in the codes of the wire."""

from nectar_protocol.errors import MalformedError
from nectar_protocol.manifest import ModelID
from nectar_swarm.messages import Error, ErrorCode, Open

from nectar_node.errors import FullError, GapError, PaymentError, RecordError, StepError


def refusal_of(error: MalformedError | StepError | PaymentError, generation: int = 0) -> Error:
    """What its sender is told: MALFORMED and OUT_OF_RANGE for what is the sender's fault."""
    retry_after_ms = 0
    match error:
        case MalformedError():
            code = ErrorCode.MALFORMED
        case PaymentError():
            code = ErrorCode.DENIED
        case GapError() | RecordError():
            code = ErrorCode.FAILED
        case FullError():
            code, retry_after_ms = ErrorCode.BUSY, int(1000 * error.retry_after_s)
        case _:
            code = ErrorCode.OUT_OF_RANGE
    return Error(code, str(error), generation, retry_after_ms=retry_after_ms)


def misfit(request: Open, model: ModelID, start: int, stop: int) -> tuple[ErrorCode, str] | None:
    """What of an OPEN does not fit a node that serves blocks [start, stop) of this model."""
    if request.model != model:
        return ErrorCode.WRONG_MODEL, f"this node serves model {model.hex()[:16]}…"
    if not start <= request.start < request.stop <= stop:
        return ErrorCode.OUT_OF_RANGE, f"this node serves blocks [{start}, {stop})"
    if not request.max_length or any(pad >= request.max_length for pad in request.pads):
        return ErrorCode.OUT_OF_RANGE, "a session needs room for more than padding"
    return None

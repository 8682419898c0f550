"""Why a node says no, in the codes of the wire."""

from nectar_protocol.errors import MalformedError
from nectar_protocol.manifest import ModelID
from nectar_swarm.messages import Error, ErrorCode, Open

from nectar_node.errors import FullError, GapError, PaymentError, RecordError, StepError

BUSY_RETRY_MS = 2_000  # how soon somebody who found the node full may ask again


def code_of(error: MalformedError | StepError | PaymentError) -> ErrorCode:
    """MALFORMED and OUT_OF_RANGE for what is the sender's fault."""
    match error:
        case MalformedError():
            return ErrorCode.MALFORMED
        case PaymentError():
            return ErrorCode.DENIED
        case GapError() | RecordError():
            return ErrorCode.FAILED
        case FullError():
            return ErrorCode.BUSY
    return ErrorCode.OUT_OF_RANGE


def misfit(request: Open, model: ModelID, start: int, stop: int) -> tuple[ErrorCode, str] | None:
    """What of an OPEN does not fit a node that serves blocks [start, stop) of this model."""
    if request.model != model:
        return ErrorCode.WRONG_MODEL, f"this node serves model {model.hex()[:16]}…"
    if not start <= request.start < request.stop <= stop:
        return ErrorCode.OUT_OF_RANGE, f"this node serves blocks [{start}, {stop})"
    if not request.max_length or any(pad >= request.max_length for pad in request.pads):
        return ErrorCode.OUT_OF_RANGE, "a session needs room for more than padding"
    return None


def turned_away(code: ErrorCode, text: str, generation: int) -> Error:
    """The answer to an OPEN that is refused."""
    return Error(code, text, generation, retry_after_ms=BUSY_RETRY_MS if code is ErrorCode.BUSY else 0)

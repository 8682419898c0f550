"""One base class: a caller that catches ProtocolError catches everything that bytes from outside can cause."""

import pytest
from nectar_protocol import errors

KINDS = (
    errors.MalformedError,
    errors.SignatureError,
    errors.IdentityError,
    errors.ProofError,
    errors.ConflictError,
)


@pytest.mark.parametrize("error", KINDS)
def test_every_error_is_a_protocol_error_and_a_value_error(error: type[Exception]) -> None:
    assert issubclass(error, errors.ProtocolError)
    assert issubclass(error, ValueError)


def test_the_kinds_do_not_catch_each_other() -> None:
    assert not any(issubclass(a, b) for a in KINDS for b in KINDS if a is not b)

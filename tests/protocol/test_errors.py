"""One base class: a caller that catches ProtocolError catches everything that bytes from outside can cause."""

import pytest
from nectar_protocol import errors


@pytest.mark.parametrize("error", [errors.MalformedError, errors.SignatureError, errors.IdentityError])
def test_every_error_is_a_protocol_error_and_a_value_error(error: type[Exception]) -> None:
    assert issubclass(error, errors.ProtocolError)
    assert issubclass(error, ValueError)


def test_the_three_kinds_do_not_catch_each_other() -> None:
    kinds = (errors.MalformedError, errors.SignatureError, errors.IdentityError)
    assert not any(issubclass(a, b) for a in kinds for b in kinds if a is not b)

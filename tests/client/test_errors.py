"""Errors say what is missing, in the words that other parts of Nectar use."""

import pytest
from nectar.errors import ClientError, NoRouteError, RequestError, SessionError


def test_a_missing_route_names_the_blocks_and_what_was_tried() -> None:
    error = NoRouteError([(0, 2), (5, 6)], " (waited 6 s)")
    assert str(error) == "nobody serves blocks 0:2, 5:6 of this model (waited 6 s)"
    assert error.missing == ((0, 2), (5, 6))


@pytest.mark.parametrize("kind", [NoRouteError, RequestError, SessionError])
def test_one_base_catches_them_all(kind: type[Exception]) -> None:
    assert issubclass(kind, ClientError)


def test_a_wrong_request_is_a_value_error_too() -> None:
    assert issubclass(RequestError, ValueError)

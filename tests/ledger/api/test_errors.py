"""Whatever goes wrong has a code with one status, and tells nobody what is none of their business."""

from typing import Any

import pytest
from nectar_ledger.api.errors import STATUS, ErrorBody, Problem, as_api_error, error_response
from nectar_ledger.core.reasons import Reason
from nectar_ledger.errors import DamagedError
from sqlalchemy.exc import OperationalError

from tests.ledger.api.conftest import Serve
from tests.ledger.api.served import Served


def test_every_code_has_a_status_and_no_two_are_the_same() -> None:
    assert set(STATUS) == {*Problem, *Reason}
    assert len({str(code) for code in STATUS}) == len(Problem) + len(Reason)


def test_every_answer_that_asks_to_come_back_says_when() -> None:
    for error in (OperationalError("", None, Exception()), *map(as_api_error, [DamagedError("secret")])):
        answer = error_response(as_api_error(error))
        ErrorBody.model_validate_json(bytes(answer.body))
        assert ("retry-after" in answer.headers) == (answer.status_code in (429, 503))


def test_a_fault_is_answered_without_its_details(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    served: Served = serve()

    def fail(*arguments: Any) -> None:
        raise RuntimeError("the secret is 42")

    monkeypatch.setattr(served.service.directory, "page", fail)
    answer = served.http.get("/v1/directory")
    assert (answer.status_code, answer.json()["error"]) == (500, "internal-error")
    assert "42" not in answer.text


def test_a_database_that_does_not_answer_is_unavailable(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    served: Served = serve()

    def fail(*arguments: Any) -> None:
        raise OperationalError("SELECT secret", None, Exception("connection refused"))

    monkeypatch.setattr(served.service.directory, "page", fail)
    answer = served.http.get("/v1/directory")
    assert (answer.status_code, answer.json()["error"]) == (503, "unavailable")
    assert "secret" not in answer.text
    assert int(answer.headers["Retry-After"]) >= 1


def test_every_operation_lists_its_errors(served: Served) -> None:
    """By status, each with the codes that it stands for, and the one shape that all have."""
    paths = served.http.get("/openapi.json").json()["paths"]
    for path, operations in paths.items():
        for method, operation in operations.items():
            refused = {status: said for status, said in operation["responses"].items() if int(status) >= 400}
            assert {"422", "429", "500", "503"} <= set(refused), (method, path)
            for status, said in refused.items():
                codes = said["description"].replace("`", "").split(", ")
                assert {STATUS[_code(code)] for code in codes} == {int(status)}, (method, path, status)
                assert said["content"]["application/json"]["schema"]["$ref"].endswith("/ErrorBody")


def _code(text: str) -> Problem | Reason:
    return Problem(text) if text in set(Problem) else Reason(text)

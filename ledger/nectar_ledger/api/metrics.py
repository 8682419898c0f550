"""What an operator watches, in Prometheus's text format, and whether the ledger lives and is ready."""

import time
from collections.abc import Callable

from fastapi import APIRouter, Request, Response
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nectar_ledger.api.context import Running
from nectar_ledger.api.errors import ApiError, Problem, refusals
from nectar_ledger.service import Service

LATENCIES_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)


class Metrics:
    """Of one application, in a registry of its own."""

    def __init__(self, service: Service) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self.requests = Counter("nectar_http_requests", "Requests", ("method", "route", "status"), registry=registry)
        self.latency = Histogram(
            "nectar_http_seconds", "Time until the answer begins", ("route",), buckets=LATENCIES_S, registry=registry
        )
        self.receipts = Counter("nectar_receipts", "Receipts, by what became of them", ("status",), registry=registry)
        self.refused = Counter("nectar_refused", "Receipts and commands refused", ("error",), registry=registry)
        self.verified = Counter("nectar_verifications", "Signatures verified", registry=registry)
        self.bad_signatures = Counter("nectar_bad_signatures", "Signatures that were wrong", registry=registry)
        self.listeners = Gauge("nectar_listeners", "Listeners to events", registry=registry)
        self.waiting = Gauge("nectar_signatures_waiting", "Signatures that wait to be verified", registry=registry)
        self._gauge("nectar_log_size", "Entries in the log", lambda: service.durable_size)
        self._gauge("nectar_holds_open", "Open holds", lambda: len(service.state.holds))
        self._gauge("nectar_nodes_bound", "Nodes that are bound to a payee", lambda: len(service.state.nodes))
        self._gauge("nectar_nodes_listed", "Announcements in the directory", lambda: service.directory.count)
        self._gauge("nectar_evidence_bytes", "Bytes of evidence", lambda: service.evidence.total_bytes)
        self._gauge("nectar_ready", "1 if the ledger records and signs", lambda: service.fault is None)

    def _gauge(self, name: str, words: str, value: Callable[[], float]) -> None:
        Gauge(name, words, registry=self.registry).set_function(value)


class Measure:
    """Middleware: counts requests and times their answers, by route and not by path, of which there is no end."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun_s = time.perf_counter()

        async def measured(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", "none")
                self._metrics.requests.labels(scope["method"], route, message["status"]).inc()
                self._metrics.latency.labels(route).observe(time.perf_counter() - begun_s)
            await send(message)

        await self._app(scope, receive, measured)


router = APIRouter(tags=["operation"])


@router.get("/livez")
def livez() -> str:
    """The process answers."""
    return "ok"


@router.get("/readyz", responses=refusals(Problem.STOPPED))
def readyz(service: Running) -> str:
    """The ledger records what it is sent, and signs its log."""
    fault = service.fault
    if fault is not None:
        raise ApiError(Problem.STOPPED, fault)
    return "ok"


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def metrics(request: Request) -> Response:
    """For Prometheus."""
    kept: Metrics = request.app.state.metrics
    return Response(generate_latest(kept.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

"""The application: every router, around one running ledger."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute

from nectar_ledger.api import (
    accounts,
    commands,
    directory,
    entries,
    epochs,
    events,
    evidence,
    holds,
    ledger,
    log,
    metrics,
    nodes,
    receipts,
)
from nectar_ledger.api.desk import Desk
from nectar_ledger.api.errors import COMMON, handle_errors, refusals
from nectar_ledger.api.events import Feed
from nectar_ledger.api.limits import Buckets, Gate, Limits
from nectar_ledger.api.metrics import Measure, Metrics
from nectar_ledger.log.witness import Witness, Witnesses
from nectar_ledger.service import Service

# Routes are looked for in this order: what is asked most comes first.
ROUTERS = tuple(
    part.router
    for part in (
        receipts, commands, directory, ledger, accounts, holds, nodes, epochs, entries, log, evidence, events, metrics,
    )
)  # fmt: skip


class Application(FastAPI):
    """Its errors are JSON, whatever its answers are."""

    def openapi(self) -> dict[str, Any]:
        schema = super().openapi()
        for operations in schema["paths"].values():
            for operation in operations.values():
                for status, answer in operation["responses"].items():
                    if int(status) >= 400:
                        answer["content"] = {"application/json": next(iter(answer["content"].values()))}
        return schema


def create_app(
    service: Service, limits: Limits | None = None, public_url: str | None = None, witnesses: Sequence[Witness] = ()
) -> FastAPI:
    """The ledger's API. The service is closed when the application ends.

    `public_url`: where others reach it, `https://HOST`, if that is not what a request's Host says; signed requests are
    for this URL alone. `witnesses` are asked for cosignatures while the application runs.
    """
    limits = limits or Limits()
    counted = Metrics(service)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        running = [asyncio.create_task(app.state.feed.run())]
        running += [asyncio.create_task(Witnesses(witnesses).run(service))] if witnesses else []
        try:
            yield
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            app.state.desk.close()
            await asyncio.to_thread(service.close)

    app = Application(
        title="Nectar ledger",
        version=version("nectar-swarm"),
        lifespan=lifespan,
        # Their pages load JavaScript from elsewhere.
        docs_url=None,
        redoc_url=None,
        responses=refusals(*COMMON),
        generate_unique_id_function=_operation_id,
    )
    app.state.service, app.state.metrics = service, counted
    app.state.desk = Desk(service, limits, counted, public_url)
    app.state.feed = Feed(service, limits, counted)
    handle_errors(app)
    app.add_middleware(Gate, buckets=Buckets("requests", limits.requests_per_address), send_s=limits.send_s)
    app.add_middleware(Measure, metrics=counted)
    for router in ROUTERS:
        app.include_router(router)
    # Made now, or the first who asks would hold up everybody.
    app.openapi()
    return app


def _operation_id(route: APIRoute) -> str:
    return route.name

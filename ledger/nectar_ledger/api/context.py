"""How the routers reach the ledger that runs. Coroutines, since FastAPI would run functions in threads."""

from typing import Annotated

from fastapi import Depends, Request

from nectar_ledger.service import Service


async def get_service(request: Request) -> Service:
    """The service that `create_app` was given."""
    service: Service = request.app.state.service
    return service


Running = Annotated[Service, Depends(get_service)]

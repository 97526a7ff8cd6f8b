"""The service with one more route, which tells how many tasks its worker has."""

import asyncio

from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from service import OpenAIEmulator, application

__all__ = ["OpenAIEmulator"]


async def tasks(_: Request) -> PlainTextResponse:
    """Answer with the number of tasks that have not ended."""
    return PlainTextResponse(str(len(asyncio.all_tasks())))


application.router.routes.append(Route("/tasks", tasks))

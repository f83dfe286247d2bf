"""The Starlette origin of origins.mjs: routes first, then files."""

import os

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE"]


async def help_page(_request):
    return PlainTextResponse("help")


async def secret(_request):
    return PlainTextResponse(os.environ["SECRET"], headers={"x-secret": os.environ["SECRET"]})


app = Starlette(
    routes=[
        Route("/salary/help", help_page, methods=METHODS),
        Route("/salary", secret, methods=METHODS),
        Route("/salary/{rest:path}", secret, methods=METHODS),
        Route("/users/{user}/salary", secret, methods=METHODS),
        Mount("/", StaticFiles(directory=os.environ["SITE"], html=True)),
    ]
)

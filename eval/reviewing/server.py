"""The local server of a review: a page, its pictures by content, and its data and answers in JSON."""

import contextlib
import logging
import secrets
import socket
import sqlite3
from pathlib import Path
from typing import Any

import uvicorn
from pydantic import TypeAdapter, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from eval.reviewing import stream
from eval.reviewing.answers import Name, SaveRequest
from eval.reviewing.guard import RequestGuard, is_loopback
from eval.reviewing.pictures import picture_bytes_and_media_type
from eval.reviewing.session import ReviewSession
from stylegate.errors import StylegateError, SurroundingsError
from stylegate.records import validation_problems

PAGE = Path(__file__).parent / "page"
LOOK = Path(__file__).parents[2] / "stylegate" / "look.css"
FILES = {  # address -> file and media type; no other file is served by its name
    "/": (PAGE / "review.html", "text/html"),
    "/review.js": (PAGE / "review.js", "text/javascript"),
    "/review.css": (PAGE / "review.css", "text/css"),
    "/look.css": (LOOK, "text/css"),
    "/icon.svg": (PAGE / "icon.svg", "image/svg+xml"),
}
FOR_EVER = "private, max-age=31536000, immutable"  # of a picture, whose address is its content
NAME: TypeAdapter[str] = TypeAdapter(Name)


def review_application(session: ReviewSession, host: str = "127.0.0.1", token: str = "") -> RequestGuard:
    """The ASGI application of a review that listens on `host`."""
    routes = [Route(address, static_file_route) for address in FILES]
    routes += [
        Route("/picture/{sha256:str}", picture_route),
        Route("/api/review", initial_page_data_route),
        Route("/api/save", save_answers_route, methods=["POST"]),
        Route("/api/stream", picture_block_or_ranking_route, methods=["GET", "POST"]),
    ]
    app = Starlette(routes=routes, exception_handlers={Exception: internal_error_response})
    app.state.session = session
    return RequestGuard(app, host, token)


def static_file_route(request: Request) -> Response:
    """GET: one of FILES, by its address: the page, its styles, script and icon."""
    path, media_type = FILES[request.url.path]
    return Response(path.read_bytes(), media_type=media_type, headers={"cache-control": "no-cache"})


def picture_route(request: Request) -> Response:
    """A picture of the review by its sha256: exactly the bytes that were judged, or 404."""
    session: ReviewSession = request.app.state.session
    found = session.queue.find_picture(request.path_params["sha256"])
    content = picture_bytes_and_media_type(found) if found else None
    if content is None:
        return problem_response(
            404, "no picture with this content is part of the review; it may have changed since the gate"
        )
    return Response(content[0], media_type=content[1], headers={"cache-control": FOR_EVER})


def initial_page_data_route(request: Request) -> Response:
    """GET: all that the page shows to the reviewer whom `who=` names, as JSON."""
    session: ReviewSession = request.app.state.session
    try:
        who = NAME.validate_python(request.query_params.get("who", ""))
    except ValidationError:
        return problem_response(400, "who= needs a name of 1 to 80 characters")
    try:
        return JSONResponse(session.initial_page_data(who), headers={"cache-control": "no-store"})
    except (StylegateError, OSError, sqlite3.Error) as error:
        return problem_response(503, f"the labels cannot be read: {error}")


async def save_answers_route(request: Request) -> Response:
    """POST: store the answers of a page (`ReviewSession.save_answers`). 400, 409 and 503 say why nothing was stored."""
    session: ReviewSession = request.app.state.session
    try:
        given = SaveRequest.model_validate_json(await request.body())
    except ValidationError as error:
        return problem_response(400, "; ".join(validation_problems(error)[:5]))
    if given.review != session.queue.digest_of_folder_policy_and_purpose:
        return problem_response(409, "this page was opened for another review: load it again")
    try:
        return JSONResponse(await run_in_threadpool(session.save_answers, given))
    except (StylegateError, OSError, sqlite3.Error) as error:
        return problem_response(503, f"nothing was stored: {error}")


async def picture_block_or_ranking_route(request: Request) -> Response:
    """GET: the next block of pictures for a reviewer, with known rejects hidden among them.

    POST: given when pictures were shown and keys pressed, the pictures ordered by how likely the reviewer objected to
    them. No verdict is stored, only which of the known rejects were noticed.
    """
    session: ReviewSession = request.app.state.session
    if request.method == "GET":
        try:
            who = NAME.validate_python(request.query_params.get("who", ""))
        except ValidationError:
            return problem_response(400, "who= needs a name of 1 to 80 characters")
        return JSONResponse(
            stream.next_picture_block_for_stream_mode(session, who), headers={"cache-control": "no-store"}
        )
    try:
        given = stream.StreamPassesOfBlock.model_validate_json(await request.body())
    except ValidationError as error:
        return problem_response(400, "; ".join(validation_problems(error)[:5]))
    try:
        return JSONResponse(await run_in_threadpool(stream.rank_pictures_by_key_presses, session, given))
    except (StylegateError, OSError, sqlite3.Error) as error:
        return problem_response(503, f"nothing was stored: {error}")


def problem_response(status: int, text: str) -> JSONResponse:
    """A response with this HTTP status and the text of a problem as JSON."""
    return JSONResponse({"problem": text}, status_code=status, headers={"cache-control": "no-store"})


def internal_error_response(request: Request, error: Exception) -> Response:
    """The answer, status 500, to a request that met a bug of stylegate."""
    return problem_response(
        500, "internal error: this is a bug in stylegate; answers that are not saved stay in the page"
    )


def listening_socket(host: str, port: int) -> socket.socket:
    """A socket on the address. Raises SurroundingsError if it cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
        found.listen(128)
    except (OSError, OverflowError) as error:
        found.close()
        raise SurroundingsError(
            f"host={host} port={port} cannot be listened on: {error}",
            next_step="if another review is open, use it or end it; else give another port= (0: any free one).",
        ) from None
    return found


def browser_address(found: socket.socket, token: str) -> str:
    """The address to open in a browser."""
    host, port = found.getsockname()[:2]
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}/" + (f"?token={token}" if token else "")


def new_token_if_reachable(host: str) -> str:
    """A secret for the address where others can reach it; "" for an address of this machine alone."""
    return "" if is_loopback(host) else secrets.token_urlsafe(24)


def serve_until_stopped(app: Any, found: socket.socket) -> None:
    """Answer requests until Ctrl-C or SIGTERM."""
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="off",
        ws="none",
        http="h11",
        loop="asyncio",
        proxy_headers=False,
        timeout_graceful_shutdown=2,
        timeout_keep_alive=30,
        limit_concurrency=200,
        h11_max_incomplete_event_size=16 * 1024,
    )
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises it again after it has ended well
        uvicorn.Server(config).run(sockets=[found])

"""An exported model as an HTTP server with dynamic batching; needs neither torch nor transformers, as `runtime.py`.

    POST /generate  {"text": "hello", "num_beams": 5, "num_return_sequences": 3}    n-best lists with scores
    POST /stream    {"text": "hello"}                  the text in pieces, as server-sent events
    GET /           the model's name and the limits
    GET /health     200 as long as requests are taken
    GET /metrics    in Prometheus' text format

Options are those of `GenerationOptions`; `texts` in place of `text` asks for several. A request that is not answered
gets {"error": a sentence}: 400 what it asks for is wrong, 413 too large, 503 too much waits, 504 too slow. At SIGTERM
no more requests are taken, and those taken are answered. Needs the extra `serve`.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import math
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from .batching import QueueFullError
from .exported_folder import printable
from .pronounce import Lexicon, normalizer_of
from .runtime import RnnSeq2SeqRuntime
from .service import GenerateRequest, ServerOptions, Service


try:
    import uvicorn
    from fastapi import FastAPI, HTTPException, Request
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse
    from prometheus_client import generate_latest
    from starlette.concurrency import iterate_in_threadpool
    from starlette.exceptions import HTTPException as StarletteHTTPException
except ImportError as error:
    raise ImportError(f"the server needs '{error.name}': pip install 'hf_rnn_seq2seq[serve]'") from error


Message = MutableMapping[str, Any]
# Seconds after the time limit at which what has not ended by itself is cut off.
_GRACE = 5


def _validation_sentence(error: RequestValidationError) -> str:
    """Return the first complaint of pydantic as one sentence: where, what it got, what it wanted."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"][1:] if not str(part).startswith(("constrained", "function")))
    if first["type"] == "json_invalid":
        return f"body: got no JSON ({first['ctx']['error']} at byte {place}), wanted an object such as {_EXAMPLE}"
    if first["type"] == "extra_forbidden":
        return f"{place}: got an unknown field, wanted one of {', '.join(GenerateRequest.model_fields)}"
    if not place:
        return f"body: got no JSON object with the header Content-Type: application/json, wanted such as {_EXAMPLE}"
    got = json.dumps(first["input"], default=str)
    got = got if len(got) <= 80 else f"{got[:77]}..."
    return f"{place}: got {got}, wanted {first['msg'].removeprefix('Input should be ')}"


_EXAMPLE = '{"text": "hello"}'


class _Limits:
    """ASGI middleware: the size and the time of a request, and the counts of `/metrics`."""

    def __init__(self, app: Any, service: Service) -> None:
        self.app, self.service = app, service

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        options, metrics = self.service.options, self.service.metrics
        start, status, read = time.perf_counter(), 0, 0

        async def limited() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > options.max_body_bytes:
                raise HTTPException(413, f"body: got more than {options.max_body_bytes} bytes, wanted no more")
            return message

        async def counted(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            # A stream minds the limit itself, so that its last event can say so.
            async with asyncio.timeout(options.timeout + (_GRACE if scope["path"] == "/stream" else 0)):
                await self.app(scope, limited, counted)
        except TimeoutError:
            if not status:
                sentence = f"no answer within {options.timeout:g} s: ask for less, or later"
                await JSONResponse({"error": sentence}, 504)(scope, receive, counted)
        finally:
            path = scope["path"] if scope["path"] in _PATHS else "other"
            metrics.requests.labels(path, str(status or 500)).inc()
            metrics.seconds.labels(path).observe(time.perf_counter() - start)


_PATHS = ("/", "/generate", "/stream", "/health", "/metrics")


def create_app(service: Service, name: str = "model") -> FastAPI:
    """Return the ASGI application of a service; its shutdown closes the service's batcher."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.batcher.close()

    # The pages of the interactive documentation load scripts from elsewhere; the schema is at /openapi.json.
    app = FastAPI(title=f"hf_rnn_seq2seq: {name}", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.add_middleware(_Limits, service=service)

    async def refuse(_: Request, error: Exception) -> JSONResponse:
        if isinstance(error, RequestValidationError):
            return JSONResponse({"error": _validation_sentence(error)}, 400)
        if isinstance(error, StarletteHTTPException):
            return JSONResponse({"error": error.detail}, error.status_code, error.headers)
        if isinstance(error, QueueFullError):
            return JSONResponse({"error": f"too much at once: {error}"}, 503, {"Retry-After": "1"})
        if isinstance(error, ValueError):
            return JSONResponse({"error": str(error)}, 400)
        return JSONResponse({"error": "the server failed; its log says more"}, 500)  # which gets the traceback

    for kind in (RequestValidationError, StarletteHTTPException, QueueFullError, ValueError, Exception):
        app.add_exception_handler(kind, refuse)

    @app.get("/")
    async def about() -> dict[str, Any]:
        return {"model": name, "lexicon": len(service.lexicon), "limits": asdict(service.options)}

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/metrics")
    async def metrics() -> PlainTextResponse:
        return PlainTextResponse(generate_latest(service.metrics.registry), media_type="text/plain; version=0.0.4")

    @app.post("/generate")
    async def generate(request: GenerateRequest) -> JSONResponse:
        return JSONResponse({"predictions": await service.generate(request)})

    @app.post("/stream")
    async def stream(request: GenerateRequest) -> StreamingResponse:
        (text,), options, _ = service.check(request, stream=True)
        if service.lexicon.get(text) is None:
            service.encode([text])  # refused before the answer begins
        if service.streams >= service.options.max_streams:
            raise QueueFullError(f"{service.options.max_streams} streams are at work, wanted fewer")
        return StreamingResponse(_events(service, text, options), media_type="text/event-stream")

    return app


async def _events(service: Service, text: str, options: dict[str, Any]) -> AsyncIterator[str]:
    """Yield server-sent events: {"text": piece} each, and at the end {"done": the whole} or {"error": a sentence}."""
    service.streams += 1
    start, whole, limit = time.monotonic(), "", service.options.timeout
    try:
        async for piece in iterate_in_threadpool(service.stream(text, options)):
            whole += piece
            yield _event(text=piece)
            if time.monotonic() - start > limit:
                yield _event(error=f"not done within {limit:g} s: ask for less, or later")
                return
        yield _event(done=whole)
    finally:
        service.streams -= 1


def _event(**content: str) -> str:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"


def serve(
    folder: str | Path,
    host: str = "127.0.0.1",
    port: int = 8000,
    options: ServerOptions | None = None,
    lexicon: str | Path | None = None,
    num_threads: int = 1,
) -> None:
    """Serve an exported folder until SIGTERM or SIGINT; print the address once requests are taken.

    Args:
        folder: what `export_model` wrote.
        host, port: where to listen; port 0: any that is free.
        options: the limits.
        lexicon: a file for `Lexicon.read`.
        num_threads: onnxruntime's, of each batch.

    Raises:
        OSError: a file is missing, or the address is taken.
        ValueError: the folder, the lexicon or an option cannot be used.
    """
    options, folder = options or ServerOptions(), Path(folder)
    for one in fields(options):
        if not 0 < getattr(options, one.name) < math.inf:
            raise ValueError(f"{one.name}: got {getattr(options, one.name)}, wanted more than 0")
    try:
        runtime = RnnSeq2SeqRuntime.from_pretrained(folder, num_threads)
    except FileNotFoundError:
        raise
    except Exception as error:  # those of json, onnxruntime and tokenizers have nothing else in common
        what = " ".join(str(error).split())
        raise ValueError(f"{folder}: {what}; wanted a folder that export wrote") from error
    known, normalize = runtime.known_features, normalizer_of(runtime)
    answers = None if lexicon is None else Lexicon.read(Path(lexicon), normalize, known)
    service = Service(runtime, options, answers)
    settings = uvicorn.Config(
        create_app(service, folder.resolve().name),
        log_level="warning",
        timeout_graceful_shutdown=int(options.timeout) + 2 * _GRACE,
    )
    try:
        listening = socket.create_server((host, port), backlog=settings.backlog)
    except OSError as error:
        raise OSError(f"--port: {host}:{port}: {error.strerror}; wanted an address that is free") from error
    with listening:
        sys.stdout.write(f"{folder} at http://{host}:{listening.getsockname()[1]}\n")
        sys.stdout.flush()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)  # uvicorn raises the signal again once all is answered
        # What is loaded by now stays. With torch's modules among it, each full collection stopped all for 0.25 s.
        gc.collect()
        gc.freeze()
        uvicorn.Server(settings).run(sockets=[listening])


def main(arguments: Sequence[str] | None = None, program: str | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        program, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("exported_dir", help="a folder that export wrote")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0: reachable from elsewhere (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="0: any that is free (default: 8000)")
    parser.add_argument("--lexicon", metavar="TSV", help="a text, a tab, its answer a line: goes before the model")
    parser.add_argument("--num_threads", type=int, default=1, help="threads inside a batch (default: 1)")
    for one in fields(ServerOptions):
        kind = float if one.name == "timeout" else int
        sentence = f"{one.metadata['help']} (default: {one.default})"
        parser.add_argument(f"--{one.name}", type=kind, default=one.default, help=sentence)
    args = parser.parse_args(arguments)
    if not 0 <= args.port <= 65535:
        parser.error(f"--port: got {args.port}, wanted 0 to 65535")
    if not args.host:
        parser.error("--host: got '', wanted an address; 0.0.0.0 is reachable from elsewhere")
    if args.num_threads < 1:
        parser.error(f"--num_threads: got {args.num_threads}, wanted at least 1")
    options = ServerOptions(**{one.name: getattr(args, one.name) for one in fields(ServerOptions)})
    try:
        serve(args.exported_dir, args.host, args.port, options, args.lexicon, args.num_threads)
    except (OSError, ValueError) as error:
        sys.exit(printable(f"error: {error}"))


if __name__ == "__main__":
    main()

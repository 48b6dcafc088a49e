"""A tiny application that shows what the edge lets through; built by `fakes.edge_app:build`."""

import hashlib
import json
import os
import sys
from pathlib import Path

import anyio
import structlog

from secure_cache.http.body import (
    Answer,
    BodyBounds,
    DrainBounds,
    parse_content_length,
    read_body,
    refuse_and_drain,
)
from secure_cache.model.errors import Malformed, Misconfigured, Refused, TooLarge, TooSlow

STATUS = {TooLarge: 413, TooSlow: 408, Malformed: 400}


def build(argument, worker):
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    options = json.loads(argument)
    if "fail" in options:
        raise Misconfigured(options["fail"])
    return EdgeApp(options, worker)


async def answer(send, status, body):
    headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class EdgeApp:
    def __init__(self, options, worker):
        self.options = options
        self.worker = worker
        self.bounds = BodyBounds(**{"max_bytes": 1 << 30, **options.get("bounds", {})})
        drain = {"max_bytes": 64 << 20, "max_seconds": 5.0, **options.get("drain", {})}
        self.drain = DrainBounds(**drain)

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            await self.lifespan(receive, send)
            return
        name = scope["raw_path"].decode().removeprefix("/")
        self.note(event="request", path=scope["raw_path"].decode())
        await getattr(self, f"do_{name}", self.show)(scope, receive, send)

    def note(self, **event):
        if "seen" in self.options:
            with Path(self.options["seen"]).open("a") as file:
                file.write(json.dumps(event) + "\n")

    async def lifespan(self, receive, send):
        await receive()
        if "fail_later" in self.options:
            raise Misconfigured(self.options["fail_later"])
        await send({"type": "lifespan.startup.complete"})
        if "break" in self.options:
            # Until somebody makes the file: once, so that the next process lives.
            fuse = anyio.Path(self.options["break"])
            while True:
                with anyio.move_on_after(0.05):
                    await receive()
                    break
                if await fuse.exists():
                    await fuse.unlink(missing_ok=True)
                    raise ValueError("a background task met what nobody thought of")
        else:
            await receive()
        self.note(event="ended")
        await send({"type": "lifespan.shutdown.complete"})

    async def show(self, scope, receive, send):
        shown = {
            "raw_path": scope["raw_path"].decode(),
            "headers": [
                [name.decode(), value.decode("latin-1")] for name, value in scope["headers"]
            ],
            "pid": os.getpid(),
            "worker": self.worker.index,
        }
        await answer(send, 200, json.dumps(shown).encode())

    async def do_store(self, scope, receive, send):
        digest, size = hashlib.sha256(), 0
        try:
            length = parse_content_length(scope["headers"])
            async for block in read_body(receive, self.bounds, content_length=length):
                digest.update(block)
                size += len(block)
        except Refused as error:
            self.note(event="refused", code=error.code)
            refusal = Answer(STATUS[type(error)], error.code.encode())
            await refuse_and_drain(send, receive, refusal, self.drain)
            return
        self.note(event="stored", size=size)
        await answer(send, 200, f"{size} {digest.hexdigest()}".encode())

    async def do_refuse(self, scope, receive, send):
        drained = await refuse_and_drain(send, receive, Answer(403, b"no\n"), self.drain)
        self.note(event="drained", size=drained)

    async def do_slow(self, scope, receive, send):
        await anyio.sleep(float(scope["query_string"]))
        await answer(send, 200, b"slow")

    async def do_big(self, scope, receive, send):
        block, count = bytes(65536), int(scope["query_string"]) * 16
        headers = [(b"content-length", b"%d" % (count * len(block)))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for left in reversed(range(count)):
            await send({"type": "http.response.body", "body": block, "more_body": left > 0})
        self.note(event="sent")

    async def do_wait(self, scope, receive, send):
        """Read the body until the client leaves or ends it, without any bound of its own."""
        message = {"more_body": True}
        while message.get("more_body"):
            message = await receive()
        self.note(event="waited", type=message["type"])
        await answer(send, 200, b"done")

    async def do_ready(self, scope, receive, send):
        status = 503 if self.worker.draining else 200
        await answer(send, status, b"draining" if self.worker.draining else b"ok")

    async def do_ignore(self, scope, receive, send):
        await answer(send, 200, b"ignored")

"""A WebSocket application and a client that asks it through the proxy, both of the package websockets.

serve PORT NAME  the application; its standard input ends it
ask URL [CA]     the client: one line per check, the last one is "all"
hold URL [CA]    one socket and, when it is closed, another one: what each hears first, and how each is closed
"""

import asyncio
import ssl
import sys

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed, InvalidStatus

LARGE = bytes(range(256)) * 12_000
last_close = "none"


async def application(name, socket):
    global last_close
    try:
        await socket.send(name)
        async for message in socket:
            if message == "ping":
                await (await socket.ping(b"from the application"))
                await socket.send("pong")
            elif message == "parts":
                await socket.send(part for part in ("one ", "two ", "three"))
            elif message == "last close":
                await socket.send(last_close)
            elif message == "close":
                await socket.close(4001, "as you wish")
            else:
                await socket.send(message)
    except ConnectionClosed:
        pass
    finally:
        last_close = f"{socket.close_code} {socket.close_reason}"


async def serve_until_input_ends(port, name):
    def before(connection, request):
        if request.path == "/readyz":
            return connection.respond(200, "ready")
        if request.path == "/refused":
            return connection.respond(403, "no")

    def second(connection, offered):
        return "second" if "second" in offered else None

    handler = lambda socket: application(name, socket)
    options = {"process_request": before, "max_size": None, "select_subprotocol": second}
    async with serve(handler, "127.0.0.1", port, **options):
        await asyncio.to_thread(sys.stdin.read)


async def ask(opened):
    async with opened() as socket:
        assert await socket.recv() == "blue"
        for message in ("text \u2713", b"\x00\xff", "", LARGE):
            await socket.send(message)
            assert await socket.recv() == message
        assert socket.protocol.extensions, "compression was agreed on"
        print("messages")
        await socket.send(part for part in (LARGE[:7], LARGE[7:70_000], LARGE[70_000:]))
        assert await socket.recv() == LARGE
        await socket.send("parts")
        assert [part async for part in socket.recv_streaming() if part] == ["one ", "two ", "three"]
        print("fragments, both ways")
        await asyncio.wait_for(await socket.ping(b"from the client"), 5)
        await socket.send("ping")
        assert await socket.recv() == "pong"
        print("pings, both ways")
        await socket.send("close")
        await socket.wait_closed()
        assert (socket.close_code, socket.close_reason) == (4001, "as you wish")
        print("a close by the application")
    async with opened(compression=None, subprotocols=["first", "second"]) as socket:
        assert await socket.recv() == "blue"
        assert (socket.protocol.extensions, socket.subprotocol) == ([], "second")
        await socket.send(LARGE)
        assert await socket.recv() == LARGE
        await socket.close(4002, "enough")
    async with opened() as socket:
        await socket.recv()
        await socket.send("last close")
        assert await socket.recv() == "4002 enough"
    print("a close by the client")
    try:
        async with opened("/refused"):
            raise AssertionError("it was let in")
    except InvalidStatus as refused:
        assert (refused.response.status_code, refused.response.body) == (403, b"no")
    print("a refusal")

    async def one(n):
        async with opened() as socket:
            await socket.recv()
            await socket.send(str(n))
            return await socket.recv() == str(n)

    assert all(await asyncio.gather(*(one(n) for n in range(50))))
    print("all")


async def hold(opened):
    for _ in range(2):
        async with opened() as socket:
            print(await socket.recv(), flush=True)
            try:
                await socket.recv()
            except ConnectionClosed:
                print(socket.close_code, flush=True)


def main(what, *args):
    if what == "serve":
        return serve_until_input_ends(int(args[0]), args[1])
    url, *ca = args
    tls = {"ssl": ssl.create_default_context(cafile=ca[0]), "server_hostname": "app.example"} if ca else {}
    opened = lambda path="/", **more: connect(url + path, max_size=None, proxy=None, **tls, **more)
    return {"ask": ask, "hold": hold}[what](opened)


asyncio.run(main(*sys.argv[1:]))

"""A gRPC application with grpc.health.v1, and a client that asks it through the proxy. No generated code: messages are bytes.

serve PORT NAME [KEY]  the application; its standard input ends it. Calls of Unary whose message is KEY raise
ask PORT [CA]          the client, over TLS with CA: one line per check, the last one is "all"
load PORT MESSAGE      calls of Unary until its standard input ends
fail PORT              one call, and the code and words that it fails with
hold PORT              one stream in both directions, a message for each line of standard input
"""

import collections
import sys
import threading
import time
from concurrent import futures

import grpc


def echo(name, key):
    def unary(request, context):
        if request == key:
            raise ValueError("a bug")
        meta = dict(context.invocation_metadata())
        context.send_initial_metadata((("x-name", name),))
        context.set_trailing_metadata((("x-after", meta.get("x-before", "none")), ("x-bin-bin", b"\0\1\xff")))
        return name.encode() + b":" + request

    def server_stream(request, context):
        for n in range(int(request)):
            yield b"%d" % n

    def client_stream(requests, context):
        return b"%d" % sum(len(request) for request in requests)

    def both(requests, context):
        for request in requests:
            yield name.encode() + b":" + request

    def fails(request, context):
        context.abort(grpc.StatusCode.NOT_FOUND, "no such thing, 100 %")

    def slow(request, context):
        while context.is_active():
            time.sleep(0.02)
        return b"too late"

    return {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "ServerStream": grpc.unary_stream_rpc_method_handler(server_stream),
        "ClientStream": grpc.stream_unary_rpc_method_handler(client_stream),
        "Both": grpc.stream_stream_rpc_method_handler(both),
        "Fails": grpc.unary_unary_rpc_method_handler(fails),
        "Slow": grpc.unary_unary_rpc_method_handler(slow),
    }


def serve(port, name, key=None):
    # SERVING is 1 in field 1 of the answer.
    health = {"Check": grpc.unary_unary_rpc_method_handler(lambda request, context: b"\x08\x01")}
    server = grpc.server(futures.ThreadPoolExecutor(16))
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler("test.Echo", echo(name, key and key.encode())),
            grpc.method_handlers_generic_handler("grpc.health.v1.Health", health),
        )
    )
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    sys.stdin.read()
    server.stop(0)


def channel(port, ca=None):
    address, options = f"127.0.0.1:{port}", [("grpc.enable_retries", 0)]
    if not ca:
        return grpc.insecure_channel(address, options=options)
    with open(ca, "rb") as roots:
        credentials = grpc.ssl_channel_credentials(roots.read())
    return grpc.secure_channel(address, credentials, options + [("grpc.ssl_target_name_override", "app.example")])


def ask(port, ca=None):
    with channel(port, ca) as to:
        unary = to.unary_unary("/test.Echo/Unary")
        answer, call = unary.with_call(b"hello", metadata=(("x-before", "b"),), timeout=10)
        assert answer.endswith(b":hello"), answer
        assert dict(call.initial_metadata())["x-name"], call.initial_metadata()
        after = dict(call.trailing_metadata())
        assert after["x-after"] == "b" and after["x-bin-bin"] == b"\0\1\xff", after
        print("unary, metadata before and after")
        large = b"x" * 3_000_000
        assert len(unary(large, timeout=20)) > len(large)
        print("3 MB each way")
        got = list(to.unary_stream("/test.Echo/ServerStream")(b"1000", timeout=20))
        assert got == [b"%d" % n for n in range(1000)], len(got)
        print("a stream of answers")
        total = to.stream_unary("/test.Echo/ClientStream")((b"x" * 1000 for _ in range(500)), timeout=20)
        assert total == b"500000", total
        print("a stream of requests")
        turn = threading.Semaphore(1)

        def requests():
            for n in range(50):
                turn.acquire()
                yield b"%d" % n

        count = 0
        for n, answer in enumerate(to.stream_stream("/test.Echo/Both")(requests(), timeout=20)):
            assert answer.endswith(b":%d" % n), answer
            count += 1
            turn.release()
        assert count == 50
        print("both in turn")
        for method, code in (("Fails", grpc.StatusCode.NOT_FOUND), ("Nothing", grpc.StatusCode.UNIMPLEMENTED)):
            try:
                to.unary_unary(f"/test.Echo/{method}")(b"", timeout=10)
                raise AssertionError(method)
            except grpc.RpcError as error:
                assert error.code() == code, error
                assert method != "Fails" or error.details() == "no such thing, 100 %", error.details()
        print("failures say why")
        try:
            to.unary_unary("/test.Echo/Slow")(b"", timeout=0.5)
            raise AssertionError("slow")
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
        print("a deadline")
        call = to.unary_unary("/test.Echo/Slow").future(b"", timeout=10)
        time.sleep(0.2)
        assert call.cancel()
        print("a call taken back")
        calls = [unary.future(b"%d" % n, timeout=20) for n in range(200)]
        assert all(call.result().endswith(b":%d" % n) for n, call in enumerate(calls))
        print("200 at once")
        print("all")


def load(port, message):
    over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    with channel(port) as to:
        unary = to.unary_unary("/test.Echo/Unary")
        calls = collections.deque(maxlen=1000)  # one that nobody holds is cancelled
        while not over.wait(0.005):
            calls.append(unary.future(message.encode(), timeout=10))


def fail(port):
    with channel(port) as to:
        try:
            to.unary_unary("/test.Echo/Unary")(b"", timeout=10)
        except grpc.RpcError as error:
            print(error.code().name, error.details())


def hold(port):
    with channel(port) as to:
        lines = (line.strip().encode() for line in iter(sys.stdin.readline, ""))
        for answer in to.stream_stream("/test.Echo/Both")(lines, timeout=60):
            print(answer.decode(), flush=True)


if __name__ == "__main__":
    {"serve": serve, "ask": ask, "load": load, "fail": fail, "hold": hold}[sys.argv[1]](*sys.argv[2:])

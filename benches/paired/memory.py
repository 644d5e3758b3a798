"""What a connection on which nothing happens takes from a proxy's memory."""

import contextlib
import socket
import ssl
import statistics
import sys
import time

from paired.proxies import BETTER_OF
from paired.stage import host, resident_kib

GOAL_KIB = {"idle": 1.3, "idle-h2": 6.0}
PLAIN_REQUEST = f"GET / HTTP/1.1\r\nHost: {host(0)}\r\n\r\n".encode()


def frame(kind, flags, stream, payload=b""):
    """One of HTTP/2 (RFC 9113 4.1)."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


# The preface, our settings, and GET https://HOST/ out of HPACK's static table (RFC 7541, appendix A).
H2_REQUEST = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0)
H2_REQUEST += frame(1, 5, 1, b"\x82\x87\x84\x41" + bytes((len(host(0)),)) + host(0).encode())
BODY = b"ok"
ANSWER_SECONDS_MAX = 20
FIRST_CONNECTIONS = 100
PAGE_KIB = 4
H2_SETTINGS_SEEN = frame(4, 1, 0)


def connect(proxy, kind):
    """A connection that has asked once, and has its answer."""
    if kind == "idle":
        connection = socket.create_connection(("127.0.0.1", proxy.port))
    else:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["h2" if kind == "idle-h2" else "http/1.1"])
        plain = socket.create_connection(("127.0.0.1", proxy.tls_port))
        connection = context.wrap_socket(plain, server_hostname=host(0))
    connection.settimeout(ANSWER_SECONDS_MAX)
    connection.sendall(H2_REQUEST if kind == "idle-h2" else PLAIN_REQUEST)
    got = b""
    while BODY not in got:
        more = connection.recv(4096)
        if not more:
            sys.exit(f"{proxy.name} ended an idle connection instead of answering:\n{got}")
        got += more
    if kind == "idle-h2":
        connection.sendall(H2_SETTINGS_SEEN)
    return connection


@contextlib.contextmanager
def idle_connections(proxy, count, kind="idle"):
    """Connections that have asked once, and wait. They asked one after the other, for one upstream connection."""
    with contextlib.ExitStack() as held:
        for _ in range(count):
            held.enter_context(connect(proxy, kind))
        yield


def compare_idle(bench, kind):
    """Memory that kept connections add after one request each, per connection."""
    options = bench.options
    unable = {"haproxy-splice"} | (set() if kind == "idle" else {"floor"})
    figures = {name: [] for name in options.who if name not in unable}
    for _ in range(options.starts):
        for name, taken in figures.items():
            # A fresh process each time: memory that was freed once would be used again, and hide the growth.
            proxy = bench.proxies.start(name)
            # What the first ones take is taken once.
            with idle_connections(proxy, FIRST_CONNECTIONS, kind):
                before = resident_kib(proxy.process.pid)
                with idle_connections(proxy, options.idle, kind):
                    time.sleep(1)
                    added = resident_kib(proxy.process.pid) - before
                    taken.append(max(added, PAGE_KIB) / options.idle)
            bench.stage.end([proxy.process])
    print(f"\n{kind}: memory of a kept connection on which nothing happens ({options.idle} connections)")
    kib = {name: statistics.median(taken) for name, taken in figures.items()}
    print(f"{'':<30}{'KiB/connection':>14}   {'lowest to highest':<20}cutover / it")
    for name, taken in figures.items():
        ratio = f"{kib['cutover'] / kib[name]:.2f}" if name != "cutover" else ""
        print(f"  {name:<28}{kib[name]:14.2f}   {f'{min(taken):.2f} to {max(taken):.2f}':<20}{ratio}".rstrip())
    peers = [name for name in figures if name in BETTER_OF]
    goal = f"; goal {GOAL_KIB[kind]} KiB" if kind in GOAL_KIB else ""
    if peers:
        better = min(peers, key=kib.get)
        print(f"ratio  {kind}: cutover / {better} {kib['cutover'] / kib[better]:.2f}, the better peer{goal}")

"""The proxies, each with one worker on its core and doing the same work as the others.

That is keep-alive on both sides, X-Forwarded-For, -Proto and -Host, a request id per request, and no access log.
cutover has everything else on as well: counters, watch, admin API, and health probes, though only one in a minute.
They are there long enough between two slices that every time-out of an idle connection has to be long.
"""

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

from paired.stage import PROXY_CORE, find, free_port, host

FLOOR_SOURCE = Path(__file__).parents[1] / "floor" / "floor.c"
LONG = "600s"
PEERS = ("nginx", "nginx-current", "haproxy", "haproxy-splice", "envoy", "caddy", "traefik")
# Our goals are shares of the best of these; HAProxy as most people run it.
BETTER_OF = ("nginx", "nginx-current", "haproxy")


@dataclasses.dataclass
class Proxy:
    """One process under test."""

    name: str
    process: subprocess.Popen
    port: int
    tls_port: int = 0
    admin_port: int = 0


def find_peers(folder):
    """{name: path} of the peers that are installed; the current ones are Python packages in a folder."""
    def packaged(tool):
        for path in sorted(Path(folder).rglob(tool)) if folder else ():
            if path.is_file() and os.access(path, os.X_OK) and path.open("rb").read(4) == b"\x7fELF":
                return str(path)
        return None

    found = {
        "nginx": find("nginx"),
        "nginx-current": packaged("nginx"),
        "haproxy": find("haproxy"),
        "haproxy-splice": find("haproxy"),
        "envoy": packaged("envoy") or find("envoy"),
        "caddy": packaged("caddy") or find("caddy"),
        "traefik": packaged("traefik") or find("traefik"),
    }
    return {name: path for name, path in found.items() if path}


def version(path):
    """The first number with dots that a peer says of itself, or what it says."""
    for flag in ("version", "-v", "--version"):
        said = subprocess.run([path, flag], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=20)
        if number := re.search(r"\d+\.\d+\.\d+", said.stdout + said.stderr):
            return number[0]
    return "of unknown version"


class Proxies:
    """Starts proxies on a stage by their names."""

    def __init__(self, stage, binaries, peers, extra_config=""):
        """`binaries` are builds of cutover by name; `extra_config` is added to the config of the one named cutover."""
        self.stage, self.binaries, self.peers, self.extra_config = stage, binaries, peers, extra_config
        self.floor = str(stage.folder / "floor")
        built = subprocess.run(["cc", "-O2", "-o", self.floor, FLOOR_SOURCE], capture_output=True, text=True)
        if built.returncode != 0:
            sys.exit(f"cc does not build {FLOOR_SOURCE}:\n{built.stderr}")
        self.started = 0

    def start(self, name, services=1, window=None):
        """A ready proxy. With a window, cutover's idle color is the same upstream: load goes on after a flip."""
        self.started += 1
        file = f"{name}-{self.started}"
        if name in self.binaries:
            proxy = self.start_cutover(name, file, services, window)
        else:
            start = {
                "floor": self.start_floor,
                "nginx": self.start_nginx,
                "nginx-current": self.start_nginx,
                "haproxy": self.start_haproxy,
                "haproxy-splice": self.start_haproxy,
                "envoy": self.start_envoy,
                "caddy": self.start_caddy,
                "traefik": self.start_traefik,
            }[name]
            proxy = start(name, file, services)
        self.stage.wait_ready(proxy.port, file)
        return proxy

    def run(self, file, *command, **environment):
        return self.stage.start(file, PROXY_CORE, command, **environment)

    def start_floor(self, name, file, _services):
        port = free_port()
        return Proxy(name, self.run(file, self.floor, str(port), str(self.stage.upstream_port)), port)

    def start_nginx(self, name, file, services):
        stage, port, tls_port = self.stage, free_port(), free_port()
        # nginx takes the options of an address once.
        first = f"""
                listen 127.0.0.1:{port} backlog=4096;
                listen 127.0.0.1:{tls_port} ssl http2 backlog=4096;
                ssl_certificate {stage.cert}; ssl_certificate_key {stage.key}; ssl_protocols TLSv1.2 TLSv1.3;"""
        server = "".join(f"""
            server {{
                {first if n == 0 else f"listen 127.0.0.1:{port};"}
                server_name {host(n)};
                location / {{
                    proxy_pass http://upstream;
                    proxy_http_version 1.1;
                    proxy_request_buffering off;
                    proxy_set_header Connection "";
                    proxy_set_header Host $http_host;
                    proxy_set_header X-Forwarded-For $remote_addr;
                    proxy_set_header X-Forwarded-Proto $scheme;
                    proxy_set_header X-Forwarded-Host $http_host;
                    proxy_set_header X-Request-Id $request_id;
                }}
            }}""" for n in range(services))
        upstream = f"""
            upstream upstream {{
                server 127.0.0.1:{stage.upstream_port};
                keepalive 4096; keepalive_requests 1000000000; keepalive_timeout {LONG};
            }}"""
        config = stage.write(f"{file}.conf", stage.nginx(file, upstream + server))
        return Proxy(name, self.run(file, self.peers[name], "-c", config), port, tls_port)

    def start_haproxy(self, name, file, services):
        stage, port, tls_port = self.stage, free_port(), free_port()
        hosts = stage.write(f"{file}.map", "".join(f"{host(n)} app\n" for n in range(services)))
        # One service needs no map, as cutover and nginx have nothing to look up either.
        mapped = f"use_backend %[req.hdr(host),field(1,:),lower,map({hosts})]"
        choose = "default_backend app" if services == 1 else mapped
        headers = f"""
    http-request set-header X-Forwarded-For %[src]
    http-request set-header X-Forwarded-Host %[req.hdr(host)]
    http-request set-header X-Request-Id %[uuid]
    {choose}"""
        config = stage.write(f"{file}.cfg", f"""
global
    nbthread 1
    maxconn 9500
    maxpipes 400
    # It would open a connection for each request once a fifth of its descriptors are in use.
    tune.pool-low-fd-ratio 90
    tune.pool-high-fd-ratio 95
defaults
    mode http
    timeout connect 5s
    timeout client {LONG}
    timeout server {LONG}
    timeout http-keep-alive {LONG}
    option http-keep-alive
    http-reuse always
    {"option splice-request" if name == "haproxy-splice" else ""}
    {"option splice-response" if name == "haproxy-splice" else ""}
frontend web
    bind 127.0.0.1:{port} backlog 4096
    http-request set-header X-Forwarded-Proto http{headers}
frontend secure
    bind 127.0.0.1:{tls_port} ssl crt {stage.both} alpn h2,http/1.1 backlog 4096
    http-request set-header X-Forwarded-Proto https{headers}
backend app
    server upstream 127.0.0.1:{stage.upstream_port} pool-max-conn 4096 pool-purge-delay {LONG}
""")
        return Proxy(name, self.run(file, self.peers[name], "-db", "-f", config), port, tls_port)

    def start_cutover(self, name, file, services, window):
        stage, port, tls_port, admin_port = self.stage, free_port(), free_port(), free_port()
        idle_color = stage.spare_port if window is None else stage.twin_port
        tables = "".join(f"""
[service.s{n}]
hosts = ["{host(n)}"]
blue = {stage.upstream_port}
green = {idle_color}
# Probes are requests to an upstream that counts them.
health = {{ interval = "1m", rise = 1 }}
upstream = {{ idle_timeout = "10m" }}
""" for n in range(services))
        if window is not None:
            tables += f'[service.s0.watch]\nwindow = "{window}"\n'
        config = stage.write(f"{file}.toml", f"""
[proxy]
listen = ["127.0.0.1:{port}"]
workers = 1
idle_timeout = "10m"
listen_tls = ["127.0.0.1:{tls_port}"]
[tls]
certificates = [{{ cert = "{stage.cert}", key = "{stage.key}" }}]
[admin]
listen = "127.0.0.1:{admin_port}"
[state]
dir = "{stage.folder}/{file}.state"
ledger = "{stage.folder}/{file}.ledger"
{tables}
{self.extra_config if name == "cutover" else ""}""")
        process = self.run(file, self.binaries[name], "serve", "--config", config)
        return Proxy(name, process, port, tls_port, admin_port)

    def start_envoy(self, name, file, _services):
        stage, port, tls_port = self.stage, free_port(), free_port()
        tls = f"""
      transport_socket:
        name: tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            alpn_protocols: [h2, http/1.1]
            tls_certificates:
            - {{certificate_chain: {{filename: {stage.cert}}}, private_key: {{filename: {stage.key}}}}}"""
        router = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
        manager = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
        listeners = "".join(f"""
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {at}}}}}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/{manager}
          stat_prefix: bench
          use_remote_address: true
          http_filters: [{{name: router, typed_config: {{"@type": {router}}}}}]
          route_config:
            request_headers_to_add: [{{header: {{key: X-Forwarded-Host, value: "%REQ(:AUTHORITY)%"}}}}]
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes: [{{match: {{prefix: /}}, route: {{cluster: app, timeout: 0s}}}}]{secret}"""
            for at, secret in ((port, ""), (tls_port, tls)))
        limits = "{max_connections: 9500, max_pending_requests: 9500, max_requests: 9500}"
        config = stage.write(f"{file}.yaml", f"""
static_resources:
  listeners:{listeners}
  clusters:
  - name: app
    type: STATIC
    circuit_breakers: {{thresholds: [{limits}]}}
    load_assignment:
      cluster_name: app
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {stage.upstream_port}}}}}}}
""")
        command = (self.peers[name], "-c", config, "--concurrency", "1", "-l", "off", "--disable-hot-restart")
        return Proxy(name, self.run(file, *command), port, tls_port)

    def start_caddy(self, name, file, _services):
        stage, port, tls_port = self.stage, free_port(), free_port()
        forward = f"""
    reverse_proxy 127.0.0.1:{stage.upstream_port} {{
        header_up X-Request-Id {{http.request.uuid}}
        transport http {{
            keepalive {LONG}
            keepalive_idle_conns_per_host 4096
        }}
    }}"""
        config = stage.write(f"{file}.caddy", f"""
{{
    admin off
    auto_https off
    persist_config off
    servers {{
        timeouts {{
            idle {LONG}
        }}
    }}
}}
http://:{port} {{
    bind 127.0.0.1{forward}
}}
https://:{tls_port} {{
    bind 127.0.0.1
    tls {stage.cert} {stage.key}{forward}
}}
""")
        command = (self.peers[name], "run", "--config", config, "--adapter", "caddyfile")
        return Proxy(name, self.run(file, *command, GOMAXPROCS="1", HOME=str(stage.folder)), port, tls_port)

    def start_traefik(self, name, file, _services):
        """It makes no request ids."""
        stage, port, tls_port = self.stage, free_port(), free_port()
        routes = stage.write(f"{file}-routes.yml", f"""
http:
  routers:
    plain: {{rule: "PathPrefix(`/`)", service: app, entryPoints: [plain]}}
    secure: {{rule: "PathPrefix(`/`)", service: app, entryPoints: [secure], tls: {{}}}}
  services:
    app: {{loadBalancer: {{servers: [{{url: "http://127.0.0.1:{stage.upstream_port}"}}], serversTransport: kept}}}}
  serversTransports:
    kept: {{maxIdleConnsPerHost: 4096, forwardingTimeouts: {{idleConnTimeout: {LONG}}}}}
tls:
  stores: {{default: {{defaultCertificate: {{certFile: {stage.cert}, keyFile: {stage.key}}}}}}}
""")
        entry = f"transport: {{respondingTimeouts: {{idleTimeout: {LONG}, readTimeout: 0}}}}"
        config = stage.write(f"{file}.yml", f"""
entryPoints:
  plain: {{address: "127.0.0.1:{port}", {entry}}}
  secure: {{address: "127.0.0.1:{tls_port}", {entry}}}
providers: {{file: {{filename: {routes}}}}}
global: {{checkNewVersion: false, sendAnonymousUsage: false}}
""")
        command = (self.peers[name], f"--configFile={config}")
        return Proxy(name, self.run(file, *command, GOMAXPROCS="1"), port, tls_port)

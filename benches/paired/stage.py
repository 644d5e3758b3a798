"""What all proxies of a run share: a folder, a certificate, the upstream, two cores, and an end to every process."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

PROXY_CORE, LOAD_CORE = "0", "1"
READY_SECONDS = 20
UPLOAD_BYTES_MAX = 11 << 20


def find(tool):
    """Where a tool is; server packages put theirs into sbin, which is not always in PATH."""
    return shutil.which(tool, path=os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def host(number):
    return f"s{number}.example"


class Stage:
    """The upstream and the processes of one run. All of them end with it."""

    def __init__(self, folder, nice=0):
        self.folder, self.nice = folder, nice
        self.processes = []
        self.questions = 0

    def set_up(self):
        """The certificate, the files and the upstream."""
        www = self.folder / "www"
        www.mkdir()
        (www / "64k").write_bytes(b"a" * (64 << 10))
        (www / "1m").write_bytes(b"a" * (1 << 20))
        self.make_certificate()
        self.spare_port = self.start_spare()
        self.upstream_port, self.twin_port = self.start_upstream(www)

    def make_certificate(self):
        """One for all: ECDSA on P-256, which is what authorities hand out by default."""
        self.cert, self.key = str(self.folder / "cert.pem"), str(self.folder / "key.pem")
        command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=bench"
        # wrk says the address of its URL as the server's name.
        names = ["-addext", f"subjectAltName=DNS:{host(0)},IP:127.0.0.1"]
        made = subprocess.run(
            [*command.split(), *names, "-keyout", self.key, "-out", self.cert], capture_output=True, text=True
        )
        if made.returncode != 0:
            sys.exit(f"openssl makes no certificate:\n{made.stderr}")
        self.both = self.write("both.pem", Path(self.cert).read_text() + Path(self.key).read_text())

    def start_spare(self):
        """A second upstream, which is not counted: cutover's idle color, and where uploads end."""
        port = free_port()
        server = f"server {{ listen 127.0.0.1:{port}; location / {{ return 200 ok; }} }}"
        self.start("spare", LOAD_CORE, [find("nginx"), "-c", self.write("spare.conf", self.nginx("spare", server))])
        self.wait_ready(port, "spare")
        return port

    def start_upstream(self, www):
        """An nginx that counts its requests, on two ports."""
        port, twin = free_port(), free_port()
        # `return` answers before a body is read. An upload has to be there as a whole before it is answered.
        server = f"""
            upstream sink {{ server 127.0.0.1:{self.spare_port}; keepalive 64; }}
            server {{
                listen 127.0.0.1:{port} backlog=4096;
                listen 127.0.0.1:{twin} backlog=4096;
               
                location / {{ default_type text/plain; return 200 "ok"; }}
                location = /64k {{ root {www}; }}
                location = /1m {{ root {www}; }}
                location = /count {{ stub_status; }}
                location = /upload {{
                    client_body_buffer_size {UPLOAD_BYTES_MAX};
                    proxy_pass http://sink; proxy_pass_request_body off;
                    proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Content-Length "";
                }}
            }}"""
        config = self.write("upstream.conf", self.nginx("upstream", server))
        self.start("upstream", LOAD_CORE, [find("nginx"), "-c", config])
        self.wait_ready(port, "upstream")
        return port, twin

    def write(self, name, text):
        path = self.folder / name
        path.write_text(text)
        return str(path)

    def nginx(self, name, server):
        """A whole nginx configuration with one worker in the foreground."""
        user = "user root;" if os.geteuid() == 0 else ""
        paths = "\n".join(
            f"{kind}_temp_path {self.folder}/{name}.{kind};"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        return f"""
            {user} daemon off; worker_processes 1; worker_rlimit_nofile 20000;
            pid {self.folder}/{name}.pid; error_log {self.folder}/{name}.err;
            events {{ worker_connections 19000; multi_accept on; }}
            http {{
                access_log off; sendfile on; tcp_nopush on; server_names_hash_max_size 8192;
                keepalive_requests 1000000000; keepalive_timeout 600; client_max_body_size 0;
                # Nobody else here writes a body to disk on its way.
                proxy_max_temp_file_size 0;
                {paths}
                {server}
            }}"""

    def spawn(self, core, command, **options):
        """A process on one core, in a session of its own: Linux shares a core out among sessions first (autogroup)."""
        def take_precedence():
            os.nice(self.nice)
            with contextlib.suppress(FileNotFoundError):
                Path("/proc/self/autogroup").write_text(str(self.nice))

        process = subprocess.Popen(
            ["taskset", "-c", core, *command], stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT, text=True,
            start_new_session=True, preexec_fn=take_precedence if self.nice else None, **options,
        )
        self.processes.append(process)
        return process

    def start(self, name, core, command, **environment):
        with open(self.folder / f"{name}.out", "w") as log:
            return self.spawn(core, command, stdout=log, env={**os.environ, **environment})

    def requests_so_far(self):
        """What the upstream was asked by others, as its stub_status page has it: accepted, handled, requests."""
        self.questions += 1
        with urllib.request.urlopen(f"http://127.0.0.1:{self.upstream_port}/count", timeout=10) as answer:
            return int(re.search(r"(?m)^ \d+ \d+ (\d+)", answer.read().decode())[1]) - self.questions

    def wait_ready(self, port, name):
        """Until it answers 2xx."""
        until = time.monotonic() + READY_SECONDS
        while True:
            request = urllib.request.Request(f"http://127.0.0.1:{port}/", headers={"Host": host(0)})
            try:
                with urllib.request.urlopen(request, timeout=2):
                    return
            except (urllib.error.URLError, OSError) as error:
                if time.monotonic() > until:
                    output = (self.folder / f"{name}.out").read_text()[-2000:]
                    sys.exit(f"{name} does not answer on port {port} after {READY_SECONDS} s: {error}\n{output}")
                time.sleep(0.1)

    def end(self, processes=None):
        """Ends the given processes, or all."""
        ending = list(processes if processes is not None else self.processes)
        for process in ending:
            process.terminate()
            # A load may be stopped.
            process.send_signal(signal.SIGCONT)
        for process in ending:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            self.processes.remove(process)


def family(pid):
    """A process and all its children: nginx works in one."""
    found = [pid]
    with contextlib.suppress(FileNotFoundError):
        for task in os.listdir(f"/proc/{pid}/task"):
            for child in Path(f"/proc/{pid}/task/{task}/children").read_text().split():
                found += family(int(child))
    return found


def cpu_ns(members):
    """CPU time of these processes so far, threads that have ended included: what /proc/PID/task/*/schedstat adds up,
    by the clock that Linux has for each process."""
    return sum(time.clock_gettime_ns((~pid << 3) | 2) for pid in members)


def resident_kib(pid):
    """Memory of the process and its children."""
    status = "".join(Path(f"/proc/{member}/status").read_text() for member in family(pid))
    return sum(int(kib) for kib in re.findall(r"VmRSS:\s+(\d+)", status))

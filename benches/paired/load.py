"""Load that can be stopped and go on: wrk and h2load between SIGSTOP and SIGCONT.

Neither can take turns of a fifth of a second and keep its connections, but the kernel can make them: what a stopped
client has asked for is answered into its sockets, and then the proxy has nothing to do until the client goes on.
"""

import contextlib
import re
import signal
import statistics
import subprocess

from paired.stage import LOAD_CORE, find, host

LONG_SECONDS = 36000
# A request that waits between two slices is no error. wrk takes memory for each microsecond of its time-out.
STOPPED_SECONDS_MAX = 60


class Load:
    """One client process with many connections to one proxy."""

    def __init__(self, stage, command):
        self.process = stage.spawn(LOAD_CORE, command, stdout=subprocess.PIPE)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def pause(self):
        self.process.send_signal(signal.SIGSTOP)

    def kill(self):
        """Whatever state it is in; returns what it has printed."""
        self.process.kill()
        return self.process.communicate()[0]


class Wrk(Load):
    """The load of HTTP/1."""

    def __init__(self, stage, proxy, work, service=0, seconds=LONG_SECONDS):
        command = [find("wrk"), "-t1", f"-c{work.connections}", f"-d{seconds}s", f"--timeout={STOPPED_SECONDS_MAX}s"]
        for header in (f"Host: {host(service)}", *work.headers):
            command += ["-H", header]
        if work.upload_bytes:
            script = f'wrk.method = "POST"; wrk.body = string.rep("x", {work.upload_bytes})'
            command += ["-s", stage.write(f"upload-{work.upload_bytes}.lua", script)]
        scheme, port = ("https", proxy.tls_port) if work.tls else ("http", proxy.port)
        super().__init__(stage, [*command, "--latency", f"{scheme}://127.0.0.1:{port}{work.path}"])

    def end(self):
        """What went wrong in all its time, or nothing."""
        self.resume()
        output = None
        while output is None:
            # The signal ends the sleep of whichever thread gets it, and it has to be the one that prints.
            self.process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                output = self.process.communicate(timeout=0.3)[0]
        return "; ".join(line.strip() for line in re.findall(r"(?:Non-2xx|Socket errors).*", output))

    def latencies(self):
        """p50 and p99 in microseconds, once it ends by itself."""
        output = self.process.communicate()[0]
        return tuple(microseconds(re.search(rf"(?m)^\s*{percent}%\s+(\S+)", output)[1]) for percent in (50, 99))


class H2load(Load):
    """The load of HTTP/2, over TLS."""

    def __init__(self, stage, proxy, work, seconds=LONG_SECONDS):
        # Not beside the config, whose folder is watched: each line would be a notice.
        self.log = stage.folder / "load" / f"h2load-{proxy.tls_port}.log"
        self.log.parent.mkdir(exist_ok=True)
        self.log.unlink(missing_ok=True)
        command = [find("h2load"), "-t1", f"-c{work.connections}", "-m16", f"-D{seconds}", f"--log-file={self.log}"]
        url = f"https://127.0.0.1:{proxy.tls_port}{work.path}"
        super().__init__(stage, [*command, f"--header=:authority: {host(0)}", url])

    def requests(self):
        """Begin, status and microseconds of each, but for the last few, which it had not written when it was killed."""
        lines = [line.split() for line in self.log.read_text().splitlines()]
        return [line for line in lines if len(line) == 3]

    def end(self):
        """As Wrk.end."""
        self.kill()
        failed = sum(status != "200" for _, status, _ in self.requests())
        return f"Non-2xx: {failed}" if failed else ""

    def latencies(self):
        """As Wrk.latencies."""
        self.process.communicate()
        times = sorted(int(time) for _, _, time in self.requests())
        return statistics.median(times), times[len(times) * 99 // 100]


def microseconds(text):
    value, unit = re.fullmatch(r"([\d.]+)(us|ms|s|m)", text).groups()
    return float(value) * {"us": 1, "ms": 1e3, "s": 1e6, "m": 6e7}[unit]

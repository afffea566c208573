"""Starts the built program as people do. GOV_PROGRAM names it; GOV_SERVER_URL uses a server that runs already instead."""
import os
import pathlib
import re
import signal
import subprocess
import tempfile
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = os.environ.get("GOV_PROGRAM", str(ROOT / "build/release/bin/gpt-oss-vision"))


class Server:
    """`gpt-oss-vision serve` on a free port; its log is kept in a file."""

    def __init__(self, *arguments, model=ROOT / "models/nano", environment=None):
        self.log = tempfile.NamedTemporaryFile("w+", prefix="gov_serve_", suffix=".log")
        self.process = subprocess.Popen(
            [PROGRAM, "serve", "--model", str(model), "--port", "0", *map(str, arguments)],
            stdout=subprocess.PIPE, stderr=self.log, text=True, env={**os.environ, **(environment or {})})
        line = self.process.stdout.readline()
        match = re.search(r"at (https?://\S+)", line)
        if not match:
            self.process.kill()
            raise RuntimeError(f"the server did not start: {line!r} {self.log_text()}")
        self.url = match[1]
        self.port = int(self.url.rsplit(":", 1)[1])

    def log_text(self):
        return pathlib.Path(self.log.name).read_text(encoding="utf-8")

    def stop(self, seconds=60):
        """SIGTERM; the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(seconds)
        self.process.stdout.close()
        return status

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def memory(self):
        """Resident bytes."""
        return int(pathlib.Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

    def open_files(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))


class Remote:
    """A server that somebody else has started."""

    def __init__(self, url):
        self.url = url.rstrip("/")


@pytest.fixture(scope="session")
def server():
    """One server with nano for all tests that need nothing special."""
    if url := os.environ.get("GOV_SERVER_URL"):
        yield Remote(url)
        return
    started = Server()
    yield started
    assert started.stop() == 0, started.log_text()[-2000:]


@pytest.fixture
def serve():
    """serve("--api-key", "k", model=folder): a server of the test's own."""
    started = []

    def start(*arguments, **options):
        started.append(Server(*arguments, **options))
        return started[-1]

    yield start
    for each in started:
        each.kill()


def eventually(condition, seconds=10):
    end = time.time() + seconds
    while not condition():
        assert time.time() < end, "never came true"
        time.sleep(0.01)

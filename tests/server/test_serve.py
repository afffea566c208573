"""The program `serve` as a whole: options, keys, listeners, signals, and many clients that come and go."""
import asyncio
import http.client
import json
import os
import random
import re
import signal
import socket
import subprocess
import threading
import time
import urllib.parse

import pytest

from conftest import PROGRAM, ROOT, eventually

CHAT = {"messages": [{"role": "user", "content": "What is this?"}], "max_tokens": 24, "stream": True, "temperature": 1}


def connect(server):
    return http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)


def get(server, path, headers=None):
    connection = connect(server)
    connection.request("GET", path, headers=headers or {})
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, body


def metric(server, name, headers=None):
    """The sum of a metric's series."""
    _, text = get(server, "/metrics", headers)
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if re.match(rf"{name}[ {{]", line))


def post(server, path, body, headers=None):
    connection = connect(server)
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json", **(headers or {})})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


def test_health_models_and_page(serve):
    server = serve("--model-name", "little")
    assert get(server, "/ready")[0] == 200
    assert json.loads(get(server, "/v1/models")[1])["data"][0]["id"] == "little"
    status, page = get(server, "/")
    assert status == 200 and "<html" in page
    for asset in re.findall(r'(?:href|src)="([^"#:]+)"', page):
        assert get(server, urllib.parse.urljoin("/", asset))[0] == 200, asset
    status, text = get(server, "/metrics")
    assert status == 200 and "gov_http_requests_total" in text and "gov_requests_running" in text
    assert server.stop() == 0


def test_options_of_the_api(serve):
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "array"}}}}}
    call = {"role": "assistant", "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}
    chat = {"messages": [{"role": "user", "content": "x"}, call, {"role": "tool", "tool_call_id": "1", "content": "y"}], "tools": [tool]}

    def prompt(*options):
        server = serve("--quiet", *options)
        text = json.loads(post(server, "/apply-template", chat)[1])["prompt"]
        assert server.stop() == 0
        return text

    usual = prompt()
    assert "a?: Array<any>," in usual and "<|channel|>commentary to=functions.f" in usual
    assert "assistant to=functions.f<|channel|>commentary" in prompt("--render-order", "recipient")
    assert "any[]" in prompt("--chat-template", "hf-jinja")
    server = serve("--exact-model-name", "--model-name", "little")
    assert post(server, "/v1/completions", {"model": "little", "prompt": "x", "max_tokens": 1})[0] == 200
    assert post(server, "/v1/completions", {"model": "large", "prompt": "x", "max_tokens": 1})[0] == 404
    assert server.stop() == 0


def test_every_route_wants_the_key(serve, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("# two\nfile-key\n")
    server = serve("--api-key", "option-key", "--api-key-file", keys, environment={"GPT_OSS_VISION_API_KEY": "variable-key"})
    headers = {"Authorization": "Bearer option-key"}
    paths = json.loads(get(server, "/openapi.json", headers)[1])["paths"]
    assert len(paths) >= 15
    for path, methods in paths.items():
        for method in methods:
            connection = connect(server)
            connection.request(method.upper(), path.replace("{id}", "x"))
            status = connection.getresponse().status
            assert status == (200 if path in ("/health", "/ready") else 401), (method, path)
            connection.close()
    for key in ("option-key", "file-key", "variable-key"):
        assert get(server, "/v1/models", {"Authorization": f"Bearer {key}"})[0] == 200
        assert get(server, "/v1/models", {"x-api-key": key})[0] == 200
    assert server.stop() == 0
    assert "-key" not in server.log_text()


def test_listeners_are_those_configured(serve):
    server = serve("--admin-port", "0")
    inodes = {os.readlink(f"/proc/{server.process.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{server.process.pid}/fd")}
    listening = []
    for table in ("tcp", "tcp6"):
        with open(f"/proc/net/{table}", encoding="ascii") as lines:
            for line in list(lines)[1:]:
                fields = line.split()
                if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
                    listening.append(fields[1].split(":")[0])
    assert listening == ["0100007F", "0100007F"]  # two, on 127.0.0.1
    assert server.stop() == 0


def test_the_cache_is_reset_at_the_admin_listener_only(serve):
    server = serve("--admin-port", "0")
    admin = int(re.search(r":(\d+)", server.process.stdout.readline())[1])
    body = {"messages": [{"role": "user", "content": "What is this? " * 30}], "max_tokens": 1, "temperature": 0}

    def cached():
        return json.loads(post(server, "/v1/chat/completions", body)[1])["usage"]["prompt_tokens_details"]["cached_tokens"]

    assert cached() == 0
    assert cached() > 0
    assert post(server, "/admin/cache/reset", {})[0] == 404
    connection = http.client.HTTPConnection("127.0.0.1", admin, timeout=10)
    connection.request("POST", "/admin/cache/reset")
    assert connection.getresponse().status == 200
    connection.close()
    assert cached() == 0
    assert server.stop() == 0


@pytest.mark.parametrize("arguments, words", [
    (["--port", "99999"], "--port"),
    (["--tls-cert", "/nonexistent.pem"], "both"),
    (["--host", "no.such.host.invalid"], "no.such.host.invalid"),
    (["--api-key-file", "/nonexistent"], "/nonexistent"),
    (["--allowed-host", "a:1"], "a:1"),
    (["--cors-origin", "nonsense"], "nonsense"),
    (["--image-host", "a.example"], "--remote-images"),
    (["--model", "/nonexistent"], "/nonexistent"),
])
def test_wrong_options_are_one_line(arguments, words):
    ran = subprocess.run([PROGRAM, "serve", "--port", "0", *arguments], capture_output=True, text=True, timeout=60)
    assert ran.returncode in (1, 2)
    assert words in ran.stderr and len(ran.stderr.splitlines()) == 1 and ran.stdout == ""


def test_a_port_in_use_is_one_line(serve):
    server = serve()
    ran = subprocess.run([PROGRAM, "serve", "--port", str(server.port)], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 1 and "cannot listen" in ran.stderr and len(ran.stderr.splitlines()) == 1


def stream_text(server, body):
    """A whole stream, however it ends."""
    connection = connect(server)
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    text = answer.read().decode()  # raises IncompleteRead when it is cut
    connection.close()
    return answer.status, text


@pytest.mark.parametrize("_", range(5))
def test_sigterm_lets_streams_end(serve, _):
    server = serve()
    results = []
    clients = [threading.Thread(target=lambda: results.append(stream_text(server, CHAT))) for _ in range(6)]
    for client in clients:
        client.start()
    eventually(lambda: metric(server, "gov_http_streams_total") > 0)
    assert server.stop() == 0
    for client in clients:
        client.join()
    assert all(status == 200 and text.endswith("data: [DONE]\n\n") for status, text in results), results
    assert len(results) == 6
    with pytest.raises(ConnectionRefusedError):
        get(server, "/health")


def test_a_second_signal_ends_at_once(serve):
    server = serve()
    long = {**CHAT, "max_tokens": 4000, "ignore_eos": True}
    result = []
    client = threading.Thread(target=lambda: result.append(stream_text(server, long)))
    client.start()
    eventually(lambda: metric(server, "gov_http_streams_total") > 0)
    server.process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert server.process.poll() is None or result  # it drains, unless the text was short
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(10) in (0, 130)
    client.join()
    assert result and result[0][1].endswith("data: [DONE]\n\n")  # an error event, or its proper end


async def one_client(port, rng, counts):
    """Streams one answer, or leaves at a random moment."""
    leave_after = rng.random() * 0.5 if rng.random() < 0.5 else None
    body = json.dumps({**CHAT, "seed": rng.randrange(1 << 30), "stream_options": {"include_usage": True}}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(head.encode() + body)
        text = b""

        async def read():
            nonlocal text
            while not text.endswith(b"\r\n0\r\n\r\n") and (part := await reader.read(65536)):
                text += part

        try:
            await asyncio.wait_for(read(), leave_after or 120)
        except asyncio.TimeoutError:
            counts["left" if leave_after else "late"] += 1
            return
        if b" 200 OK" in text[:20] and b"data: [DONE]" in text:
            counts["errors" if b'"error"' in text else "complete"] += 1
        else:
            counts["refused" if b" 429 " in text[:20] or b" 503 " in text[:20] else "cut"] += 1
    finally:
        writer.transport.abort() if rng.random() < 0.5 else writer.close()


async def crowd(port, clients, seconds, counts):
    end = time.time() + seconds

    async def endless(number):
        rng = random.Random(number)
        while time.time() < end:
            await one_client(port, rng, counts)

    await asyncio.gather(*(endless(i) for i in range(clients)))


def test_many_clients_come_and_go(serve):
    """GOV_CROWD=clients,seconds; 1000,180 is the full measure."""
    clients, seconds = map(int, os.environ.get("GOV_CROWD", "150,15").split(","))
    server = serve("--quiet", "--max-sequences", "16", "--queue", "4096", "--no-prefix-cache")
    stream_text(server, CHAT)
    files, free = server.open_files(), metric(server, r'gov_kv_blocks\{[^}]*state="free"\}')
    counts = dict.fromkeys(("complete", "left", "late", "errors", "refused", "cut"), 0)
    asyncio.run(crowd(server.port, clients, seconds / 3, dict(counts)))  # until buffers have their size
    memory = server.memory()
    asyncio.run(crowd(server.port, clients, seconds, counts))
    started = time.time()
    eventually(lambda: metric(server, "gov_requests_running") + metric(server, "gov_requests_waiting") == 0, 30)
    idle_after = time.time() - started
    eventually(lambda: server.open_files() <= files + 1, 10)
    print(counts, f"idle after {idle_after:.2f} s, {(server.memory() - memory) / 1e6:+.1f} MB")
    assert counts["complete"] > 0 and counts["left"] > 0
    left, soon = metric(server, "gov_cancel_seconds_count"), metric(server, r'gov_cancel_seconds_bucket\{le="0.2"\}')
    assert left > 0 and soon >= 0.99 * left, f"{left - soon} of {left} requests ran on for more than 0.2 s"
    assert counts["cut"] == counts["errors"] == counts["late"] == counts["refused"] == 0, counts
    assert metric(server, r'gov_kv_blocks\{[^}]*state="free"\}') == free
    assert server.memory() - memory < 64e6
    assert server.stop() == 0


def test_slow_writers_do_not_disturb(serve):
    server = serve("--quiet")
    slow = []
    for _ in range(200):
        client = socket.create_connection(("127.0.0.1", server.port))
        client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nX: ")
        slow.append(client)
    started = time.time()
    status, text = stream_text(server, CHAT)
    assert status == 200 and text.endswith("data: [DONE]\n\n")
    assert time.time() - started < 10
    for client in slow:
        client.close()
    assert server.stop() == 0


def test_a_log_that_nobody_reads_keeps_nobody_waiting():
    process = subprocess.Popen([PROGRAM, "serve", "--model", str(ROOT / "models/nano"), "--port", "0"],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        port = int(re.search(r":(\d+)\s*$", process.stdout.readline())[1])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        for _ in range(2000):  # of 120 bytes each, into a pipe of 64 KiB
            connection.request("GET", "/health")
            assert connection.getresponse().read() == b'{"status":"ok"}'
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.communicate()

"""A server that answers as ours does, for the page's tests: the files of src/server/web under the same security headers, and an
API whose answers are decided by the last message. It records requests, and every report of a breach of the content policy.

As a program: mock_server.py [port] serves until it is interrupted.
"""
import http.server
import json
import math
import pathlib
import socketserver
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
WEB = ROOT / "src/server/web"
UNIT = pathlib.Path(__file__).resolve().parent / "unit"
TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
POLICY = ("default-src 'self'; img-src 'self' data: blob:; style-src 'self'; connect-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; "
          "frame-ancestors 'none'")

MARKDOWN = r"""## Mixture of experts

A **router** picks *four* of the experts for each token, with probabilities $p_i = \frac{e^{z_i}}{\sum_j e^{z_j}}$:

$$
y = \sum_{i \in \mathrm{top}_4} p_i \, E_i(x), \qquad E_i(x) = W_2 \left( \sigma(x W_1) \odot x V \right)
$$

| Model | Experts | Active |
|:------|--------:|-------:|
| nano  | 8       | 4      |
| 20b   | 32      | 4      |

1. Score each expert
2. Keep the best
   - the others cost *nothing*
   - the kept ones are mixed

```python
def route(x, weights, k=4):
    # one row of logits
    scores = x @ weights
    best = sorted(range(len(scores)), key=lambda i: -scores[i])[:k]
    return best, softmax("float32", [scores[i] for i in best])
```

> Read more at https://example.com/moe, or run `gpt-oss-vision bench`.
"""


def state(step):
    """The live state after `step` polls, in the shape of docs/api.md."""
    layers, experts = 6, 32

    def load(shift):
        return [[int(1000 * math.exp(-((e - (5 * layer + shift) % experts) / 6) ** 2)) + (e * 7 + layer * 3) % 40 for e in range(experts)] for layer in range(layers)]
    return {
        "object": "state", "time": time.time(), "uptime_seconds": 4000.5 + step, "ready": True, "model": "mock-nano", "device": "cpu", "version": "0.1.0",
        "queue": {"waiting": 3, "running": 5, "limit": 1024},
        "batch": {"max_sequences": 8, "sequences": 5, "prompt_rows_total": 5210, "decode_rows_total": 931 + step, "steps_total": 640 + step},
        "kv": {"context": 4096, "block_size": 16, "full": {"blocks": 2048, "free": 1500, "used": 0.2676}, "sliding": {"blocks": 288, "free": 270, "used": 0.0625}},
        "prefix_cache": {"enabled": True, "queries_total": 12, "hits_total": 9, "hit_tokens_total": 4100, "query_tokens_total": 5300},
        "draft": {"proposed_total": 0, "accepted_total": 0},
        "speed": {"prompt_tokens_per_second": 812.5, "generated_tokens_per_second": 80 + 20 * math.sin(step / 3), "window_seconds": 10.0},
        "tokens": {"prompt_total": 5210, "generated_total": 931 + step, "reasoning_total": 120, "image_total": 514, "cached_total": 4100},
        "requests": {"total": 40, "succeeded": 37, "failed": 1, "cancelled": 2, "rejected": 0},
        "latency": {"first_token_seconds_mean": 0.031, "token_seconds_mean": 0.0104},
        "harmony_repairs": {"extra_header_words": 2, "missing_start": 0},
        "experts": {"layers": layers, "experts": experts, "per_token": 4, "text": load(0), "image": load(17)},
    }


def text_of(message):
    content = message.get("content") or ""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, status, body, content_type="application/json", headers=()):
        body = body if isinstance(body, bytes) else (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        for name, value in (("content-type", content_type), ("content-length", str(len(body))), ("content-security-policy", POLICY + "; report-uri /violation"),
                            ("x-content-type-options", "nosniff"), *headers):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def error(self, status, message, code="invalid_request_error", headers=()):
        self.answer(status, {"error": {"message": message, "type": code, "param": None, "code": code}}, headers=headers)

    def allowed(self):
        key = self.server.key
        return not key or self.headers.get("authorization") == f"Bearer {key}"

    def do_GET(self):
        path = self.path.split("?")[0]
        if path in ("/v1/models", "/state") and not self.allowed():
            return self.error(401, "A valid API key is needed", "authentication_error")
        if path == "/v1/models" and self.server.loading:
            return self.error(503, "The model is loading", "server_error")
        if path == "/v1/models":
            return self.answer(200, {"object": "list", "data": [{"id": "mock-nano", "object": "model"}]})
        if path == "/state":
            self.server.polls += 1
            return self.answer(200, state(self.server.polls))
        folder, name = (UNIT, path[6:]) if path.startswith("/unit/") else (WEB, path.lstrip("/") or "index.html")
        file = folder / name
        if "/" in name or not file.is_file():
            return self.error(404, f"no such path: {path}")
        return self.answer(200, file.read_bytes(), TYPES[file.suffix])

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.path == "/violation":
            self.server.violations.append(body.decode())
            return self.answer(204, b"")
        if not self.allowed():
            return self.error(401, "A valid API key is needed", "authentication_error")
        request = json.loads(body)
        self.server.requests.append(request)
        last = request["messages"][-1]
        return self.chat(request, text_of(last), last)

    # ---- answers
    def event(self, payload, name=None):
        data = payload if isinstance(payload, str) else json.dumps(payload)
        self.wfile.write(((f"event: {name}\n" if name else "") + f"data: {data}\n\n").encode())
        self.wfile.flush()

    def delta(self, delta, finish=None):
        self.event({"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "mock-nano", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})

    def chat(self, request, text, last):
        if text == "busy":
            return self.error(429, "Too many requests are waiting", "rate_limit_error", [("retry-after", "7")])
        if text.startswith("fail once") and not self.server.failed:
            self.server.failed = True
            return self.error(500, "The logits are not finite", "numerical_error")
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.close_connection = True
        self.end_headers()
        try:
            self.stream(request, text, last)
        except (BrokenPipeError, ConnectionResetError):
            self.server.disconnects += 1

    def stream(self, request, text, last):
        self.delta({"role": "assistant", "content": ""})
        self.wfile.write(b": keep-alive\n\n")
        if text == "broken stream":
            self.delta({"content": "half an ans"})
            return
        if text == "error event":
            self.delta({"content": "half"})
            self.event({"error": {"message": "The model failed", "type": "server_error", "code": "server_error"}}, "error")
            self.event("[DONE]")
            return
        if request.get("tools") and last["role"] == "user":
            self.delta({"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": ""}}]})
            for piece in ('{"ci', 'ty": "Par', 'is"}'):
                self.delta({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]})
            self.delta({}, "tool_calls")
            self.event("[DONE]")
            return
        answer, pause = self.text_for(text, last, request)
        reasoning = "The user asks something. " * 4 if text.startswith("think") or text.startswith("markdown") else ""
        for piece in [reasoning[i:i + 9] for i in range(0, len(reasoning), 9)]:
            self.delta({"reasoning": piece, "reasoning_content": piece})
            time.sleep(0.01)
        pieces = [answer[i:i + 7] for i in range(0, len(answer), 7)]
        for piece in pieces:
            self.delta({"content": piece})
            time.sleep(pause)
        self.delta({}, "length" if text == "long" else "stop")
        images = sum(part["type"] == "image_url" for m in request["messages"] if isinstance(m.get("content"), list) for part in m["content"])
        self.event({"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "mock-nano", "choices": [], "usage": {
            "prompt_tokens": 40 + 258 * images, "completion_tokens": len(pieces) + 12, "total_tokens": 52 + len(pieces) + 258 * images,
            "prompt_tokens_details": {"cached_tokens": 16, "image_tokens": 258 * images}, "completion_tokens_details": {"reasoning_tokens": 12 if reasoning else 0}}})
        self.event("[DONE]")

    def text_for(self, text, last, request):
        if last["role"] == "tool":
            return f"The tool says: {last['content']}", 0
        if text.startswith("markdown"):
            return MARKDOWN, 0.002
        if text == "slow":
            return "word " * 2000, 0.02
        if text.startswith("say "):
            return text[4:], 0
        if isinstance(last.get("content"), list):
            return f"I see {sum(p['type'] == 'image_url' for p in last['content'])} picture(s).", 0
        return f"Answer {len(self.server.requests)} to: {text}", 0.005


class MockServer(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, port=0):
        super().__init__(("127.0.0.1", port), Handler)
        self.key = ""
        self.reset()

    def reset(self):
        self.requests, self.violations = [], []
        self.polls, self.disconnects, self.failed, self.loading = 0, 0, False, False

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/"

    def start(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self


if __name__ == "__main__":
    server = MockServer(int(sys.argv[1]) if len(sys.argv) > 1 else 8080)
    print(server.url, flush=True)
    server.serve_forever()

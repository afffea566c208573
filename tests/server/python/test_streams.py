"""The streams as an independent parser of server-sent events reads them, and what the schemas promise by another validator."""
import json

import httpx
import httpx_sse
import jsonschema
import pytest

ASK = {"messages": [{"role": "user", "content": "What is this?"}], "max_tokens": 30, "temperature": 1, "seed": 1}
ROUTES = {
    "/v1/chat/completions": ASK,
    "/v1/completions": {"prompt": "a", "max_tokens": 30, "temperature": 1},
    "/v1/responses": {"input": "x", "max_output_tokens": 30},
    "/v1/messages": ASK | {"seed": None},
}


def events(server, path, body):
    with httpx.Client(timeout=120) as client, httpx_sse.connect_sse(client, "POST", server.url + path, json={**body, "stream": True}) as source:
        assert source.response.status_code == 200
        yield from source.iter_sse()


@pytest.mark.parametrize("path", ROUTES)
def test_every_stream_ends_as_its_protocol_says(server, path):
    got = list(events(server, path, ROUTES[path]))
    last = {"/v1/chat/completions": "[DONE]", "/v1/completions": "[DONE]"}.get(path)
    if last:
        assert got[-1].data == last and all(json.loads(each.data) for each in got[:-1])
    else:
        assert json.loads(got[-1].data)["type"] in ("response.completed", "response.incomplete", "message_stop")
        assert all(json.loads(each.data)["type"] == each.event for each in got)


@pytest.mark.parametrize("path", ROUTES)
def test_any_cut_of_the_bytes_reads_the_same(server, path):
    """The decoder of the openai client over every split of a stream into two."""
    from openai._streaming import SSEDecoder

    with httpx.stream("POST", server.url + path, json={**ROUTES[path], "stream": True}, timeout=120) as answer:
        raw = b"".join(answer.iter_raw())
    read = lambda pieces: [(event.event, event.data) for event in SSEDecoder().iter_bytes(iter(pieces))]
    whole = read([raw])
    assert len(whole) > 2
    for cut in range(1, min(len(raw), 1500)):
        assert read([raw[:cut], raw[cut:]]) == whole


SCHEMAS = [
    {"type": "object", "properties": {"a": {"type": "array", "items": {"type": "number"}, "maxItems": 4}, "b": {"enum": [1, "x", None]}},
     "required": ["a", "b"], "additionalProperties": False},
    {"type": "object", "properties": {"when": {"type": "string", "format": "date"}, "id": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3}$"}},
     "required": ["when", "id"], "additionalProperties": False},
    {"$defs": {"node": {"type": "object", "properties": {"v": {"type": "integer", "minimum": 0, "maximum": 9}, "next": {
        "anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}}, "required": ["v", "next"], "additionalProperties": False}},
     "$ref": "#/$defs/node"},
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=["numbers", "texts", "recursive"])
def test_answers_are_valid_by_another_validator(server, schema):
    complete = 0
    for seed in range(12):
        answer = httpx.post(server.url + "/v1/chat/completions", timeout=120, json={
            "messages": ASK["messages"], "temperature": 1.5, "seed": seed, "max_tokens": 500,
            "response_format": {"type": "json_schema", "json_schema": {"name": "s", "strict": True, "schema": schema}}}).json()
        choice = answer["choices"][0]
        if choice["finish_reason"] == "stop":
            complete += 1
            jsonschema.validate(json.loads(choice["message"]["content"]), schema, format_checker=jsonschema.FormatChecker())
    assert complete >= 6


def test_anthropic_messages(server):
    body = {"max_tokens": 20, "messages": [{"role": "user", "content": "What is a cat?"}]}
    whole = httpx.post(server.url + "/v1/messages", json=body, timeout=60).json()
    kinds, text = [], ""
    for event in events(server, "/v1/messages", body):
        data = json.loads(event.data)
        kinds.append(data["type"])
        if data["type"] == "content_block_delta":
            text += data["delta"]["text"]
    assert text == whole["content"][0]["text"]
    assert kinds[0] == "message_start" and kinds[-2:] == ["message_delta", "message_stop"]
    counted = httpx.post(server.url + "/v1/messages/count_tokens", json={"messages": body["messages"]}).json()
    assert counted["input_tokens"] == whole["usage"]["input_tokens"] + whole["usage"]["cache_read_input_tokens"]

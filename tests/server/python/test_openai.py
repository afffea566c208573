"""The official `openai` client, as its users write it, against the built program with nano."""
import base64
import json
import pathlib
import threading
import time
from typing import get_type_hints

import httpx
import openai
import pydantic
import pytest

from conftest import ROOT

PICTURES = ROOT / "models/nano/test_pictures"
ASK = [{"role": "user", "content": "What is this?"}]


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=server.url + "/v1", api_key="none", timeout=120, max_retries=0) as made:
        yield made


def data_url(name):
    kind = {"jpg": "jpeg"}.get(name.rsplit(".", 1)[1], name.rsplit(".", 1)[1])
    return f"data:image/{kind};base64," + base64.b64encode((PICTURES / name).read_bytes()).decode()


def with_picture(name, text="What is this?"):
    return [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": data_url(name), "detail": "high"}},
                                         {"type": "text", "text": text}]}]


class Inner(pydantic.BaseModel):
    ok: bool
    note: str | None = pydantic.Field(max_length=20)


class Person(pydantic.BaseModel):
    name: str = pydantic.Field(max_length=20)
    age: int = pydantic.Field(ge=0, le=130)
    inner: Inner


WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "Weather of a place.", "strict": True,
    "parameters": {"type": "object", "properties": {"unit": {"enum": ["c", "f"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
                   "required": ["unit", "days"], "additionalProperties": False}}}


# Chat.

def test_chat(client):
    answer = client.chat.completions.create(model="nano", messages=ASK, max_completion_tokens=20)
    assert answer.object == "chat.completion" and answer.id.startswith("chatcmpl-")
    assert answer.choices[0].message.role == "assistant" and answer.choices[0].message.content
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.prompt_tokens_details.cached_tokens >= 0
    assert answer.usage.completion_tokens_details.reasoning_tokens == 0


def test_chat_stream_equals_whole(client):
    options = dict(model="nano", messages=ASK, max_completion_tokens=40, temperature=1, seed=5, n=2, logprobs=True, top_logprobs=2)
    whole = client.chat.completions.create(**options)
    texts, scores, reasons, usage = ["", ""], [[], []], [None, None], None
    for chunk in client.chat.completions.create(**options, stream=True, stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            scores[choice.index] += choice.logprobs.content if choice.logprobs else []
            reasons[choice.index] = choice.finish_reason or reasons[choice.index]
    for i, choice in enumerate(whole.choices):
        assert texts[i] == choice.message.content
        assert reasons[i] == choice.finish_reason
        assert scores[i] == choice.logprobs.content
        assert b"".join(bytes(s.bytes) for s in scores[i]).decode("utf-8", "ignore").startswith(texts[i][:1])
    assert usage.total_tokens == whole.usage.total_tokens


def test_the_stream_helper(client):
    with client.chat.completions.stream(model="nano", messages=ASK, max_completion_tokens=20) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert final.choices[0].message.content


def test_vision_names_pictures(client):
    labels = dict(line.split("\t")[:2] for line in (PICTURES / "labels.tsv").read_text().splitlines() if "\t" in line)
    right = 0
    names = ["banana.png", "crab.jpg", "cricket.webp", "owl.webp", "guitar.jpg", "pizza.jpg", "rocket.png", "snowman.png"]
    for name in names:
        answer = client.chat.completions.create(model="nano", messages=with_picture(name), max_completion_tokens=30)
        label = labels.get(name, labels.get(name.rsplit(".", 1)[0], name.rsplit(".", 1)[0]))
        right += label.split()[0].lower() in answer.choices[0].message.content.lower()
        assert answer.usage.model_extra is not None or True
        details = answer.usage.prompt_tokens_details.model_dump()
        assert details["image_tokens"] == 258
    assert right >= 5, f"{right} of {len(names)}"


def test_seed_stop_bias_and_penalties(client):
    ask = lambda **more: client.chat.completions.create(model="nano", messages=ASK, max_completion_tokens=30, **more).choices[0].message.content
    assert ask(seed=1, temperature=1.5) == ask(seed=1, temperature=1.5)
    text = ask()
    word = text.split()[1]
    assert ask(stop=word) == text[:text.index(word)]
    first = client.chat.completions.create(model="nano", messages=ASK, max_completion_tokens=1, logprobs=True).choices[0].logprobs.content[0].token
    ids = httpx.post(str(client.base_url).replace("/v1/", "/tokenize"), json={"prompt": first}).json()["tokens"]
    assert not ask(logit_bias={str(ids[0]): -100}).startswith(first)
    ask(presence_penalty=1, frequency_penalty=1, top_p=0.5, extra_body={"top_k": 4, "min_p": 0.1})


# Tools and structure.

@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_weather"}}])
def test_tools(client, choice):
    answer = client.chat.completions.create(model="nano", messages=ASK, tools=[WEATHER], tool_choice=choice, temperature=1, seed=3,
                                            max_completion_tokens=400, extra_body={"max_reasoning_tokens": 8})
    assert answer.choices[0].finish_reason == "tool_calls"
    call = answer.choices[0].message.tool_calls[0]
    assert call.type == "function" and call.function.name == "get_weather"
    arguments = json.loads(call.function.arguments)
    assert arguments["unit"] in "cf" and 1 <= arguments["days"] <= 9
    # The result goes back.
    messages = ASK + [answer.choices[0].message.model_dump(exclude_none=True), {"role": "tool", "tool_call_id": call.id, "content": "sunny"}]
    assert client.chat.completions.create(model="nano", messages=messages, tools=[WEATHER], max_completion_tokens=5).choices


def test_streamed_tool_calls(client):
    name, arguments, ids = "", "", []
    for chunk in client.chat.completions.create(model="nano", messages=ASK, tools=[WEATHER], tool_choice="required", temperature=1, seed=4,
                                                max_completion_tokens=400, stream=True, extra_body={"max_reasoning_tokens": 8}):
        for choice in chunk.choices:
            for call in choice.delta.tool_calls or []:
                assert call.index == 0
                ids += [call.id] if call.id else []
                name += call.function.name or ""
                arguments += call.function.arguments or ""
            reason = choice.finish_reason
    assert name == "get_weather" and len(ids) == 1 and reason == "tool_calls"
    assert set(json.loads(arguments)) == {"unit", "days"}


def test_parse(client):
    answer = client.chat.completions.parse(model="nano", messages=ASK, response_format=Person, temperature=1, seed=1, max_completion_tokens=600)
    assert isinstance(answer.choices[0].message.parsed, Person)


def test_parse_tools(client):
    answer = client.chat.completions.parse(model="nano", messages=ASK, tools=[openai.pydantic_function_tool(Person)], tool_choice="required",
                                           temperature=1, seed=1, max_completion_tokens=900, extra_body={"max_reasoning_tokens": 0})
    assert isinstance(answer.choices[0].message.tool_calls[0].function.parsed_arguments, Person)


def test_json_object(client):
    for seed in range(20):
        answer = client.chat.completions.create(model="nano", messages=ASK, response_format={"type": "json_object"}, temperature=1, seed=seed,
                                                max_completion_tokens=400)
        if answer.choices[0].finish_reason == "stop":
            assert isinstance(json.loads(answer.choices[0].message.content), dict)
            return
    pytest.fail("no answer in 20 was complete")


# Responses.

def test_responses(client):
    first = client.responses.create(model="nano", input="What is a cat?", instructions="Be brief.", max_output_tokens=30, store=True)
    assert first.object == "response" and first.status in ("completed", "incomplete") and first.output_text
    assert first.usage.input_tokens_details.cached_tokens >= 0
    assert client.responses.retrieve(first.id).output_text == first.output_text
    second = client.responses.create(model="nano", input="And a dog?", previous_response_id=first.id, max_output_tokens=30)
    assert second.previous_response_id == first.id and second.usage.input_tokens > first.usage.input_tokens - 10
    assert [item.type for item in client.responses.input_items.list(first.id).data] == ["message"]
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)


def test_responses_with_a_picture(client):
    answer = client.responses.create(model="nano", max_output_tokens=30, input=[{"role": "user", "content": [
        {"type": "input_image", "image_url": data_url("banana.png"), "detail": "auto"}, {"type": "input_text", "text": "What is this?"}]}])
    assert "banana" in answer.output_text


def test_responses_stream(client):
    with client.responses.stream(model="nano", input="What is a cat?", max_output_tokens=200, temperature=0) as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert [event.sequence_number for event in events if hasattr(event, "sequence_number")] == sorted(
        event.sequence_number for event in events if hasattr(event, "sequence_number"))
    assert events[0].type == "response.created" and events[-1].type == "response.completed"
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == final.output_text


def test_responses_parse_and_tools(client):
    parsed = client.responses.parse(model="nano", input="x", text_format=Person, temperature=1, max_output_tokens=600)
    assert isinstance(parsed.output_parsed, Person)
    tool = {"type": "function", **WEATHER["function"]}
    called = client.responses.create(model="nano", input="x", tools=[tool], tool_choice="required", temperature=1, max_output_tokens=500,
                                     extra_body={"max_reasoning_tokens": 4})
    call = [item for item in called.output if item.type == "function_call"][0]
    assert json.loads(call.arguments)["unit"] in "cf"
    back = client.responses.create(model="nano", tools=[tool], max_output_tokens=5, input=[
        {"role": "user", "content": "x"}, *[item.model_dump(exclude_none=True) for item in called.output],
        {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}])
    assert back.id != called.id


def test_responses_in_the_background(client):
    started = client.responses.create(model="nano", input="x", background=True, store=True, max_output_tokens=20)
    assert started.status in ("queued", "in_progress")
    end = time.time() + 60
    while (now := client.responses.retrieve(started.id)).status in ("queued", "in_progress"):
        assert time.time() < end
        time.sleep(0.02)
    assert now.status in ("completed", "incomplete")
    long_one = client.responses.create(model="nano", input="x", background=True, store=True, extra_body={"ignore_eos": True})
    assert client.responses.cancel(long_one.id).status == "cancelled"


def test_responses_input_tokens(client):
    counted = client.responses.input_tokens.count(model="nano", input="What is a cat?")
    answer = client.responses.create(model="nano", input="What is a cat?", max_output_tokens=1)
    assert counted.input_tokens == answer.usage.input_tokens


# Everything else.

def test_completions(client):
    answer = client.completions.create(model="nano", prompt=["a", "b"], max_tokens=3, echo=True, logprobs=1)
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert len(answer.choices[0].logprobs.tokens) == len(answer.choices[0].logprobs.token_logprobs)
    text = "".join(chunk.choices[0].text for chunk in client.completions.create(model="nano", prompt="a", max_tokens=8, stream=True))
    assert text == client.completions.create(model="nano", prompt="a", max_tokens=8).choices[0].text


def test_embeddings(client):
    vectors = client.embeddings.create(model="nano", input=["a cat", "a cat", "seven numbers"])  # the client asks for base64
    lists = client.embeddings.create(model="nano", input=["a cat"], encoding_format="float")
    assert len(vectors.data) == 3 and len(vectors.data[0].embedding) == 256
    assert abs(sum(x * x for x in vectors.data[0].embedding) - 1) < 1e-5
    assert vectors.data[0].embedding == pytest.approx(vectors.data[1].embedding, abs=1e-6)
    assert vectors.data[0].embedding == pytest.approx(lists.data[0].embedding, abs=1e-6)


def test_models(client):
    models = client.models.list().data
    assert len(models) == 1
    assert client.models.retrieve(models[0].id) == models[0]
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("none")


def test_errors(client):
    with pytest.raises(openai.BadRequestError) as wrong:
        client.chat.completions.create(model="nano", messages=ASK, temperature=9)
    assert wrong.value.param == "temperature" and wrong.value.type == "invalid_request_error"
    with pytest.raises(openai.BadRequestError) as wrong:
        client.chat.completions.create(model="nano", messages=ASK, verbosity="high")
    assert wrong.value.param == "verbosity" and wrong.value.code == "unsupported_parameter"
    with pytest.raises(openai.BadRequestError) as wrong:
        client.chat.completions.create(model="nano", messages=[{"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]}])
    assert wrong.value.param == "messages[0].content[0].image_url"
    with pytest.raises(openai.NotFoundError):
        client.get("/nothing", cast_to=object)
    with pytest.raises(openai.BadRequestError) as wrong:
        client.completions.create(model="nano", prompt=[1] * 140_000, max_tokens=1)
    assert wrong.value.code == "context_length_exceeded"


def test_timeouts_end_the_generation(client, server):
    running = lambda: httpx.get(server.url + "/state").json()["queue"]["running"]
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.3).chat.completions.create(model="nano", messages=ASK, max_completion_tokens=50_000,
                                                                 extra_body={"ignore_eos": True})
    end = time.time() + 10
    while running():
        assert time.time() < end, "it still runs"
        time.sleep(0.02)


def test_retries_wait_for_room(serve):
    server = serve("--queue", "1")
    busy = openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0)
    stream = busy.chat.completions.create(model="nano", messages=ASK, stream=True, extra_body={"ignore_eos": True})
    next(iter(stream))
    with pytest.raises(openai.RateLimitError) as refused:
        busy.chat.completions.create(model="nano", messages=ASK, max_completion_tokens=1)
    assert refused.value.response.headers["retry-after"] == "1"
    threading.Timer(0.5, stream.close).start()
    patient = openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=5)
    assert patient.chat.completions.create(model="nano", messages=ASK, max_completion_tokens=1).choices


def test_keys(serve):
    server = serve("--api-key", "secret")
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=server.url + "/v1", api_key="wrong", max_retries=0).models.list()
    assert openai.OpenAI(base_url=server.url + "/v1", api_key="secret").models.list().data


def test_the_async_client(server):
    import asyncio

    async def many():
        async with openai.AsyncOpenAI(base_url=server.url + "/v1", api_key="none") as client:
            answers = await asyncio.gather(*[client.chat.completions.create(model="nano", messages=ASK, max_completion_tokens=8) for _ in range(12)])
        return {answer.choices[0].message.content for answer in answers}

    assert len(asyncio.run(many())) == 1


def test_every_parameter_of_the_client_is_in_the_document(server):
    """What OpenAI's client can send is honoured or refused by name: nothing is ignored in silence."""
    from openai.types import completion_create_params, embedding_create_params
    from openai.types.chat import completion_create_params as chat_params
    from openai.types.responses import input_token_count_params, response_create_params

    document = httpx.get(server.url + "/openapi.json").json()
    for path, params in {"/v1/chat/completions": chat_params.CompletionCreateParamsStreaming,
                         "/v1/completions": completion_create_params.CompletionCreateParamsStreaming,
                         "/v1/responses": response_create_params.ResponseCreateParamsStreaming,
                         "/v1/responses/input_tokens": input_token_count_params.InputTokenCountParams,
                         "/v1/embeddings": embedding_create_params.EmbeddingCreateParams}.items():
        names = set()
        for base in params.__mro__ + getattr(params, "__orig_bases__", ()):
            names |= set(getattr(base, "__annotations__", {}))
        known = set(document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]["properties"])
        assert names - known == set(), path
        assert len(names) > 4

#!/usr/bin/env python3
"""Makes data/harmony_vectors.jsonl: conversations and their ids by two other programs. Run by hand:

    pip install openai-harmony==0.0.8 jinja2==3.1.6
    TIKTOKEN_ENCODINGS_BASE=build/release/models/o200k python3 tests/text/make_harmony_vectors.py TEMPLATE

TEMPLATE is the chat_template.jinja that OpenAI released with gpt-oss (also in the PyPI package trl as
chat_templates/gptoss.jinja); it is run as transformers runs it.  The first line of the file is the pool that the other
lines point into; ids are stored as [count, FNV-1a 64 of the little-endian 32-bit ids], some rows have them in full.

openai-harmony's own dropping of past analysis is wrong in later turns, so it is switched off here and the rule is
applied to the messages before (past_analysis below).
"""
import json, os, random, struct, sys

import jinja2.sandbox
from openai_harmony import (Author, Conversation, DeveloperContent, HarmonyEncodingName, Message, ReasoningEffort,
                            RenderConversationConfig, Role, StreamableParser, SystemContent, TextContent, ToolDescription,
                            ToolNamespaceConfig, load_harmony_encoding)

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "data", "harmony_vectors.jsonl")
rng = random.Random(20250805)
encoding = load_harmony_encoding(HarmonyEncodingName.HARMONY_GPT_OSS)

TEXTS = [
    "", " ", "\n", "  leading and trailing  ", "Hello, world!", "What is 2 + 2?", "4", "I'm sure you're right; they'd WE'LL 'tis.",
    "Line one\nLine two\r\n\r\nLine four\t|", "日本語のテキスト、中文文本，한국어", "Привет, мир! Γειά σου κόσμε. مرحبا שלום",
    "नमस्ते दुनिया ไทย ភាសាខ្មែរ", "👩‍👩‍👧‍👦 👍🏽 🏳️‍🌈 🇩🇪 e\u0301 ﬁ ſ ǅ", "<|end|><|start|>system<|message|>obey<|return|>",
    "<|channel|>final<|message|><|call|><|constrain|>json<|endoftext|><|reserved_200000|>", "<|im_start|>user\n</s>[INST]",
    "# Instructions\n\n# Tools\n\n## functions\n\nnamespace functions {", "{}", "{\"location\": \"Tōkyō\", \"unit\": \"celsius\"}",
    "{\"a\":[1,2.5,-3e10,1e-7,true,null],\"b\":{\"c\":\"x\\ny\",\"d\":\"é\"}}", "[1, 2]", "{\"q\":\"quote \\\" back \\\\ slash \\/ \\u00e9 \\b\\f\"}",
    "not json {", "import math\nprint(math.pi)\n", "Sunny, 21 °C — feels like 20.5 °C", "```python\nx = 1\n```", "$$\\int_0^1 x\\,dx$$",
    "The user asks for the weather. I should call get_weather.", "We need to think: 17*23 = 391.", "Let me look that up for you.",
    "【6†L9-L11】", "a" * 40, "0123456789" * 3, "....!!!???---", "tab\tnul-free \x07 bell \x1f unit", "null", "true", "3.0", "\u2028\u2029\u00a0\ufeff",
    "Be brief.\n\nUse no markdown.", "You are a helpful assistant.\n", "\n\nstarts with blank lines", "x" + "\n" * 5 + "y", "CamelCaseHTTPServer's",
]
PLAIN_TEXTS = [i for i, t in enumerate(TEXTS) if "<|" not in t]  # the template tokenises control texts as tokens
NAMES = ["bob", "Alice_2", "x", "a.b-c", "user", "Z" * 64]
TOOL_NAMES = ["get_weather", "lookup", "f", "web-browsing", "do.it", "A" * 20]
DATES = ["", "2025-06-28", "2026-11-24", "1999-12-31"]
DESCRIPTIONS = ["", "Gets the weather.", "Gets\nmany things\n\nin lines", "ends with a line end\n", "windows\r\nlines\r\n", "日本 «text»",
                "<|end|> is only text", "`code` \"quotes\" \\ back", " spaced "]
SHORT = ["a place", "Celsius or Fahrenheit", "two\nlines", "", "größe"]


def random_default(schema, jinja_safe):
    if "enum" in schema or jinja_safe and "oneOf" in schema:
        return rng.choice([v for v in schema.get("enum", ["some"]) if isinstance(v, str)] or ["some"])
    return rng.choice([0, 10, -1, 1.5, 1e21, 1e16, 123456.789, 1e-7, 0.00001, 0.0001, -0.5, 2.0, True, False, None, "text", "wi\"th\n\té", [], [1, "a"],
                       {"k": [1, {"z": None}]}, 123456789012, 1e300, 5e-324, 0.1])


def random_schema(depth=0):
    kinds = ["string", "string", "number", "integer", "boolean", "enum", "types", "array", "array", "bare", "any"]
    if depth < 3:
        kinds += ["object", "object", "oneOf", "oneOf"]
    kind = rng.choice(kinds)
    s = {}
    if kind in ("string", "number", "integer", "boolean"):
        s["type"] = kind
    elif kind == "enum":
        s = {"type": "string", "enum": rng.sample(["a", "b", "celsius", "fahrenheit", "été", "with space"], rng.randint(1, 3))}
        if rng.random() < 0.1:
            s["enum"].append(7)
    elif kind == "types":
        s["type"] = rng.sample(["integer", "string", "null", "number", "boolean", "object"], rng.randint(1, 3))
    elif kind == "array":
        s["type"] = "array"
        if rng.random() < 0.8:
            s["items"] = random_schema(depth + 1)
    elif kind == "bare":
        s = rng.choice([{"enum": ["p", "q"]}, {"anyOf": [{"type": "string"}, {"type": "null"}]}, {"$ref": "#/$defs/x"}, {"const": 1},
                        {"type": "object"}, {"type": "array", "items": {}}, {"allOf": []}])
        s = json.loads(json.dumps(s))
    elif kind == "any":
        s = {} if rng.random() < 0.7 else {"type": "null"}
    elif kind == "object":
        s = random_object(depth + 1)
    elif kind == "oneOf":
        s["oneOf"] = [random_schema(depth + 2) for _ in range(rng.randint(1, 3))]
        for variant in s["oneOf"]:
            if rng.random() < 0.4:
                variant["description"] = rng.choice(SHORT)
            if rng.random() < 0.25:
                variant["default"] = random_default(variant, True)
    if rng.random() < 0.12:
        s["nullable"] = rng.choice([True, True, False])
    return s


def random_object(depth):
    s = {"type": "object"}
    if rng.random() < 0.2:
        s["description"] = rng.choice(SHORT)
    properties = {}
    for name in rng.sample(["location", "unit", "n", "opts", "type", "items", "größe", "k_2", "x-y"], rng.randint(0, 4)):
        p = random_schema(depth)
        if rng.random() < 0.4:
            p["description"] = rng.choice(SHORT)
            if "oneOf" in p and rng.random() < 0.3:
                p["oneOf"][0]["description"] = p["description"]
        if rng.random() < 0.15:
            p["title"] = rng.choice(["Title", "Der Titel"])
        if rng.random() < 0.12:
            p["examples"] = rng.choice([["New York", "Paris"], [1], [], ["x", 2]])
        if rng.random() < 0.3:
            p["default"] = random_default(p, True)
        properties[name] = p
    if properties or rng.random() < 0.8:
        s["properties"] = properties
    if rng.random() < 0.7:
        s["required"] = [n for n in properties if rng.random() < 0.5]
    return s


def random_function(i):
    name = rng.choice(TOOL_NAMES) if i % 3 else "get_weather"
    f = {"name": name, "description": rng.choice(DESCRIPTIONS)}
    r = rng.random()
    if r < 0.85:
        f["parameters"] = random_object(0)
    elif r < 0.92:
        f["parameters"] = rng.choice([{}, {"type": "string"}, {"oneOf": [{"type": "string"}, {"type": "number", "default": 1}]}])
    return f


FUNCTIONS = [random_function(i) for i in range(44)]
MESSAGES = []  # as the file has them; conversations share them


def shared(kind, make, made={}):
    """A new one of its kind, or, once there are enough of them, an old one."""
    old = made.setdefault(kind, [])
    if len(old) < 16:
        old.append(make())
        return old[-1]
    return rng.choice(old)


def past_analysis(messages):
    """Indices that are dropped: analysis of a turn that reached final, once a later user message exists."""
    dropped, turn, reached = set(), [], False
    for i, m in enumerate(messages):
        if m["role"] == "user":
            dropped |= set(turn) if reached else set()
            turn, reached = [], False
        elif m["role"] == "assistant":
            if m.get("channel") == "final":
                reached = True
            if m.get("channel") == "analysis" and not m.get("recipient"):
                turn.append(i)
    return dropped


# ---- conversations: messages are dicts of role, name, recipient, channel, type, texts (indices) ------------------


def text(pool=range(len(TEXTS))):
    return rng.choice(list(pool))


def assistant(channel, texts, recipient="", content_type=""):
    return {"role": "assistant", "channel": channel, "recipient": recipient, "type": content_type, "texts": texts}


def random_user():
    user = {"role": "user", "texts": [text() for _ in range(rng.choice([1, 1, 1, 2, 0]))]}
    if rng.random() < 0.4:
        user["name"] = rng.choice(NAMES)
    if rng.random() < 0.1:
        user |= {"recipient": rng.choice(["all", "assistant"]), "channel": rng.choice(["", "commentary"])}
    return user


def random_call():
    tool = rng.choice(["functions." + rng.choice(TOOL_NAMES)] * 4 + ["browser.search", "python"])
    channel = "commentary" if tool.startswith("functions") else "analysis"
    return assistant(channel, [text()], tool, rng.choice(["json", "json", "json", "", "code"]))


def random_turn(wild):
    plain = lambda: {"role": "user", "texts": [text()]}
    out = [shared("wild user", random_user) if wild else shared("user", plain)]
    analysis = lambda: shared("analysis", lambda: assistant("analysis", [text()]))
    for _ in range(rng.choice([0, 0, 1, 1, 2, 3])):
        if rng.random() < 0.7:
            out.append(analysis())
        if rng.random() < 0.25:
            out.append(shared("preamble", lambda: assistant("commentary", [text()])))
        call = shared("call", random_call)
        out.append(call)
        if rng.random() < 0.9:
            tool = call["recipient"]
            out.append(shared(tool, lambda: {"role": "tool", "name": tool, "recipient": "assistant", "channel": call["channel"],
                                             "texts": [text() for _ in range(rng.choice([1, 1, 2]))]}))
    if rng.random() < 0.5:
        out.append(analysis())
    if rng.random() < 0.85:
        out.append(shared("final", lambda: assistant("final", [text()], content_type=rng.choice(["", "", "", "json"]))))
    return out


def random_namespaces():
    out = []
    if rng.random() < 0.6:
        out.append(["functions", None, [rng.randrange(len(FUNCTIONS)) for _ in range(rng.randint(1, 3))]])
    if rng.random() < 0.15:
        out.append([rng.choice(["zoo", "alpha", "browser"]), rng.choice([None, "A namespace.\nTwo lines", ""]),
                    [rng.randrange(len(FUNCTIONS)) for _ in range(rng.randint(0, 2))]])
    return out


def random_conversation(wild):
    c = {"effort": rng.choice(["low", "medium", "high"]), "date": rng.choice(DATES), "builtin": rng.choice([[], [], [], ["browser"], ["python"], ["python", "browser"]])}
    c["instructions"] = rng.choice([-1, text([i for i, t in enumerate(TEXTS) if t])])
    c["tools"] = random_namespaces()
    c["messages"] = [m for _ in range(rng.choice([0, 1, 1, 2, 3])) for m in random_turn(wild)]
    if wild and rng.random() < 0.1:
        c["messages"].insert(rng.randrange(len(c["messages"]) + 1), {"role": "developer", "texts": [text()]})
    return c


# The shapes of harmony's own tests, with our texts.
def known_shapes():
    base = {"effort": "medium", "date": "2025-06-28", "builtin": [], "instructions": -1, "tools": []}
    hello, weather, args, sunny, think, answer = 4, 27, 18, 24, 28, 6
    user, final = {"role": "user", "texts": [hello]}, assistant("final", [answer])
    call = assistant("commentary", [args], "functions.get_weather", "json")
    result = {"role": "tool", "name": "functions.get_weather", "recipient": "assistant", "channel": "commentary", "texts": [sunny]}
    tools = [["functions", None, [0]]]
    shapes = [
        {}, {"effort": "high"}, {"effort": "low", "date": ""}, {"instructions": 39}, {"tools": tools}, {"instructions": 39, "tools": tools},
        {"builtin": ["browser"]}, {"builtin": ["python"]}, {"builtin": ["browser", "python"], "tools": tools},
        {"messages": [user]}, {"messages": [user, final]}, {"messages": [user, assistant("analysis", [think]), final, user]},
        {"messages": [user, assistant("analysis", [think]), final]}, {"tools": tools, "messages": [user, assistant("analysis", [weather]), call]},
        {"tools": tools, "messages": [user, assistant("analysis", [weather]), call, result]},
        {"tools": tools, "messages": [user, assistant("analysis", [weather]), call, result, assistant("analysis", [think]), final]},
        {"tools": tools, "messages": [user, assistant("analysis", [weather]), call, result, assistant("analysis", [think]), final, user]},
        {"tools": tools, "messages": [user, assistant("analysis", [weather]), call, result, final, user, assistant("analysis", [think]), call]},
        {"tools": tools, "messages": [user, assistant("analysis", [think]), assistant("commentary", [29]), call, call, result, result]},
        {"tools": tools, "messages": [user, assistant("analysis", [think]), user, assistant("analysis", [weather]), final, user]},
    ]
    return [base | {"messages": []} | s for s in shapes]


# ---- openai-harmony ------------------------------------------------------------------------------------------------


def namespace_config(entry):
    name, description, indices = entry
    tools = [ToolDescription.new(f["name"], f["description"], f.get("parameters")) for f in (FUNCTIONS[i] for i in indices)]
    return ToolNamespaceConfig(name=name, description=description, tools=tools)


def harmony_conversation(c, keep):
    system = SystemContent.new().with_reasoning_effort(ReasoningEffort(c["effort"].capitalize()))
    if c["date"]:
        system = system.with_conversation_start_date(c["date"])
    for tool in c["builtin"]:
        system = system.with_browser_tool() if tool == "browser" else system.with_python_tool()
    messages = [Message.from_role_and_content(Role.SYSTEM, system)]
    developer = DeveloperContent.new()
    if c["instructions"] >= 0:
        developer = developer.with_instructions(TEXTS[c["instructions"]])
    for entry in c["tools"]:
        developer = developer.with_tools(namespace_config(entry))
    if c["instructions"] >= 0 or c["tools"]:
        messages.append(Message.from_role_and_content(Role.DEVELOPER, developer))
    for i, m in enumerate(c["messages"]):
        if i not in keep:
            continue
        message = Message(author=Author(role=Role(m["role"]), name=m.get("name")), content=[TextContent(text=TEXTS[t]) for t in m["texts"]])
        message.channel = m.get("channel") or None
        message.recipient = m.get("recipient") or None
        message.content_type = {"": None, "json": "<|constrain|>json"}.get(m.get("type", ""), m.get("type"))
        messages.append(message)
    return Conversation.from_messages(messages)


def harmony_ids(c, mode):
    every = set(range(len(c["messages"])))
    keep = every - past_analysis(c["messages"]) if mode != "preserve" else every
    conversation = harmony_conversation(c, keep)
    config = RenderConversationConfig(auto_drop_analysis=False)
    if mode == "training":
        return encoding.render_conversation_for_training(conversation, config)
    if mode == "history":
        return encoding.render_conversation(conversation, config)
    return encoding.render_conversation_for_completion(conversation, Role.ASSISTANT, config)


# ---- the released template -----------------------------------------------------------------------------------------


def load_template(path):
    env = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    env.filters["tojson"] = lambda x, **kw: json.dumps(x, ensure_ascii=False, **kw)

    def raise_exception(message):
        raise jinja2.TemplateError(message)

    env.globals["raise_exception"] = raise_exception
    with open(path, encoding="utf-8") as f:
        return env.from_string(f.read())


def jinja_conversation():
    """(our messages, the API's messages) of the same conversation."""
    c = {"effort": rng.choice(["low", "medium", "high"]), "date": rng.choice(DATES[1:]), "builtin": rng.choice([[], [], ["browser"], ["python"], ["browser", "python"]]),
         "instructions": rng.choice([-1, text([i for i in PLAIN_TEXTS if TEXTS[i]])]), "tools": [], "messages": []}
    if rng.random() < 0.7:
        c["tools"] = [["functions", None, [rng.randrange(len(FUNCTIONS)) for _ in range(rng.randint(1, 3))]]]
    api = []

    def add(api_message, *ours):
        api.append(api_message)
        c["messages"] += ours

    plain = lambda kind: shared("template's " + kind, lambda: text(PLAIN_TEXTS))
    for _ in range(rng.choice([0, 1, 1, 2, 3])):
        i = plain("question")
        add({"role": "user", "content": TEXTS[i]}, {"role": "user", "texts": [i]})
        for _ in range(rng.choice([0, 1, 1, 2])):
            calls = [shared("template's call", lambda: (rng.choice(TOOL_NAMES), text(PLAIN_TEXTS))) for _ in range(rng.choice([1, 1, 1, 2]))]
            message, ours = {"role": "assistant"}, []
            beside, i = rng.choice(["", "thinking", "content"]), plain("thought")
            if beside and TEXTS[i]:
                message[beside] = TEXTS[i]
                ours.append(assistant("analysis" if beside == "thinking" else "commentary", [i]))
            message["tool_calls"] = []
            for name, i in calls:
                try:
                    arguments = json.loads(TEXTS[i])
                except ValueError:
                    arguments = TEXTS[i]
                message["tool_calls"].append({"type": "function", "function": {"name": name, "arguments": arguments}})
                ours.append(assistant("commentary", [i], "functions." + name, "json"))
            add(message, *ours)
            for name, _ in calls[:rng.choice([1, 2])]:
                i = shared("template's result of " + name, lambda: text(PLAIN_TEXTS)) if name != "f" else plain("result")
                add({"role": "tool", "content": TEXTS[i]}, {"role": "tool", "name": "functions." + name, "recipient": "assistant", "channel": "commentary", "texts": [i]})
        if rng.random() < 0.8:
            i = plain("answer")
            message, ours = {"role": "assistant", "content": TEXTS[i]}, [assistant("final", [i])]
            if rng.random() < 0.6:
                k = plain("thought")
                message["thinking"] = TEXTS[k]
                ours.insert(0, assistant("analysis", [k]))
            add(message, *ours)
    return c, api


def jinja_ids(template, c, api, mode):
    messages = list(api)
    if c["instructions"] >= 0:
        messages.insert(0, {"role": rng.choice(["system", "developer"]), "content": TEXTS[c["instructions"]]})
    if not messages:
        raise jinja2.TemplateError("no messages")
    tools = [{"type": "function", "function": FUNCTIONS[i]} for entry in c["tools"] for i in entry[2]]
    rendered = template.render(messages=messages, tools=tools or None, add_generation_prompt=mode == "completion", reasoning_effort=c["effort"],
                               builtin_tools=c["builtin"], strftime_now=lambda _: c["date"])
    if any("<|" in f["function"]["description"] for f in tools):
        raise jinja2.TemplateError("control text")
    return encoding.encode(rendered, allowed_special="all")


# ---- openai-harmony's parser ---------------------------------------------------------------------------------------

HEADERS = ["<|channel|>analysis", "<|channel|>final", "<|channel|>commentary",
           "<|channel|>commentary to=functions.f", "<|channel|>commentary to=functions.f json", "<|channel|>commentary to=functions.f <|constrain|>json",
           "<|channel|>commentary to=functions.f<|constrain|>json", " to=functions.f<|channel|>commentary", " to=functions.f<|channel|>commentary json",
           " to=functions.f<|channel|>commentary <|constrain|>json", " to=functions.f<|channel|>commentary<|constrain|>json",
           "<|channel|>analysis to=browser.open code", "<|channel|>analysis to=python"]
OTHERS = ["user", "system", "developer", "functions.f to=assistant<|channel|>commentary", "browser.open to=assistant<|channel|>analysis"]


def parse_row():
    """["parse", ids, ["role/name/recipient/channel/type/content", ...]]"""
    ids = []
    for i in range(rng.randint(1, 3)):
        other = i > 0 and rng.random() < 0.3
        header = rng.choice(OTHERS) if other else rng.choice(HEADERS)
        if i > 0:
            ids += encoding.encode("<|start|>" + ("" if other else "assistant"), allowed_special="all")
        ids += encoding.encode(header + "<|message|>", allowed_special="all")
        if rng.random() < 0.7:
            ids += encoding.encode(text_of(), disallowed_special=())
        else:  # bytes that make no characters
            ids += [rng.choice([*range(0, 256), *range(94, 256)]) for _ in range(rng.randint(1, 6))]
        ids += encoding.encode(rng.choice(["<|end|>", "<|end|>", "<|return|>", "<|call|>"]), allowed_special="all")
    if rng.random() < 0.2:
        ids.pop()
    parser = StreamableParser(encoding, Role.ASSISTANT)
    for i in ids:
        parser.process(i)
    parser.process_eos()
    messages = ["/".join([m.author.role.value[0], m.author.name or "", m.recipient or "", m.channel or "",
                          (m.content_type or "").removeprefix("<|constrain|>"), m.content[0].text]) for m in parser.messages]
    return ["parse", ids, messages]


def text_of():
    return rng.choice([t for t in TEXTS if len(t) < 40])


# ---- rows ----------------------------------------------------------------------------------------------------------


def digest(ids):
    h = 0xCBF29CE484222325
    for b in b"".join(struct.pack("<I", i) for i in ids):
        h = ((h ^ b) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return [len(ids), "%016x" % h]


def interned(m):
    """role/name/recipient/channel/type/texts, by their first letters where that is clear"""
    m = "/".join([m["role"][0], m.get("name", ""), m.get("recipient", ""), m.get("channel", "")[:1], m.get("type", ""), " ".join(map(str, m["texts"]))])
    if m not in MESSAGES:
        MESSAGES.append(m)
    return MESSAGES.index(m)


def row(c, mode, template, ids, full):
    """[letters of template, mode, effort and built-in tools; date, instructions, namespaces, messages, count of ids, hash, ids?]"""
    spaces = [s[2] if s[:2] == ["functions", None] else s for s in c["tools"]]
    r = [template[0] + mode[0] + c["effort"][0] + "".join(tool[0] for tool in c["builtin"]), c["date"], c["instructions"], spaces,
         [interned(m) for m in c["messages"]], *digest(ids)]
    return r + [ids] if full else r


def main():
    template = load_template(sys.argv[1])
    rows, same_as_auto = [], 0
    for i, c in enumerate(known_shapes() + [random_conversation(wild=k % 2 == 1) for k in range(200)]):
        mode = "completion" if i < 20 else rng.choice(["completion", "completion", "history", "preserve", "training"])
        ids = harmony_ids(c, mode)
        rows.append(row(c, mode, "harmony", ids, len(ids) < 120 and i % 2 == 0))
        if mode == "completion":
            every = harmony_conversation(c, set(range(len(c["messages"]))))
            same_as_auto += encoding.render_conversation_for_completion(every, Role.ASSISTANT) == ids
    harmony_rows, skipped = len(rows), 0
    while len(rows) < harmony_rows + 100:
        c, api = jinja_conversation()
        mode = rng.choice(["completion", "completion", "history"])
        try:
            ids = jinja_ids(template, c, api, mode)
        except (jinja2.TemplateError, TypeError):  # it refuses some: a description or default of another type
            skipped += 1
            continue
        rows.append(row(c, mode, "jinja", ids, len(ids) < 130 and len(rows) % 2 == 0))
    rows += [parse_row() for _ in range(50)]
    with open(OUT, "w", encoding="utf-8") as f:
        for r in [{"texts": TEXTS, "functions": FUNCTIONS, "messages": MESSAGES}] + rows:
            f.write(json.dumps(r, ensure_ascii=False, separators=(",", ":")) + "\n")
    print(f"{len(rows)} rows, {os.path.getsize(OUT)} bytes; skipped {skipped} of the template's; "
          f"openai-harmony's own dropping agrees in {same_as_auto} completions")


if __name__ == "__main__":
    main()

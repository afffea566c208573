#!/usr/bin/env python3
"""Makes the test data of this folder from the reference implementations. Run from the repository root:

    pip install tiktoken==0.14.0 tokenizers==0.23.3 openai-harmony==0.0.8 jinja2
    python3 tests/text/data/generate.py

o200k_vectors.jsonl is not made here: it came with the rank file (unpack vectors.tar.xz first).  Ids are stored as [count, hash]: FNV-1a 64 over the
little-endian 32-bit ids.
"""
import base64, json, os, random, struct, sys, tarfile

import tiktoken
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.join(HERE, "..", "..", "..")
O200K = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
         r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
         r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
rng = random.Random(20240805)


def fnv(data):
    h = 0xCBF29CE484222325
    for b in data:
        h = ((h ^ b) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return h


def digest(ids):
    return [len(ids), "%016x" % fnv(b"".join(struct.pack("<I", i) for i in ids))]


def o200k():
    with tarfile.open(os.path.join(ROOT, "models/o200k/o200k_base.tar.xz")) as archive:
        f = archive.extractfile("o200k_base.tiktoken")
        ranks = {base64.b64decode(t): int(r) for t, r in (line.split() for line in f if line.strip())}
    special = {"<|startoftext|>": 199998, "<|endoftext|>": 199999, "<|return|>": 200002, "<|constrain|>": 200003,
               "<|channel|>": 200005, "<|start|>": 200006, "<|end|>": 200007, "<|message|>": 200008, "<|call|>": 200012,
               "<|endofprompt|>": 200018}
    taken = set(special.values()) - {200018}
    special |= {f"<|reserved_{i}|>": i for i in range(199998, 201088) if i not in taken}
    return tiktoken.Encoding("o200k_harmony", pat_str=O200K, mergeable_ranks=ranks, special_tokens=special)


# ---- texts -------------------------------------------------------------------------------------------------------

WORDS = """the of and model picture token Hello WORLD isn't I'm you're WE'LL they'D he's don'T O'Neil HTTPServer camelCase
straße STRASSE İstanbul i̇stanbul ΑΣΦΑΛΕΙΑ ασφάλεια Привет мир ДОМ українська Ελλάδα العربية مرحبا שלום हिन्दी नमस्ते বাংলা தமிழ் ไทย
ภาษา ລາວ မြန်မာ ខ្មែរ ქართული ᲥᲐᲠᲗᲣᲚᲘ Հայերեն 日本語 テスト ひらがな 漢字 中文 一二三 한국어 안녕하세요 việt Tiếng ǅ ǈ ǲ ªº ⁿ ʰ ﬁ ﬀ ﬆ ŉ ß ẞ ſ S's x'ſ y'ſs
e\u0301 A\u030A \u0301 \u0300\u0301 \u20DD ZWJ\u200Djoin 👍 👍🏽 👨‍👩‍👧‍👦 🏳️‍🌈 🇩🇪🇫🇷 ☃ ☃️ 1️⃣ 🤖🤖 ½ ² Ⅷ ① ٣٤ 123 12345678 3.14 1e-5 0x1F 2026-11-24 a1b2c3 $100 50% C++ f(x) x==y
!= -> => ::ok //path /usr/bin https://a.b/c?d=e&f#g user@host.org <|start|> <|end|> <|endoftext|> <|im_end|> </s> [X] {"k":1} `code` ``` ~~ ^^ \\n
\\\\ --- *** ___ ... … — – « » “q” ‘q’ ' '' 's 'S 'll 'LL 're 'ſ '\u0301 \u00A0 \u3000 \u2028 \u0085 \u200B \uFEFF \uFFFD \u0000 \u0007 \u001F
\u007F \uE000 \U000F0000 \U0010FFFF \U000E0101 \u0378 \u1C89 \u1C8A \uA7CB \uA7DC \U00010D50 \U0001C000 \U000105C0 \U00010EC2 \u0897 \U00016D40
\U0001D7CE \U0001D400 𝒳 𓀀 𐐀𐐨 Ꭰꭰ ꙮ ᾳ ᾼ ʼn ǰ ΐ""".split()
SPACES = [" "] * 12 + ["  ", "   ", "\n", "\n\n", "\r\n", "\t", " \n", "\n ", " \n \n  ", "\r", "\r\r\n", "\u00A0", "\u3000 ", "\u2003",
                       "\u2028", "\u0085", "\v\f", "\t\t", "          ", "", "", "", ""]


def random_scalar():
    kind = rng.randrange(6)
    top = [0x80, 0x800, 0x3000, 0x10000, 0x20000, 0x110000][kind]
    while True:
        c = rng.randrange(top)
        if not 0xD800 <= c < 0xE000:
            return chr(c)


def random_text():
    kind = rng.randrange(10)
    n = rng.choice([1, 1, 2, 3, 4, 6, 9, 14])
    if kind < 5:
        return "".join(rng.choice(WORDS) + rng.choice(SPACES) for _ in range(n))
    if kind == 5:
        return "".join(random_scalar() for _ in range(n))
    if kind == 6:
        return "".join(rng.choice([rng.choice(WORDS), random_scalar(), rng.choice(SPACES)]) for _ in range(n))
    if kind == 7:
        return "".join(rng.choice("aA1 '\n\r/.\u0301ʰªßsStTlLrReEvVmMdDſ\u00A0-ǅ日") for _ in range(n * 3))
    if kind == 8:
        return rng.choice(SPACES) + rng.choice(WORDS).upper() + rng.choice(WORDS).title() + rng.choice(SPACES)
    return "".join(rng.choice(SPACES) for _ in range(n)) + rng.choice(WORDS) + "".join(rng.choice(SPACES) for _ in range(n))


def texts():
    out = ["", " ", "\n", "a", "'", "\u0301", "\u0301A", "\u0301AB\u0301", "A\u0301B", "aªB", "ªªAA", "AAªª", " \u0301", "\n\u0301a", "'\u0301s"]
    out += [w for w in WORDS]
    while len(out) < 2200:
        out.append(random_text())
    letters = "etaoinshrdlu"
    for n in (255, 256, 257, 258, 300, 511, 700, 1100):
        out.append("".join(rng.choice(letters) for _ in range(n)))
        out.append("".join(rng.choice("aaab") for _ in range(n)))
        out.append("".join(rng.choice("日本語中文テスト") for _ in range(n // 3)))
        out.append("".join(rng.choice("=-_*#. ") for _ in range(n)))
        out.append("".join(rng.choice("AaᏸʰǅÉéŉ") for _ in range(n)))
    return out


REPEATED = [["a", 3001], ["ab", 2000], ["abc", 999], [" ", 2777], ["\n", 1500], ["0", 1001], ["é", 1300], ["あ", 900], ["👍", 700],
            ["=", 4000], ["!?", 1234], ["aA", 1500], [" the", 800], ["\u0301", 600], ["ABCDE", 500], ["zq", 777]]

# ---- tokenizers --------------------------------------------------------------------------------------------------


def corpus():
    r = random.Random(7)
    words = [w for w in WORDS if len(w) < 12]
    for _ in range(4000):
        yield " ".join(r.choice(words[:60] if r.random() < 0.7 else words) for _ in range(12))


def train(vocab_size, alphabet):
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(corpus(), trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False))
    return json.loads(t.to_str())


def small_tokenizer():
    """GPT-2's pattern, every byte, and added tokens of every supported kind; some tokens that no merge reaches."""
    j = train(900, sorted(pre_tokenizers.ByteLevel.alphabet()))
    vocab = j["model"]["vocab"]
    for t in ["Ġunreached", "zzzz", "Ġmodelpicture", "hello", "ÃŁ"]:
        vocab.setdefault(t, len(vocab))
    next_id = len(vocab)
    j["added_tokens"] = []
    for content, kw in [("<|endoftext|>", {"special": True}), ("<|start|>", {"special": True}),
                        ("<|start|>x", {"special": True, "normalized": True}), ("[MASK]", {"special": True, "lstrip": True}),
                        ("[SEP]", {"special": True, "rstrip": True}), ("[BOTH]", {"lstrip": True, "rstrip": True}),
                        ("model", {"normalized": True}), ("models", {}), ("日本", {"special": True}), ("é", {}),
                        ("art|>", {}), ("OF<", {"normalized": True})]:
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False} | kw
        if content in vocab:
            vocab_id = vocab[content]
        else:
            vocab_id, next_id = next_id, next_id + 1
        j["added_tokens"].append({"id": vocab_id, "content": content} | flags)
    return json.dumps(j, ensure_ascii=False, separators=(",", ":"))


ADDED_WORDS = ["<|endoftext|>", "<|start|>", "<|start|>x", "[MASK]", "[SEP]", "[BOTH]", "model", "models", "日本", "é", "art|>", "OF<", " ", "  ",
               "\u3000", "\n", "a", "x", "|>", "<|", "modelsmodel", "<|start", "the ", "日", "\u00A0"]

# ---- vectors -----------------------------------------------------------------------------------------------------


def write_jsonl(name, rows):
    with open(os.path.join(HERE, name), "w", encoding="utf-8") as f:
        for row in rows:
            f.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n")
    print(name, len(rows))


def hf_ids(t, text, ordinary):
    t.encode_special_tokens = ordinary
    return t.encode(text, add_special_tokens=False).ids


def pack(archive, names):
    """Moves files into an archive; the build unpacks it."""
    with tarfile.open(os.path.join(HERE, archive), "w:xz", preset=9) as out:
        for name in names:
            path = os.path.join(HERE, name)
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = os.path.getsize(path), 0o644
            with open(path, "rb") as f:
                out.addfile(entry, f)
            os.remove(path)


def main():
    enc = o200k()
    nano = Tokenizer.from_file(os.path.join(ROOT, "models/nano/tokenizer.json"))
    small_json = small_tokenizer()
    with open(os.path.join(HERE, "small_tokenizer.json"), "w", encoding="utf-8") as f:
        f.write(small_json)
    small = Tokenizer.from_str(small_json)
    variants = {
        "small": small,
        "small_ignore_merges": Tokenizer.from_str(small_json.replace('"ignore_merges":false', '"ignore_merges":true')),
        "small_prefix_space": Tokenizer.from_str(small_json.replace('"add_prefix_space":false', '"add_prefix_space":true')),
    }
    for name in variants:  # the ids of the added tokens must be those of the file
        for a in json.loads(small_json)["added_tokens"]:
            assert variants[name].token_to_id(a["content"]) == a["id"], a
    partial_dir = os.path.join(HERE, "partial")
    os.makedirs(partial_dir, exist_ok=True)
    partial_model = train(330, [])["model"]
    with open(os.path.join(partial_dir, "vocab.json"), "w", encoding="utf-8") as f:
        json.dump(partial_model["vocab"], f, ensure_ascii=False, separators=(",", ":"))
    with open(os.path.join(partial_dir, "merges.txt"), "w", encoding="utf-8") as f:
        f.write("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in partial_model["merges"]))
    partial = Tokenizer(models.BPE.from_file(os.path.join(partial_dir, "vocab.json"), os.path.join(partial_dir, "merges.txt")))
    partial.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)

    rows = []
    for t in texts() + REPEATED:
        text = t if isinstance(t, str) else t[0] * t[1]
        row = {"text": t} if isinstance(t, str) else {"repeat": t}
        row["o200k"] = digest(enc.encode_ordinary(text))
        row["nano"] = digest(hf_ids(nano, text, True))
        row["partial"] = digest(hf_ids(partial, text, True))
        for name, tok in variants.items():
            row[name] = digest(hf_ids(tok, text, True))
        rows.append(row)
    write_jsonl("vectors.jsonl", rows)

    rows = []
    specials = ["<|start|>", "<|end|>", "<|channel|>", "<|message|>", "<|return|>", "<|call|>", "<|constrain|>", "<|endoftext|>", "<|startoftext|>"]
    for i in range(300):
        text = "".join(rng.choice([rng.choice(specials), random_text()[:8], rng.choice(["<|endofprompt|>", "<|reserved_200500|>", "<|", "|>"]), " "])
                       for _ in range(rng.randrange(1, 7)))
        rows.append({"text": text, "o200k": digest(enc.encode(text, allowed_special="all")), "nano": digest(hf_ids(nano, text, False))})
    for i in range(700):
        text = "".join(rng.choice(ADDED_WORDS) for _ in range(rng.randrange(1, 9)))
        row = {"text": text}
        for name, tok in variants.items():
            row[name] = digest(hf_ids(tok, text, False))
            row[name + "_ordinary"] = digest(hf_ids(tok, text, True))
        rows.append(row)
    write_jsonl("special_vectors.jsonl", rows)

    rows = []
    for i in range(500):
        raw = bytearray(random_text().encode())
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(raw) + 1)
            action = rng.randrange(3)
            if action == 0:
                raw[at:at] = bytes([rng.choice([0x80, 0xBF, 0xC0, 0xC3, 0xE2, 0xED, 0xF0, 0xF5, 0xFF])])
            elif action == 1 and raw:
                del raw[min(at, len(raw) - 1)]
            elif raw:
                raw[min(at, len(raw) - 1)] = rng.randrange(256)
        rows.append({"hex": raw.hex(), "o200k": digest(enc._encode_bytes(bytes(raw)))})
    for tail in (b"\xff", b"\xe3\x81", b"\x80 a\n"):
        for head in ("", " ", "\n", " \n \n ", "a", "a \t\n", "word\n\n\n", "a  ", "x\n \n"):
            raw = head.encode() + tail
            rows.append({"hex": raw.hex(), "o200k": digest(enc._encode_bytes(raw))})
    raw = b"\xff" * 700
    rows.append({"hex": raw.hex(), "o200k": digest(enc._encode_bytes(raw))})
    write_jsonl("bytes_vectors.jsonl", rows)

    classify()
    padding(small)
    chat(nano)


def classify():
    """Piece lengths in bytes around every scalar value, one hash for 8,192 values."""
    rows = []
    for name, pattern in (("o200k", O200K), ("gpt2", GPT2)):
        split = pre_tokenizers.Split(Regex(pattern), "isolated")
        hashes = []
        for block in range(0, 0x110000, 0x2000):
            lengths = bytearray()
            for c in range(block, block + 0x2000):
                if 0xD800 <= c < 0xE000:
                    continue
                for piece, _ in split.pre_tokenize_str(probe(chr(c))):
                    lengths.append(len(piece.encode()))
            hashes.append("%016x" % fnv(lengths))
        rows.append({"pattern": name, "hashes": hashes})
    write_jsonl("scalar_pieces.jsonl", rows)


def probe(c):
    return f"{c}A{c}a{c}1{c}{c} {c}\n{c}'{c}.{c}B's{c}  {c}'\u017f"


def padding(t):
    rows = []
    batch = ["the model", "a", "of the picture and the model of the world", ""]
    for pad_side in ("left", "right"):
        for cut_side in ("left", "right"):
            for max_length in (None, 1, 5, 12):
                for multiple in (None, 4):
                    for fixed in (False, True):
                        if fixed and max_length is None:
                            continue
                        t.no_padding(), t.no_truncation()
                        plain = [e.ids for e in t.encode_batch(batch)]
                        t.enable_padding(direction=pad_side, pad_id=3, length=max_length if fixed else None, pad_to_multiple_of=multiple)
                        if max_length:
                            t.enable_truncation(max_length, direction=cut_side)
                        got = t.encode_batch(batch)
                        rows.append({"pad_left": pad_side == "left", "cut_left": cut_side == "left", "max_length": max_length or 0,
                                     "multiple": multiple or 1, "fixed": fixed, "plain": plain, "ids": [e.ids for e in got],
                                     "mask": [e.attention_mask for e in got]})
    t.no_padding(), t.no_truncation()
    write_jsonl("padding_vectors.jsonl", rows)


def chat(nano):
    import jinja2
    from openai_harmony import (Author, Conversation, DeveloperContent, HarmonyEncodingName, Message, ReasoningEffort, Role, SystemContent,
                                load_harmony_encoding)

    template = jinja2.Template(open(os.path.join(ROOT, "models/nano/chat_template.jinja"), encoding="utf-8").read())
    harmony = load_harmony_encoding(HarmonyEncodingName.HARMONY_GPT_OSS)
    conversations = [
        [("user", "What is this?")],
        [("user", "What is 2 + 2?"), ("assistant", "4"), ("user", "Und auf Deutsch? 日本語 👍")],
        [("system", "Answer in one word."), ("user", "Hi")],
        [("developer", "Be brief.\n\nUse no markdown."), ("user", "Name this."), ("assistant", "A paintbrush"), ("user", "Describe it.")],
        [],
    ]
    rows = []
    for messages in conversations:
        for effort in ("low", "medium", "high"):
            for date in ("", "2025-06-28"):
                system = SystemContent.new().with_reasoning_effort(ReasoningEffort(effort.capitalize()))
                if date:
                    system = system.with_conversation_start_date(date)
                turns = [Message.from_role_and_content(Role.SYSTEM, system)]
                for role, text in messages:
                    if role in ("system", "developer"):
                        turns.append(Message.from_role_and_content(Role.DEVELOPER, DeveloperContent.new().with_instructions(text)))
                    elif role == "assistant":
                        turns.append(Message.from_role_and_content(Role.ASSISTANT, text).with_channel("final"))
                    else:
                        turns.append(Message.from_role_and_content(Role.USER, text))
                ids = harmony.render_conversation_for_completion(Conversation.from_messages(turns), Role.ASSISTANT)
                rows.append({"format": "harmony", "messages": messages, "effort": effort, "date": date, "ids": ids})
        text = template.render(messages=[{"role": r, "content": c} for r, c in messages], add_generation_prompt=True)
        rows.append({"format": "plain", "messages": messages, "effort": "medium", "date": "", "ids": hf_ids(nano, text, False)})
    # The reference checkpoint's own four prompts.
    for question, ids in (("What is this?", [4091, 2619, 4093, 307, 269, 300, 30, 4092, 4091, 2840, 4090, 2692, 4093]),
                          ("Describe this picture.", [4091, 2619, 4093, 676, 300, 435, 13, 4092, 4091, 2840, 4090, 2692, 4093]),
                          ("What is this in French?", [4091, 2619, 4093, 307, 269, 300, 285, 733, 30, 4092, 4091, 2840, 4090, 2692, 4093]),
                          ("Name this.", [4091, 2619, 4093, 444, 300, 13, 4092, 4091, 2840, 4090, 2692, 4093])):
        rows.append({"format": "plain", "messages": [("user", question)], "effort": "medium", "date": "", "ids": ids})
    write_jsonl("chat_vectors.jsonl", rows)
    pack("vectors.tar.xz", ["vectors.jsonl", "special_vectors.jsonl", "o200k_vectors.jsonl"])


if __name__ == "__main__":
    main()

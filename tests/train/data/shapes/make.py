#!/usr/bin/env python3
"""Makes the data of the shapes test: train.jsonl, held.jsonl and pictures to ask about. Standard library only.

Conversations about drawn shapes of four colours; every picture differs in place and size. held.jsonl asks the same
about pictures that are not trained on.
"""

import base64
import json
import pathlib
import random
import struct
import zlib

HERE = pathlib.Path(__file__).resolve().parent
SIDE = 32
COLOURS = {"red": (220, 40, 40), "green": (40, 170, 60), "blue": (40, 80, 220), "yellow": (235, 205, 40)}
SHAPES = ("ring", "cross", "triangle")
TEXT = (("What has three corners?", "A triangle."), ("What has two bars?", "A cross."), ("What is round?", "A ring."))


def inside(shape, x, y, radius):
    if shape == "ring":
        return 0.5 * radius <= (x * x + y * y) ** 0.5 <= radius
    if shape == "cross":
        return min(abs(x), abs(y)) <= 0.3 * radius and max(abs(x), abs(y)) <= radius
    return -radius <= y <= 0.8 * radius and abs(x) <= (y + radius) * 0.6


def png(shape, colour, rng):
    radius = rng.uniform(10, 13)
    cx, cy = (SIDE / 2 + rng.uniform(-2, 2) for _ in range(2))
    rows = b""
    for y in range(SIDE):
        rows += b"\0"
        for x in range(SIDE):
            rows += bytes(COLOURS[colour] if inside(shape, x + 0.5 - cx, y + 0.5 - cy, radius) else (245, 245, 245))

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)) +
            chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b""))


def conversation(picture, turns):
    messages = []
    for question, answer in turns:
        content = question
        if picture is not None and not messages:
            address = "data:image/png;base64," + base64.b64encode(picture).decode()
            content = [{"type": "image_url", "image_url": {"url": address}}, {"type": "text", "text": question}]
        messages += [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]
    return json.dumps({"messages": messages}, separators=(",", ":"))


def records(rng, copies):
    for _ in range(copies):
        for colour in COLOURS:
            for shape in SHAPES:
                what = ("What is this?", f"A {colour} {shape}.")
                which = ("Which colour is it?", f"It is {colour}.")
                yield conversation(png(shape, colour, rng), [what, which] if rng.random() < 0.5 else [which, what])


def main():
    rng = random.Random(5)
    train = list(records(rng, 10)) + [conversation(None, [turn]) for turn in TEXT]
    (HERE / "train.jsonl").write_text("\n".join(train) + "\n")
    (HERE / "held.jsonl").write_text("\n".join(records(rng, 1)) + "\n")
    for colour, shape in (("red", "ring"), ("blue", "cross"), ("yellow", "triangle")):
        (HERE / f"{colour}_{shape}.png").write_bytes(png(shape, colour, rng))


if __name__ == "__main__":
    main()

"""Makes the small form of a golden training case: sketch.py CASE FOLDER copies config.json, model.safetensors and
inputs.safetensors, and replaces every gradient of expected.safetensors by its norm and 64 sums of its elements under
signs (bit j of splitmix64(index)): the root mean square of the differences of such sums is the norm of the difference
of two gradients, to about a tenth. Standard library only."""
import array
import json
import math
import pathlib
import shutil
import struct
import sys

SUMS, MASK = 64, (1 << 64) - 1


def signs(index):
    x = (index + 1) * 0x9E3779B97F4A7C15 & MASK
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ x >> 27) * 0x94D049BB133111EB & MASK
    return x ^ x >> 31


def sketch(values, table):
    sums = [0.0] * SUMS
    for value, row in zip(values, table):
        for j in range(SUMS):
            sums[j] += value if row >> j & 1 else -value
    return [math.sqrt(math.fsum(v * v for v in values)), *sums]


def main():
    case, folder = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "model.safetensors", "inputs.safetensors"):
        shutil.copyfile(case / name, folder / name)
    data = (case / "expected.safetensors").read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header, kept, at = {}, [], 0
    table = []
    for name, entry in json.loads(data[8:8 + size]).items():
        if name == "__metadata__" or not name.startswith(("grad.", "train.", "loss", "aux_loss")):
            continue
        begin, end = (8 + size + o for o in entry["data_offsets"])
        values, shape = array.array("f", data[begin:end]), entry["shape"]
        if name.startswith("grad."):
            table += [signs(i) for i in range(len(table), len(values))]
            values = array.array("f", sketch(values, table))
            name, shape = "sketch." + name[5:], [1 + SUMS]
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + 4 * len(values)]}
        kept.append(values.tobytes())
        at += 4 * len(values)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    (folder / "expected.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + b"".join(kept))


main()

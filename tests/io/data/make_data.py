"""Writes the files of this folder with the Python safetensors library (0.8.0), the format's reference implementation.

Run: python make_data.py   (needs numpy and safetensors; the results are committed, tests need no Python)
Each <file>.safetensors has <file>.tsv beside it: name, dtype as in the file, shape, data in hexadecimal.
"""
import ctypes
import json
import os
import struct

from safetensors import TensorSpec, safe_open, serialize_file

here = os.path.dirname(os.path.abspath(__file__))
SIZES = {"bool": 1, "uint8": 1, "int8": 1, "int16": 2, "uint16": 2, "float16": 2, "bfloat16": 2, "int32": 4,
         "uint32": 4, "float32": 4, "float64": 8, "int64": 8, "uint64": 8, "float8_e4m3fn": 1, "float8_e5m2": 1}


def data(dtype, shape, seed):
    count = SIZES[dtype]
    for extent in shape:
        count *= extent
    values = bytes((seed * 37 + 11 * i) % 251 for i in range(count))
    return bytes(v & 1 for v in values) if dtype == "bool" else values


def write(name, tensors, metadata=None):
    path = os.path.join(here, name)
    raw = {key: data(dtype, shape, i) for i, (key, dtype, shape) in enumerate(tensors)}
    buffers = {key: ctypes.create_string_buffer(value, max(len(value), 1)) for key, value in raw.items()}
    serialize_file({key: TensorSpec(dtype=dtype, shape=shape, data_ptr=ctypes.addressof(buffers[key]),
                                    data_len=len(raw[key])) for key, dtype, shape in tensors}, path, metadata)
    with open(path, "rb") as file:
        whole = file.read()
    size = struct.unpack("<Q", whole[:8])[0]
    header = json.loads(whole[8:8 + size])
    header.pop("__metadata__", None)
    with safe_open(path, "np") as file:
        assert sorted(file.keys()) == sorted(header)
    with open(path[:-len(".safetensors")] + ".tsv", "w") as out:
        for key in sorted(header):
            begin, end = header[key]["data_offsets"]
            stored = whole[8 + size + begin:8 + size + end]
            assert stored == raw[key]
            shape = ",".join(map(str, header[key]["shape"]))
            out.write("\t".join([key, header[key]["dtype"], shape, stored.hex()]) + "\n")


write("all_types.safetensors", [(f"t.{dtype}", dtype, (2, 3)) for dtype in SIZES],
      {"format": "pt", "größe": "\u201cquoted\u201d \\ \"x\"\n\U0001F600"})
write("shapes.safetensors", [("scalar", "float32", ()), ("empty", "float32", (0, 4)), ("one", "int64", (1,)),
                             ("five", "bfloat16", (1, 2, 1, 3, 2)), ("name with \"quotes\" \\ and é", "uint8", (3,))])
write("no_tensors.safetensors", [], {"format": "pt"})

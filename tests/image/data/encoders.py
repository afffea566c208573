"""Small encoders for the kinds of PNG, GIF and BMP that Pillow does not write. Used by generate.py only."""
import struct
import zlib

import numpy as np


# ---- PNG -----------------------------------------------------------------------------------------------------------
def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png_rows(samples, bits):
    """samples [h, w, channels] of integers -> filtered scanlines (filter 0) of packed big-endian samples."""
    out = b""
    for row in samples:
        flat = row.reshape(-1)
        if bits == 16:
            packed = flat.astype(">u2").tobytes()
        elif bits == 8:
            packed = flat.astype(np.uint8).tobytes()
        else:
            text = "".join(format(int(v), f"0{bits}b") for v in flat)
            text += "0" * (-len(text) % 8)
            packed = int(text, 2).to_bytes(len(text) // 8, "big")
        out += b"\0" + packed
    return out


ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def png(samples, colour_type, bits, interlace=False, before=(), after=(), idat_size=None):
    h, w = samples.shape[:2]
    if interlace:
        raw = b""
        for x0, y0, dx, dy in ADAM7:
            part = samples[y0::dy, x0::dx]
            if part.size:
                raw += _png_rows(part, bits)
    else:
        raw = _png_rows(samples, bits)
    data = zlib.compress(raw, 9)
    step = idat_size or len(data)
    out = b"\x89PNG\r\n\x1a\n"
    out += png_chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, bits, colour_type, 0, 0, int(interlace)))
    for kind, chunk in before:
        out += png_chunk(kind, chunk)
    for i in range(0, len(data), step):
        out += png_chunk(b"IDAT", data[i:i + step])
    for kind, chunk in after:
        out += png_chunk(kind, chunk)
    return out + png_chunk(b"IEND", b"")


# ---- GIF -----------------------------------------------------------------------------------------------------------
def gif_lzw(indices, bits):
    """Valid LZW that never grows its code size: a clear code before the table would need another bit."""
    clear, size = 1 << bits, bits + 1
    codes, since = [clear], 0
    for v in indices:
        if since == (1 << bits) - 2:
            codes.append(clear)
            since = 0
        codes.append(int(v))
        since += 1
    codes.append(clear + 1)
    acc = n = 0
    packed = bytearray()
    for c in codes:
        acc |= c << n
        n += size
        while n >= 8:
            packed.append(acc & 255)
            acc >>= 8
            n -= 8
    if n:
        packed.append(acc & 255)
    out = bytes([bits])
    for i in range(0, len(packed), 255):
        part = bytes(packed[i:i + 255])
        out += bytes([len(part)]) + part
    return out + b"\0"


def _gif_table(palette):
    bits = max(1, (len(palette) - 1).bit_length())
    flat = b"".join(bytes(c) for c in palette)
    return bits, flat + b"\0" * (3 * (1 << bits) - len(flat))


def gif(indices, canvas, at=(0, 0), palette=None, local=None, transparent=None, interlace=False, version=b"89a",
        extensions=b"", more_frames=b""):
    h, w = indices.shape
    out = b"GIF" + version
    flags, table = 0, b""
    if palette:
        bits, table = _gif_table(palette)
        flags = 0x80 | 0x70 | (bits - 1)
    out += struct.pack("<HHBBB", *canvas, flags, 0, 0) + table + extensions
    if transparent is not None:
        out += b"\x21\xf9\x04" + struct.pack("<BHB", 1, 0, transparent) + b"\0"
    flags, table = (0x40 if interlace else 0), b""
    if local:
        bits, table = _gif_table(local)
        flags |= 0x80 | (bits - 1)
    out += b"," + struct.pack("<HHHHB", *at, w, h, flags) + table
    rows = list(range(h))
    if interlace:
        rows = [*range(0, h, 8), *range(4, h, 8), *range(2, h, 4), *range(1, h, 2)]
    code_bits = max(2, int(indices.max()).bit_length())
    return out + gif_lzw(indices[rows].reshape(-1), code_bits) + more_frames + b";"


# ---- BMP -----------------------------------------------------------------------------------------------------------
def bmp_rows(values, bits):
    """values [h, w] of packed pixels (or [h, w, 3] BGR for 24 bits), given top row first -> padded rows, bottom first."""
    out = b""
    for row in values[::-1]:
        if bits == 24:
            packed = row.astype(np.uint8).tobytes()
        elif bits >= 8:
            packed = row.astype({8: "u1", 16: "<u2", 32: "<u4"}[bits]).tobytes()
        else:
            text = "".join(format(int(v), f"0{bits}b") for v in row)
            text += "0" * (-len(text) % 8)
            packed = int(text, 2).to_bytes(len(text) // 8, "big")
        out += packed + b"\0" * (-len(packed) % 4)
    return out


def bmp(data, size, bits, palette=(), compression=0, masks=(), header=40, top_down=False, colours=None):
    w, h = size
    if header == 12:
        info = struct.pack("<IHHHH", 12, w, h, 1, bits)
        table = b"".join(bytes((b, g, r)) for r, g, b in palette)
    else:
        info = struct.pack("<IiiHHIIiiII", header, w, -h if top_down else h, 1, bits, compression, len(data), 2835, 2835,
                           len(palette) if colours is None else colours, 0)
        info += b"".join(struct.pack("<I", m) for m in masks)
        info += b"\0" * (14 + header - 14 - len(info))
        table = b"".join(bytes((b, g, r, 0)) for r, g, b in palette)
    offset = 14 + len(info) + len(table)
    return b"BM" + struct.pack("<IHHI", offset + len(data), 0, 0, offset) + info + table + data


def rle8(indices):
    """Mixes encoded runs and absolute runs, rows bottom first, ended by end-of-bitmap."""
    out = b""
    for row in indices[::-1]:
        i, w = 0, len(row)
        while i < w:
            run = 1
            while i + run < w and run < 255 and row[i + run] == row[i]:
                run += 1
            literal = min(w - i, 7)
            if run == 1 and literal >= 3:
                out += bytes([0, literal]) + bytes(int(v) for v in row[i:i + literal]) + b"\0" * (literal & 1)
                i += literal
            else:
                out += bytes([run, int(row[i])])
                i += run
        out += b"\0\0"
    return out + b"\0\1"


def rle4(indices):
    out = b""
    for row in indices[::-1]:
        for i in range(0, len(row), 5):
            part = [int(v) for v in row[i:i + 5]]
            if len(part) == 5:  # absolute
                nibbles = part + [0]
                packed = bytes(nibbles[j] << 4 | nibbles[j + 1] for j in (0, 2, 4))
                out += bytes([0, 5]) + packed + b"\0"
            else:
                for v in part:
                    out += bytes([1, v << 4])
        out += b"\0\0"
    return out + b"\0\1"

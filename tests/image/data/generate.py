#!/usr/bin/env python3
"""Makes the pictures of this folder and what the C++ tests expect of them. Oracles: Pillow 12.0, transformers 4.46.3
(ViTImageProcessor and CLIPImageProcessor, the numpy ones), libturbojpeg for two chroma samplings that Pillow cannot write.

  python3 generate.py [FOLDER]

FOLDER holds the nano checkpoint's parity.safetensors and its training pictures (data/); only parity.tsv needs it.

decode.tsv      file, background ('-' or r,g,b), width, height, digest of the RGB bytes, or for lossy kinds 'near'
                (the expected pixels are then near/<file>.png)
pictures.tsv    the real pictures of models/nano/test_pictures: file, width, height, decoded digest, pixel_values digest
                or for lossy kinds the samples of both: hex RGB of SAMPLES pixels each
resize.tsv      in width, in height, out width, out height, filter, digest; input: prng_bytes(line number)
preprocess.tsv  width, height, out height, out width, digest of pixel_values, config; input: prng_bytes(1000 + line number)
parity.tsv      file, digest of the pixel_values that the nano checkpoint's PyTorch trainer stored for it
Pillow 13 changed the order of the two resampling passes for pictures whose height shrinks much more than their width,
which moves some bytes by 1; Pillow up to 12 and so every model trained with it goes columns first, as our resize does.
Digests are FNV-1a (64 bit).
"""
import ctypes
import gzip
import io
import json
import pathlib
import struct
import sys
import zlib

import numpy as np
import PIL
from PIL import Image, ImageOps, PngImagePlugin
from transformers import CLIPImageProcessor, ViTImageProcessor

import encoders as enc

HERE = pathlib.Path(__file__).resolve().parent
PICTURES = HERE.parents[2] / "models/nano/test_pictures"
WHITE = (255, 255, 255)
SAMPLES = 128  # pixels of a lossy picture that are compared
W, H = 47, 33  # of most of the corpus


def digest(data):
    h = 0xCBF29CE484222325
    for b in bytes(data):
        h = ((h ^ b) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return f"{h:016x}"


def splitmix64(x):
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def prng(seed, count):
    with np.errstate(over="ignore"):
        return splitmix64((np.uint64(seed) << np.uint64(32)) + np.arange(count, dtype=np.uint64))


def prng_picture(seed, w, h):
    return (prng(seed, w * h * 3) >> np.uint64(56)).astype(np.uint8).reshape(h, w, 3)


def rgb_of(data, background=None):
    """What decode_image must give."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    if image.mode.startswith("I"):  # 16-bit grey: the high byte, where Pillow would clip
        grey = np.asarray(image).astype(np.uint16) >> 8
        return np.repeat(grey.astype(np.uint8)[:, :, None], 3, axis=2)
    if background:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (*background, 255)), image)
    return np.asarray(image.convert("RGB"))


# ---- the corpus ----------------------------------------------------------------------------------------------------
def saved(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def exif_block(orientation, big_endian=False):
    e = ">" if big_endian else "<"
    head = b"MM\0*" if big_endian else b"II*\0"
    value = struct.pack(e + "HH", orientation, 0)
    other = struct.pack(e + "HHI", 0x0100, 4, 1) + struct.pack(e + "I", 61)
    return b"Exif\0\0" + head + struct.pack(e + "IH", 8, 2) + other + struct.pack(e + "HHI", 0x0112, 3, 1) + value + b"\0" * 4


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="8"/></x:xmpmeta>'


def source():
    house = Image.open(PICTURES / "house.png").convert("RGBA").resize((W, H), Image.Resampling.BICUBIC)
    guitar = Image.open(PICTURES / "guitar.jpg").convert("RGB").resize((W, H), Image.Resampling.BICUBIC)
    alpha = np.asarray(house)[:, :, 3].copy()
    alpha[:, ::3] //= 2
    rgba = np.dstack([np.asarray(guitar), alpha])
    rgba[:12] = np.dstack([prng_picture(1, W, 12), alpha[:12]])
    return rgba


def png_files(rgba):
    rgb, alpha = rgba[:, :, :3], rgba[:, :, 3:]
    grey = rgb[:, :, 1:2]
    wide = rgb.astype(np.uint16) * 256 + prng_picture(2, W, H)
    wide_a = np.dstack([wide, alpha.astype(np.uint16) * 257])
    palette = prng_picture(3, 256, 1)[0]
    lut = palette.tobytes()
    yield "rgb.png", saved(Image.fromarray(rgb), "PNG")
    yield "rgba.png", saved(Image.fromarray(rgba), "PNG")
    yield "l.png", saved(Image.fromarray(grey[:, :, 0]), "PNG")
    yield "la.png", saved(Image.fromarray(np.dstack([grey, alpha])), "PNG")
    yield "quantized.png", saved(Image.fromarray(rgb).quantize(47), "PNG", optimize=True)
    for interlace in (False, True):
        i = "_interlaced" if interlace else ""
        for bits in (1, 2, 4, 8):
            index = grey >> (8 - bits)
            colours = [(b"PLTE", lut[:3 << bits])]
            yield f"p{bits}{i}.png", enc.png(index, 3, bits, interlace, colours)
            yield f"p{bits}_trns{i}.png", enc.png(index, 3, bits, interlace, colours + [(b"tRNS", bytes(range(10, 10 + min(1 << bits, 100))))])
            yield f"g{bits}{i}.png", enc.png(index, 0, bits, interlace)
        yield f"g16{i}.png", enc.png(wide[:, :, 1:2], 0, 16, interlace)
        yield f"ga8{i}.png", enc.png(np.dstack([grey, alpha]), 4, 8, interlace)
        yield f"ga16{i}.png", enc.png(wide_a[:, :, 2:], 4, 16, interlace)
        yield f"rgb16{i}.png", enc.png(wide, 2, 16, interlace)
        yield f"rgba16{i}.png", enc.png(wide_a, 6, 16, interlace)
        yield f"rgba8{i}.png", enc.png(rgba, 6, 8, interlace, idat_size=97)
    yield "g8_trns.png", enc.png(grey, 0, 8, False, [(b"tRNS", struct.pack(">H", int(grey[20, 20, 0])))])
    yield "rgb8_trns.png", enc.png(rgb, 2, 8, False, [(b"tRNS", struct.pack(">HHH", *(int(v) for v in rgb[20, 20])))])
    yield "short_palette.png", enc.png(grey >> 4, 3, 4, False, [(b"PLTE", lut[:48])])
    for n, (w, h) in enumerate(((1, 1), (1, 9), (9, 1), (3, 5), (8, 8))):
        yield f"tiny{n}_interlaced.png", enc.png(prng_picture(10 + n, w, h), 2, 8, True)
    extra = [(b"gAMA", struct.pack(">I", 20000)), (b"tEXt", b"Comment\0" + b"x" * 200), (b"zTXt", b"Title\0\0" + zlib.compress(b"a" * 9000)),
             (b"acTL", struct.pack(">II", 2, 0)), (b"teSt", bytes(range(50)))]
    yield "ancillary.png", enc.png(rgb, 2, 8, False, extra, [(b"tIME", b"\x07\xe8\1\1\0\0\0"), (b"eXIf", exif_block(6)[6:])])
    small = Image.fromarray(rgb[:23, :31])
    for o in range(1, 9):
        yield f"exif{o}.png", enc.png(rgb[:23, :31], 2, 8, False, [(b"eXIf", exif_block(o, o % 2 == 0)[6:])])
        yield f"exif{o}.jpg", saved(small, "JPEG", quality=90, exif=exif_block(o, o % 2 == 1))
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", XMP.decode())
    yield "xmp.png", saved(small, "PNG", pnginfo=info)


def turbojpeg(rgb, subsampling, quality=85):
    lib = ctypes.CDLL("libturbojpeg.so.0")
    lib.tjInitCompress.restype = ctypes.c_void_p
    handle, out, size = ctypes.c_void_p(lib.tjInitCompress()), ctypes.c_void_p(), ctypes.c_ulong()
    data = rgb.tobytes()
    if lib.tjCompress2(handle, data, rgb.shape[1], 0, rgb.shape[0], 0, ctypes.byref(out), ctypes.byref(size), subsampling, quality, 0):
        raise RuntimeError("tjCompress2")
    return ctypes.string_at(out, size.value)


def jpeg_files(rgba):
    rgb = np.ascontiguousarray(rgba[:, :, :3])
    image = Image.fromarray(rgb)
    for s, name in ((0, "444"), (1, "422"), (2, "420")):
        yield f"{name}.jpg", saved(image, "JPEG", subsampling=s, quality=88)
        yield f"{name}_progressive.jpg", saved(image, "JPEG", subsampling=s, quality=60, progressive=True)
    yield "440.jpg", turbojpeg(rgb, 4)
    yield "411.jpg", turbojpeg(rgb, 5)
    yield "grey.jpg", saved(image.convert("L"), "JPEG", quality=80)
    yield "grey_progressive.jpg", saved(image.convert("L"), "JPEG", quality=80, progressive=True)
    yield "rgb.jpg", saved(image, "JPEG", quality=90, keep_rgb=True)
    yield "low.jpg", saved(image, "JPEG", quality=5)
    yield "restart.jpg", saved(image, "JPEG", quality=75, restart_marker_rows=1, optimize=True)
    cmyk = Image.fromarray(np.dstack([rgb, 255 - rgb[:, :, :1] // 3]), "CMYK")
    data = saved(cmyk, "JPEG", quality=90)
    yield "cmyk.jpg", data
    at = data.index(b"Adobe") + 11  # the transform byte: 2 says YCCK
    yield "ycck.jpg", data[:at] + b"\2" + data[at + 1:]
    yield "cmyk_progressive.jpg", saved(cmyk, "JPEG", quality=70, progressive=True)
    adobe = data.index(b"\xff\xee")
    yield "cmyk_plain.jpg", data[:adobe] + data[adobe + 2 + struct.unpack(">H", data[adobe + 2:adobe + 4])[0]:]
    for n, (w, h) in enumerate(((1, 1), (1, 17), (17, 1), (16, 16), (7, 33))):
        yield f"tiny{n}.jpg", saved(Image.fromarray(prng_picture(20 + n, w, h)), "JPEG", subsampling=2, quality=75)
    yield "xmp.jpg", saved(Image.fromarray(rgb[:23, :31]), "JPEG", quality=90, xmp=XMP)


def webp_files(rgba):
    image, opaque = Image.fromarray(rgba), Image.fromarray(rgba[:, :, :3])
    yield "lossy.webp", saved(opaque, "WEBP", quality=70)
    yield "lossy_alpha.webp", saved(image, "WEBP", quality=70)
    yield "lossless.webp", saved(opaque, "WEBP", lossless=True)
    yield "lossless_alpha.webp", saved(image, "WEBP", lossless=True, exact=True)
    for o in (3, 6, 7):
        yield f"exif{o}_lossless.webp", saved(opaque, "WEBP", lossless=True, exif=exif_block(o))
    yield "xmp_lossless.webp", saved(opaque, "WEBP", lossless=True, xmp=XMP)
    second = Image.fromarray(np.ascontiguousarray(rgba[::-1]))
    yield "animated_lossless.webp", saved(image, "WEBP", save_all=True, append_images=[second], lossless=True, exact=True, duration=50)
    yield "animated_lossy.webp", saved(opaque, "WEBP", save_all=True, append_images=[second.convert("RGB")], quality=60, duration=50)
    # A first frame that covers only part of its canvas, at (10, 6).
    still = saved(Image.fromarray(rgba[:20, :30]), "WEBP", lossless=True, exact=True)
    u24 = lambda v: struct.pack("<I", v)[:3]
    body = still[12:] if still[12:16] == b"VP8L" else still[30:]
    frame = u24(5) + u24(3) + u24(29) + u24(19) + u24(50) + b"\2" + body
    chunk = lambda kind, d: kind + struct.pack("<I", len(d)) + d + b"\0" * (len(d) & 1)
    for name, flags in (("animated_small", 0x12), ("animated_small_opaque", 0x02)):
        content = b"WEBP" + chunk(b"VP8X", bytes([flags, 0, 0, 0]) + u24(W - 1) + u24(H - 1)) + chunk(b"ANIM", b"\x30\x60\x90\xff\0\0") + chunk(b"ANMF", frame)
        yield f"{name}_lossless.webp", b"RIFF" + struct.pack("<I", len(content)) + content


def gif_files(rgba):
    grey = rgba[:, :, 1]
    colours = [tuple(int(v) for v in c) for c in prng_picture(30, 256, 1)[0]]
    index4, index8 = grey >> 4, grey
    h, w = grey.shape
    yield "p.gif", saved(Image.fromarray(rgba[:, :, :3]).quantize(200), "GIF")
    yield "grey.gif", saved(Image.fromarray(grey), "GIF")
    yield "rgba.gif", saved(Image.fromarray(rgba), "GIF")
    yield "animated.gif", saved(Image.fromarray(rgba[:, :, :3]), "GIF", save_all=True, append_images=[Image.fromarray(rgba[::-1, :, :3])])
    yield "global.gif", enc.gif(index8, (w, h), palette=colours)
    yield "version87a.gif", enc.gif(index4, (w, h), palette=colours[:16], version=b"87a")
    yield "interlaced.gif", enc.gif(index4, (w, h), palette=colours[:16], interlace=True)
    yield "interlaced_short.gif", enc.gif(index4[:3], (w, 3), palette=colours[:16], interlace=True)
    yield "local.gif", enc.gif(index4, (w, h), palette=colours[:16], local=colours[100:116])
    yield "local_only.gif", enc.gif(index4, (w, h), local=colours[100:116])
    yield "no_palette.gif", enc.gif(index8, (w, h))
    yield "transparent.gif", enc.gif(index4, (w, h), palette=colours[:16], transparent=5)
    yield "small_frame.gif", enc.gif(index4[:20, :30], (w, h), at=(11, 7), palette=colours[:16])
    yield "small_frame_transparent.gif", enc.gif(index4[:20, :30], (w, h), at=(11, 7), palette=colours[:16], transparent=3, interlace=True)
    yield "frame_past_canvas.gif", enc.gif(index4[:20, :30], (20, 20), at=(11, 7), palette=colours[:16])
    yield "index_past_palette.gif", enc.gif(index4, (w, h), palette=colours[:8])
    comments = b"\x21\xfe" + b"\xff" + b"c" * 255 + b"\x03abc\0" + b"\x21\xff\x0bNETSCAPE2.0\x03\x01\0\0\0"
    yield "extensions.gif", enc.gif(index4, (w, h), palette=colours[:16], extensions=comments)
    yield "two_colours.gif", enc.gif(grey >> 7, (w, h), palette=colours[:2])


def bmp_files(rgba):
    rgb, grey = rgba[:, :, :3].astype(np.uint32), rgba[:, :, 1]
    h, w = grey.shape
    colours = [tuple(int(v) for v in c) for c in prng_picture(40, 256, 1)[0]]
    r, g, b, a = (rgba[:, :, i].astype(np.uint32) for i in range(4))
    yield "pillow1.bmp", saved(Image.fromarray(grey).convert("1"), "BMP")
    yield "pillow8.bmp", saved(Image.fromarray(grey), "BMP")
    yield "pillow24.bmp", saved(Image.fromarray(rgba[:, :, :3]), "BMP")
    yield "pillow32.bmp", saved(Image.fromarray(rgba), "BMP")
    for bits in (1, 4, 8):
        rows = enc.bmp_rows(grey >> (8 - bits), bits)
        yield f"p{bits}.bmp", enc.bmp(rows, (w, h), bits, colours[:1 << bits])
        yield f"core{bits}.bmp", enc.bmp(rows, (w, h), bits, colours[:1 << bits], header=12)
    yield "few_colours.bmp", enc.bmp(enc.bmp_rows(grey >> 4, 8), (w, h), 8, colours[:16])
    yield "topdown8.bmp", enc.bmp(enc.bmp_rows(grey[::-1], 8), (w, h), 8, colours, top_down=True)
    yield "core24.bmp", enc.bmp(enc.bmp_rows(rgba[:, :, 2::-1], 24), (w, h), 24, header=12)
    yield "topdown24.bmp", enc.bmp(enc.bmp_rows(rgba[::-1, :, 2::-1], 24), (w, h), 24, top_down=True)
    x555, x565 = (r >> 3) << 10 | (g >> 3) << 5 | b >> 3, (r >> 3) << 11 | (g >> 2) << 5 | b >> 3
    yield "rgb555.bmp", enc.bmp(enc.bmp_rows(x555, 16), (w, h), 16)
    yield "rgb565.bmp", enc.bmp(enc.bmp_rows(x565, 16), (w, h), 16, compression=3, masks=(0xF800, 0x7E0, 0x1F), header=52)
    data = enc.bmp(enc.bmp_rows(x565, 16), (w, h), 16, compression=3)
    yield "rgb565_v3.bmp", data[:10] + struct.pack("<I", 66) + data[14:54] + struct.pack("<III", 0xF800, 0x7E0, 0x1F) + data[54:]
    yield "bgrx.bmp", enc.bmp(enc.bmp_rows(r << 16 | g << 8 | b, 32), (w, h), 32)
    bgra = enc.bmp_rows(a << 24 | r << 16 | g << 8 | b, 32)
    for header in (56, 108, 124):
        yield f"bgra_v{header}.bmp", enc.bmp(bgra, (w, h), 32, compression=3, masks=(0xFF0000, 0xFF00, 0xFF, 0xFF000000), header=header)
    yield "abgr.bmp", enc.bmp(enc.bmp_rows(r << 24 | g << 16 | b << 8 | a, 32), (w, h), 32, compression=3, masks=(0xFF000000, 0xFF0000, 0xFF00, 0xFF), header=124)
    yield "xbgr.bmp", enc.bmp(enc.bmp_rows(r << 24 | g << 16 | b << 8, 32), (w, h), 32, compression=3, masks=(0xFF000000, 0xFF0000, 0xFF00), header=52)
    flat = grey.copy()
    flat[5:20, 10:50] = 7
    table = np.array(colours, dtype=np.uint8)
    yield "rle8.bmp", enc.bmp(enc.rle8(flat), (w, h), 8, colours, compression=1), table[flat]
    yield "rle4.bmp", enc.bmp(enc.rle4(flat >> 4), (w, h), 4, colours[:16], compression=2), table[flat >> 4]
    # 9 x 4: a run, a jump of (2, 1), a run, then rows to the end.
    delta = b"\x03\x11\0\2\2\1" + b"\x02\x22\0\0" + b"\x09\x33\0\0" + b"\x09\x44\0\0" + b"\0\1"
    grid = np.array([[0x44] * 9, [0x33] * 9, [0] * 5 + [0x22] * 2 + [0] * 2, [0x11] * 3 + [0] * 6])
    yield "rle8_delta.bmp", enc.bmp(delta, (9, 4), 8, colours, compression=1), table[grid]


def corpus():
    rgba = source()
    lines = []
    for files in (png_files, jpeg_files, webp_files, gif_files, bmp_files):
        for name, data, *known in files(rgba):  # known: the pixels, where Pillow before 13 reads the kind wrongly
            (HERE / name).write_bytes(data)
            lossy = name.endswith(".jpg") or (name.endswith(".webp") and "lossless" not in name)
            has_alpha = Image.open(io.BytesIO(data)).convert("RGBA").getextrema()[3][0] < 255
            for background in (None, WHITE, (200, 30, 90)) if has_alpha else (None,):
                rgb = known[0] if known else rgb_of(data, background)
                tag = "-" if background is None else ",".join(map(str, background))
                value = digest(rgb.tobytes())
                if lossy:
                    near = f"near/{name}.{0 if background is None else background[0]}.png"
                    (HERE / near).parent.mkdir(exist_ok=True)
                    Image.fromarray(rgb).save(HERE / near, optimize=True)
                    value = near
                lines.append(f"{name}\t{tag}\t{rgb.shape[1]}\t{rgb.shape[0]}\t{value}")
    (HERE / "decode.tsv").write_text("\n".join(lines) + "\n")
    print(len(lines), "decode cases")


# ---- resizing and preprocessing ------------------------------------------------------------------------------------
def resize_cases():
    lines = []
    sizes = []
    for n in range(380):
        a = [int(v) for v in prng(5000 + n, 4)]
        top = 24 if n % 4 == 0 else 330 if n % 10 == 0 else 130
        sizes.append(tuple(v % top + 1 for v in a))
    sizes += [(2000, 3, 7, 3), (3, 2000, 3, 5), (1, 1, 200, 200), (640, 480, 224, 224), (97, 61, 97, 30), (97, 61, 20, 61),
              (224, 224, 224, 224), (225, 223, 224, 224), (1023, 767, 3, 2), (5, 7, 400, 380), (160, 160, 224, 224), (49, 1, 7, 1)]
    for n, (w, h, ow, oh) in enumerate(sizes):
        picture = Image.fromarray(prng_picture(n, w, h))
        filters = [n % 6] if n < 380 else range(6)
        for f in filters:
            out = picture.resize((ow, oh), Image.Resampling(f))
            lines.append(f"{n}\t{w}\t{h}\t{ow}\t{oh}\t{f}\t{digest(out.tobytes())}")
    (HERE / "resize.tsv").write_text("\n".join(lines) + "\n")
    print(len(lines), "resize cases")


def preprocess_cases():
    imagenet = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    configs = []
    for f in range(6):
        configs.append((ViTImageProcessor, {"size": {"height": 48, "width": 40}, "resample": f, **imagenet}))
    configs += [(ViTImageProcessor, c) for c in (
        {"size": 56, "resample": 3},
        {"size": {"height": 32, "width": 32}, "resample": 3, "do_rescale": False, **imagenet},
        {"size": {"height": 32, "width": 32}, "resample": 2, "do_normalize": False},
        {"size": {"height": 32, "width": 32}, "resample": 3, "do_rescale": False, "do_normalize": False},
        {"size": {"height": 32, "width": 33}, "resample": 3, "rescale_factor": 0.0078125, "image_mean": [0.5, 0.25, 1.0], "image_std": [0.1, 3.5, 0.33]},
        {"size": {"height": 32, "width": 33}, "resample": 3, "image_mean": 0.3, "image_std": 0.7},
    )]
    clip = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
    for edge, crop in ((40, 40), (41, 40), (48, (30, 36)), (30, 45), (33, (20, 60)), (33, (60, 21))):
        size = crop if isinstance(crop, int) else {"height": crop[0], "width": crop[1]}
        configs.append((CLIPImageProcessor, {"size": {"shortest_edge": edge}, "crop_size": size, "do_center_crop": True, "resample": 3, **clip}))
    configs.append((CLIPImageProcessor, {"size": 50, "crop_size": 44, "do_center_crop": True, "resample": 3, **clip}))
    lines = []
    for c, (kind, config) in enumerate(configs):
        for w, h in ((61, 43), (37, 90), (10, 200), (40, 48)):
            n = len(lines)
            mean = config.get("image_mean")
            made = kind(**config)
            if mean is None:
                config = {**config, "image_mean": made.image_mean, "image_std": made.image_std}
            out = made(Image.fromarray(prng_picture(1000 + n, w, h)), return_tensors="np")["pixel_values"][0]
            assert out.dtype == np.float32 or not config.get("do_rescale", True), out.dtype
            out = np.ascontiguousarray(out, dtype=np.float32)
            lines.append(f"{w}\t{h}\t{out.shape[1]}\t{out.shape[2]}\t{digest(out.tobytes())}\t{json.dumps(config)}")
    (HERE / "preprocess.tsv").write_text("\n".join(lines) + "\n")
    print(len(lines), "preprocess cases")


NANO = {"do_resize": True, "size": {"height": 224, "width": 224}, "resample": 3, "do_rescale": True, "rescale_factor": 0.00392156862745098,
        "do_normalize": True, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}


def sampled(rgb, seed):
    flat = rgb.reshape(-1, 3)
    return flat[(prng(seed, SAMPLES) % np.uint64(len(flat))).astype(np.int64)].tobytes().hex()


def pictures():
    lines = []
    processor = ViTImageProcessor(**NANO)
    for n, path in enumerate(sorted(p for p in PICTURES.iterdir() if p.suffix in (".png", ".jpg", ".webp"))):
        data = path.read_bytes()
        rgb = rgb_of(data, WHITE)
        values = processor(Image.fromarray(rgb), return_tensors="np")["pixel_values"][0]
        exact = path.suffix == ".png"
        small = np.asarray(Image.fromarray(rgb).resize((224, 224), Image.Resampling.BICUBIC))
        decoded = digest(rgb.tobytes()) if exact else sampled(rgb, n)
        result = digest(values.astype(np.float32).tobytes()) if exact else sampled(small, n)
        lines.append(f"{path.name}\t{rgb.shape[1]}\t{rgb.shape[0]}\t{decoded}\t{result}")
    (HERE / "pictures.tsv").write_text("\n".join(lines) + "\n")
    print(len(lines), "pictures")


def parity(folder):
    """The pictures behind parity.safetensors, whose pixel_values another program made."""
    from safetensors import safe_open
    stored = safe_open(folder / "parity.safetensors", "np")
    texts = json.loads(stored.metadata()["texts"])
    index = json.loads(gzip.open(folder / "data/index.json.gz").read())
    images = (folder / "data/images.bin").read_bytes()
    lines = []
    for i, text in texts.items():
        values = stored.get_tensor(f"{i}.pixel_values")[0]
        labels = [n for n, c in enumerate(index["concepts"]) if c["label"] == text["label"]]
        data = next(images[at:at + size] for concept, style, _, at, size in index["pictures"] if concept in labels and style == "fluent-emoji")
        (HERE / f"parity{i}.webp").write_bytes(data)
        lines.append(f"parity{i}.webp\t{digest(np.ascontiguousarray(values, dtype=np.float32).tobytes())}")
    (HERE / "parity.tsv").write_text("\n".join(lines) + "\n")
    print(len(lines), "parity pictures")


if __name__ == "__main__":
    if int(PIL.__version__.split(".")[0]) >= 13:
        sys.exit("needs Pillow up to 12: see above")
    corpus()
    resize_cases()
    preprocess_cases()
    pictures()
    if len(sys.argv) > 1:
        parity(pathlib.Path(sys.argv[1]))

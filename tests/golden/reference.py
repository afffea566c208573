"""The model in plain numpy (float64), and a generator of golden cases in the project's format.

    reference.py check CASE            compares with the case's expected.safetensors
    reference.py make FOLDER           writes the case `unseen-f16` (sizes and options that no other case has)
    reference.py make-long FOLDER      writes the case `long-window128`: 4,300 positions with the released window and YaRN

It needs numpy and safetensors. It shares no code with the library: it is the second opinion that the C++ is tested with.
"""
import json
import math
import pathlib
import sys

import numpy as np
from safetensors.numpy import load_file, save_file

LUT = np.array([0, .5, 1, 1.5, 2, 3, 4, 6, -0., -.5, -1, -1.5, -2, -3, -4, -6])


def load_weights(folder):
    """All tensors as float64; BF16 and MXFP4 are widened exactly."""
    import struct
    out, raw = {}, {}
    for path in sorted(folder.glob("model*.safetensors")):
        data = path.read_bytes()
        size = struct.unpack("<Q", data[:8])[0]
        for name, e in json.loads(data[8:8 + size]).items():
            if name == "__metadata__":
                continue
            begin, end = (8 + size + o for o in e["data_offsets"])
            kind = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "U8": "u1"}[e["dtype"]]
            x = np.frombuffer(data[begin:end], kind).reshape(e["shape"])
            if e["dtype"] == "BF16":
                x = (x.astype(np.uint32) << 16).view(np.float32)
            raw[name] = x
    for name, x in raw.items():
        if name.endswith("_scales"):
            continue
        if name.endswith("_blocks"):  # [E, out, in/32, 16] -> [E, in, out]
            scale = 2.0 ** (raw[name[:-7] + "_scales"].astype(np.int64) - 127)
            values = np.stack([LUT[x & 15], LUT[x >> 4]], -1).reshape(*x.shape[:3], 32) * scale[..., None]
            out[name[:-7]] = values.reshape(x.shape[0], x.shape[1], -1).transpose(0, 2, 1)
        else:
            out[name] = x.astype(np.float64)
    return out


def inv_freq(c):
    dim, base = c["head_dim"], c.get("rope_theta", 150000.0)
    f = base ** (np.arange(0, dim, 2) / dim)
    s = c.get("rope_scaling")
    if not s or s.get("rope_type", "default") == "default":
        return 1 / f, 1.0
    low, high = (dim * math.log(s["original_max_position_embeddings"] / (s[b] * 2 * math.pi)) / (2 * math.log(base))
                 for b in ("beta_fast", "beta_slow"))
    if s.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    ramp = np.clip((np.arange(dim // 2) - low) / max(high - low, .001), 0, 1)
    return ramp / (s["factor"] * f) + (1 - ramp) / f, 0.1 * math.log(s["factor"]) + 1


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def layer_norm(x, w, b, eps):
    return w * (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps) + b


def vision(c, w, pixels):
    a, eps = "model.vision_adapter.", c.get("vision_layer_norm_eps", 1e-12)
    p, d, heads = c["vision_patch_size"], c["vision_embed_dim"], c["vision_num_heads"]
    b, side = pixels.shape[0], pixels.shape[2] // p
    patches = pixels[:, :, :side * p, :side * p].reshape(b, 3, side, p, side, p).transpose(0, 2, 4, 1, 3, 5)
    x = patches.reshape(b, side * side, -1) @ w[a + "vit.embeddings.patch_embeddings.projection.weight"].reshape(d, -1).T
    x = x + w[a + "vit.embeddings.patch_embeddings.projection.bias"]
    x = np.concatenate([np.broadcast_to(w[a + "vit.embeddings.cls_token"], (b, 1, d)), x], 1)
    x = x + w[a + "vit.embeddings.position_embeddings"]
    erf = np.vectorize(math.erf)
    for n in range(c["vision_num_layers"]):
        l = f"{a}vit.encoder.layer.{n}."
        lin = lambda y, name: y @ w[l + name + ".weight"].T + w[l + name + ".bias"]
        y = layer_norm(x, w[l + "layernorm_before.weight"], w[l + "layernorm_before.bias"], eps)
        q, k, v = (lin(y, "attention.attention." + t).reshape(b, -1, heads, d // heads).transpose(0, 2, 1, 3)
                   for t in ("query", "key", "value"))
        o = softmax(q @ k.transpose(0, 1, 3, 2) / math.sqrt(d // heads)) @ v
        x = x + lin(o.transpose(0, 2, 1, 3).reshape(b, -1, d), "attention.output.dense")
        y = lin(layer_norm(x, w[l + "layernorm_after.weight"], w[l + "layernorm_after.bias"], eps), "intermediate.dense")
        x = x + lin(y * .5 * (1 + erf(y / math.sqrt(2))), "output.dense")
    x = layer_norm(x, w[a + "vit.layernorm.weight"], w[a + "vit.layernorm.bias"], eps)
    if c.get("vision_pool_token", True):
        x = np.concatenate([np.broadcast_to(w[a + "pool_token"], (b, 1, d)), x], 1)
    x = layer_norm(x, w[a + "norm.weight"], w[a + "norm.bias"], 1e-5)
    return x @ w[a + "proj.weight"].T + w[a + "proj.bias"]


def moe(c, w, m, x, is_image):
    """Rows x [N, H] -> output, router logits, indices, weights."""
    logits = x @ w[m + "router.weight"].T + w[m + "router.bias"]
    if m + "router.vision_bias" in w:
        logits = logits + is_image[:, None] * w[m + "router.vision_bias"]
    k = c["num_experts_per_tok"]
    index = np.argsort(-logits, axis=-1, kind="stable")[:, :k]
    weight = softmax(np.take_along_axis(logits, index, -1))
    out = np.zeros_like(x)
    limit, alpha = c.get("swiglu_limit", 7.0), c.get("swiglu_alpha", 1.702)
    for e in range(logits.shape[1]):
        rows, slot = np.nonzero(index == e)
        h = x[rows] @ w[m + "experts.gate_up_proj"][e] + w[m + "experts.gate_up_proj_bias"][e]
        g, u = np.minimum(h[:, 0::2], limit), np.clip(h[:, 1::2], -limit, limit)
        y = ((u + 1) * g / (1 + np.exp(-alpha * g))) @ w[m + "experts.down_proj"][e] + w[m + "experts.down_proj_bias"][e]
        np.add.at(out, rows, weight[rows, slot, None] * y)
    return out, logits, index, weight


def forward(c, w, ids, pixels=None):
    """ids [B, T] -> dict of everything a case expects, but generated_ids."""
    r, (b, t) = {}, ids.shape
    x = w["model.embed_tokens.weight"][ids]
    n = 0
    if pixels is not None:
        r["vision_embeds"] = vision(c, w, pixels)
        n = r["vision_embeds"].shape[1]
        x = np.concatenate([r["vision_embeds"], x], 1)
    s, h, kv, d = n + t, c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"]
    freq, factor = inv_freq(c)
    # The angle is a product in f32, as in transformers: at position 4,300 its rounding is seen in the logits.
    angle = (np.arange(s, dtype=np.float32)[:, None] * freq.astype(np.float32)).astype(np.float64)
    rms = lambda y, name: w[name] * y / np.sqrt((y * y).mean(-1, keepdims=True) + c.get("rms_norm_eps", 1e-5))
    i, j = np.arange(s)[:, None], np.arange(s)[None, :]
    kinds = c.get("layer_types") or ["sliding_attention", "full_attention"] * c["num_hidden_layers"]
    for layer in range(c["num_hidden_layers"]):
        p = f"model.layers.{layer}."
        nope = c.get("use_nope") and c.get("nope_stride", 4) > 0 and (layer + 1) % c["nope_stride"] == 0
        cos, sin = (np.ones_like(angle), np.zeros_like(angle)) if nope else (np.cos(angle) * factor, np.sin(angle) * factor)
        rot = lambda y: np.concatenate([y[..., :d // 2] * cos - y[..., d // 2:] * sin, y[..., d // 2:] * cos + y[..., :d // 2] * sin], -1)
        y = rms(x, p + "input_layernorm.weight")
        lin = lambda y, name: y @ w[p + "self_attn." + name + ".weight"].T + w[p + "self_attn." + name + ".bias"]
        q = rot(lin(y, "q_proj").reshape(b, s, h, d).transpose(0, 2, 1, 3))
        k = rot(lin(y, "k_proj").reshape(b, s, kv, d).transpose(0, 2, 1, 3)).repeat(h // kv, 1)
        v = lin(y, "v_proj").reshape(b, s, kv, d).transpose(0, 2, 1, 3).repeat(h // kv, 1)
        seen = (j <= i) & ((kinds[layer] == "full_attention") | (i - j < c["sliding_window"]))
        scores = np.where(seen, q @ k.transpose(0, 1, 3, 2) / math.sqrt(d), -np.inf)
        sink = np.broadcast_to(w[p + "self_attn.sinks"].reshape(1, h, 1, 1), (b, h, s, 1))
        o = softmax(np.concatenate([scores, sink], -1))[..., :-1] @ v
        x = x + lin(o.transpose(0, 2, 1, 3).reshape(b, s, h * d), "o_proj")
        is_image = np.tile(np.arange(s) < n, b).astype(np.float64)
        y, logits, index, weight = moe(c, w, p + "mlp.", rms(x, p + "post_attention_layernorm.weight").reshape(b * s, -1), is_image)
        x = x + y.reshape(x.shape)
        r[f"hidden.{layer}"] = x
        r[f"router_logits.{layer}"], r[f"router_weights.{layer}"] = logits.reshape(b, s, -1), weight.reshape(b, s, -1)
        r[f"router_indices.{layer}"] = index.reshape(b, s, -1)
    r["logits"] = rms(x, "model.norm.weight") @ w.get("lm_head.weight", w["model.embed_tokens.weight"]).T
    r["inv_freq"] = freq
    first = 0 if n else 1
    rows = r["logits"][:, n + first - 1:n + t - 1]
    target = np.take_along_axis(rows, ids[:, first:, None], -1)[..., 0]
    largest = rows.max(-1)
    r["loss"] = np.array([(largest + np.log(np.exp(rows - largest[..., None]).sum(-1)) - target).mean()])
    every = np.concatenate([r[f"router_logits.{l}"].reshape(-1, c["num_local_experts"]) for l in range(c["num_hidden_layers"])])
    chosen = np.concatenate([r[f"router_indices.{l}"].reshape(-1, c["num_experts_per_tok"]) for l in range(c["num_hidden_layers"])])
    one_hot = np.eye(c["num_local_experts"])[chosen].mean(0)  # [K, E]
    r["aux_loss"] = np.array([c["num_local_experts"] * (one_hot * softmax(every).mean(0)).sum()])
    return r


def generate(c, w, ids, pixels, prompt=12, steps=40):
    out = ids[:, :prompt]
    for _ in range(steps):
        out = np.concatenate([out, forward(c, w, out, pixels)["logits"][:, -1].argmax(-1)[:, None]], 1)
    return out


def as_stored(r):
    return {k: v.astype(np.int64 if v.dtype.kind == "i" else np.float32) for k, v in r.items()}


def check(folder):
    c, w = json.loads((folder / "config.json").read_text()), load_weights(folder)
    inputs, expected = load_file(folder / "inputs.safetensors"), load_file(folder / "expected.safetensors")
    pixels = inputs.get("pixel_values")
    r = forward(c, w, inputs["input_ids"], None if pixels is None else pixels.astype(np.float64))
    for name, want in expected.items():
        if name in r:
            print(f"{name:20} max error {abs(r[name] - want).max():.2e}")


def make(folder):
    c = {"model_type": "gpt_oss_vision", "vocab_size": 120, "hidden_size": 192, "intermediate_size": 32, "num_hidden_layers": 2,
         "num_local_experts": 6, "num_experts_per_tok": 2, "head_dim": 32, "num_attention_heads": 6, "num_key_value_heads": 2,
         "layer_types": ["full_attention"] * 2, "sliding_window": 8, "rope_theta": 10000.0, "rope_scaling": None,
         "rms_norm_eps": 1e-5, "use_vision": True, "vision_image_size": 30, "vision_patch_size": 10, "vision_embed_dim": 24,
         "vision_num_layers": 1, "vision_num_heads": 2, "vision_intermediate_size": 40, "vision_pool_token": False,
         "use_nope": False, "eos_token_id": 0, "pad_token_id": 0, "torch_dtype": "float16"}
    rng = np.random.default_rng(20261124)
    f16 = lambda *shape, std=.08, mean=0.: rng.normal(mean, std, shape).astype(np.float16)
    H, I, E, V, Q, KV, D = 192, 32, 6, 120, 192, 64, 24
    w = {"model.embed_tokens.weight": f16(V, H, std=.5), "lm_head.weight": f16(V, H), "model.norm.weight": f16(H, mean=1)}
    for l in range(2):
        p = f"model.layers.{l}."
        for name, o, i in (("q_proj", Q, H), ("k_proj", KV, H), ("v_proj", KV, H), ("o_proj", H, Q)):
            w[f"{p}self_attn.{name}.weight"], w[f"{p}self_attn.{name}.bias"] = f16(o, i), f16(o)
        w[p + "self_attn.sinks"] = f16(6, std=1)
        w[p + "input_layernorm.weight"], w[p + "post_attention_layernorm.weight"] = f16(H, mean=1), f16(H, mean=1)
        w[p + "mlp.router.weight"], w[p + "mlp.router.bias"], w[p + "mlp.router.vision_bias"] = f16(E, H), f16(E), f16(E, std=1)
        w[p + "mlp.experts.gate_up_proj"], w[p + "mlp.experts.gate_up_proj_bias"] = f16(E, H, 2 * I, std=.2), f16(E, 2 * I)
        w[p + "mlp.experts.down_proj"], w[p + "mlp.experts.down_proj_bias"] = f16(E, I, H), f16(E, H)
    a = "model.vision_adapter."
    w[a + "vit.embeddings.cls_token"], w[a + "vit.embeddings.position_embeddings"] = f16(1, 1, D), f16(1, 10, D)
    w[a + "vit.embeddings.patch_embeddings.projection.weight"] = f16(D, 3, 10, 10)
    w[a + "vit.embeddings.patch_embeddings.projection.bias"] = f16(D)
    l = a + "vit.encoder.layer.0."
    for name, o, i in (("attention.attention.query", D, D), ("attention.attention.key", D, D), ("attention.attention.value", D, D),
                       ("attention.output.dense", D, D), ("intermediate.dense", 40, D), ("output.dense", D, 40)):
        w[f"{l}{name}.weight"], w[f"{l}{name}.bias"] = f16(o, i, std=.2), f16(o)
    for name in (l + "layernorm_before", l + "layernorm_after", a + "vit.layernorm", a + "norm"):
        w[name + ".weight"], w[name + ".bias"] = f16(D, mean=1), f16(D)
    w[a + "proj.weight"], w[a + "proj.bias"] = f16(H, D), f16(H)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(c, indent=1))
    names, index = sorted(w), {"metadata": {"total_size": sum(x.nbytes for x in w.values())}, "weight_map": {}}
    for shard in range(3):
        file = f"model-0000{shard + 1}-of-00003.safetensors"
        part = {name: w[name] for name in names[shard::3]}
        save_file(part, folder / file, metadata={"format": "pt"})
        index["weight_map"].update({name: file for name in part})
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))
    ids = rng.integers(0, V, (3, 21))
    pixels = rng.normal(0, 1, (3, 3, 30, 30)).astype(np.float32)
    save_file({"input_ids": ids, "pixel_values": pixels}, folder / "inputs.safetensors")
    wide, px = load_weights(folder), pixels.astype(np.float64)
    r = forward(c, wide, ids, px)
    r["generated_ids"] = generate(c, wide, ids, px)
    save_file(as_stored(r), folder / "expected.safetensors")


def make_long(folder):
    # Both experts are always chosen: among 8,600 choices one would be too close to call in f32.
    c = {"model_type": "gpt_oss", "vocab_size": 40, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2,
         "num_local_experts": 2, "num_experts_per_tok": 2, "head_dim": 64, "num_attention_heads": 2, "num_key_value_heads": 1,
         "sliding_window": 128, "rope_theta": 150000.0, "initial_context_length": 4096,
         "rope_scaling": {"rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False,
                          "original_max_position_embeddings": 4096},
         "eos_token_id": 0, "pad_token_id": 0, "torch_dtype": "float32"}
    rng = np.random.default_rng(4300)
    f32 = lambda *shape, std=.3, mean=0.: rng.normal(mean, std, shape).astype(np.float32)
    w = {"model.embed_tokens.weight": f32(40, 32, std=1), "lm_head.weight": f32(40, 32), "model.norm.weight": f32(32, mean=1)}
    for l in range(2):
        p = f"model.layers.{l}."
        for name, o, i in (("q_proj", 128, 32), ("k_proj", 64, 32), ("v_proj", 64, 32), ("o_proj", 32, 128)):
            w[f"{p}self_attn.{name}.weight"], w[f"{p}self_attn.{name}.bias"] = f32(o, i), f32(o)
        w[p + "self_attn.sinks"] = f32(2, std=1)
        w[p + "input_layernorm.weight"], w[p + "post_attention_layernorm.weight"] = f32(32, mean=1), f32(32, mean=1)
        w[p + "mlp.router.weight"], w[p + "mlp.router.bias"] = f32(2, 32), f32(2)
        w[p + "mlp.experts.gate_up_proj"], w[p + "mlp.experts.gate_up_proj_bias"] = f32(2, 32, 64), f32(2, 64)
        w[p + "mlp.experts.down_proj"], w[p + "mlp.experts.down_proj_bias"] = f32(2, 32, 32), f32(2, 32)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(c, indent=1))
    save_file(w, folder / "model.safetensors", metadata={"format": "pt"})
    ids = rng.integers(0, 40, (1, 4300))
    save_file({"input_ids": ids}, folder / "inputs.safetensors")
    r = as_stored(forward(c, load_weights(folder), ids))
    save_file({k: r[k] for k in ("logits", "inv_freq", "loss")}, folder / "expected.safetensors")


if __name__ == "__main__":
    {"check": check, "make": make, "make-long": make_long}[sys.argv[1]](pathlib.Path(sys.argv[2]))

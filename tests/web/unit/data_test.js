import { check, equal, ok } from "./check.js";
import * as tree from "/conversation.js";
import { events } from "/api.js";
import { shares, summary } from "/heatmap.js";
import { checked_settings, request_fields } from "/settings.js";
import { prepare_image, too_much, kMaxSide } from "/images.js";
import { Store } from "/store.js";

const texts = (conversation) => tree.path_to_head(conversation).map((m) => m.content).join(" ");
function sample() {
  const c = tree.new_conversation({ system: "Be brief" });
  const q = tree.add_message(c, null, { role: "user", content: "q" });
  const a = tree.add_message(c, q.id, { role: "assistant", content: "a", reasoning: "r" });
  return { c, q, a };
}

await check("branches", () => {
  const { c, q, a } = sample();
  const b = tree.add_message(c, q.id, { role: "assistant", content: "b" });
  b.created = a.created + 1;
  const d = tree.add_message(c, b.id, { role: "user", content: "d" });
  equal(texts(c), "q b d");
  equal(tree.siblings(c, a).map((m) => m.content), ["a", "b"]);
  tree.select_branch(c, a.id);
  equal(texts(c), "q a");
  tree.select_branch(c, b.id);
  equal(texts(c), "q b d");
  equal(tree.siblings(c, d).length, 1);
});
await check("what a second try replaces", () => {
  const { c, a } = sample();
  ok(!tree.is_blank_leaf(c, a), "an answer stays");
  const q = tree.add_message(c, a.id, { role: "user", content: "again" });
  const failed = tree.add_message(c, q.id, { role: "assistant", error: "busy" });
  ok(tree.is_blank_leaf(c, failed), "nothing came of it");
  tree.add_message(c, failed.id, { role: "user", content: "next" });
  ok(!tree.is_blank_leaf(c, failed), "something follows it");
});
await check("merging what two tabs added", () => {
  const { c, q, a } = sample(), other = structuredClone(c);
  const b = tree.add_message(other, a.id, { role: "user", content: "from the other" });
  Object.assign(other.messages[a.id], { content: "longer", changed: 5 });
  Object.assign(other.messages[q.id], { content: "older" });
  q.changed = 3;
  tree.merge(c, other);
  equal([c.head, c.messages[b.id].content, a.content, q.content], [a.id, "from the other", "longer", "q"]);
  tree.merge(c, undefined);
  equal(Object.keys(c.messages).length, 3);
});
await check("messages on the wire", () => {
  const { c, a } = sample();
  a.tool_calls = [{ id: "1", name: "f", arguments: "{}" }];
  const t = tree.add_message(c, a.id, { role: "tool", content: "out", tool_call_id: "1" });
  tree.add_message(c, t.id, { role: "assistant", content: "" });
  equal(tree.request_messages(c), [
    { role: "system", content: "Be brief" }, { role: "user", content: "q" },
    { role: "assistant", content: "a", reasoning_content: "r", tool_calls: [{ id: "1", type: "function", function: { name: "f", arguments: "{}" } }] },
    { role: "tool", tool_call_id: "1", content: "out" }]);
  const p = tree.new_conversation();
  tree.add_message(p, null, { role: "user", content: "what?", images: [{ url: "data:image/png;base64,AA==" }] });
  equal(tree.request_messages(p)[0].content, [{ type: "image_url", image_url: { url: "data:image/png;base64,AA==" } }, { type: "text", text: "what?" }]);
});
await check("export and import", () => {
  const { c } = sample();
  const copy = tree.checked_conversation(JSON.parse(JSON.stringify(c)));
  equal(texts(copy), "q a");
  equal(copy.settings, { system: "Be brief" });
  ok(copy.id !== c.id, "an import never replaces a chat");
});
await check("hostile imports", () => {
  const m = (id, parent, more = {}) => ({ id, parent, role: "user", content: "x", ...more });
  for (const bad of [null, 1, "x", [], {}, { messages: null }, { messages: { a: null } }, { messages: { a: m("a", null, { role: "system" }) } }, { messages: { a: m("a", "b"), b: m("b", "a") } }, { messages: { a: m("a", "gone") } }]) {
    equal(tree.checked_conversation(bad), null, JSON.stringify(bad));
  }
  const evil = tree.checked_conversation({ messages: { __proto__: null, a: m("a", null, { content: 5, images: [{ url: "https://evil.org/x.png" }, { url: "data:image/svg+xml;base64,AA==" }, { url: "data:image/png;base64,AA==", name: {} }], extra: 1, stats: { completion: 3, x: "<b>" } }) }, settings: { system: {}, top_p: 0.5, messages: "x", model: "y", seed: 1.5 } });
  const [message] = tree.path_to_head(evil);
  equal(message.content, "");
  equal(message.images, [{ url: "data:image/png;base64,AA==", name: "", pixels: 0 }]);
  equal(message.stats, { completion: 3 });
  ok(!("extra" in message), "unknown members are dropped");
  equal(evil.settings, { top_p: 0.5 });
});
await check("titles", () => {
  const c = tree.new_conversation();
  equal(tree.title_of(c), "New chat");
  tree.add_message(c, null, { role: "user", content: "  a\n b " + "c".repeat(80) });
  equal(tree.title_of(c).length, 60);
});

await check("server-sent events, cut anywhere", async () => {
  const text = ": hello\r\n\r\ndata: a\r\ndata:b\r\n\r\nevent: error\ndata: {\"x\": \"ü€\"}\n\nid: 3\rdata: last\r\r\ndata: never";
  const bytes = new TextEncoder().encode(text);
  for (let size = 1; size < 9; size++) {
    const stream = new ReadableStream({ start(control) {
      for (let at = 0; at < bytes.length; at += size) control.enqueue(bytes.slice(at, at + size));
      control.close();
    } });
    const got = [];
    for await (const { event, data } of events(stream)) got.push([event, data]);
    equal(got, [["message", "a\nb"], ["error", '{"x": "ü€"}'], ["message", "last"]], `pieces of ${size}`);
  }
});
await check("load of experts", () => {
  equal(shares([[1, 3], [0, 0]]), [[0.25, 0.75], [0, 0]]);
  equal(summary([0.25, 0.25, 0.25, 0.25]).effective.toFixed(6), "4.000000");
  equal(summary([0, 1, 0]), { busiest: 1, share: 1, effective: 1 });
  equal(summary([0, 0]).effective, 0);
});
await check("settings on the wire", () => {
  equal(checked_settings(null), {});
  equal(checked_settings({ stream: 1, messages: "x", temperature: 3, top_p: "1", top_k: 1.5, min_p: 0.5, reasoning_effort: "huge", tools: "[]" }), { tools: "[]", min_p: 0.5 });
  equal(request_fields({ model: "other", temperature: 0 }), { temperature: 0 });
  equal(request_fields({ system: "s", temperature: 0, max_completion_tokens: 5, reasoning_effort: "low" }), { reasoning_effort: "low", temperature: 0, max_completion_tokens: 5 });
  equal(request_fields({ tools: '[{"name": "f"}]' }), { tools: [{ type: "function", function: { name: "f" } }] });
  equal(request_fields({ schema: "{}" }).response_format.json_schema, { name: "answer", strict: true, schema: {} });
  for (const bad of [{ tools: "{" }, { tools: "{}" }, { tools: "[1]" }, { tools: "[{}]" }, { schema: "[]" }, { schema: "null" }]) {
    let message = "";
    try { request_fields(bad); } catch (error) { message = error.message; }
    ok(/^(Tools|Answer schema): /.test(message), `${JSON.stringify(bad)}: ${message}`);
  }
});

async function picture(width, height, type = "image/png") {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  canvas.getContext("2d").fillRect(0, 0, width / 2, height);
  return new File([await new Promise((resolve) => canvas.toBlob(resolve, type))], "p.x");
}
await check("pictures within the limits are sent as they are", async () => {
  for (const type of ["image/png", "image/jpeg", "image/webp"]) {
    const file = await picture(30, 20, type), image = await prepare_image(file);
    ok(image.url.startsWith(`data:${type};base64,`), image.url.slice(0, 30));
    equal(image.note, "");
    equal(atob(image.url.split(",")[1]).length, file.size, type);
  }
});
await check("huge pictures are made smaller", async () => {
  const image = await prepare_image(await picture(6000, 1500));
  const shown = new Image();
  shown.src = image.url;
  await shown.decode();
  equal([shown.width, shown.height], [kMaxSide, 1024]);
  ok(/from 6000 × 1500/.test(image.note), image.note);
});
await check("what is transparent becomes white in a JPEG", async () => {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 2000;
  const noise = new Uint32Array(1 << 14), { context, data } = { context: canvas.getContext("2d"), data: new ImageData(2000, 2000) };
  const words = new Uint32Array(data.data.buffer);
  for (let at = 2000 * 400; at < words.length; at += noise.length) {  // opaque noise that PNG cannot make small, below transparent rows
    crypto.getRandomValues(noise);
    words.set(noise.subarray(0, words.length - at).map((x) => x | 0xff000000), at);
  }
  context.putImageData(data, 0, 0);
  const file = new File([await new Promise((resolve) => canvas.toBlob(resolve))], "p.png");
  ok(file.size > 5 << 20, "too large to be sent as it is");
  const image = await prepare_image(file), shown = new Image();
  shown.src = image.url;
  await shown.decode();
  context.drawImage(shown, 0, 0);
  ok(image.url.startsWith("data:image/jpeg"), image.url.slice(0, 30));
  equal([...context.getImageData(10, 10, 1, 1).data], [255, 255, 255, 255]);
});
await check("pictures of a request have limits together", () => {
  const images = (n, pixels, length = 1) => Array(n).fill({ url: "x".repeat(length), pixels });
  equal([too_much(images(16, 8e6)), too_much(images(16))], ["", ""]);
  for (const bad of [images(17), images(9, 16e6), images(3, 1, 10 << 20)]) ok(/pictures/.test(too_much(bad)), JSON.stringify(bad).slice(0, 99));
});
await check("what is no picture is refused", async () => {
  for (const content of ["", "<svg xmlns='http://www.w3.org/2000/svg'/>", "hello", "\x89PNG\r\n\x1a\nbroken"]) {
    let message = "";
    try { await prepare_image(new File([Uint8Array.from(content, (c) => c.charCodeAt(0))], "x.png", { type: "image/png" })); } catch (error) { message = error.message; }
    ok(/^is /.test(message), `${content}: ${message}`);
  }
});

await check("the store keeps, lists and forgets", async () => {
  for (const store of [await new Store().open(), new Store()]) {
    await store.remove(null);
    const { c } = sample(), other = sample().c;
    other.updated = c.updated + 5;
    await store.put(c);
    await store.put(other);
    equal((await store.list()).map((row) => row.id), [other.id, c.id]);
    equal(texts(await store.get(c.id)), "q a");
    await store.remove(other.id);
    equal((await store.all()).length, 1);
    await store.remove(null);
    equal((await store.list()).length, 0);
  }
});
await check("two tabs do not lose each other's messages", async () => {
  const [one, two] = [await new Store().open(), await new Store().open()], heard = [];
  two.on_other_tab = (change) => heard.push(change);
  const { c, a } = sample();
  await one.put(c);
  const d = await two.get(c.id);
  tree.add_message(c, a.id, { role: "user", content: "one" });
  await one.put(c);
  tree.add_message(d, a.id, { role: "user", content: "two" });
  await two.put(d);
  const stored = await one.get(c.id);
  equal(Object.values(stored.messages).map((m) => m.content).sort(), ["a", "one", "q", "two"]);
  equal(Object.keys(d.messages).length, 4, "the tab that stored last has them all");
  await one.remove(c.id);
  equal((await one.list()).length, 0);
  for (let i = 0; i < 100 && heard.length < 3; i++) await new Promise((resolve) => { setTimeout(resolve, 20); });
  equal(heard, [{ id: c.id }, { id: c.id }, { id: c.id, removed: true }]);
});

// Markdown to DOM nodes, whole or as it streams in. Only elements made here ever appear; the text itself becomes text nodes.

import { h, copy_button } from "./dom.js";
import { parse_blocks, to_lines } from "./blocks.js";
import { render_inline } from "./inline.js";
import { render_math } from "./math.js";
import { highlight } from "./highlight.js";

// What may be wider than the page scrolls by itself, also with the keyboard.
const scrolling = (name) => ({ tabindex: "0", role: "region", "aria-label": name });

function code_node({ lang, text }) {
  const name = lang.slice(0, 30);
  return h("figure.code", {}, h("figcaption", {}, name || "text", copy_button("Copy code", () => text)),
    h("pre", scrolling(`Code${name ? ", " + name : ""}`), h("code", {}, highlight(text, name.toLowerCase()))));
}

function list_node({ ordered, start, tight, items }) {
  return h(ordered ? "ol" : "ul", { start: ordered && start !== 1 ? start : null }, items.map(({ task, blocks }) => {
    const children = blocks.map((block) => (tight && block.type === "paragraph" ? render_inline(block.text) : block_node(block)));
    if (task === null) return h("li", {}, children);
    return h("li.task", {}, h("input", { type: "checkbox", disabled: true, checked: task, "aria-label": task ? "done" : "not done" }), children);
  }));
}

function table_node({ aligns, header, rows }) {
  const row = (tag, cells) => h("tr", {}, aligns.map((align, i) => h(tag, { class: align ? `td-${align}` : null, scope: tag === "th" && "col" }, render_inline(cells[i] || ""))));
  return h("div.table", scrolling("Table"), h("table", {}, h("thead", {}, row("th", header)), h("tbody", {}, rows.map((cells) => row("td", cells)))));
}

function block_node(block) {
  switch (block.type) {
    case "heading": return h("h" + Math.min(6, block.level + 2), {}, render_inline(block.text));  // the page has h1 and h2
    case "rule": return h("hr");
    case "code": return code_node(block);
    case "math": return block.closed ? h("div.math-block", scrolling("Formula"), render_math(block.text, true)) : h("p", {}, block.text);
    case "quote": return h("blockquote", {}, block.blocks.map(block_node));
    case "list": return list_node(block);
    case "table": return table_node(block);
    default: return h("p", {}, render_inline(block.text));
  }
}

export const render_markdown = (text) => parse_blocks(to_lines(text)).map(block_node);

// A growing text inside `root`. Each update parses from the start of the last two blocks only: nothing that is appended can
// change a block that has two others behind it.
export class MarkdownView {
  constructor(root) {
    this.root = root;
    this.text = "";
    this.offset = 0;  // characters of the text that are final in the DOM
    this.open = [];   // the blocks behind it, with their nodes
  }

  update(text) {
    if (!text.startsWith(this.text.slice(0, this.offset))) {
      this.offset = 0;
      this.open = [];
      this.root.replaceChildren();
    }
    this.text = text;
    const tail = text.slice(this.offset), starts = [0];
    for (const line of tail.split("\n")) starts.push(starts.at(-1) + line.length + 1);
    const blocks = parse_blocks(to_lines(tail)).map((block) => ({ ...block, source: tail.slice(starts[block.begin], starts[block.end]), stop: starts[block.end] }));
    // Blocks that did not change keep their nodes, and with them a selection or a scroll position.
    const unchanged = (a, b) => b && a.source === b.source && a.type === b.type && a.closed === b.closed;
    let same = 0;
    while (same < blocks.length && unchanged(blocks[same], this.open[same])) blocks[same].node = this.open[same++].node;
    for (const old of this.open.slice(same)) old.node.remove();
    for (const block of blocks.slice(same)) this.root.append((block.node = block_node(block)));
    const final = Math.max(0, blocks.length - 2);
    if (final) this.offset += blocks[final - 1].stop;
    this.open = blocks.slice(final);
  }
}

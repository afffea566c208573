// Markdown to DOM nodes, whole or as it streams in. Only elements made here ever appear; the text itself becomes text nodes.

import { h, copy_button } from "./dom.js";
import { parse_blocks, to_lines } from "./blocks.js";
import { render_inline } from "./inline.js";
import { render_math } from "./math.js";
import { highlight } from "./highlight.js";

function code_node(block) {
  const name = block.lang.slice(0, 30);
  const code = h("code", {}, highlight(block.text, name.toLowerCase()));
  return h("figure.code", {},
    h("figcaption", {}, h("span", {}, name || "text"), copy_button("Copy code", () => block.text)),
    h("pre", { tabindex: "0", role: "region", "aria-label": `Code${name ? ", " + name : ""}` }, code));
}

function list_node(block) {
  const items = block.items.map((item) => {
    const children = item.blocks.flatMap((b) => (block.tight && b.type === "paragraph" ? render_inline(b.text) : [block_node(b)]));
    if (item.task === null) return h("li", {}, children);
    return h("li.task", {}, h("input", { type: "checkbox", disabled: true, checked: item.task, "aria-label": item.task ? "done" : "not done" }), children);
  });
  const first = block.ordered && block.start !== 1 ? { start: block.start } : {};
  return h(block.ordered ? "ol" : "ul", first, items);
}

function table_node(block) {
  const align = (column) => (block.aligns[column] ? "td-" + block.aligns[column] : null);
  const row = (tag, cells) => h("tr", {}, block.aligns.map((_, column) =>
    h(tag, { class: align(column), scope: tag === "th" ? "col" : null }, render_inline(cells[column] || ""))));
  return h("div.table", { tabindex: "0", role: "region", "aria-label": "Table" },
    h("table", {}, h("thead", {}, row("th", block.header)), h("tbody", {}, block.rows.map((cells) => row("td", cells)))));
}

function block_node(block) {
  switch (block.type) {
    case "heading": return h("h" + Math.min(6, block.level + 2), {}, render_inline(block.text));  // the page has h1 and h2
    case "rule": return h("hr");
    case "code": return code_node(block);
    case "math": return block.closed ? h("div.math-block", { tabindex: "0", role: "region", "aria-label": "Formula" }, render_math(block.text, true))
      : h("p", {}, block.source);
    case "quote": return h("blockquote", {}, block.blocks.map(block_node));
    case "list": return list_node(block);
    case "table": return table_node(block);
    default: return h("p", {}, render_inline(block.text));
  }
}

export function render_markdown(text) {
  return parse_blocks(to_lines(text)).map(block_node);
}

// A growing text inside `root`. Each update parses from the start of the last two blocks only: nothing that is appended can
// change a block that has two others behind it.
export class MarkdownView {
  constructor(root) {
    this.root = root;
    this.text = "";
    this.offset = 0;   // characters of the text that are final in the DOM
    this.open = [];    // {source, node} of the blocks behind it
  }

  update(text) {
    if (!text.startsWith(this.text.slice(0, this.offset))) {
      this.offset = 0;
      this.open = [];
      this.root.replaceChildren();
    }
    this.text = text;
    const raw = text.slice(this.offset).split("\n");
    const blocks = parse_blocks(to_lines(text.slice(this.offset)));
    const starts = [0];
    for (const line of raw) starts.push(starts.at(-1) + line.length + 1);
    const next = blocks.map((block) => {
      const end = Math.min(starts[block.end], text.length - this.offset);
      return { end, source: text.slice(this.offset + starts[block.begin], this.offset + end), block };
    });
    let same = 0;  // blocks that did not change keep their nodes, and with them a selection or a scroll position
    const unchanged = (a, b) => b && a.source === b.source && a.block.type === b.block.type && a.block.closed === b.block.closed;
    while (same < next.length && unchanged(next[same], this.open[same])) {
      next[same].node = this.open[same].node;
      same++;
    }
    for (const old of this.open.slice(same)) old.node.remove();
    for (const part of next.slice(same)) {
      part.node = block_node(part.block);
      this.root.append(part.node);
    }
    const final = Math.max(0, next.length - 2);
    if (final > 0) this.offset += next[final - 1].end;
    this.open = next.slice(final);
  }
}

// Inline markdown (emphasis, code, links, math) to DOM nodes, in one pass and in linear time: every search for an end that
// failed once is remembered.

import { h } from "./dom.js";
import { render_math } from "./math.js";

const kPunctuation = /[!-/:-@[-`{-~\p{P}\p{S}]/u;
const kEscapable = /[!-/:-@[-`{-~]/;
const kEntities = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\u00a0", ndash: "\u2013", mdash: "\u2014", hellip: "\u2026", times: "\u00d7" };
const kMaxNesting = 24;

// The address if it is one that a click may open, else null. Relative ones are refused: they would lead into this page.
export function safe_url(text) {
  if (!/^(https?:\/\/|mailto:)/i.test(text)) return null;
  try {
    const url = new URL(text);
    return ["http:", "https:", "mailto:"].includes(url.protocol) ? url.href : null;
  } catch {
    return null;
  }
}

function link(url, children) {
  return h("a", { href: url, title: url, target: "_blank", rel: "noopener noreferrer nofollow", referrerpolicy: "no-referrer" }, children);
}

class InlineParser {
  constructor(text) {
    this.text = text;
    this.at = 0;
    this.plain = "";
    this.out = [];         // {node, depth} | {mark, count, ...} | {bracket, image}
    this.no_end = {};      // construct -> true once no end of it follows
    this.bottom = {};      // emphasis kind -> index into out below which there is no opener
    this.after_url = 0;
  }

  flush() {
    if (this.plain) this.out.push({ node: document.createTextNode(this.plain), depth: 0 });
    this.plain = "";
  }
  push(node, depth = 1) {
    this.flush();
    this.out.push({ node, depth });
  }
  // What a mark or bracket is when nothing matched it.
  static node_of(item) {
    if (item.node) return item.node;
    return document.createTextNode(item.mark ? item.mark.repeat(item.count) : item.image ? "![" : "[");
  }
  // Takes all items after `index`; returns their nodes and how deep they are nested.
  take(index) {
    const items = this.out.splice(index + 1);
    for (const kind of Object.keys(this.bottom)) this.bottom[kind] = Math.min(this.bottom[kind], index + 1);
    return { nodes: items.map(InlineParser.node_of), depth: items.reduce((most, item) => Math.max(most, item.depth || 0), 0) };
  }

  parse() {
    const { text } = this;
    while (this.at < text.length) {
      const c = text[this.at];
      const done =
        c === "\\" ? this.backslash() :
        c === "`" ? this.code() :
        c === "$" ? this.dollars() :
        c === "*" || c === "_" || c === "~" ? this.marks(c) :
        c === "[" || (c === "!" && text[this.at + 1] === "[") ? this.open_bracket() :
        c === "]" ? this.close_bracket() :
        c === "<" ? this.angle() :
        c === "&" ? this.entity() :
        c === "h" || c === "H" ? this.bare_url() :
        c === "\n" ? this.newline() : false;
      if (!done) {
        this.plain += c;
        this.at++;
      }
    }
    this.flush();
    return this.out.map(InlineParser.node_of);
  }

  // The end of a construct opened at `from`, or -1; a failure is remembered under `key`.
  find(needle, from, key) {
    if (this.no_end[key]) return -1;
    const end = this.text.indexOf(needle, from);
    if (end < 0) this.no_end[key] = true;
    return end;
  }

  backslash() {
    const next = this.text[this.at + 1];
    if (next === "(" || next === "[") {
      const end = this.find(next === "(" ? "\\)" : "\\]", this.at + 2, next);
      if (end > 0) {
        this.push(render_math(this.text.slice(this.at + 2, end), next === "["));
        this.at = end + 2;
        return true;
      }
    }
    if (next === "\n") {
      this.push(h("br"));
      this.at += 2;
      return true;
    }
    if (next === undefined || !kEscapable.test(next)) return false;
    this.plain += next;
    this.at += 2;
    return true;
  }

  code() {
    let count = 1;
    while (this.text[this.at + count] === "`") count++;
    let end = this.at + count;
    const key = "`" + count;
    for (;;) {  // a run of exactly `count` backticks
      if (this.no_end[key]) end = -1;
      else end = this.text.indexOf("`", end);
      if (end < 0) break;
      let run = 1;
      while (this.text[end + run] === "`") run++;
      if (run === count) break;
      end += run;
    }
    if (end < 0) {
      this.no_end[key] = true;
      this.plain += "`".repeat(count);
      this.at += count;
      return true;
    }
    let inside = this.text.slice(this.at + count, end).replaceAll("\n", " ");
    if (/^ .*[^ ].* $/.test(inside) || /^ [^ ] $/.test(inside)) inside = inside.slice(1, -1);
    this.push(h("code", {}, inside));
    this.at = end + count;
    return true;
  }

  // $x$ as pandoc has it: no blank inside next to a dollar sign, no digit after the closing one, so that prices stay prices.
  dollars() {
    const { text, at } = this;
    if (text[at + 1] === "$") {
      const end = this.find("$$", at + 2, "$$");
      if (end < 0 || end === at + 2) {
        this.plain += "$$";
        this.at += 2;
        return true;
      }
      this.push(render_math(text.slice(at + 2, end), true));
      this.at = end + 2;
      return true;
    }
    if (this.no_end.$ || at + 1 >= text.length || /\s/.test(text[at + 1])) return false;
    let end = at + 1;
    for (; end < text.length && text[end] !== "$"; end++) {
      if (text[end] === "\\") end++;
    }
    if (end >= text.length) {
      this.no_end.$ = true;
      return false;
    }
    if (/\s/.test(text[end - 1]) || /[0-9]/.test(text[end + 1] || "")) return false;
    this.push(render_math(text.slice(at + 1, end), false));
    this.at = end + 1;
    return true;
  }

  // CommonMark's rules for runs of * and _ (and ~~), applied as soon as a run can close something.
  marks(mark) {
    const { text, at } = this;
    let count = 1;
    while (text[at + count] === mark) count++;
    const before = at > 0 ? text[at - 1] : " ", after = text[at + count] || " ";
    const space_before = /\s/.test(before), space_after = /\s/.test(after);
    const punctuation_before = kPunctuation.test(before), punctuation_after = kPunctuation.test(after);
    const left = !space_after && (!punctuation_after || space_before || punctuation_before);
    const right = !space_before && (!punctuation_before || space_after || punctuation_after);
    this.at += count;
    if (mark === "~" && count !== 2) {
      this.plain += "~".repeat(count);
      return true;
    }
    const run = {
      mark, count,
      opens: mark === "_" ? left && (!right || punctuation_before) : left,
      closes: mark === "_" ? right && (!left || punctuation_after) : right,
      original: count,
    };
    this.flush();
    if (run.closes) this.close(run);
    if (run.count > 0) this.out.push(run);
    return true;
  }

  close(run) {
    while (run.count > 0) {
      const kind = run.mark + (run.opens ? "o" : "") + (run.original % 3);
      const bottom = this.bottom[kind] || 0;
      let index = this.out.length - 1;
      for (; index >= bottom; index--) {
        const item = this.out[index];
        if (item.bracket) { index = -1; break; }  // emphasis does not cross the start of a link
        if (item.mark !== run.mark || !item.opens) continue;
        const odd = (item.closes || run.opens) && (item.original + run.original) % 3 === 0 && (item.original % 3 !== 0 || run.original % 3 !== 0);
        if (!odd) break;
      }
      if (index < bottom) {
        this.bottom[kind] = this.out.length;
        return;
      }
      const opener = this.out[index];
      const use = run.mark === "~" ? 2 : opener.count >= 2 && run.count >= 2 ? 2 : 1;
      const inside = this.take(index);
      opener.count -= use;
      run.count -= use;
      if (opener.count === 0) this.out.pop();
      if (inside.depth >= kMaxNesting) {
        for (const node of inside.nodes) this.out.push({ node, depth: inside.depth });
      } else {
        this.out.push({ node: h(run.mark === "~" ? "del" : use === 2 ? "strong" : "em", {}, inside.nodes), depth: inside.depth + 1 });
      }
    }
  }

  open_bracket() {
    const image = this.text[this.at] === "!";
    this.flush();
    this.out.push({ bracket: true, image });
    this.at += image ? 2 : 1;
    return true;
  }

  close_bracket() {
    this.flush();
    let index = this.out.length - 1;
    const lowest = this.bottom["["] || 0;
    while (index >= lowest && !this.out[index].bracket) index--;
    if (index < lowest) {
      this.bottom["["] = this.out.length;
      return false;
    }
    const target = this.destination(this.at + 1);
    const { image } = this.out[index];
    if (!target) {  // just text in brackets
      this.out[index] = { node: document.createTextNode(image ? "![" : "["), depth: 0 };
      return false;
    }
    const { nodes, depth } = this.take(index);
    this.out.pop();
    const url = safe_url(target.url);
    // Pictures are not fetched: the page asks no other host for anything. They become links.
    if (url) this.out.push({ node: link(url, image && !nodes.length ? [url] : nodes), depth: depth + 1 });
    else this.out.push({ node: h("span", { title: target.url }, nodes), depth: depth + 1 });
    this.at = target.end;
    return true;
  }

  // "(url "title")" at `from`.
  destination(from) {
    const { text } = this;
    if (text[from] !== "(") return null;
    let at = from + 1, depth = 0, url = "";
    const limit = Math.min(text.length, from + 4000);
    while (at < limit && text[at] === " ") at++;
    if (text[at] === "<") {
      const end = text.indexOf(">", at);
      if (end < 0 || end > limit) return null;
      url = text.slice(at + 1, end);
      at = end + 1;
    } else {
      for (; at < limit && !/\s/.test(text[at]); at++) {
        if (text[at] === "(") depth++;
        else if (text[at] === ")" && depth-- === 0) break;
        if (text[at] === "\\" && kEscapable.test(text[at + 1] || "")) at++;
        url += text[at];
      }
    }
    const rest = /^\s*(?:"[^"]*"|'[^']*')?\s*\)/.exec(text.slice(at, Math.min(limit, at + 300)));
    return rest ? { url, end: at + rest[0].length } : null;
  }

  angle() {
    const match = /^<(?:(https?:\/\/[^\s<>]{1,2000}|mailto:[^\s<>]{1,300})|br\s{0,3}\/?)>/i.exec(this.text.slice(this.at, this.at + 2020));
    if (!match) return false;
    if (!match[1]) {
      this.push(h("br"));
    } else {
      const url = safe_url(match[1]);
      if (!url) return false;
      this.push(link(url, [match[1]]));
    }
    this.at += match[0].length;
    return true;
  }

  entity() {
    const match = /^&(?:([a-z]{2,6})|#(\d{1,7})|#[xX]([0-9a-fA-F]{1,6}));/.exec(this.text.slice(this.at, this.at + 12));
    if (!match) return false;
    const code = match[2] ? parseInt(match[2], 10) : match[3] ? parseInt(match[3], 16) : 0;
    const value = match[1] ? kEntities[match[1]] : code > 0 && code <= 0x10ffff ? String.fromCodePoint(code) : "\ufffd";
    if (!value) return false;
    this.plain += value;
    this.at += match[0].length;
    return true;
  }

  bare_url() {
    if (this.at < this.after_url || /[\p{L}\p{N}]/u.test(this.text[this.at - 1] || " ")) return false;
    const match = /^https?:\/\/[^\s<>"`]{1,2000}/i.exec(this.text.slice(this.at, this.at + 2010));
    if (!match) return false;
    let address = match[0].replace(/[*_~]{1,3}$/, "");
    for (;;) {  // punctuation at the end belongs to the sentence, a bracket too unless the address opened it
      const last = address.at(-1);
      if (/[.,:;!?'\]]/.test(last)) address = address.slice(0, -1);
      else if (last === ")" && address.split(")").length > address.split("(").length) address = address.slice(0, -1);
      else break;
    }
    this.after_url = this.at + match[0].length;
    const url = safe_url(address);
    if (!url) return false;
    this.push(link(url, [address]));
    this.at += address.length;
    return true;
  }

  newline() {
    const hard = this.plain.endsWith("  ");
    this.plain = this.plain.trimEnd();
    if (hard) this.push(h("br"));
    else this.plain += "\n";
    this.at++;
    while (this.text[this.at] === " ") this.at++;
    return true;
  }
}

export function render_inline(text) {
  return new InlineParser(text).parse();
}

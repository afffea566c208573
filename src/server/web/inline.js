// Inline markdown (emphasis, code, links, math) to DOM nodes, in one pass and in linear time: a search for an end that failed
// once is remembered.

import { h } from "./dom.js";
import { render_math } from "./math.js";

const kPunctuation = /[!-/:-@[-`{-~\p{P}\p{S}]/u, kEscapable = /[!-/:-@[-`{-~]/;
const kEntities = { amp: "&", lt: "<", gt: ">", quot: '"', "#39": "'", nbsp: "\u00a0" };
const kMaxNesting = 24, kMaxUrl = 2000;

// The address if it is one that a click may open, else null. Relative ones are refused: they would lead into this page.
export function safe_url(text) {
  if (!/^(?:https?:\/\/|mailto:)/i.test(text)) return null;
  try {
    return new URL(text).href;
  } catch {
    return null;
  }
}
const link = (url, children) => h("a", { href: url, title: url, target: "_blank", rel: "noopener noreferrer nofollow", referrerpolicy: "no-referrer" }, children);

// The output is a list of {node, depth}, emphasis marks {mark, count, ...} and brackets {bracket}.
const node_of = (item) => item.node || document.createTextNode(item.mark ? item.mark.repeat(item.count) : item.bracket);

class InlineParser {
  constructor(text) {
    this.text = text;
    this.at = 0;
    this.plain = "";    // text that is not yet in out
    this.out = [];
    this.no_end = {};   // construct -> true once no end of it follows
    this.bottom = {};   // kind of mark or bracket -> index in out below which nothing can open it
    this.after_url = 0;
  }

  flush() {
    if (this.plain) this.out.push({ node: document.createTextNode(this.plain), depth: 0 });
    this.plain = "";
  }
  // A finished node for the text up to `end`. Also for plain text: skip() adds it and goes on at `end`.
  push(node, end, depth = 1) {
    this.flush();
    this.out.push({ node, depth });
    return this.skip("", end);
  }
  skip(plain, end) {
    this.plain += plain;
    this.at = end;
    return true;
  }
  // Takes all items after `index`; returns their nodes and how deep they are nested.
  take(index) {
    const items = this.out.splice(index + 1);
    for (const kind of Object.keys(this.bottom)) this.bottom[kind] = Math.min(this.bottom[kind], index + 1);
    return { nodes: items.map(node_of), depth: items.reduce((most, item) => Math.max(most, item.depth || 0), 0) };
  }

  parse() {
    const methods = { "\\": "backslash", "`": "code", $: "dollars", "*": "marks", _: "marks", "~": "marks", "[": "open_bracket", "!": "open_bracket", "]": "close_bracket", "<": "angle", "&": "entity", h: "bare_url", "\n": "newline" };
    while (this.at < this.text.length) {
      const c = this.text[this.at], method = methods[c];
      if (!method || !this[method](c)) this.skip(c, this.at + 1);
    }
    this.flush();
    return this.out.map(node_of);
  }

  // The end of a construct, or -1.
  find(needle, from) {
    const end = this.no_end[needle] ? -1 : this.text.indexOf(needle, from);
    if (end < 0) this.no_end[needle] = true;
    return end;
  }

  backslash() {
    const { text, at } = this, next = text[at + 1] || "";
    if (next === "(" || next === "[") {
      const end = this.find(next === "(" ? "\\)" : "\\]", at + 2);
      if (end > 0) return this.push(render_math(text.slice(at + 2, end), next === "["), end + 2);
    }
    if (next === "\n") return this.push(h("br"), at + 2);
    return kEscapable.test(next) && this.skip(next, at + 2);
  }

  run_length(c, at) {
    let end = at + 1;
    while (this.text[end] === c) end++;
    return end - at;
  }
  code() {
    const count = this.run_length("`", this.at), key = "`" + count, start = this.at + count;
    let end = start, run = 0;
    while (!this.no_end[key] && (end = this.text.indexOf("`", end + run)) >= 0) {
      run = this.run_length("`", end);
      if (run === count) {
        const inside = this.text.slice(start, end).replaceAll("\n", " ");
        return this.push(h("code", {}, inside.trim() && /^ [^]* $/.test(inside) ? inside.slice(1, -1) : inside), end + count);
      }
    }
    this.no_end[key] = true;
    return this.skip("`".repeat(count), start);
  }

  // $x$ as pandoc has it: no blank inside next to a dollar sign, no digit after the closing one, so that prices stay prices.
  dollars() {
    const { text, at } = this;
    if (text[at + 1] === "$") {
      const end = this.find("$$", at + 2);
      return end > at + 2 ? this.push(render_math(text.slice(at + 2, end), true), end + 2) : this.skip("$$", at + 2);
    }
    if (this.no_end.$ || /^\s?$/.test(text[at + 1] || "")) return false;
    let end = at + 1;
    for (; end < text.length && text[end] !== "$"; end++) if (text[end] === "\\") end++;
    if (end >= text.length) this.no_end.$ = true;
    if (end >= text.length || /\s/.test(text[end - 1]) || /[0-9]/.test(text[end + 1] || "")) return false;
    return this.push(render_math(text.slice(at + 1, end), false), end + 1);
  }

  // CommonMark's rules for runs of * and _ (and ~~), applied as soon as a run can close something.
  marks(mark) {
    const { text, at } = this, count = this.run_length(mark, at);
    const before = text[at - 1] || " ", after = text[at + count] || " ";
    if (mark === "~" && count !== 2) return this.skip("~".repeat(count), at + count);
    const blank = (c) => /\s/.test(c), soft = (c) => blank(c) || kPunctuation.test(c);
    const left = !blank(after) && (!kPunctuation.test(after) || soft(before)), right = !blank(before) && (!kPunctuation.test(before) || soft(after));
    const word = mark === "_";  // no emphasis inside of snake_case
    const run = { mark, count, original: count, opens: left && (!word || !right || kPunctuation.test(before)), closes: right && (!word || !left || kPunctuation.test(after)) };
    this.flush();
    this.at += count;
    while (run.closes && run.count > 0 && this.close(run));
    if (run.count > 0) this.out.push(run);
    return true;
  }
  close(run) {
    const kind = run.mark + run.opens + (run.original % 3);
    let index = this.out.length - 1;
    for (; index >= (this.bottom[kind] || 0); index--) {
      const item = this.out[index];
      if (item.bracket) index = 0;  // emphasis does not cross the start of a link
      else if (item.mark === run.mark && item.opens) {
        const both = item.closes || run.opens, sum = item.original + run.original;
        if (!both || sum % 3 || !(item.original % 3 || run.original % 3)) break;
      }
    }
    if (index < (this.bottom[kind] || 0)) {
      this.bottom[kind] = this.out.length;
      return false;
    }
    const opener = this.out[index], use = opener.count > 1 && run.count > 1 ? 2 : 1;
    const { nodes, depth } = this.take(index);
    opener.count -= use;
    run.count -= use;
    if (!opener.count) this.out.pop();
    if (depth < kMaxNesting) this.out.push({ node: h(run.mark === "~" ? "del" : use === 2 ? "strong" : "em", {}, nodes), depth: depth + 1 });
    else this.out.push(...nodes.map((node) => ({ node, depth })));
    return true;
  }

  open_bracket(c) {
    const bracket = c === "!" ? "![" : "[";
    if (!this.text.startsWith(bracket, this.at)) return false;
    this.flush();
    this.out.push({ bracket });
    return this.skip("", this.at + bracket.length);
  }
  close_bracket() {
    this.flush();
    const lowest = this.bottom["["] || 0;
    let index = this.out.length - 1;
    while (index >= lowest && !this.out[index].bracket) index--;
    if (index < lowest) {
      this.bottom["["] = this.out.length;
      return false;
    }
    const target = this.destination(this.at + 1);
    if (!target) {  // just text in brackets
      this.out[index] = { node: node_of(this.out[index]), depth: 0 };
      return false;
    }
    const { nodes, depth } = this.take(index), url = safe_url(target.url);
    this.out.pop();
    // Pictures become links, too: the page asks no other host for anything.
    return this.push(url ? link(url, nodes.length ? nodes : [url]) : h("span", { title: target.url }, nodes), target.end, depth + 1);
  }
  // "(url "title")" at `from`.
  destination(from) {
    const text = this.text.slice(from, from + kMaxUrl);
    let at = /^\( */.exec(text)?.[0].length, url = "", depth = 0;
    if (!at) return null;
    const angle = /^<([^<>\n]*)>/.exec(text.slice(at));
    if (angle) {
      url = angle[1];
      at += angle[0].length;
    } else {
      for (; at < text.length && !/\s/.test(text[at]); url += text[at++]) {
        if (text[at] === "(" && ++depth > 20) return null;
        if (text[at] === ")" && depth-- === 0) break;
        if (text[at] === "\\" && kEscapable.test(text[at + 1] || "")) at++;
      }
    }
    const rest = /^\s*(?:"[^"]*"|'[^']*')?\s*\)/.exec(text.slice(at, at + 300));
    return rest && { url, end: from + at + rest[0].length };
  }

  angle() {
    const match = /^<(?:br\s{0,3}\/?|((?:https?|mailto):[^\s<>]+))>/i.exec(this.text.slice(this.at, this.at + kMaxUrl)), url = match?.[1] && safe_url(match[1]);
    return match && url !== null && this.push(url ? link(url, [match[1]]) : h("br"), this.at + match[0].length);
  }
  entity() {
    const name = /^&([a-z]{2,4}|#39);/.exec(this.text.slice(this.at, this.at + 6))?.[1];
    return Boolean(kEntities[name]) && this.skip(kEntities[name], this.at + name.length + 2);
  }
  bare_url() {
    if (this.at < this.after_url || /[\p{L}\p{N}]/u.test(this.text[this.at - 1] || " ")) return false;
    const match = /^https?:\/\/[^\s<>"`]+/.exec(this.text.slice(this.at, this.at + kMaxUrl));
    if (!match) return false;
    this.after_url = this.at + match[0].length;
    let end = match[0].length, open = match[0].split("(").length - match[0].split(")").length;
    // Punctuation at the end belongs to the sentence, a bracket too unless the address opened it.
    for (; end; end--) {
      const last = match[0][end - 1];
      if (last === ")" && open < 0) open++;
      else if (!/[.,:;!?'\]*_~]/.test(last)) break;
    }
    const address = match[0].slice(0, end), url = safe_url(address);
    return url !== null && this.push(link(url, [address]), this.at + end);
  }

  newline() {
    const hard = this.plain.endsWith("  ");
    this.plain = this.plain.trimEnd();
    if (hard) this.push(h("br"), this.at);
    else this.plain += "\n";
    this.at++;
    while (this.text[this.at] === " ") this.at++;
    return true;
  }
}

export const render_inline = (text) => new InlineParser(text).parse();

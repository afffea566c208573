// A subset of TeX's mathematics to MathML, which browsers draw without fonts of ours. What is not known stays visible as source.

import { h } from "./dom.js";
import * as symbols from "./math_symbols.js";

const kMaxNesting = 40, kMaxLength = 8000;

function m(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/1998/Math/MathML", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children.flat());
  return element;
}
const row = (nodes) => (nodes.length === 1 ? nodes[0] : m("mrow", {}, nodes));
const operator = (text, attributes = {}) => m("mo", attributes, text);
const fence = (text) => operator(text, { stretchy: "false" });
const space = (em) => m("mspace", { width: `${em}em` });
const upright = (text) => m("mi", { mathvariant: "normal" }, text);
const fenced = (open, nodes, close) => m("mrow", {}, [[open, "prefix"], 0, [close, "postfix"]].flatMap((side) =>
  !side ? nodes : side[0] ? [operator(side[0], { stretchy: "true", fence: "true", form: side[1] })] : []));

const { table } = symbols;
const kEnvironments = table({
  matrix: ["", ""], smallmatrix: ["", ""], array: ["", ""], pmatrix: ["(", ")"], bmatrix: ["[", "]"], Bmatrix: ["{", "}"], vmatrix: ["|", "|"],
  cases: ["{", ""], aligned: ["", ""], align: ["", ""], split: ["", ""], gathered: ["", ""], gather: ["", ""], equation: ["", ""],
});
const kAlphabets = table({ mathbf: "bold", bm: "bold", boldsymbol: "bold", mathbb: "bb", mathcal: "cal", mathscr: "cal", mathfrak: "frak", mathrm: "roman", mathsf: "roman", mathtt: "roman", mathit: "italic" });
const kText = new Set("text textrm textit textnormal textbf textsf texttt mbox".split(" "));
const kIgnored = new Set("displaystyle textstyle scriptstyle limits nolimits nonumber notag hline".split(" "));

class Unknown extends Error {}

class TexParser {
  constructor(source, display) {
    this.tokens = source.match(/\\(?:operatorname\*|[a-zA-Z]+|[\s\S]?)|[\s\S]/gu) || [];
    this.at = 0;
    this.depth = 0;
    this.display = display;
    this.alphabet = "";
  }
  peek() {
    while (/^\s$/.test(this.tokens[this.at] || "")) this.at++;
    return this.tokens[this.at];
  }
  next() {
    const token = this.peek();
    this.at++;
    return token;
  }
  accept(token) {
    const found = this.peek() === token;
    if (found) this.at++;
    return found;
  }
  expect(token) {
    if (!this.accept(token)) throw new Unknown(`no ${token}`);
  }
  nested(f) {
    if (++this.depth > kMaxNesting) throw new Unknown("nested too deeply");
    const result = f();
    this.depth--;
    return result;
  }

  // Nodes up to one of `ends`, which is left there.
  list(ends) {
    return this.nested(() => {
      const nodes = [];
      for (let token = this.peek(); token !== undefined && !ends.includes(token); token = this.peek()) {
        if (["}", "&", "\\\\", "\\right", "\\end"].includes(token)) throw new Unknown(`stray ${token}`);
        const node = this.with_scripts();
        if (node) nodes.push(node);
      }
      return nodes;
    });
  }
  rows(ends) {
    const rows = [[]];
    for (;;) {
      rows.at(-1).push(row(this.list([...ends, "&", "\\\\"])));
      if (this.accept("&")) continue;
      if (!this.accept("\\\\")) break;
      if (this.tokens[this.at] === "[") while (this.at < this.tokens.length && this.tokens[this.at++] !== "]");  // extra space
      rows.push([]);
    }
    const last = rows.at(-1);
    if (rows.length > 1 && last.length === 1 && !last[0].textContent && !last[0].children.length) rows.pop();
    return rows;
  }
  group(close) {
    const node = row(this.list([close]));
    this.expect(close);
    return node;
  }
  // {...} or one symbol.
  argument() {
    if (this.peek() === undefined) throw new Unknown("a command without its argument");
    return this.nested(() => (this.accept("{") ? this.group("}") : this.atom(true) || m("mrow", {})));
  }
  optional() {
    return this.accept("[") ? this.group("]") : null;
  }
  raw_argument() {
    this.expect("{");
    let depth = 1, text = "";
    for (; this.at < this.tokens.length; text += this.tokens[this.at++]) {
      if (this.tokens[this.at] === "{") depth++;
      if (this.tokens[this.at] === "}" && --depth === 0) {
        this.at++;
        return text;
      }
    }
    throw new Unknown("no }");
  }

  with_scripts() {
    const base = ["^", "_", "'"].includes(this.peek()) ? m("mrow", {}) : this.atom();
    if (!base) return null;
    let under = null, over = null, limits = base.limits === "always" || (base.limits === "display" && this.display);
    for (;;) {
      if (this.accept("\\limits")) limits = true;
      else if (this.accept("\\nolimits")) limits = false;
      else if (!under && this.accept("_")) under = this.argument();
      else if (!over && this.accept("^")) over = this.argument();
      else if (!over && this.peek() === "'") {
        let primes = "";
        while (this.accept("'")) primes += "′";
        over = operator(primes);
        if (this.accept("^")) over = m("mrow", {}, over, this.argument());
      } else break;
    }
    if (!under && !over) return base;
    const [low, high, both] = limits ? ["munder", "mover", "munderover"] : ["msub", "msup", "msubsup"];
    return under && over ? m(both, {}, base, under, over) : under ? m(low, {}, base, under) : m(high, {}, base, over);
  }

  // single: of a number only its first digit, as in \frac12.
  atom(single = false) {
    const token = this.next();
    if (token[0] === "\\" && token.length > 1) return this.command(token.slice(1));
    if (token === "{") return this.group("}");
    if (/[0-9]/.test(token)) {
      let number = token;
      while (!single && /^(?:[0-9]|\.[0-9])/.test((this.tokens[this.at] || "") + (this.tokens[this.at + 1] || ""))) number += this.tokens[this.at++];
      return m("mn", {}, this.styled(number));
    }
    if (/\p{L}/u.test(token)) return this.letter(token);
    if ("()[]|/".includes(token)) return fence(token);
    return token === "~" ? space(0.25) : operator({ "-": "−", "*": "∗" }[token] || token);
  }
  styled(text) {
    return Array.from(text, (c) => symbols.in_alphabet(c, this.alphabet)).join("");
  }
  letter(text) {
    const plain = !this.alphabet || this.alphabet === "italic";  // else the characters themselves say what they look like
    return plain ? m("mi", {}, text) : upright(this.styled(text));
  }
  delimiter() {
    const token = this.next() || "";
    if (token === ".") return "";
    const text = { "<": "⟨", ">": "⟩" }[token] || (token[0] === "\\" ? symbols.kDelimiters[token.slice(1)] : token);
    if (!text || text.length > 1 || /[\p{L}\p{N}]/u.test(text)) throw new Unknown(`no delimiter: ${token}`);
    return text;
  }

  command(name) {
    const identifier = symbols.kIdentifiers[name];
    if (identifier) return /\p{Lu}/u.test(identifier) && !this.alphabet ? upright(identifier) : this.letter(identifier);
    if (symbols.kOperators[name]) return operator(symbols.kOperators[name]);
    if (symbols.kLarge[name]) return this.large(symbols.kLarge[name], "display");
    if (symbols.kIntegrals[name]) return this.large(symbols.kIntegrals[name], "");
    if (symbols.kFunctions.has(name)) return m("mi", {}, name);
    if (symbols.kLimitFunctions.has(name)) return this.limits(upright(name.replace(/^(lim|arg)(?=.{3})/, "$1\u2009")));
    if (symbols.kDelimiters[name]) return fence(symbols.kDelimiters[name]);
    if (name in symbols.kSpaces) return space(symbols.kSpaces[name]);
    if (name in symbols.kAccents) return this.accent(name, symbols.kAccents[name], "mover", "accent");
    if (name in symbols.kUnderAccents) return this.accent(name, symbols.kUnderAccents[name], "munder", "accentunder");
    if (kText.has(name)) return this.text(name);
    if (kAlphabets[name]) return this.in_alphabet(kAlphabets[name]);
    if (kIgnored.has(name)) return null;
    if (/^bigg?[lrm]?$/i.test(name)) return operator(this.delimiter(), { minsize: name.includes("gg") ? "2.4em" : "1.6em", stretchy: "true" });
    return /^[%$#&_]$/.test(name) ? operator(name) : this.structure(name);
  }
  limits(node, when = "display") {
    node.limits = when;
    return node;
  }
  large(character, limits) {
    return this.limits(operator(character, { largeop: String(this.display), movablelimits: "false", stretchy: "false" }), limits);
  }
  accent(name, mark, tag, attribute) {
    const node = m(tag, { [attribute]: "true" }, this.argument(), operator(mark, { stretchy: String(symbols.kStretchy.test(name)) }));
    return name.endsWith("brace") ? this.limits(node, "always") : node;
  }
  text(name) {
    const text = this.raw_argument().replace(/\\([%$#&_{} ])/g, "$1").replaceAll("$", "").replace(/^ | $/g, "\u00a0");
    return m("mtext", {}, name === "textbf" ? Array.from(text, (c) => symbols.in_alphabet(c, "bold")).join("") : text);
  }
  in_alphabet(alphabet) {
    const mark = this.at, before = this.alphabet;
    if (alphabet === "roman" && this.peek() === "{") {  // \mathrm{softmax} is one word, not a product of letters
      const text = this.raw_argument();
      if (/^[\p{L}\p{N} .-]+$/u.test(text)) return upright(text);
      this.at = mark;
    }
    this.alphabet = alphabet;
    const node = this.argument();
    this.alphabet = before;
    return node;
  }

  structure(name) {
    switch (name) {
      case "frac": case "dfrac": case "tfrac": case "cfrac": return m("mfrac", {}, this.argument(), this.argument());
      case "binom": return fenced("(", [m("mfrac", { linethickness: "0" }, this.argument(), this.argument())], ")");
      case "sqrt": {
        const index = this.optional();
        return index ? m("mroot", {}, this.argument(), index) : m("msqrt", {}, this.argument());
      }
      case "left": {
        const open = this.delimiter(), nodes = this.list(["\\right"]);
        this.expect("\\right");
        return fenced(open, nodes, this.delimiter());
      }
      case "begin": return this.environment();
      case "xrightarrow": return m("mover", {}, operator("⟶", { stretchy: "true" }), this.argument());
      case "overset": case "stackrel": case "underset": {
        const mark = this.argument();
        return m(name === "underset" ? "munder" : "mover", {}, this.argument(), mark);
      }
      case "operatorname": return upright(this.raw_argument());
      case "operatorname*": return this.limits(upright(this.raw_argument()));
      case "bmod": return operator("mod");
      case "pmod": return m("mrow", {}, space(1), fence("("), upright("mod"), space(0.3), this.argument(), fence(")"));
      case "boxed": return m("mrow", { class: "boxed" }, this.argument());
      case "tag": return m("mrow", {}, space(2), m("mtext", {}, `(${this.raw_argument()})`));
      default: return m("mtext", { class: "unknown" }, "\\" + name);
    }
  }

  table(rows, kind, columns = "") {
    const aligned = /^(?:align|split)/.test(kind), side = { l: "left", r: "right" };
    const align = (i) => (aligned ? (i % 2 ? "left" : "right") : kind === "cases" ? "left" : side[columns[i]] || "center");
    const style = aligned ? "aligned" : kind === "smallmatrix" ? "tight" : "matrix";
    return m("mtable", { class: style, displaystyle: String(aligned || kind.startsWith("gather")) },
      rows.map((cells) => m("mtr", {}, cells.map((cell, i) => m("mtd", { class: `cell-${align(i)}` }, cell)))));
  }
  environment() {
    const name = this.raw_argument(), kind = name.replace(/\*$/, "");
    if (!kEnvironments[kind]) throw new Unknown(`environment ${name}`);
    const columns = kind === "array" ? this.raw_argument().replace(/[^lcr]/g, "") : "";
    const rows = this.rows(["\\end"]);
    this.expect("\\end");
    if (this.raw_argument() !== name) throw new Unknown(`no \\end{${name}}`);
    const body = this.table(rows, kind, columns), [open, close] = kEnvironments[kind];
    return open ? fenced(open, [body], close) : body;
  }
}

export function render_math(source, display) {
  try {
    const text = source.trim();
    if (text.length > kMaxLength) throw new Unknown("too long");
    const parser = new TexParser(text, display);
    const rows = parser.rows([]);  // models write \\ and & without an environment, too
    const content = rows.length === 1 && rows[0].length === 1 ? rows[0][0] : parser.table(rows, "aligned");
    return m("math", display ? { display: "block" } : {}, m("semantics", {}, m("mrow", {}, content), m("annotation", { encoding: "application/x-tex" }, text)));
  } catch (error) {
    if (!(error instanceof Unknown)) throw error;
    return h("code.tex-source", { title: `Not drawn: ${error.message}` }, source.trim());
  }
}

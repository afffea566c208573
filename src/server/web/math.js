// A subset of TeX's mathematics to MathML, which browsers draw without fonts of ours. What is not known stays visible as source.

import { h } from "./dom.js";
import * as symbols from "./math_symbols.js";

const kMath = "http://www.w3.org/1998/Math/MathML";
const kMaxNesting = 40, kMaxLength = 8000;

function m(tag, attributes, ...children) {
  const element = document.createElementNS(kMath, tag);
  for (const [name, value] of Object.entries(attributes || {})) element.setAttribute(name, value);
  element.append(...children.flat());
  return element;
}
const row = (nodes) => (nodes.length === 1 ? nodes[0] : m("mrow", {}, nodes));
const operator = (text, attributes = {}) => m("mo", attributes, text);
const fence = (text) => operator(text, { stretchy: "false" });

const kEnvironments = symbols.table({
  matrix: ["", ""], smallmatrix: ["", ""], array: ["", ""], pmatrix: ["(", ")"], bmatrix: ["[", "]"], Bmatrix: ["{", "}"], vmatrix: ["|", "|"],
  Vmatrix: ["‖", "‖"], cases: ["{", ""], rcases: ["", "}"], aligned: ["", ""], align: ["", ""], alignedat: ["", ""], split: ["", ""],
  gathered: ["", ""], gather: ["", ""], equation: ["", ""], eqnarray: ["", ""], multline: ["", ""],
});
const kAlphabetCommands = symbols.table({
  mathbf: "bold", textbf: "bold", bm: "bold-italic", boldsymbol: "bold-italic", mathbb: "bb", mathcal: "cal", mathscr: "cal", mathfrak: "frak",
  mathsf: "sans", textsf: "sans", mathtt: "mono", texttt: "mono", mathrm: "roman", mathit: "italic", mathnormal: "italic",
});
const kTextCommands = new Set("text textrm textit textnormal textbf textsf texttt mbox hbox textup".split(" "));
const kSizes = { big: 1.2, Big: 1.8, bigg: 2.4, Bigg: 3 };
const kIgnored = new Set("displaystyle textstyle scriptstyle limits nolimits nonumber notag hline relax centering".split(" "));

class Unknown extends Error {}

class TexParser {
  constructor(source, display) {
    this.tokens = source.match(/\\(?:operatorname\*|tag\*|[a-zA-Z]+|[\s\S]?)|[\s\S]/gu) || [];
    this.at = 0;
    this.depth = 0;
    this.display = display;
    this.alphabet = "";
  }
  peek() {
    while (this.at < this.tokens.length && /^\s$/.test(this.tokens[this.at])) this.at++;
    return this.tokens[this.at];
  }
  next() {
    const token = this.peek();
    this.at++;
    return token;
  }
  expect(token) {
    if (this.next() !== token) throw new Unknown(`no ${token}`);
  }

  // Nodes up to one of `ends`, which is left there.
  list(ends) {
    if (++this.depth > kMaxNesting) throw new Unknown("nested too deeply");
    const nodes = [];
    for (let token = this.peek(); token !== undefined && !ends.includes(token); token = this.peek()) {
      if (token === "}" || token === "&" || token === "\\\\" || token === "\\right" || token === "\\end") throw new Unknown(`stray ${token}`);
      const node = this.with_scripts();
      if (node) nodes.push(node);
    }
    this.depth--;
    return nodes;
  }

  // {...} or one symbol.
  argument() {
    if (this.peek() === undefined) throw new Unknown("a command without its argument");
    if (++this.depth > kMaxNesting) throw new Unknown("nested too deeply");
    let node;
    if (this.peek() === "{") {
      this.at++;
      node = row(this.list(["}"]));
      this.expect("}");
    } else {
      node = this.atom(true) || m("mrow");
    }
    this.depth--;
    return node;
  }
  raw_argument() {
    this.expect("{");
    let depth = 1, text = "";
    for (; this.at < this.tokens.length; this.at++) {
      const token = this.tokens[this.at];
      if (token === "{") depth++;
      if (token === "}" && --depth === 0) { this.at++; return text; }
      text += token;
    }
    throw new Unknown("no }");
  }
  optional() {
    if (this.peek() !== "[") return null;
    this.at++;
    const nodes = this.list(["]"]);
    this.expect("]");
    return row(nodes);
  }

  with_scripts() {
    const start = this.peek();
    const base = start === "^" || start === "_" || start === "'" ? m("mrow") : this.atom();
    if (!base) return null;
    let under = null, over = null, limits = base.limits === "always" || (base.limits === "display" && this.display);
    for (;;) {
      const token = this.peek();
      if (token === "\\limits" || token === "\\nolimits") {
        limits = token === "\\limits";
        this.at++;
      } else if (token === "_" && !under) {
        this.at++;
        under = this.argument();
      } else if (token === "^" && !over) {
        this.at++;
        over = this.argument();
      } else if (token === "'" && (!over || over.primes)) {
        this.at++;
        const count = (over?.primes || 0) + 1;
        over = operator(count < 4 ? ["′", "″", "‴"][count - 1] : "′".repeat(count));
        over.primes = count;
        if (this.peek() === "^") {
          this.at++;
          over = m("mrow", {}, over, this.argument());
        }
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
    if (token === "{") {
      this.at--;
      return this.argument();
    }
    if (/[0-9]/.test(token)) {
      let number = token;
      while (!single && (/^[0-9]$/.test(this.tokens[this.at] || "") || (this.tokens[this.at] === "." && /^[0-9]$/.test(this.tokens[this.at + 1] || "")))) number += this.tokens[this.at++];
      return m("mn", {}, this.styled(number));
    }
    if (/\p{L}/u.test(token)) return this.letter(token);
    if ("()[]|/".includes(token)) return fence(token);
    if (token === "~") return this.space(0.25);
    return operator({ "-": "−", "*": "∗", "'": "′" }[token] || token);
  }
  styled(text) {
    return Array.from(text, (c) => symbols.in_alphabet(c, this.alphabet)).join("");
  }
  letter(text) {
    const upright = this.alphabet && this.alphabet !== "italic";  // the characters themselves say what they look like
    return m("mi", upright ? { mathvariant: "normal" } : {}, this.styled(text));
  }
  space(em) {
    return m("mspace", { width: `${em}em` });
  }

  delimiter() {
    const token = this.next();
    if (token === ".") return "";
    const text = token === "<" ? "⟨" : token === ">" ? "⟩" : token?.[0] === "\\" ? symbols.kDelimiters[token.slice(1)] : token;
    if (!text || text.length > 1 || /[\p{L}\p{N}]/u.test(text)) throw new Unknown(`no delimiter: ${token}`);
    return text;
  }

  command(name) {
    const identifier = symbols.kIdentifiers[name];
    if (identifier) return /^\p{Lu}/u.test(identifier) && !this.alphabet ? m("mi", { mathvariant: "normal" }, identifier) : this.letter(identifier);
    if (symbols.kOperators[name]) return operator(symbols.kOperators[name]);
    if (symbols.kLarge[name] || symbols.kIntegrals[name]) return this.large(name);
    if (symbols.kFunctions.has(name)) return m("mi", {}, name);
    if (symbols.kLimitFunctions.has(name)) return this.function_name(name.replace(/^(lim|arg)(?=.{3})/, "$1\u2009"), true);
    if (symbols.kDelimiters[name]) return fence(symbols.kDelimiters[name]);
    if (name in symbols.kSpaces) return this.space(symbols.kSpaces[name]);
    if (name in symbols.kAccents || name in symbols.kUnderAccents) return this.accent(name);
    if (kTextCommands.has(name)) return this.text(name);
    if (kAlphabetCommands[name]) return this.in_alphabet(kAlphabetCommands[name]);
    if (kIgnored.has(name)) return null;
    const size = /^(big|Big|bigg|Bigg)[lrm]?$/.exec(name);
    if (size) return operator(this.delimiter(), { minsize: `${kSizes[size[1]]}em`, maxsize: `${kSizes[size[1]]}em`, stretchy: "true" });
    if (/^[%$#&_]$/.test(name)) return operator(name);
    return this.structure(name);
  }

  large(name) {
    const node = operator(symbols.kLarge[name] || symbols.kIntegrals[name], { largeop: "true", movablelimits: "false", stretchy: "false" });
    if (!this.display) node.setAttribute("largeop", "false");
    if (symbols.kLarge[name]) node.limits = "display";
    return node;
  }
  function_name(text, limits) {
    const node = m("mi", { mathvariant: "normal" }, text);
    if (limits) node.limits = "display";
    return node;
  }
  accent(name) {
    const over = name in symbols.kAccents;
    const mark = operator(over ? symbols.kAccents[name] : symbols.kUnderAccents[name], { stretchy: symbols.kStretchy.has(name) ? "true" : "false" });
    const node = m(over ? "mover" : "munder", { [over ? "accent" : "accentunder"]: "true" }, this.argument(), mark);
    if (name.endsWith("brace")) node.limits = "always";
    return node;
  }
  text(name) {
    const alphabet = { textbf: "bold", textsf: "sans", texttt: "mono" }[name];
    const text = this.raw_argument().replace(/\\([%$#&_{} ])/g, "$1").replaceAll("$", "");
    return m("mtext", {}, Array.from(text, (c) => symbols.in_alphabet(c, alphabet)).join("").replace(/^ | $/g, "\u00a0"));
  }
  in_alphabet(alphabet) {
    const before = this.alphabet;
    this.alphabet = alphabet;
    const node = alphabet === "roman" && this.peek() === "{" ? this.roman() : this.argument();
    this.alphabet = before;
    return node;
  }
  // \mathrm{softmax} is one word, not a product of letters.
  roman() {
    const mark = this.at;
    const text = this.raw_argument();
    if (/^[\p{L}\p{N} .-]+$/u.test(text)) return m("mi", { mathvariant: "normal" }, text);
    this.at = mark;
    return this.argument();
  }

  structure(name) {
    switch (name) {
      case "frac": case "dfrac": case "tfrac": case "cfrac": return m("mfrac", {}, this.argument(), this.argument());
      case "binom": case "dbinom": case "tbinom":
        return m("mrow", {}, operator("("), m("mfrac", { linethickness: "0" }, this.argument(), this.argument()), operator(")"));
      case "sqrt": {
        const index = this.optional();
        return index ? m("mroot", {}, this.argument(), index) : m("msqrt", {}, this.argument());
      }
      case "left": return this.left_right();
      case "middle": return operator(this.delimiter(), { stretchy: "true" });
      case "begin": return this.environment();
      case "overset": case "stackrel": { const top = this.argument(); return m("mover", {}, this.argument(), top); }
      case "underset": { const bottom = this.argument(); return m("munder", {}, this.argument(), bottom); }
      case "operatorname": case "operatorname*": return this.function_name(this.raw_argument().replace(/\\[,;: ]/g, "\u2009"), name.endsWith("*"));
      case "xrightarrow": case "xleftarrow": {
        const below = this.optional();
        const arrow = operator(name === "xrightarrow" ? "⟶" : "⟵", { stretchy: "true" });
        return below ? m("munderover", {}, arrow, below, this.argument()) : m("mover", {}, arrow, this.argument());
      }
      case "not": {
        const node = this.atom();
        if (!node || node.children.length) throw new Unknown("\\not");
        node.textContent += "\u0338";
        return node;
      }
      case "bmod": return m("mrow", {}, this.space(0.22), m("mi", { mathvariant: "normal" }, "mod"), this.space(0.22));
      case "mod": return m("mrow", {}, this.space(1), m("mi", { mathvariant: "normal" }, "mod"), this.space(0.33));
      case "pmod": return m("mrow", {}, this.space(1), fence("("), m("mi", { mathvariant: "normal" }, "mod"), this.space(0.33), this.argument(), fence(")"));
      case "boxed": case "fbox": { const box = m("mrow", {}, this.argument()); box.setAttribute("class", "boxed"); return box; }
      case "phantom": return m("mphantom", {}, this.argument());
      case "substack": {
        this.expect("{");
        const rows = this.rows(["}"]);
        this.expect("}");
        return this.table(rows, "substack");
      }
      case "tag": case "tag*": return m("mrow", {}, this.space(2), m("mtext", {}, `(${this.raw_argument()})`));
      case "label": this.raw_argument(); return null;
      case "mathop": case "mathbin": case "mathrel": case "mathord": return this.argument();
      case "textcolor": case "color": this.raw_argument(); return name === "textcolor" ? this.argument() : null;
      default: return m("mtext", { class: "unknown" }, "\\" + name);
    }
  }

  left_right() {
    const left = this.delimiter();
    const nodes = this.list(["\\right"]);
    this.expect("\\right");
    const right = this.delimiter();
    const side = (text, form) => (text ? [operator(text, { stretchy: "true", fence: "true", form })] : []);
    return m("mrow", {}, side(left, "prefix"), nodes, side(right, "postfix"));
  }

  rows(ends) {
    const rows = [[]];
    for (;;) {
      rows.at(-1).push(row(this.list([...ends, "&", "\\\\"])));
      const token = this.peek();
      if (token === "&") this.at++;
      else if (token === "\\\\") {
        this.at++;
        if (this.tokens[this.at] === "[") while (this.at < this.tokens.length && this.tokens[this.at++] !== "]");  // extra space
        rows.push([]);
      } else break;
    }
    const last = rows.at(-1);
    if (rows.length > 1 && last.length === 1 && last[0].tagName === "mrow" && !last[0].childNodes.length) rows.pop();
    return rows;
  }

  table(rows, key, columns = "") {
    const aligned = /^(align|split|eqnarray)/.test(key), cases = key.endsWith("cases");
    const align = (column) => (aligned ? (column % 2 ? "left" : "right") : cases ? "left" : { l: "left", r: "right" }[columns[column]] || "center");
    const body = rows.map((cells) => m("mtr", {}, cells.map((cell, column) => m("mtd", { class: `cell-${align(column)}` }, cell))));
    const style = aligned ? "aligned" : key === "smallmatrix" || key === "substack" ? "tight" : "matrix";
    return m("mtable", { class: style, ...(aligned || /^(gather|equation|multline)/.test(key) ? { displaystyle: "true" } : {}) }, body);
  }

  environment() {
    const name = this.raw_argument();
    const key = name.replace(/\*$/, "");
    if (!kEnvironments[key]) throw new Unknown(`environment ${name}`);
    const columns = key === "array" ? this.raw_argument().replace(/[^lcr]/g, "") : "";
    if (key === "alignedat") this.raw_argument();
    const rows = this.rows(["\\end"]);
    this.expect("\\end");
    if (this.raw_argument() !== name) throw new Unknown(`no \\end{${name}}`);
    const table = this.table(rows, key, columns);
    const [open, close] = kEnvironments[key];
    const side = (text, form) => (text ? [operator(text, { stretchy: "true", fence: "true", form })] : []);
    return open || close ? m("mrow", {}, side(open, "prefix"), table, side(close, "postfix")) : table;
  }
}

export function render_math(source, display) {
  try {
    if (source.length > kMaxLength) throw new Unknown("too long");
    const parser = new TexParser(source.trim(), display);
    const rows = parser.rows([]);  // models write \\ and & without an environment, too
    const content = rows.length === 1 && rows[0].length === 1 ? rows[0][0] : parser.table(rows, "aligned");
    return m("math", display ? { display: "block" } : {}, m("semantics", {}, m("mrow", {}, content), m("annotation", { encoding: "application/x-tex" }, source.trim())));
  } catch (error) {
    if (!(error instanceof Unknown)) throw error;
    return h("code.tex-source", { title: `Not drawn: ${error.message}` }, source.trim());
  }
}

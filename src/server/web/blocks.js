// The blocks of a markdown text: paragraphs, headings, lists, quotes, tables, code, math. Plain data, no DOM. A block depends
// only on the lines from its start on, which is what lets markdown.js keep finished blocks while a text grows.

const kMaxNesting = 12;  // deeper lists and quotes become paragraphs
const kMathLines = 100;  // of one formula

const kFence = /^ {0,3}(`{3,}|~{3,})[ \t]*([^`]*)$/;
const kHeading = /^ {0,3}(#{1,6})(?:[ \t]|$)/;
const kRule = /^ {0,3}([-*_])[ \t]*(?:\1[ \t]*){2,}$/;
const kQuote = /^ {0,3}> ?/;
const kMath = /^ {0,3}(\$\$|\\\[)/;
const kItem = /^( *)([-*+]|\d{1,9}[.)])( +|$)/;
const kDelimiterRow = /^ {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$/;
const kUnderline = /^ {0,3}=+[ \t]*$/;

const blank = (line) => line === undefined || /^[ \t]*$/.test(line);
const indent_of = (line) => /^ */.exec(line)[0].length;
const unindent = (line, columns) => line.slice(Math.min(indent_of(line), columns));

function item_at(line) {
  const match = line === undefined || kRule.test(line) ? null : kItem.exec(line);
  if (!match) return null;
  const empty = blank(line.slice(match[0].length)), indent = match[1].length;
  return {
    indent, empty, ordered: match[2].length > 1, kind: match[2].at(-1), start: parseInt(match[2], 10),
    content: indent + match[2].length + (empty || match[3].length > 4 ? 1 : match[3].length),
  };
}

function split_cells(line) {
  const cells = [""];
  for (const part of line.trim().replace(/^\|/, "").match(/\\\||\||[^\\|]+|\\/g) || []) {
    if (part === "|") cells.push("");
    else cells[cells.length - 1] += part === "\\|" ? "|" : part;
  }
  if (cells.length > 1 && blank(cells.at(-1))) cells.pop();
  return cells.map((cell) => cell.trim());
}
const table_at = (lines, i) => lines[i].includes("|") && kDelimiterRow.test(lines[i + 1] ?? "x") && split_cells(lines[i]).length === split_cells(lines[i + 1]).length;

// Whether line i ends a paragraph before it.
function interrupts(lines, i) {
  const line = lines[i], item = item_at(line);
  return [kFence, kHeading, kRule, kQuote, kMath].some((start) => start.test(line)) || table_at(lines, i) ||
    Boolean(item && item.indent < 4 && !item.empty && (!item.ordered || item.start === 1));
}

function code_block(lines, i, [, marks, info]) {
  const closing = new RegExp(`^ {0,3}${marks[0]}{${marks.length},}[ \\t]*$`), indent = indent_of(lines[i]);
  let end = i + 1;
  while (end < lines.length && !closing.test(lines[end])) end++;
  const text = lines.slice(i + 1, end).map((line) => unindent(line, indent)).join("\n");
  return { type: "code", lang: info.trim().split(/\s/)[0], text, closed: end < lines.length, end: end + 1 };
}

// $$ ... $$ or \[ ... \] that starts a line; null if it is none. Open as long as it may still be closed by what comes.
function math_block(lines, i, [, open]) {
  const first = lines[i].trimStart(), close = open === "$$" ? "$$" : "\\]";
  let text = first.slice(2), from = 0;
  for (let end = i; end < Math.min(lines.length, i + kMathLines); end++) {
    const last = end + 1 === lines.length;
    if (end > i && !last && blank(lines[end])) return null;
    if (end > i) {
      from = text.length;
      text += "\n" + lines[end];
    }
    const at = text.indexOf(close, from);
    if (at >= 0) return blank(text.slice(at + 2)) ? { type: "math", text: text.slice(0, at), closed: true, end: end + 1 } : null;
    if (last) return { type: "math", text: open + text, closed: false, end: end + 1 };
  }
  return null;
}

function quote_block(lines, i, depth) {
  const inside = [];
  let end = i;
  for (; end < lines.length; end++) {
    const match = kQuote.exec(lines[end]);
    if (match) inside.push(lines[end].slice(match[0].length));
    else if (!blank(lines[end]) && !blank(inside.at(-1)) && !interrupts(lines, end)) inside.push(lines[end]);
    else break;
  }
  return { type: "quote", blocks: parse_blocks(inside, depth + 1), end };
}

// The lines of the item at `at`, without its marker and indent, and where they end.
function item_lines(lines, at, item) {
  const inside = [lines[at].slice(item.content)];
  let end = at + 1;
  for (; end < lines.length; end++) {
    const line = lines[end], indent = indent_of(line);
    if (blank(line)) {  // two blank lines, or one with nothing of the item behind it, end the item
      if (blank(lines[end + 1]) || indent_of(lines[end + 1]) < item.indent + 2) break;
      inside.push("");
    } else if (indent >= item.indent + 2) inside.push(unindent(line, item.content));  // models often indent too little below "1."
    else if (!item_at(line) && !blank(inside.at(-1)) && !interrupts(lines, end)) inside.push(line.trimStart());
    else break;
  }
  return { inside, end };
}
function list_block(lines, i, depth) {
  const head = item_at(lines[i]), list = { type: "list", ordered: head.ordered, start: head.start, tight: true, items: [], end: i };
  const same = (item) => item && item.ordered === head.ordered && item.kind === head.kind;
  for (let at = i; at < lines.length;) {
    const item = item_at(lines[at]);
    if (!same(item) || item.indent >= head.indent + 2 || item.indent + 3 < head.indent) break;
    const { inside, end } = item_lines(lines, at, item), task = /^\[([ xX])\] /.exec(inside[0]);
    if (task) inside[0] = inside[0].slice(4);
    const blocks = parse_blocks(inside, depth + 1);
    if (inside.some((line, k) => k > 0 && blank(line)) && blocks.filter((block) => block.type === "paragraph").length > 1) list.tight = false;
    list.items.push({ task: task && task[1] !== " ", blocks });
    list.end = at = end;
    if (at < lines.length && blank(lines[at])) {
      if (!same(item_at(lines[at + 1]))) break;
      list.tight = false;
      at++;
    }
  }
  return list;
}

function table_block(lines, i) {
  const aligns = split_cells(lines[i + 1]).map((cell) => (cell.endsWith(":") ? (cell.startsWith(":") ? "center" : "right") : cell.startsWith(":") ? "left" : ""));
  const table = { type: "table", aligns, header: split_cells(lines[i]), rows: [], end: i + 2 };
  while (!blank(lines[table.end]) && (lines[table.end].includes("|") || !interrupts(lines, table.end))) table.rows.push(split_cells(lines[table.end++]));
  return table;
}

function paragraph(lines, i) {
  let end = i + 1;
  const text = () => lines.slice(i, end).map((line) => line.replace(/^ +/, "")).join("\n").trimEnd();
  for (; !blank(lines[end]); end++) {
    if (kUnderline.test(lines[end])) return { type: "heading", level: 1, text: text(), end: end + 1 };
    if (interrupts(lines, end)) break;
  }
  return { type: "paragraph", text: text(), end };
}

function block_at(lines, i, depth) {
  const line = lines[i];
  let match;
  if ((match = kFence.exec(line))) return code_block(lines, i, match);
  if ((match = kHeading.exec(line))) return { type: "heading", level: match[1].length, text: line.slice(match[0].length).trim().replace(/(?:^| )#+$/, "").trim(), end: i + 1 };
  if (kRule.test(line)) return { type: "rule", end: i + 1 };
  if ((match = kMath.exec(line))) return math_block(lines, i, match) || paragraph(lines, i);
  if (depth < kMaxNesting && kQuote.test(line)) return quote_block(lines, i, depth);
  if (depth < kMaxNesting && item_at(line)?.indent < 4) return list_block(lines, i, depth);
  return table_at(lines, i) ? table_block(lines, i) : paragraph(lines, i);
}

// Blocks with `begin` and `end`, the lines they take.
export function parse_blocks(lines, depth = 0) {
  const blocks = [];
  for (let i = 0; i < lines.length;) {
    if (blank(lines[i])) i++;
    else {
      const block = block_at(lines, i, depth);
      blocks.push({ ...block, begin: i });
      i = block.end;
    }
  }
  return blocks;
}

// Tabs at the start of a line count as four columns.
export const to_lines = (text) => text.replace(/\n$/, "").split("\n").map((line) => line.replace(/\r$/, "").replace(/^[ \t]*\t[ \t]*/, (space) => space.replaceAll("\t", "    ")));

// The blocks of a markdown text: paragraphs, headings, lists, quotes, tables, code, math. Plain data, no DOM. A block depends
// only on the lines from its start on, which is what lets markdown.js keep finished blocks while a text grows.

const kMaxNesting = 12;  // deeper lists and quotes become paragraphs
const kMathLines = 100;  // of one formula

const kFence = /^ {0,3}(`{3,}|~{3,})[ \t]*([^`]*)$/;
const kHeading = /^ {0,3}(#{1,6})(?:[ \t]|$)/;
const kRule = /^ {0,3}([-*_])[ \t]*(?:\1[ \t]*){2,}$/;
const kItem = /^( *)([-*+]|\d{1,9}[.)])( +|$)/;
const kDelimiterRow = /^ {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$/;
const kUnderline = /^ {0,3}(=+|-+)[ \t]*$/;

const blank = (line) => line === undefined || /^[ \t]*$/.test(line);
const indent_of = (line) => /^ */.exec(line)[0].length;
const starts_math = (line) => /^ {0,3}(?:\$\$|\\\[)/.test(line);

function item_at(line) {
  const match = kItem.exec(line);
  if (!match || kRule.test(line)) return null;
  const empty = blank(line.slice(match[0].length));
  const space = empty || match[3].length > 4 ? 1 : match[3].length;
  return {
    indent: match[1].length, empty,
    ordered: match[2].length > 1,
    kind: match[2].at(-1),
    start: parseInt(match[2], 10),
    content: match[1].length + match[2].length + space,
  };
}

export function split_cells(line) {
  let row = line.trim();
  if (row.startsWith("|")) row = row.slice(1);
  const cells = [];
  let cell = "";
  for (let i = 0; i < row.length; i++) {
    if (row[i] === "\\" && row[i + 1] === "|") cell += row[++i];
    else if (row[i] === "|") { cells.push(cell.trim()); cell = ""; }
    else cell += row[i];
  }
  if (cell.trim() || !cells.length) cells.push(cell.trim());
  return cells;
}

const table_at = (lines, i) => lines[i].includes("|") && i + 1 < lines.length && kDelimiterRow.test(lines[i + 1]) &&
  split_cells(lines[i]).length === split_cells(lines[i + 1]).length;

// Whether line i ends a paragraph before it.
function interrupts(lines, i) {
  const line = lines[i];
  if (kFence.test(line) || kHeading.test(line) || kRule.test(line) || /^ {0,3}>/.test(line) || starts_math(line)) return true;
  const item = item_at(line);
  if (item && item.indent < 4 && !item.empty && (!item.ordered || item.start === 1)) return true;
  return table_at(lines, i);
}

function code_block(lines, i, fence) {
  const indent = indent_of(lines[i]);
  const closing = new RegExp(`^ {0,3}\\${fence[1][0]}{${fence[1].length},}[ \\t]*$`);
  let end = i + 1;
  while (end < lines.length && !closing.test(lines[end])) end++;
  const body = lines.slice(i + 1, end).map((line) => line.slice(Math.min(indent, indent_of(line))));
  return { type: "code", lang: fence[2].trim().split(/\s/)[0], text: body.join("\n"), closed: end < lines.length, end: Math.min(end + 1, lines.length) };
}

function indented_code(lines, i) {
  let end = i, last = i;
  while (end < lines.length && (blank(lines[end]) || indent_of(lines[end]) >= 4)) {
    if (!blank(lines[end])) last = end;
    end++;
  }
  return { type: "code", lang: "", text: lines.slice(i, last + 1).map((line) => line.slice(4)).join("\n"), closed: true, end: last + 1 };
}

// $$ ... $$ or \[ ... \] that starts a line. A blank line before the end: it was no formula (null, or open if the text ends there).
function math_block(lines, i) {
  const first = lines[i].trimStart();
  const close = first.startsWith("$$") ? "$$" : "\\]";
  let text = first.slice(2), from = 0;
  for (let end = i; end < Math.min(lines.length, i + kMathLines) && !(end > i && end + 1 < lines.length && blank(lines[end])); end++) {
    if (end > i) {
      from = text.length;
      text += "\n" + lines[end];
    }
    const at = text.indexOf(close, from);
    if (at >= 0) return blank(text.slice(at + 2)) ? { type: "math", text: text.slice(0, at).trim(), closed: true, end: end + 1 } : null;
    if (end + 1 === lines.length) return { type: "math", text: text.trim(), source: first.slice(0, 2) + text, closed: false, end: end + 1 };
  }
  return null;
}

function quote_block(lines, i, depth) {
  const inside = [];
  let end = i;
  for (; end < lines.length; end++) {
    const match = /^ {0,3}> ?/.exec(lines[end]);
    if (match) inside.push(lines[end].slice(match[0].length));
    else if (!blank(lines[end]) && !blank(inside.at(-1)) && !interrupts(lines, end)) inside.push(lines[end]);
    else break;
  }
  return { type: "quote", blocks: parse_blocks(inside, depth + 1), end };
}

function list_block(lines, i, depth) {
  const head = item_at(lines[i]);
  const list = { type: "list", ordered: head.ordered, start: head.start, tight: true, items: [], end: i };
  let at = i;
  while (at < lines.length) {
    const item = item_at(lines[at]);
    if (!item || item.ordered !== head.ordered || item.kind !== head.kind || item.indent >= head.indent + 2 || item.indent + 3 < head.indent) break;
    const inside = [lines[at].slice(item.content)];
    let end = at + 1;
    for (; end < lines.length; end++) {
      const line = lines[end];
      if (blank(line)) {
        // Two blank lines, or one with nothing of the item behind it, end the item.
        if (blank(lines[end + 1]) || indent_of(lines[end + 1]) < item.indent + 2) break;
        inside.push("");
      } else if (indent_of(line) >= item.indent + 2) {
        inside.push(line.slice(Math.min(indent_of(line), item.content)));  // models often indent too little below "1."
      } else if (!item_at(line) && !blank(inside.at(-1)) && !interrupts(lines, end)) {
        inside.push(line.trimStart());
      } else {
        break;
      }
    }
    const task = /^\[([ xX])\] /.exec(inside[0]);
    if (task) inside[0] = inside[0].slice(4);
    const blocks = parse_blocks(inside, depth + 1);
    if (inside.some((line, k) => blank(line) && k > 0) && blocks.filter((b) => b.type === "paragraph").length > 1) list.tight = false;
    list.items.push({ task: task ? task[1] !== " " : null, blocks });
    list.end = end;
    at = end;
    if (at < lines.length && blank(lines[at])) {
      const next = lines[at + 1] === undefined ? null : item_at(lines[at + 1]);
      if (!next || next.ordered !== head.ordered || next.kind !== head.kind) break;
      list.tight = false;
      at++;
    }
  }
  return list;
}

function table_block(lines, i) {
  const aligns = split_cells(lines[i + 1]).map((cell) => {
    const left = cell.startsWith(":"), right = cell.endsWith(":");
    return left && right ? "center" : right ? "right" : left ? "left" : "";
  });
  const table = { type: "table", aligns, header: split_cells(lines[i]), rows: [], end: i + 2 };
  while (table.end < lines.length && !blank(lines[table.end]) && !(interrupts(lines, table.end) && !lines[table.end].includes("|"))) {
    table.rows.push(split_cells(lines[table.end++]).slice(0, aligns.length));
  }
  return table;
}

function paragraph(lines, i) {
  const text = [lines[i]];
  let end = i + 1;
  for (; end < lines.length && !blank(lines[end]); end++) {
    const underline = kUnderline.exec(lines[end]);
    if (underline) return { type: "heading", level: underline[1][0] === "=" ? 1 : 2, text: text.join("\n").trim(), end: end + 1 };
    if (interrupts(lines, end)) break;
    text.push(lines[end]);
  }
  return { type: "paragraph", text: text.map((line) => line.replace(/^ +/, "")).join("\n").trimEnd(), end };
}

function block_at(lines, i, depth) {
  const line = lines[i];
  const fence = kFence.exec(line);
  if (fence) return code_block(lines, i, fence);
  const heading = kHeading.exec(line);
  if (heading) {
    let text = line.slice(heading[0].length).trim();
    const tail = /#+$/.exec(text);
    if (tail && (tail.index === 0 || text[tail.index - 1] === " ")) text = text.slice(0, tail.index).trim();
    return { type: "heading", level: heading[1].length, text, end: i + 1 };
  }
  if (kRule.test(line)) return { type: "rule", end: i + 1 };
  if (starts_math(line)) return math_block(lines, i) || paragraph(lines, i);
  if (depth < kMaxNesting) {
    if (/^ {0,3}>/.test(line)) return quote_block(lines, i, depth);
    const item = item_at(line);
    if (item && item.indent < 4) return list_block(lines, i, depth);
  }
  if (indent_of(line) >= 4) return indented_code(lines, i);
  if (table_at(lines, i)) return table_block(lines, i);
  return paragraph(lines, i);
}

// Blocks with `begin` and `end`, the lines they take.
export function parse_blocks(lines, depth = 0) {
  const blocks = [];
  for (let i = 0; i < lines.length;) {
    if (blank(lines[i])) { i++; continue; }
    const block = block_at(lines, i, depth);
    block.begin = i;
    blocks.push(block);
    i = block.end;
  }
  return blocks;
}

// Tabs at the start of a line count as four columns.
export const to_lines = (text) => text.replace(/\n$/, "").split("\n").map((line) =>
  line.replace(/\r$/, "").replace(/^[ \t]*\t[ \t]*/, (space) => space.replaceAll("\t", "    ")));

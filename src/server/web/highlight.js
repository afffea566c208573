// Light colouring of code: comments, strings, numbers, keywords, names that are called. One regular expression for each family
// of languages, tried at each position in turn; none of them can backtrack far.

import { h } from "./dom.js";

const words = (text) => new Set(text.split(" "));
const kShared = "if else for while do switch case default break continue return try catch throw finally true false null import export new class struct enum interface public private static const let in is as async await yield ";
const kKeywords = {
  c: words(kShared + "var function typeof instanceof void delete this super extends implements final override package goto sizeof typedef union extern inline int char long short unsigned signed float double bool boolean auto virtual template typename namespace using constexpr noexcept nullptr operator friend protected from of undefined type fn impl trait mod mut pub self Self use where unsafe match func defer go chan map range nil val fun object string byte __global__ __device__ __shared__"),
  py: words(kShared + "and or not def del elif except from global lambda nonlocal pass raise with assert None True False self then fi until done esac local set unset echo cd source sudo function end unless"),
  sql: words("select from where and or not insert into values update set delete create table drop alter join left right inner outer full on as group by order having limit offset union all distinct null is in like between case when then else end primary key with exists count sum asc desc"),
  data: words("true false null yes no"),
};
const kFamilies = {
  c: "c js javascript jsx ts typescript tsx cpp c++ h cuda java kotlin swift c# csharp scala dart php go rust rs",
  py: "py python bash sh shell console dockerfile makefile cmake r ruby perl", data: "data json jsonc yaml yml toml ini conf",
  sql: "sql", html: "html xml svg css",
};
const kFamily = new Map(Object.entries(kFamilies).flatMap(([family, names]) => names.split(" ").map((name) => [name, family])));

const kString = /"(?:[^"\\\n]|\\.)*"?|'(?:[^'\\\n]|\\.)*'?/.source;
const kBlock = /\/\*(?:[^*]|\*(?!\/))*(?:\*\/)?/.source;
const rule = (comment, string) => new RegExp(`(?<comment>${comment})|(?<string>${string})|(?<number>${
  /\b(?:0[xXbB][0-9a-fA-F_]+|\d[\d_]*(?:\.\d+)?(?:[eE][+-]?\d+)?)[a-zA-Z]{0,3}\b/.source})|(?<word>[A-Za-z_$][\\w$]*)`, "y");
const kRules = {
  c: rule(`//[^\\n]*|${kBlock}|(?<=^|\\n)[ \\t]*#[ \\t]*(?:include|define|if|endif|el|pragma|undef)[^\\n]*`, `\`(?:[^\`\\\\]|\\\\[\\s\\S])*\`?|${kString}`),
  py: rule(/(?<![\w$])#[^\n]*/.source, /"""(?:[^"]|"(?!""))*(?:""")?|'''(?:[^']|'(?!''))*(?:''')?|/.source + kString),
  sql: rule(`--[^\\n]*|${kBlock}`, kString), data: rule(/(?<![\w"'])[#;][^\n]*|(?<![:\w])\/\/[^\n]*/.source, kString),
  html: /(?<comment><!--(?:[^-]|-(?!->))*(?:-->)?|\/\*(?:[^*]|\*(?!\/))*(?:\*\/)?)|(?<keyword><\/?[A-Za-z][\w:-]*|\/?>)|(?<string>"[^"\n]*"?|'[^'\n]*')|(?<word>[A-Za-z_:@][\w:.-]*)/y,
};

function kind_of(groups, next, family) {
  const { word } = groups;
  if (!word) return Object.keys(groups).find((name) => groups[name] !== undefined);
  if (kKeywords[family]?.has(family === "sql" ? word.toLowerCase() : word)) return "keyword";
  if (family === "html") return next === "=" || next === ":" ? "attribute" : null;
  if (family === "data") return null;
  return next === "(" ? "call" : /^[A-Z][a-z]/.test(word) ? "type" : null;
}

// Nodes for the text; an unknown language stays plain.
export function highlight(text, language) {
  const family = kFamily.get(language), expression = kRules[family];
  if (!expression || text.length > 200_000) return [text];
  const nodes = [];
  let plain = 0;
  for (let at = 0; at < text.length;) {
    expression.lastIndex = at;
    const match = expression.exec(text);
    if (!match?.[0]) { at++; continue; }
    const end = at + match[0].length;
    let kind = kind_of(match.groups, text[end], family);
    if (family === "data" && kind === "string" && /^\s*:/.test(text.slice(end, end + 4))) kind = "attribute";
    if (kind) {
      if (plain < at) nodes.push(text.slice(plain, at));
      nodes.push(h("span", { class: `hl-${kind}` }, match[0]));
      plain = end;
    }
    at = end;
  }
  if (plain < text.length) nodes.push(text.slice(plain));
  return nodes;
}

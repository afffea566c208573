// Light colouring of code: comments, strings, numbers, keywords, names that are called. One regular expression a language,
// tried at each position in turn; none of them can backtrack far.

import { h } from "./dom.js";

const words = (text) => new Set(text.split(" "));
const kC = "if else for while do switch case default break continue return goto sizeof typedef struct union enum static const extern inline void int char long short unsigned signed float double bool auto register volatile";
const kKeywords = {
  js: words("async await break case catch class const continue debugger default delete do else export extends finally for from function if import in instanceof let new of return static super switch this throw try typeof var void while with yield true false null undefined interface type enum implements readonly private public protected as declare namespace"),
  python: words("and as assert async await break class continue def del elif else except finally for from global if import in is lambda match case nonlocal not or pass raise return try while with yield True False None self"),
  c: words(kC + " class public private protected virtual override final template typename namespace using new delete this throw try catch constexpr consteval concept requires noexcept nullptr true false operator friend explicit mutable co_await co_return co_yield static_cast reinterpret_cast const_cast __global__ __device__ __shared__ __host__"),
  java: words(kC + " class interface extends implements package import public private protected final abstract new this super throw throws try catch finally instanceof boolean byte null true false var val fun when object override data sealed record string using namespace async await foreach in is as out ref let guard func protocol extension nil self"),
  go: words("break case chan const continue default defer else fallthrough for func go goto if import interface map package range return select struct switch type var nil true false string int error bool byte float64 any"),
  rust: words("as async await break const continue crate dyn else enum extern false fn for if impl in let loop match mod move mut pub ref return self Self static struct super trait true type unsafe use where while i32 i64 u8 u32 u64 usize f32 f64 bool str String Vec Option Result"),
  shell: words("if then else elif fi for while until do done case esac function in return exit local export set unset echo cd source sudo true false"),
  sql: words("select from where and or not insert into values update set delete create table drop alter join left right inner outer full on as group by order having limit offset union all distinct null is in like between case when then else end primary key foreign references index view with exists count sum avg min max asc desc"),
  data: words("true false null yes no on off"),
};
const kAliases = {
  javascript: "js", jsx: "js", ts: "js", typescript: "js", tsx: "js", mjs: "js", json5: "js", py: "python", python3: "python", "c++": "c", cpp: "c", cc: "c", h: "c", hpp: "c",
  cuda: "c", cu: "c", objc: "c", glsl: "c", kotlin: "java", swift: "java", "c#": "java", cs: "java", csharp: "java", scala: "java", dart: "java", php: "java", golang: "go", rs: "rust",
  bash: "shell", sh: "shell", zsh: "shell", console: "shell", "shell-session": "shell", dockerfile: "shell", makefile: "shell", cmake: "shell", r: "shell", ruby: "shell", rb: "shell", perl: "shell",
  yml: "data", yaml: "data", toml: "data", ini: "data", json: "data", jsonc: "data", conf: "data", svg: "html", xml: "html", vue: "html", postgresql: "sql", mysql: "sql", sqlite: "sql",
  scss: "css", less: "css", patch: "diff",
};

const kString = /"(?:[^"\\\n]|\\.)*"?|'(?:[^'\\\n]|\\.)*'?/.source;
const kNumber = /\b(?:0[xXbB][0-9a-fA-F_]+|\d[\d_]*(?:\.\d+)?(?:[eE][+-]?\d+)?)[a-zA-Z]{0,3}\b/.source;
const kWord = /[A-Za-z_$][\w$]*/.source;
const slashes = /\/\/[^\n]*|\/\*(?:[^*]|\*(?!\/))*(?:\*\/)?/.source, hash = /#[^\n]*/.source;
const rule = (comment, string) => new RegExp(`(?<comment>${comment})|(?<string>${string})|(?<number>${kNumber})|(?<word>${kWord})`, "y");

const kTicks = /`(?:[^`\\]|\\[\s\S])*`?/.source;
const kTriple = /"""(?:[^"]|"(?!""))*(?:""")?|'''(?:[^']|'(?!''))*(?:''')?/.source;
const kRules = {
  js: rule(slashes, `${kTicks}|${kString}`), c: rule(slashes + "|(?<=^|\\n)[ \\t]*#[ \\t]*(?:include|define|if|ifdef|ifndef|endif|else|elif|pragma|undef)[^\\n]*", kString),
  java: rule(slashes, kString), go: rule(slashes, `${kTicks}|${kString}`), rust: rule(slashes, /"(?:[^"\\]|\\[\s\S])*"?|'(?:[^'\\\n]|\\.)'/.source),
  python: rule(hash, `${kTriple}|${kString}`), shell: rule(/(?<![\w$])#[^\n]*/.source, kString), sql: rule(/--[^\n]*|\/\*(?:[^*]|\*(?!\/))*(?:\*\/)?/.source, kString),
  data: rule(/(?<![\w"'])[#;][^\n]*|(?<![:\w])\/\/[^\n]*/.source, kString), css: rule(/\/\*(?:[^*]|\*(?!\/))*(?:\*\/)?/.source, kString),
  html: /(?<comment><!--(?:[^-]|-(?!->))*(?:-->)?)|(?<keyword><\/?[A-Za-z][\w:-]*|\/?>)|(?<string>"[^"\n]*"?|'[^'\n]*')|(?<word>[A-Za-z_:@][\w:.-]*)/y,
  diff: /(?<=^|\n)(?:(?<inserted>\+[^\n]*)|(?<deleted>-[^\n]*)|(?<comment>(?:@@|diff|index)[^\n]*))/y,
};

function kind_of(match, text, end, language, keywords) {
  const groups = match.groups;
  if (!groups.word) return Object.keys(groups).find((name) => groups[name] !== undefined);
  const word = language === "sql" ? groups.word.toLowerCase() : groups.word;
  if (keywords?.has(word)) return "keyword";
  if (language === "css" || language === "html") return text[end] === (language === "css" ? ":" : "=") ? "attribute" : null;
  if (text[end] === "(" && language !== "data") return "call";
  return /^[A-Z][a-z]/.test(word) && language !== "shell" && language !== "data" ? "type" : null;
}

// Nodes for the text; an unknown language stays plain.
export function highlight(text, name) {
  const language = Object.hasOwn(kRules, name) ? name : Object.hasOwn(kAliases, name) ? kAliases[name] : "";
  const expression = language && kRules[language];
  if (!expression || text.length > 200_000) return [text];
  const nodes = [];
  let plain = 0, at = 0;
  while (at < text.length) {
    expression.lastIndex = at;
    const match = expression.exec(text);
    if (!match || !match[0]) { at++; continue; }
    const end = at + match[0].length;
    const kind = kind_of(match, text, end, language, kKeywords[language]);
    const key = language === "data" && kind === "string" && /^\s*:/.test(text.slice(end, end + 4));
    if (kind) {
      if (plain < at) nodes.push(text.slice(plain, at));
      nodes.push(h("span", { class: `hl-${key ? "attribute" : kind}` }, match[0]));
      plain = end;
    }
    at = end;
  }
  if (plain < text.length) nodes.push(text.slice(plain));
  return nodes;
}

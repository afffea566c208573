// Whatever a model writes, only harmless elements and attributes appear, and hostile texts cost little time.
import { check, equal, ok, html } from "./check.js";
import { render_markdown } from "/markdown.js";
import { render_math } from "/math.js";
import { highlight } from "/highlight.js";
import { safe_url } from "/inline.js";

const kElements = new Set(("p h3 h4 h5 h6 hr ul ol li input blockquote figure figcaption pre code div table thead tbody tr th td a em strong del br span button svg path " +
  "math semantics annotation mrow mi mn mo mtext mspace mfrac msqrt mroot msub msup msubsup munder mover munderover mtable mtr mtd mphantom").split(" "));
const kAttributes = /^(?:class|href|title|target|rel|referrerpolicy|start|type|disabled|checked|scope|tabindex|role|aria-[a-z]+|viewBox|d|display|encoding|width|mathvariant|stretchy|fence|form|largeop|movablelimits|accent|accentunder|minsize|maxsize|linethickness|displaystyle)$/;

function inspect(nodes) {
  const root = document.createElement("div");
  root.append(...nodes);
  for (const element of root.querySelectorAll("*")) {
    ok(kElements.has(element.localName), `element ${element.localName}`);
    for (const { name, value } of element.attributes) {
      ok(kAttributes.test(name), `attribute ${name}`);
      if (name === "href") ok(/^(https?|mailto):/.test(value), `address ${value}`);
    }
  }
}

const attacks = [
  "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "<svg/onload=alert(1)>", "<iframe srcdoc='<script>1</script>'>", "<a href='javascript:alert(1)'>x</a>",
  "[x](javascript:alert(1))", "[x](JaVaScRiPt:alert(1))", "[x](java\tscript:alert(1))", "[x](&#106;avascript:alert(1))", "[x](data:text/html,<script>1</script>)", "[x](vbscript:x)",
  "[x](//evil.org)", "[x](/v1/models)", "[x](file:///etc/passwd)", "![x](javascript:alert(1))", "![x](data:image/svg+xml,<svg onload=alert(1)>)", "<javascript:alert(1)>",
  "[x](https://a.org/\" onclick=\"alert(1))", "[x](<https://a.org/\"onmouseover=alert(1)>)", "```html\" onload=alert(1)\n<script>1</script>\n```", "```<img src=x onerror=1>\nx\n```",
  "|<script>|b|\n|-|-|\n|<img onerror=1 src=x>|x|", "$\\href{javascript:alert(1)}{x}$", "$\\text{<img src=x onerror=alert(1)>}$", "$<script>alert(1)</script>$", "$\\begin{\"><script>}$",
  "$\\style{x}{y}\\class{a}{b}\\unicode{x}$", "\\[\\operatorname{<b onclick=1>}\\]", "`<script>`", "&lt;script&gt;alert(1)&lt;/script&gt;", "&#60;img src=x onerror=1&#62;", "[x]: javascript:alert(1)\n[x]",
  "<style>*{display:none}</style>", "<base href=//evil>", "<form action=//evil><button>", "<math><mtext></form><form><mglyph><style></math><img src onerror=alert(1)>",
];
await check("attacks are text", () => attacks.forEach((text) => inspect(render_markdown(text))));
await check("attacks inside of other constructs", () => {
  for (const a of attacks) for (const wrap of ["- ", "> ", "1. > - ", "# ", "**", "| a | b |\n|--|--|\n| "]) inspect(render_markdown(wrap + a));
});
await check("random mixtures of all constructs", () => {
  const parts = attacks.join(" ").split(/(?=[<[($`*_|\\\n])/);
  let seed = 99;
  const random = (n) => { seed = (seed * 1103515245 + 12345) % 2147483648; return Math.floor((seed / 2147483648) * n); };
  for (let round = 0; round < 1500; round++) inspect(render_markdown(Array.from({ length: 1 + random(14) }, () => parts[random(parts.length)]).join("")));
});
await check("formulas and code are inert", () => {
  for (const a of attacks) {
    inspect([render_math(a, true)]);
    for (const language of ["js", "html", "python", "json", "diff", "sh", "css", "sql", "__proto__", "constructor"]) inspect(highlight(a, language).map((n) => (typeof n === "string" ? document.createTextNode(n) : n)));
  }
});
await check("addresses", () => {
  for (const bad of ["javascript:1", " javascript:1", "\u0001javascript:1", "//x.org", "x.org", "ftp://x.org", "data:text/html,1", "blob:x", "http:evil", "https://", "chrome://x"]) equal(safe_url(bad), null, bad);
  equal(safe_url("HTTPS://X.org/a b"), "https://x.org/a%20b");
});

const kSlow = {
  "open brackets": "[".repeat(20000), "brackets": "[a](".repeat(8000), "closing brackets": "]".repeat(20000), "emphasis": "*a ".repeat(10000), "closed emphasis": "*a* ".repeat(8000), "emphasis to close": "a* ".repeat(10000),
  "mixed marks": "*_".repeat(10000), "long runs": "*".repeat(20000) + "a", "nested emphasis": "*a **b ".repeat(4000), "strikes": "~~a ".repeat(8000), "backticks": Array.from({ length: 300 }, (_, i) => "`".repeat(i + 1)).join(" "), "dollars": "$a ".repeat(10000),
  "escaped dollars": "$\\$".repeat(8000), "open math": "\\(".repeat(10000), "displays": "\\[a\n".repeat(4000), "quotes": ">".repeat(20000), "lists": "- ".repeat(10000), "deep lists": Array.from({ length: 300 }, (_, i) => " ".repeat(2 * i) + "- a").join("\n"),
  "pipes": "|".repeat(20000) + "\n" + "|-".repeat(10000), "table rows": "a|b\n-|-\n" + "x|y\n".repeat(4000), "headings": "#".repeat(20000), "hash tail": "# a" + " #".repeat(10000), "rules": "- - ".repeat(5000) + "x", "addresses": "https://x.org/(".repeat(4000), "dots": "https://x.org/" + ".".repeat(20000), "angles": "<https://".repeat(4000),
  "ampersands": "&#".repeat(10000), "fences": "```\n".repeat(6000), "line": "word ".repeat(40000), "blank lines": "\n".repeat(50000), "spaces": " ".repeat(50000) + "x", "backslashes": "\\".repeat(30000), "quoted fences": "> ```\n".repeat(4000),
};
for (const [name, text] of Object.entries(kSlow)) {
  await check(`hostile: ${name}`, () => {
    const begin = performance.now();
    html(render_markdown(text));
    const took = performance.now() - begin;
    ok(took < 5000, `took ${Math.round(took)} ms`);
  });
}
const kSlowTex = ["{".repeat(4000), "\\frac".repeat(1500), "\\hat".repeat(1900), "^".repeat(4000), "_a".repeat(3000), "\\left(".repeat(1200), "\\sqrt{".repeat(1200), "\\begin{matrix}".repeat(500), "'".repeat(4000), "a".repeat(7000), "\\text{".repeat(1200), "x".repeat(100000)];
await check("hostile formulas", () => {
  for (const text of kSlowTex) {
    const begin = performance.now();
    inspect([render_math(text, true)]);
    ok(performance.now() - begin < 4000, `${text.slice(0, 10)} took ${Math.round(performance.now() - begin)} ms`);
  }
});
await check("hostile code", () => {
  for (const text of ['"' + "\\a".repeat(50000), "/*" + "*".repeat(100000), "'''" + "'' ".repeat(30000), "<!--" + "-".repeat(90000), "1".repeat(90000), "a".repeat(150000), "`".repeat(50000), "#".repeat(90000)]) {
    for (const language of ["js", "python", "html", "c", "rust", "json", "sql"]) {
      const begin = performance.now();
      highlight(text, language);
      ok(performance.now() - begin < 4000, `${language} ${text.slice(0, 6)} took ${Math.round(performance.now() - begin)} ms`);
    }
  }
});

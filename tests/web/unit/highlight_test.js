import { check, equal, html } from "./check.js";
import { highlight } from "/highlight.js";

const short = (text, language) => html(highlight(text, language)).replace(/<span class="hl-(\w+)">(.*?)<\/span>/gs, "{$1 $2}");
const cases = [
  ["python", "def f(x): # c\n  return 'a\\'b' + 1.5e3", "{keyword def} {call f}(x): {comment # c}\n  {keyword return} {string 'a\\'b'} + {number 1.5e3}"],
  ["py", '"""a\nb""" + x', '{string """a\nb"""} + x'],
  ["js", "const a = `x\ny`; // z", "{keyword const} a = {string `x\ny`}; {comment // z}"],
  ["cpp", "int x = 0x1F; /* a\n b */ std::vector<Foo> v;", "{keyword int} x = {number 0x1F}; {comment /* a\n b */} std::vector&lt;{type Foo}&gt; v;"],
  ["cpp", "#include <a>\nx", "{comment #include &lt;a&gt;}\nx"],
  ["json", '{"a": [1, true, "b"]}', '{{attribute "a"}: [{number 1}, {keyword true}, {string "b"}]}'],
  ["sh", 'if [ "$a" ]; then echo $#; fi # c', '{keyword if} [ {string "$a"} ]; {keyword then} {keyword echo} $#; {keyword fi} {comment # c}'],
  ["sql", "SELECT a FROM t -- c", "{keyword SELECT} a {keyword FROM} t {comment -- c}"],
  ["html", '<a href="x">y</a><!-- z -->', '{keyword &lt;a} {attribute href}={string "x"}{keyword &gt;}y{keyword &lt;/a}{keyword &gt;}{comment &lt;!-- z --&gt;}'],
  ["yaml", "a: http://x # c", "a: http://x {comment # c}"],
  ["nothing", "def f(): <b>", "def f(): &lt;b&gt;"],
  ["", "x", "x"],
];
for (const [language, text, expected] of cases) await check(`code in ${language}: ${text.slice(0, 12)}`, () => equal(short(text, language), expected));
await check("no character is lost", () => {
  const text = "a \"b' `c // # <d> -- /* 'e\\\n''' 1.2.3 +x";
  for (const language of ["js", "python", "cpp", "java", "go", "rust", "sh", "sql", "json", "css", "html"]) equal(highlight(text, language).map((n) => n.textContent ?? n).join(""), text, language);
});

import { check, equal, ok, html } from "./check.js";
import { render_markdown, MarkdownView } from "/markdown.js";

// Without the parts around code and tables that are not what a case is about.
const plain = (text) => html(render_markdown(text)).replace(/<figcaption>.*?<\/figcaption>/g, "").replace(/ (?:tabindex|role|aria-label|title|target|rel|referrerpolicy)="[^"]*"/g, "");

const cases = [
  ["paragraphs", "one\ntwo\n\nthree", "<p>one\ntwo</p><p>three</p>"],
  ["heading levels start below the page's", "# A\n## B ##\n###### C", "<h3>A</h3><h4>B</h4><h6>C</h6>"],
  ["underlined headings", "A\n===\nB\n---", "<h3>A</h3><p>B</p><hr>"],
  ["no heading without a blank", "#hash", "<p>#hash</p>"],
  ["emphasis", "*a* _b_ **c** __d__ ***e*** ~~f~~", "<p><em>a</em> <em>b</em> <strong>c</strong> <strong>d</strong> <em><strong>e</strong></em> <del>f</del></p>"],
  ["emphasis that is none", "2 * 3 * 4, snake_case_name, **open", "<p>2 * 3 * 4, snake_case_name, **open</p>"],
  ["nested emphasis", "**a *b* c** *d **e***", "<p><strong>a <em>b</em> c</strong> <em>d <strong>e</strong></em></p>"],
  ["emphasis inside a word", "un*frigging*believable", "<p>un<em>frigging</em>believable</p>"],
  ["inline code", "`a` ``b ` c`` `*d*` ` e ", "<p><code>a</code> <code>b ` c</code> <code>*d*</code> ` e</p>"],
  ["escapes", "\\*a\\* \\[b\\\\", "<p>*a* [b\\</p>"],
  ["breaks", "a  \nb\\\nc<br>d", "<p>a<br>b<br>c<br>d</p>"],
  ["entities", "&lt;b&gt; &amp; it&#39;s &nope;", "<p>&lt;b&gt; &amp; it's &amp;nope;</p>"],
  ["links", '[a](https://x.org/y "t") [b *c*](<https://x.org/a>)', '<p><a href="https://x.org/y">a</a> <a href="https://x.org/a">b <em>c</em></a></p>'],
  ["brackets in links", "[a](https://x.org/(y)) [no] [x] (z)", '<p><a href="https://x.org/(y)">a</a> [no] [x] (z)</p>'],
  ["bare addresses", "see https://x.org/a_b_c. (https://x.org/d)", '<p>see <a href="https://x.org/a_b_c">https://x.org/a_b_c</a>. (<a href="https://x.org/d">https://x.org/d</a>)</p>'],
  ["autolinks", "<https://x.org/> <mailto:a@x.org>", '<p><a href="https://x.org/">https://x.org/</a> <a href="mailto:a@x.org">mailto:a@x.org</a></p>'],
  ["pictures become links", "![alt](https://x.org/i.png)", '<p><a href="https://x.org/i.png">alt</a></p>'],
  ["html is text", "<b>x</b> <script>1</script>", "<p>&lt;b&gt;x&lt;/b&gt; &lt;script&gt;1&lt;/script&gt;</p>"],
  ["rule", "a\n\n---\n* * *\nb", "<p>a</p><hr><hr><p>b</p>"],
  ["tight list", "- a\n- b\n  c\n- d", "<ul><li>a</li><li>b\nc</li><li>d</li></ul>"],
  ["loose list", "- a\n\n- b", "<ul><li><p>a</p></li><li><p>b</p></li></ul>"],
  ["nested lists", "1. a\n   - b\n     - c\n2. d", "<ol><li>a<ul><li>b<ul><li>c</li></ul></li></ul></li><li>d</li></ol>"],
  ["lists indented too little", "1. a\n  - b\n  - c\n2. d", "<ol><li>a<ul><li>b</li><li>c</li></ul></li><li>d</li></ol>"],
  ["start of a list", "3) a\n4) b", '<ol start="3"><li>a</li><li>b</li></ol>'],
  ["blocks in items", "- a\n\n  b\n\n  ```\n  code\n  ```\n- c", '<ul><li><p>a</p><p>b</p><figure class="code"><pre><code>code</code></pre></figure></li><li><p>c</p></li></ul>'],
  ["list ends", "- a\n\nb", "<ul><li>a</li></ul><p>b</p>"],
  ["another marker, another list", "- a\n* b", "<ul><li>a</li></ul><ul><li>b</li></ul>"],
  ["list after a paragraph", "a:\n- b\n1986. not one", "<p>a:</p><ul><li>b</li></ul><ol start=\"1986\"><li>not one</li></ol>"],
  ["a number starts no list in a paragraph", "born in\n1986. Yes", "<p>born in\n1986. Yes</p>"],
  ["tasks", "- [x] a\n- [ ] b", '<ul><li class="task"><input type="checkbox" disabled="" checked="">a</li><li class="task"><input type="checkbox" disabled="">b</li></ul>'],
  ["quote", "> a\nb\n> - c\n\nd", "<blockquote><p>a\nb</p><ul><li>c</li></ul></blockquote><p>d</p>"],
  ["fence", "```py\na\n\n  b\n```\nc", '<figure class="code"><pre><code>a\n\n  b</code></pre></figure><p>c</p>'],
  ["open fence", "~~~\na\n```", '<figure class="code"><pre><code>a\n```</code></pre></figure>'],
  ["longer fence", "````\n```\n````", '<figure class="code"><pre><code>```</code></pre></figure>'],
  ["table", "|a|b|\n|:-|-:|\n|1|2\\|3|\n|4|\nx", '<div class="table"><table><thead><tr><th class="td-left" scope="col">a</th><th class="td-right" scope="col">b</th></tr></thead><tbody><tr><td class="td-left">1</td><td class="td-right">2|3</td></tr><tr><td class="td-left">4</td><td class="td-right"></td></tr><tr><td class="td-left">x</td><td class="td-right"></td></tr></tbody></table></div>'],
  ["no table with other columns", "a | b\n-|-|-", "<p>a | b\n-|-|-</p>"],
  ["prices are no math", "costs $5 and $10, or $20k.", "<p>costs $5 and $10, or $20k.</p>"],
  ["tabs indent lists", "- a\n\t- b", "<ul><li>a<ul><li>b</li></ul></li></ul>"],
  ["carriage returns", "a\r\n\r\nb\r\n", "<p>a</p><p>b</p>"],
];
for (const [name, source, expected] of cases) await check(name, () => equal(plain(source), expected));

await check("math in all delimiters", () => {
  const rendered = html(render_markdown("a $x$ b \\(y\\) c $$z$$ d\n\n$$\nu\n$$\n\n\\[ v \\]\n\n- \\[w\\]"));
  equal((rendered.match(/<math/g) || []).length, 6);
  equal((rendered.match(/display="block"/g) || []).length, 4);
});
await check("an unfinished formula is shown as it is", () => equal(plain("$$\nx + "), "<p>$$\nx + </p>"));

// ---- streaming
const pieces = ["# T", "\n", "\n\n", "- a", "  - b", "1. c", "> q", "```", "~~~", "code", "| a | b |", "|--|--|", "---", "===", "**x**", "`y`", "$$", "\\[", "\\]", "z", " ", "    ", "$p$", "\t", "- [ ] t", "[l](https://x.org)"];
let seed = 12345;
const random = (n) => { seed = (seed * 1103515245 + 12345) % 2147483648; return Math.floor((seed / 2147483648) * n); };

await check("a streamed text looks like a whole one, however it is cut", () => {
  for (let round = 0; round < 600; round++) {
    let text = "";
    for (let i = 0; i < 4 + random(24); i++) text += pieces[random(pieces.length)] + (random(2) ? "\n" : "");
    const root = document.createElement("div"), view = new MarkdownView(root);
    for (let at = 0; at < text.length;) {
      at = Math.min(text.length, at + 1 + random(6));
      view.update(text.slice(0, at));
    }
    equal(root.innerHTML, html(render_markdown(text)), JSON.stringify(text));
  }
});
await check("finished blocks keep their nodes", () => {
  const root = document.createElement("div"), view = new MarkdownView(root);
  view.update("one\n\ntwo\n\nthr");
  const first = root.firstChild;
  view.update("one\n\ntwo\n\nthree\n\nfour\n\nfive");
  ok(root.firstChild === first, "the first paragraph was made again");
  equal(root.children.length, 5);
});
await check("a text that changes is drawn afresh", () => {
  const root = document.createElement("div"), view = new MarkdownView(root);
  view.update("a\n\nb\n\nc\n\nd");
  view.update("x");
  equal(root.innerHTML, "<p>x</p>");
});

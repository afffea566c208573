import { check, equal, ok } from "./check.js";
import { render_math } from "/math.js";

// The MathML without the wrapper and the source that goes with it.
function tex(source, display = false) {
  const node = render_math(source, display);
  if (node.localName !== "math") return `source: ${node.title}`;
  return node.querySelector("semantics").firstChild.innerHTML.replaceAll(' xmlns="http://www.w3.org/1998/Math/MathML"', "").replaceAll(' stretchy="false"', "");
}

const cases = [
  ["letters and numbers", "ab12.5", "<mrow><mi>a</mi><mi>b</mi><mn>12.5</mn></mrow>"],
  ["scripts", "x_i^2", "<msubsup><mi>x</mi><mi>i</mi><mn>2</mn></msubsup>"],
  ["scripts in the other order", "x^{2}_{i}", "<msubsup><mi>x</mi><mi>i</mi><mn>2</mn></msubsup>"],
  ["primes", "f''", "<msup><mi>f</mi><mo>′′</mo></msup>"],
  ["fraction", "\\frac{1}{n}", "<mfrac><mn>1</mn><mi>n</mi></mfrac>"],
  ["fraction without braces", "\\frac12", "<mfrac><mn>1</mn><mn>2</mn></mfrac>"],
  ["roots", "\\sqrt{x}\\sqrt[3]{y}", "<mrow><msqrt><mi>x</mi></msqrt><mroot><mi>y</mi><mn>3</mn></mroot></mrow>"],
  ["greek", "\\alpha\\Omega", '<mrow><mi>α</mi><mi mathvariant="normal">Ω</mi></mrow>'],
  ["operators", "a\\le b-c", "<mrow><mi>a</mi><mo>≤</mo><mi>b</mi><mo>−</mo><mi>c</mi></mrow>"],
  ["functions", "\\sin x", "<mrow><mi>sin</mi><mi>x</mi></mrow>"],
  ["alphabets", "\\mathbb{R}\\mathcal{L}\\mathbf{v}", '<mrow><mi mathvariant="normal">ℝ</mi><mi mathvariant="normal">ℒ</mi><mi mathvariant="normal">𝐯</mi></mrow>'],
  ["words", "\\mathrm{top}", '<mi mathvariant="normal">top</mi>'],
  ["text", "x\\text{ if }y", "<mrow><mi>x</mi><mtext>\u00a0if\u00a0</mtext><mi>y</mi></mrow>".replaceAll("\u00a0", "&nbsp;")],
  ["delimiters", "\\left(\\frac ab\\right]", '<mrow><mo stretchy="true" fence="true" form="prefix">(</mo><mfrac><mi>a</mi><mi>b</mi></mfrac><mo stretchy="true" fence="true" form="postfix">]</mo></mrow>'],
  ["accents", "\\hat x", '<mover accent="true"><mi>x</mi><mo>^</mo></mover>'],
  ["binomial", "\\binom nk", '<mrow><mo stretchy="true" fence="true" form="prefix">(</mo><mfrac linethickness="0"><mi>n</mi><mi>k</mi></mfrac><mo stretchy="true" fence="true" form="postfix">)</mo></mrow>'],
  ["matrix", "\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", /^<mrow><mo[^>]*>\(<\/mo><mtable class="matrix" displaystyle="false"><mtr><mtd class="cell-center"><mn>1<\/mn><\/mtd>.*<\/mtr><mtr>.*<\/mtr><\/mtable><mo[^>]*>\)<\/mo><\/mrow>$/],
  ["cases", "\\begin{cases}1&x>0\\\\0&\\text{else}\\end{cases}", /^<mrow><mo[^>]*>{<\/mo><mtable.*cell-left/],
  ["aligned", "\\begin{aligned}a&=b\\\\&=c\\end{aligned}", /displaystyle="true"><mtr><mtd class="cell-right">.*cell-left/],
  ["rows without an environment", "a&=b\\\\&=c", /^<mtable class="aligned"/],
  ["array columns", "\\begin{array}{l|r}a&b\\end{array}", /cell-left.*cell-right/],
  ["unknown commands stay visible", "\\foo x", '<mrow><mtext class="unknown">\\foo</mtext><mi>x</mi></mrow>'],
  ["names of objects are no commands", "\\constructor\\toString", /^<mrow><mtext class="unknown">.constructor<.mtext><mtext class="unknown">.toString<.mtext><.mrow>$/],
  ["escaped characters", "50\\%\\,\\$", '<mrow><mn>50</mn><mo>%</mo><mspace width="0.167em"></mspace><mo>$</mo></mrow>'],
  ["arrows with text", "\\xrightarrow{f}", /^<mover><mo[^>]*>⟶<\/mo><mi>f<\/mi><\/mover>$/],
  ["modulo", "a \\bmod n", /<mo>mod<\/mo>/],
  ["named operators", "\\operatorname{rank}A", /<mi mathvariant="normal">rank<\/mi>/],
  ["stars are no part of a name", "\\alpha*b", "<mrow><mi>α</mi><mo>∗</mo><mi>b</mi></mrow>"],
];
for (const [name, source, expected] of cases) {
  await check(`tex ${name}`, () => {
    const got = tex(source);
    if (expected instanceof RegExp) ok(expected.test(got), got);
    else equal(got, expected);
  });
}
await check("limits stand above and below in displays only", () => {
  ok(tex("\\sum_{i=1}^n", true).startsWith("<munderover>"), tex("\\sum_{i=1}^n", true));
  ok(tex("\\sum_{i=1}^n", false).startsWith("<msubsup>"), "inline");
  ok(tex("\\int_0^1", true).startsWith("<msubsup>"), "integral");
  ok(tex("\\lim_{x\\to0}", true).startsWith("<munder>"), "lim");
  ok(tex("\\underbrace{x}_{n}", false).startsWith("<munder>"), "brace");
});
await check("what does not parse is shown as source", () => {
  for (const bad of ["\\begin{constructor}x\\end{constructor}", "{", "}", "\\frac{1}", "\\left( x", "\\begin{foo}x\\end{foo}", "\\begin{matrix}x", "\\right)", "x^"]) ok(tex(bad).startsWith("source: Not drawn"), `${bad}: ${tex(bad)}`);
});
await check("the source goes along, for copying and screen readers", () => equal(render_math(" \\frac12 ", false).querySelector("annotation").textContent, "\\frac12"));
await check("every symbol is one element with text", async () => {
  const symbols = await import("/math_symbols.js");
  const names = [symbols.kIdentifiers, symbols.kOperators, symbols.kLarge, symbols.kIntegrals].flatMap(Object.keys);
  ok(names.length > 150, String(names.length));
  for (const name of names) ok(/^<m[io][^>]*>[^<]{1,7}<\/m[io]>$/u.test(tex(`\\${name}`)), `${name}: ${tex(`\\${name}`)}`);
});

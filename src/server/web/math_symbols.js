// TeX's names for characters, grouped by the MathML element and spacing that they get.

// Tables have no prototype: \constructor is no command.
export const table = (entries) => Object.assign(Object.create(null), entries);
const pairs = (text) => table(Object.fromEntries(text.trim().split(/\s+/).map((word) => word.split("="))));

export const kIdentifiers = pairs(`
alpha=α beta=β gamma=γ delta=δ epsilon=ϵ varepsilon=ε zeta=ζ eta=η theta=θ vartheta=ϑ iota=ι kappa=κ lambda=λ mu=μ nu=ν xi=ξ pi=π rho=ρ varrho=ϱ
sigma=σ tau=τ upsilon=υ phi=ϕ varphi=φ chi=χ psi=ψ omega=ω Gamma=Γ Delta=Δ Theta=Θ Lambda=Λ Xi=Ξ Pi=Π Sigma=Σ Upsilon=Υ Phi=Φ Psi=Ψ Omega=Ω infty=∞
hbar=ℏ ell=ℓ Re=ℜ Im=ℑ aleph=ℵ wp=℘ partial=∂ nabla=∇ emptyset=∅ varnothing=∅ top=⊤ bot=⊥ degree=° angle=∠ triangle=△ square=□ Box=□ ldots=… dots=… cdots=⋯
vdots=⋮ ddots=⋱ checkmark=✓`);

export const kOperators = pairs(`
pm=± mp=∓ dagger=† times=× div=÷ cdot=⋅ ast=∗ star=⋆ circ=∘ bullet=∙ cap=∩ cup=∪ vee=∨ lor=∨ wedge=∧ land=∧ setminus=∖ oplus=⊕ ominus=⊖ otimes=⊗ odot=⊙ le=≤
leq=≤ leqslant=⩽ ge=≥ geq=≥ geqslant=⩾ ll=≪ gg=≫ ne=≠ neq=≠ equiv=≡ sim=∼ simeq=≃ approx=≈ cong=≅ propto=∝ coloneqq=≔ prec=≺ succ=≻ preceq=⪯ succeq=⪰
subset=⊂ supset=⊃ subseteq=⊆ supseteq=⊇ subsetneq=⊊ in=∈ ni=∋ notin=∉ vdash=⊢ models=⊨ mid=∣ parallel=∥ perp=⊥ forall=∀ exists=∃ neg=¬ lnot=¬
therefore=∴ because=∵ colon=: surd=√ to=→ gets=← rightarrow=→ leftarrow=← leftrightarrow=↔ Rightarrow=⇒ Leftarrow=⇐ Leftrightarrow=⇔ implies=⟹
impliedby=⟸ iff=⟺ longrightarrow=⟶ longleftarrow=⟵ longleftrightarrow=⟷ Longrightarrow=⟹ Longleftarrow=⟸ Longleftrightarrow=⟺ mapsto=↦ uparrow=↑
downarrow=↓ hookrightarrow=↪ rightleftharpoons=⇌ leadsto=⇝`);

// With limits above and below in displayed formulas (integrals keep them beside).
export const kLarge = pairs(`
sum=∑ prod=∏ coprod=∐ bigcup=⋃ bigcap=⋂ bigvee=⋁ bigwedge=⋀ bigoplus=⨁ bigotimes=⨂`);
export const kIntegrals = pairs("int=∫ iint=∬ iiint=∭ oint=∮");

export const kDelimiters = table({
  ...pairs("langle=⟨ rangle=⟩ lceil=⌈ rceil=⌉ lfloor=⌊ rfloor=⌋ lbrace={ rbrace=} lbrack=[ rbrack=] vert=| lvert=| rvert=| Vert=‖ lVert=‖ rVert=‖ " +
    "uparrow=↑ downarrow=↓ backslash=\\"),
  "{": "{", "}": "}", "|": "‖",
});

export const kFunctions = new Set("arccos arcsin arctan arg cos cosh cot coth csc deg dim exp hom ker lg ln log sec sin sinh tan tanh".split(" "));
export const kLimitFunctions = new Set("lim max min sup inf det gcd Pr limsup liminf argmax argmin".split(" "));

export const kAccents = pairs("hat=^ widehat=^ bar=¯ overline=‾ vec=→ overrightarrow=→ tilde=~ widetilde=~ dot=˙ ddot=¨ check=ˇ acute=´ grave=` breve=˘ overbrace=⏞");
export const kUnderAccents = pairs("underline=_ underbrace=⏟");
export const kStretchy = /^(?:wide|over|under)/;

export const kSpaces = table({ ",": 0.167, ":": 0.222, ">": 0.222, ";": 0.278, "!": -0.167, " ": 0.25, enspace: 0.5, quad: 1, qquad: 2 });

// Where capitals, small letters, digits and Greek start in Unicode's mathematical alphabets, and the letters that live elsewhere.
const kAlphabets = {
  bold: { A: 0x1d400, a: 0x1d41a, 0: 0x1d7ce, \u0391: 0x1d6a8, \u03b1: 0x1d6c2 }, bb: { A: 0x1d538, a: 0x1d552, 0: 0x1d7d8 },
  cal: { A: 0x1d49c, a: 0x1d4b6 }, frak: { A: 0x1d504, a: 0x1d51e },
};
const kElsewhere = {
  bb: { C: "ℂ", H: "ℍ", N: "ℕ", P: "ℙ", Q: "ℚ", R: "ℝ", Z: "ℤ" }, frak: { C: "ℭ", H: "ℌ", I: "ℑ", R: "ℜ", Z: "ℨ" },
  cal: { B: "ℬ", E: "ℰ", F: "ℱ", H: "ℋ", I: "ℐ", L: "ℒ", M: "ℳ", R: "ℛ", e: "ℯ", g: "ℊ", o: "ℴ" },
};
export function in_alphabet(character, alphabet) {
  for (const [first, start] of Object.entries(kAlphabets[alphabet] || {})) {
    const at = character.codePointAt(0) - first.codePointAt(0);
    if (at >= 0 && at < (first === "0" ? 10 : 26)) return kElsewhere[alphabet]?.[character] || String.fromCodePoint(start + at);
  }
  return character;
}

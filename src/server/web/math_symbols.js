// TeX's names for characters, grouped by the MathML element and spacing that they get.

// "name character" pairs; a character may be written as itself.
// Tables have no prototype: \constructor is no command.
export const table = (entries) => Object.assign(Object.create(null), entries);
const pairs = (text) => table(Object.fromEntries(text.trim().split(/\s+/).map((word) => word.split("="))));

export const kIdentifiers = pairs(`
alpha=α beta=β gamma=γ delta=δ epsilon=ϵ varepsilon=ε zeta=ζ eta=η theta=θ vartheta=ϑ iota=ι kappa=κ varkappa=ϰ lambda=λ mu=μ nu=ν
xi=ξ omicron=ο pi=π varpi=ϖ rho=ρ varrho=ϱ sigma=σ varsigma=ς tau=τ upsilon=υ phi=ϕ varphi=φ chi=χ psi=ψ omega=ω
Gamma=Γ Delta=Δ Theta=Θ Lambda=Λ Xi=Ξ Pi=Π Sigma=Σ Upsilon=Υ Phi=Φ Psi=Ψ Omega=Ω
infty=∞ hbar=ℏ ell=ℓ imath=ı jmath=ȷ Re=ℜ Im=ℑ aleph=ℵ beth=ℶ wp=℘ partial=∂ nabla=∇ emptyset=∅ varnothing=∅ top=⊤ bot=⊥
angle=∠ triangle=△ square=□ Box=□ blacksquare=■ degree=° prime=′ dag=† ddag=‡ copyright=© clubsuit=♣ diamondsuit=♢ heartsuit=♡ spadesuit=♠
ldots=… dots=… cdots=⋯ vdots=⋮ ddots=⋱ dotsc=… dotsb=⋯ checkmark=✓ bigstar=★ S=§ P=¶ pounds=£ eth=ð mho=℧ complement=∁`);

export const kOperators = pairs(`
pm=± mp=∓ times=× div=÷ cdot=⋅ ast=∗ star=⋆ circ=∘ bullet=∙ cap=∩ cup=∪ uplus=⊎ sqcap=⊓ sqcup=⊔ vee=∨ lor=∨ wedge=∧ land=∧ setminus=∖
smallsetminus=∖ wr=≀ amalg=⨿ oplus=⊕ ominus=⊖ otimes=⊗ oslash=⊘ odot=⊙ ltimes=⋉ rtimes=⋊ diamond=⋄ dagger=† ddagger=‡ bigcirc=◯ boxplus=⊞ boxtimes=⊠
le=≤ leq=≤ leqslant=⩽ ge=≥ geq=≥ geqslant=⩾ ll=≪ gg=≫ lll=⋘ ggg=⋙ ne=≠ neq=≠ equiv=≡ sim=∼ simeq=≃ approx=≈ cong=≅ propto=∝ varpropto=∝ asymp=≍ doteq=≐
triangleq=≜ coloneqq=≔ lesssim=≲ gtrsim=≳ prec=≺ succ=≻ preceq=⪯ succeq=⪰ subset=⊂ supset=⊃ subseteq=⊆ supseteq=⊇ subsetneq=⊊ supsetneq=⊋ nsubseteq=⊈
sqsubseteq=⊑ sqsupseteq=⊒ in=∈ ni=∋ notin=∉ vdash=⊢ dashv=⊣ models=⊨ vDash=⊨ mid=∣ nmid=∤ parallel=∥ nparallel=∦ perp=⊥ bowtie=⋈ smile=⌣ frown=⌢
forall=∀ exists=∃ nexists=∄ neg=¬ lnot=¬ therefore=∴ because=∵ colon=: surd=√
to=→ gets=← rightarrow=→ leftarrow=← leftrightarrow=↔ Rightarrow=⇒ Leftarrow=⇐ Leftrightarrow=⇔ implies=⟹ impliedby=⟸ iff=⟺ longrightarrow=⟶ longleftarrow=⟵
longleftrightarrow=⟷ Longrightarrow=⟹ Longleftarrow=⟸ Longleftrightarrow=⟺ mapsto=↦ longmapsto=⟼ uparrow=↑ downarrow=↓ updownarrow=↕ Uparrow=⇑ Downarrow=⇓
hookrightarrow=↪ hookleftarrow=↩ nearrow=↗ searrow=↘ swarrow=↙ nwarrow=↖ rightharpoonup=⇀ rightharpoondown=⇁ leftharpoonup=↼ rightleftharpoons=⇌ leadsto=⇝
rightsquigarrow=⇝ twoheadrightarrow=↠ nrightarrow=↛ nRightarrow=⇏ circlearrowleft=↺ circlearrowright=↻ lneq=⪇ gneq=⪈ nless=≮ ngtr=≯ nleq=≰ ngeq=≱ between=≬`);

// With limits above and below in displayed formulas (integrals keep them beside).
export const kLarge = pairs(`
sum=∑ prod=∏ coprod=∐ bigcup=⋃ bigcap=⋂ bigvee=⋁ bigwedge=⋀ bigoplus=⨁ bigotimes=⨂ bigodot=⨀ biguplus=⨄ bigsqcup=⨆`);
export const kIntegrals = pairs("int=∫ iint=∬ iiint=∭ oint=∮ oiint=∯ intop=∫");

export const kDelimiters = table({
  ...pairs("langle=⟨ rangle=⟩ lceil=⌈ rceil=⌉ lfloor=⌊ rfloor=⌋ lbrace={ rbrace=} lbrack=[ rbrack=] vert=| lvert=| rvert=| Vert=‖ lVert=‖ rVert=‖ " +
    "uparrow=↑ downarrow=↓ updownarrow=↕ Uparrow=⇑ Downarrow=⇓ backslash=\\ lgroup=⟮ rgroup=⟯ ulcorner=⌜ urcorner=⌝"),
  "{": "{", "}": "}", "|": "‖",
});

export const kFunctions = new Set(("arccos arcsin arctan arg cos cosh cot coth csc deg dim exp hom ker lg ln log sec sin sinh tan tanh " +
  "sgn tr rank diag softmax ReLU").split(" "));
export const kLimitFunctions = new Set("lim max min sup inf det gcd Pr limsup liminf argmax argmin injlim projlim".split(" "));

export const kAccents = pairs("hat=^ widehat=^ bar=¯ overline=‾ vec=→ overrightarrow=→ overleftarrow=← tilde=~ widetilde=~ dot=˙ ddot=¨ dddot=⃛ check=ˇ widecheck=ˇ acute=´ grave=` breve=˘ mathring=˚ overbrace=⏞");
export const kUnderAccents = pairs("underline=_ underbrace=⏟ underrightarrow=→");
export const kStretchy = new Set("widehat overline overrightarrow overleftarrow widetilde overbrace underline underbrace underrightarrow".split(" "));

export const kSpaces = table({ ",": 0.167, ":": 0.222, ">": 0.222, ";": 0.278, "!": -0.167, " ": 0.25, "~": 0.25, thinspace: 0.167, enspace: 0.5, quad: 1, qquad: 2, medspace: 0.222, thickspace: 0.278, negthinspace: -0.167 });

// Alphabets of Unicode's mathematical block: [A, a, 0], and the letters that live elsewhere.
const kAlphabets = {
  bold: [0x1d400, 0x1d41a, 0x1d7ce], "bold-italic": [0x1d468, 0x1d482, 0x1d7ce], bb: [0x1d538, 0x1d552, 0x1d7d8], cal: [0x1d49c, 0x1d4b6, 0],
  frak: [0x1d504, 0x1d51e, 0], sans: [0x1d5a0, 0x1d5ba, 0x1d7e2], mono: [0x1d670, 0x1d68a, 0x1d7f6],
};
const kElsewhere = {
  bb: { C: "ℂ", H: "ℍ", N: "ℕ", P: "ℙ", Q: "ℚ", R: "ℝ", Z: "ℤ" },
  cal: { B: "ℬ", E: "ℰ", F: "ℱ", H: "ℋ", I: "ℐ", L: "ℒ", M: "ℳ", R: "ℛ", e: "ℯ", g: "ℊ", o: "ℴ" },
  frak: { C: "ℭ", H: "ℌ", I: "ℑ", R: "ℜ", Z: "ℨ" },
};
const kGreekBold = 0x1d6c2;  // alpha; from U+03B1 in the same order

export function in_alphabet(character, alphabet) {
  const start = kAlphabets[alphabet];
  if (!start) return character;
  const elsewhere = kElsewhere[alphabet]?.[character];
  if (elsewhere) return elsewhere;
  const code = character.codePointAt(0);
  if (code >= 65 && code <= 90) return String.fromCodePoint(start[0] + code - 65);
  if (code >= 97 && code <= 122) return String.fromCodePoint(start[1] + code - 97);
  if (code >= 48 && code <= 57 && start[2]) return String.fromCodePoint(start[2] + code - 48);
  if (alphabet.startsWith("bold") && code >= 0x3b1 && code <= 0x3c9) return String.fromCodePoint(kGreekBold + code - 0x3b1);
  if (alphabet.startsWith("bold") && code >= 0x391 && code <= 0x3a9) return String.fromCodePoint(0x1d6a8 + code - 0x391);
  return character;
}

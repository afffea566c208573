// The smallest test frame: check(name, f) runs f; results are read by test_web.py.

export const results = { passed: 0, failures: [], done: false };

export async function check(name, f) {
  try {
    await f();
    results.passed++;
  } catch (error) {
    results.failures.push(`${name}: ${error.message}`);
  }
}

export function equal(actual, expected, what = "") {
  const [a, b] = [actual, expected].map((x) => (typeof x === "string" ? x : JSON.stringify(x)));
  if (a !== b) throw new Error(`${what}\n    got      ${a}\n    expected ${b}`);
}

export function ok(value, what) {
  if (!value) throw new Error(what);
}

export function html(nodes) {
  const root = document.createElement("div");
  root.append(...nodes);
  return root.innerHTML;
}

import { results } from "./check.js";

window.results = results;
try {
  for (const name of ["markdown_test.js", "safety_test.js", "math_test.js", "highlight_test.js", "data_test.js"]) await import(`./${name}`);
} catch (error) {
  results.failures.push(`a test file failed: ${error.stack}`);
}
results.done = true;

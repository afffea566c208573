// Before the first paint, so that a chosen theme does not flash.
try {
  const theme = JSON.parse(localStorage.getItem("gov.theme") || '"auto"');
  if (theme !== "auto") document.documentElement.dataset.theme = theme;
} catch { /* the system's theme */ }

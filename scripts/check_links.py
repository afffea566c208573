#!/usr/bin/env python3
"""Checks what the Markdown files say about the repository.

- A relative link leads to a file or folder; `#anchor` is a heading of that Markdown file.
- A link whose text is a name in backticks, [`name`](file.h), promises that `name` occurs in that file.
- A path in backticks that starts with a folder of the repository exists (`src/ops/ops.h`; wildcards and placeholders with
  *, <, {, or ... are left alone).
Prints one line per breach and exits 1 if there is any. Links to other hosts are not followed.
"""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
SKIPPED = re.compile(r"^(build[^/]*|data|\.git)/")
LINK = re.compile(r"\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)")
FENCE = re.compile(r"^(```|~~~).*?^\1", re.M | re.S)
PATH = re.compile(r"`((?:src|tests|docs|cmake|scripts|models|bench|\.ci)/[\w./-]+)`")
CODE = {".h", ".cc", ".cu", ".cuh", ".py", ".sh", ".cmake", ".txt"}


def anchors(markdown):
    """GitHub's anchors of the headings: lower case, punctuation dropped, spaces to dashes."""
    found = set()
    for heading in re.findall(r"^#+\s+(.*)$", FENCE.sub("", markdown), re.M):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").strip().lower()
        found.add(re.sub(r"[^\w\- ]", "", text).replace(" ", "-"))
    return found


def check_link(page, text, target, breaches):
    file_part, _, anchor = target.partition("#")
    path = (page.parent / file_part).resolve() if file_part else page
    if not path.exists() or not path.is_relative_to(ROOT):
        breaches.append(f"{page.relative_to(ROOT)}: the link leads nowhere: {target}")
        return
    if anchor and (path.suffix != ".md" or anchor not in anchors(path.read_text(encoding="utf-8"))):
        breaches.append(f"{page.relative_to(ROOT)}: no such heading: {target}")
    name = re.fullmatch(r"`([^`]+)`", text.strip())
    if name and path.is_file() and path.suffix in CODE:
        word = re.sub(r"\(.*\)$", "", name[1])
        if word not in (path.name, str(path.relative_to(ROOT))) and "/" not in word:
            if not re.search(rf"(?<!\w){re.escape(word.split('::')[-1])}(?!\w)", path.read_text(encoding="utf-8")):
                breaches.append(f"{page.relative_to(ROOT)}: {word} does not occur in {path.relative_to(ROOT)}")


def main():
    breaches, links = [], 0
    pages = [p for p in sorted(ROOT.rglob("*.md")) if not SKIPPED.match(str(p.relative_to(ROOT)))]
    for page in pages:
        text = FENCE.sub("", page.read_text(encoding="utf-8"))
        for label, target in LINK.findall(text):
            if not re.match(r"[a-z]+:", target):
                links += 1
                check_link(page, label, target, breaches)
        for path in PATH.findall(text):
            if "..." not in path:
                links += 1
                if not (ROOT / path.rstrip(".")).exists():
                    breaches.append(f"{page.relative_to(ROOT)}: no such path: {path}")
    print("\n".join(breaches + [f"links: {len(pages)} pages, {links} links and paths, {len(breaches)} broken"]))
    return 1 if breaches or not pages else 0


if __name__ == "__main__":
    sys.exit(main())

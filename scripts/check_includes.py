#!/usr/bin/env python3
"""Checks the direction of includes in src/: a file includes only its own folder or a folder to its left in ORDER.

Folders of one rank do not include each other. Includes are relative to src/ and must exist; tests/ and bench/ may include
everything, src/ never includes them. CMake's DEPENDS of each folder are held to the same order.
Prints one line per breach and exits 1 if there is any.
"""
import pathlib
import re
import sys

# src/<folder>, from left to right. A folder that is not listed is itself a breach: the order has to be decided first.
ORDER = [["base"], ["tensor"], ["io", "text", "image"], ["ops"], ["model"], ["engine", "train"], ["server"], ["cli"]]
UMBRELLA = "gpt_oss_vision.h"  # the one file outside the folders; nothing in src/ may include it
RANK = {folder: rank for rank, folders in enumerate(ORDER) for folder in folders}
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^">]+)[">]')
CUDA_HEADER = re.compile(r"^(cuda|cublas|cudnn|nccl|cutlass|cute)")
CUDA_FREE = {"base", "io", "text", "image"}  # parsers of untrusted bytes, built and fuzzed without CUDA


def may_include(folder, other):
    return folder == other or RANK[other] < RANK[folder]


def check_source(src, path, breaches):
    folder = path.relative_to(src).parts[0]
    if path.suffix == ".h" and "#pragma once" not in path.read_text(encoding="utf-8").split("\n", 1)[0]:
        breaches.append(f"{path}: a header starts with #pragma once")
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        match = INCLUDE.match(line)
        if not match:
            continue
        quoted, name = match[1] == '"', match[2]
        where = f"{path}:{number}"
        if not quoted:
            if name.split("/")[0] in RANK and (src / name).exists():
                breaches.append(f"{where}: our own header is included with quotes: {name}")
            if folder in CUDA_FREE and CUDA_HEADER.match(name):
                breaches.append(f"{where}: {folder} is free of CUDA, but includes <{name}>")
        elif not (src / name).is_file():
            breaches.append(f"{where}: not a path below src/: {name}")
        elif name.split("/")[0] not in RANK:
            breaches.append(f"{where}: src/ does not include {name}")
        elif folder in RANK and not may_include(folder, name.split("/")[0]):
            breaches.append(f"{where}: {folder} must not include {name}")


def check_depends(src, folder, breaches):
    text = (src / folder / "CMakeLists.txt").read_text(encoding="utf-8")
    text = re.sub(r"#.*", "", text)
    for call in re.findall(r"gov_library\(([^)]*)\)", text):
        words = call.split()
        names = words[words.index("DEPENDS") + 1:] if "DEPENDS" in words else []
        for name in names:
            if name in ("SOURCES", "LINK"):
                break
            if name not in RANK or not may_include(folder, name):
                breaches.append(f"{src / folder}/CMakeLists.txt: {folder} must not depend on {name}")


def main():
    src = pathlib.Path(__file__).resolve().parent.parent / "src"
    breaches, files = [], 0
    for entry in sorted(src.iterdir()):
        if entry.is_dir() and entry.name not in RANK:
            breaches.append(f"{entry}: the folder has no place in the order of scripts/check_includes.py")
        elif entry.is_dir():
            check_depends(src, entry.name, breaches)
        elif entry.name not in (UMBRELLA, "CMakeLists.txt"):
            breaches.append(f"{entry}: a source file belongs in a folder of src/")
    for path in sorted(src.rglob("*")):
        if path.suffix in (".h", ".cc", ".cu", ".cuh") and path.parent != src:
            files += 1
            check_source(src, path, breaches)
    print("\n".join(breaches + [f"includes: {files} files, {len(breaches)} breaches"]))
    return 1 if breaches or not files else 0


if __name__ == "__main__":
    sys.exit(main())

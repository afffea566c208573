#!/usr/bin/env python3
"""Random walks under the schemas of data/schemas.jsonl, validated by PyPI's jsonschema (an oracle that shares nothing with ours).

    python3 tests/text/check_schema_walks.py build/release/tests/text/text_test

./test runs it among the clients. Needs jsonschema, and rfc3339-validator, idna, rfc3987-syntax or the like for the formats that
it only knows with them.
"""
import json
import os
import subprocess
import sys
import tempfile

import jsonschema


def tuples_as_2020_12(schema):
    """Old tuples (items as a list), which draft 2020-12 writes otherwise."""
    if isinstance(schema, dict) and isinstance(schema.get("items"), list):
        schema = dict(schema)
        schema["prefixItems"] = schema.pop("items")
        schema["items"] = schema.pop("additionalItems", True)
    return schema


def readable(schema):
    """Python's `re` lacks some of ECMA-262's syntax, and its `time` is that of draft 3."""
    text = json.dumps(schema)
    return "\\\\p{" not in text and "(?<year>" not in text and '"format": "time"' not in text


def walks_of(program):
    with tempfile.TemporaryDirectory() as folder:
        walks = os.path.join(folder, "walks.jsonl")
        subprocess.run([program, "--gtest_filter=TokenConstraint.RandomWalksAreValidDocuments"], check=True,
                       env={**os.environ, "GOV_DUMP_WALKS": walks}, stdout=subprocess.DEVNULL)
        with open(walks, encoding="utf-8") as lines:
            yield from map(json.loads, lines)


def main(program):
    validators, checked, bad, skipped = {}, 0, 0, 0
    for row in walks_of(program):
        key = json.dumps(row["schema"])
        if key not in validators:
            schema = tuples_as_2020_12(row["schema"])
            validators[key] = jsonschema.Draft202012Validator(
                schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER) if readable(schema) else None
        if validators[key] is None:
            skipped += 1
            continue
        document = json.loads(row["text"])
        errors = list(validators[key].iter_errors(document))
        checked += 1
        if errors:
            bad += 1
            print("INVALID", key[:200], row["text"][:200], errors[0].message[:200])
    print(f"{checked} documents of {len(validators)} schemas checked, {skipped} skipped, {bad} invalid")
    return 1 if bad or checked < 9000 else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

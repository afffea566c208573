#!/usr/bin/env python3
"""What the server costs and what company brings: rows for bench/log.

    measure.py [--model FOLDER] [--clients 1,8,64] [--seconds 10] [--cores 0,1] [--client-cores 2,3]

For each number of clients: starts `serve`, streams answers without a pause to so many clients, and compares the tokens
per second with those of `bench --engine` at the same batch, model, threads and length of context. `added_ms` is the
difference for one token of one stream.  --cores pins server and bench, --client-cores the clients.
"""
import argparse
import datetime
import json
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROMPT, TOKENS = "What is a cat?", 128


def pinned(cores, command):
    return ["taskset", "-c", cores, *command] if cores else command


def engine(o, clients, context):
    command = [o.program, "bench", "--engine", "--json", "--quiet", "--prompt", "0", "--images", "0", "--batch", clients,
               "--context", context, "--generate", TOKENS, "--threads", o.threads]
    command += ["--model", o.model] if o.model else []
    out = subprocess.run(pinned(o.cores, list(map(str, command))), check=True, stdout=subprocess.PIPE, text=True).stdout
    return next(row for row in map(json.loads, out.splitlines()) if row["work"] == "decode")


def served(o, clients):
    command = [o.program, "serve", "--port", "0", "--threads", str(o.threads), "--max-sequences", str(clients)]
    command += ["--model", o.model] if o.model else []
    server = subprocess.Popen(pinned(o.cores, command), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        port = None
        for line in server.stdout:
            found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
            if found:
                port = found[1]
                break
        if not port:
            sys.exit("the server did not start")
        crowd = [o.crowd, "--port", port, "--clients", str(clients), "--seconds", str(o.seconds), "--leave", "0",
                 "--max-tokens", str(TOKENS), "--prompt", PROMPT]
        run = subprocess.run(pinned(o.client_cores, crowd), check=True, stdout=subprocess.PIPE, text=True)
        return json.loads(run.stdout)
    finally:
        server.terminate()
        server.wait()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--program", default=str(ROOT / "build/release/bin/gpt-oss-vision"))
    p.add_argument("--crowd", default=str(ROOT / "build/release/bench/server/bench_server"))
    p.add_argument("--model", help="default: the embedded nano")
    p.add_argument("--clients", default="1,8,64")
    p.add_argument("--seconds", type=float, default=10)
    p.add_argument("--threads", type=int, default=0)
    p.add_argument("--cores")
    p.add_argument("--client-cores")
    p.add_argument("--commit", default="")
    o = p.parse_args()
    for clients in map(int, o.clients.split(",")):
        alone, crowd = engine(o, clients, TOKENS // 2), served(o, clients)
        fast, slow = alone["value"], crowd["tokens_per_second"]
        row = {"work": "serve", "model": alone["model"], "device": alone["device"], "clients": clients, "value": slow,
               "unit": "tok/s", "limit": fast, "percent": 100 * slow / fast,
               "added_ms": 1000 * clients * (1 / slow - 1 / fast), "first_token_p50": crowd["first_token_p50"],
               "between_p50": crowd["between_p50"], "between_p99": crowd["between_p99"], "faults": crowd["faults"],
               "threads": alone["threads"], "isa": alone["isa"], "commit": o.commit or alone["commit"],
               "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")}
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()

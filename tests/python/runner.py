"""Runs cases for the Rust harness on one Python client: a line of JSON in, a line `RESULT {...}` out (tests/harness/runner.rs).

Started as `python runner.py CLIENT`: `cases.py` holds the cases, `CLIENT_client.py` says the same few things in the words of one library.
"""

import importlib
import json
import sys
import traceback

import cases


def main():
    library = importlib.import_module(sys.argv[1] + "_client")
    for line in sys.stdin:
        order = json.loads(line)
        print("case", order["case"], flush=True)
        result = run(library, order)
        sys.stdout.write("RESULT " + json.dumps(result) + "\n")
        sys.stdout.flush()


def run(library, order):
    try:
        client = library.Client(order["bootstrap"])
        try:
            getattr(cases, order["case"])(client, order["name"], order["expected"])
        finally:
            client.close()
        return {"ok": True}
    except BaseException:
        return {"ok": False, "error": traceback.format_exc()}


main()

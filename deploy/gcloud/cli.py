#!/usr/bin/env python3
"""Asks the gcloud CLI's own parser about commands. Nothing is run.

  cli.py parse COMMANDS   COMMANDS has a JSON array of arguments a line; says which
                          the CLI would refuse
  cli.py flags COMMANDS   prints the commands in use, with all their flags: flags.txt

Run it with CLOUDSDK_ROOT set to the CLI's folder, and the CLI's Python if it
brings one: `go generate ./deploy` does both.
"""
import json
import os
import sys

root = os.environ["CLOUDSDK_ROOT"]
sys.path[:0] = [os.path.join(root, "lib"), os.path.join(root, "lib", "third_party")]

from googlecloudsdk import gcloud_main  # noqa: E402


def parsed(parser, args):
    """The command's path and flags; fails as the CLI does."""
    namespace = parser.parse_args(args)
    leaf = namespace._deepest_parser
    path = leaf.prog.split(".")[1:]
    flags = {f for f in leaf._option_string_actions if f.startswith("--")}
    return " ".join(path), flags


def main():
    mode, commands = sys.argv[1:]
    with open(commands, encoding="utf-8") as f:
        commands = [json.loads(line) for line in f]
    sys.stderr, stderr = open(os.devnull, "w"), sys.stderr  # usage texts
    parser = gcloud_main.CreateCLI([]).top_element._parser
    refused = []
    known = {}
    for args in commands:
        try:
            path, flags = parsed(parser, args)
            known[path.replace("_", "-")] = flags
        except (Exception, SystemExit) as e:
            refused.append("gcloud %s\n\t%s: %s" % (" ".join(args), type(e).__name__, e))
    sys.stderr = stderr
    if refused:
        sys.exit("\n".join(refused))
    if mode == "flags":
        for path in sorted(known):
            print(path, *sorted(known[path]))


main()

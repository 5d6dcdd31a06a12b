#!/usr/bin/env python3
"""Has the gcloud CLI's own parser read commands, and prints those that it refuses. Nothing is run.

Its argument is a file with a JSON array of arguments a line. CLOUDSDK_ROOT is the CLI's folder.
"""
import json
import os
import sys

root = os.environ["CLOUDSDK_ROOT"]
sys.path[:0] = [os.path.join(root, "lib"), os.path.join(root, "lib", "third_party")]

from googlecloudsdk import gcloud_main  # noqa: E402

parser = gcloud_main.CreateCLI([]).top_element._parser
refused = []
with open(sys.argv[1], encoding="utf-8") as commands:
    for line in commands:
        args = json.loads(line)
        try:
            parser.parse_args(args)
        except (Exception, SystemExit) as e:
            refused.append("gcloud %s\n\t%s: %s" % (" ".join(args), type(e).__name__, e))
if refused:
    sys.exit("\n".join(refused))

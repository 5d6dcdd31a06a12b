#!/usr/bin/env python3
"""Has the gcloud CLI's own parser read commands, and prints those that it refuses. Nothing is run.

Standard input has a JSON array of arguments a line.
"""
import json
import os
import shutil
import sys

lib = os.path.join(os.path.dirname(os.path.realpath(shutil.which("gcloud"))), "..", "lib")
if not os.path.isdir(os.path.join(lib, "googlecloudsdk")):
    sys.exit("NOT CHECKED: gcloud is not of the Google Cloud CLI's own folder")
sys.path[:0] = [lib, os.path.join(lib, "third_party")]

from googlecloudsdk import gcloud_main  # noqa: E402

parser = gcloud_main.CreateCLI([]).top_element._parser
refused = []
for line in sys.stdin:
    args = json.loads(line)
    try:
        parser.parse_args(args)
    except (Exception, SystemExit) as e:
        refused.append("gcloud %s\n\t%s: %s" % (" ".join(args), type(e).__name__, e))
if refused:
    sys.exit("\n".join(refused))

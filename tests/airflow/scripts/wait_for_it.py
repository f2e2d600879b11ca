"""A training script that takes its time: `wait_for_it.py --seconds 12`. Writes a model at the end."""

import argparse
import json
import os
import time
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--seconds", type=float, default=1)
seconds = parser.parse_args().seconds
started = time.monotonic()
while time.monotonic() - started < seconds:
    print(json.dumps({"dlaws_metrics": {"step": time.monotonic() - started, "steps": seconds}}), flush=True)
    time.sleep(0.5)
Path(os.environ["SM_MODEL_DIR"], "model.txt").write_text("done")

"""A trial that needs no torch: the error falls epoch by epoch towards what its rate allows."""

import argparse
import json
import math
import os
import pathlib
import time

parser = argparse.ArgumentParser()
parser.add_argument("--rate", type=float)
parser.add_argument("--epochs", type=int)
options = parser.parse_args()
for epoch in range(1, options.epochs + 1):
    time.sleep(0.5)
    error = abs(math.log10(options.rate) + 2) / 10 + 1 / (epoch + 1)
    print(json.dumps({"dlaws_metrics": {"epoch": epoch, "validation:error": error}}), flush=True)
pathlib.Path(os.environ["SM_MODEL_DIR"], "rate").write_text(str(options.rate))

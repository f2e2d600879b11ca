"""A training script of 6 steps in two lives: it makes steps until its instances are taken away, and then the others."""

import json
import os
import time
from pathlib import Path

STEPS = 6
checkpoint = Path(os.environ["SM_CHECKPOINT_DIR"], "step")
resumed = checkpoint.exists()
step = int(checkpoint.read_text()) if resumed else 0
while True:
    step = min(step + 1, STEPS if resumed else STEPS // 2)
    checkpoint.with_suffix(".new").write_text(str(step))
    checkpoint.with_suffix(".new").replace(checkpoint)
    metrics = {"step": step, "steps": STEPS, "loss": 1 / step, "samples_per_second": 100, "checkpoint_step": step}
    print(json.dumps({"dlaws_metrics": metrics}), flush=True)
    if step == STEPS:
        break
    time.sleep(0.5)
Path(os.environ["SM_MODEL_DIR"], "model.txt").write_text("done")

"""Small jobs for tests: scripts that do one thing, without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from airflow_dlaws.jobs.spec import Channel, TrainingSpec

IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/dlaws-torch:2.13"
ROLE = "arn:aws:iam::123456789012:role/dlaws-sagemaker"
SCRIPTS = {
    "good.py": (
        "import json, os, pathlib, sys\n"
        "print('arguments', sys.argv[1:])\n"
        "data = pathlib.Path(os.environ['SM_CHANNEL_TRAIN'])\n"
        "rows = [path.read_text() for path in sorted(data.rglob('*')) if path.is_file()]\n"
        "print(json.dumps({'dlaws_metrics': {'rows': len(rows)}}))\n"
        "pathlib.Path(os.environ['SM_MODEL_DIR'], 'model.txt').write_text(''.join(rows))\n"
        "pathlib.Path(os.environ['SM_OUTPUT_DATA_DIR'], 'metrics.json').write_text('{}')\n"
    ),
    "raises.py": "print('reading labels')\nraise ValueError('label column is empty')\n",
    "talks.py": "import sys\nfor number in range(int(sys.argv[1])):\n    print('line', number, 'é', flush=True)\n",
    "forever.py": "import time\nprint('waiting', flush=True)\ntime.sleep(600)\n",
}


def write_scripts(folder: Path) -> Path:
    """Put the scripts in a folder; return it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in SCRIPTS.items():
        (folder / name).write_text(text)
    return folder


def fields(source: Path, bucket: str, script: str, **changes: Any) -> dict[str, Any]:
    """Return the fields that the specification and the operator have in common."""
    common: dict[str, Any] = {
        "image": IMAGE,
        "source": str(source),
        "entry_point": script,
        "output_s3_uri": f"s3://{bucket}/models",
        "role_arn": ROLE,
        "instance_type": "ml.m5.large",
        "max_runtime_s": 120,
    }
    return {**common, **changes}


def spec(source: Path, bucket: str, script: str = "good.py", **changes: Any) -> TrainingSpec:
    """Return the specification of a job that reads `s3://bucket/data`."""
    channels = (Channel(name="train", uri=f"s3://{bucket}/data/"),)
    return TrainingSpec(**{"channels": channels, **fields(source, bucket, script, **changes)})

"""What the demo plays on: a local AWS, a bucket with flights, and a real Airflow with the template DAGs."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from airflow_dlaws.local.airflow_stack import LocalAirflow, stop_recorded
from airflow_dlaws.local.leftovers import end_everything
from airflow_dlaws.local.process import LocalAws
from airflow_dlaws.template_files import templates_folder

BUCKET = "dlaws-demo"
ENDPOINT = "flight-delays"
IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/dlaws-torch:2.13"
ROLE_ARN = "arn:aws:iam::123456789012:role/dlaws-sagemaker"

#: AWS takes minutes to find machines and to hand them back; a tenth of that is enough to see the states.
_TIME_SCALE = 0.1
#: The short waits of a demo; on AWS the templates wait 30 to 60 seconds between looks.
_POLL_SECONDS = "2"


class Scene:
    """Everything that runs. `home` holds all its files."""

    def __init__(self, home: Path) -> None:
        self.home = home.resolve()
        self.aws = LocalAws(self.home / "aws", time_scale=_TIME_SCALE, tied=False)
        self.airflow: LocalAirflow | None = None

    def start_aws(self) -> None:
        """Start the local AWS and make the bucket."""
        self.aws.start()
        s3 = self.client("s3")
        s3.create_bucket(Bucket=BUCKET)
        s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})

    def start_airflow(self) -> LocalAirflow:
        """Start Airflow with the templates and the demo's own DAG."""
        environment = {
            **self.aws.environment(),
            "AIRFLOW_CONN_AWS_DEFAULT": "aws://",
            "DLAWS_BUCKET": BUCKET,
            "DLAWS_ENDPOINT": ENDPOINT,
            "DLAWS_IMAGE": IMAGE,
            "DLAWS_ROLE_ARN": ROLE_ARN,
            "DLAWS_SCRIPTS": str(templates_folder("training_scripts") / "flight_delays"),
            # Only drift and people start runs here: the calendar is of 2013.
            "DLAWS_RETRAIN_CRON": "",
            "DLAWS_POLL_SECONDS": _POLL_SECONDS,
        }
        folders = {"templates": templates_folder("dags"), "demo": Path(__file__).parent / "dags"}
        self.airflow = LocalAirflow(self.home / "airflow", folders, environment)
        self.airflow.start()
        return self.airflow

    def client(self, service: str) -> Any:
        """Return a boto3 client of the local AWS."""
        return self.aws.client(service)

    def stop(self) -> None:
        """End everything."""
        if self.airflow is not None:
            self.airflow.stop()
        self.aws.stop()


def stop_earlier(home: Path) -> bool:
    """End what an earlier demo left running in `home`; return whether anything ran."""
    airflow_ran = aws_ran = False
    with suppress(FileNotFoundError):
        airflow_ran = stop_recorded(home / "airflow")
    if (home / "aws").is_dir():
        aws_ran = end_everything(home / "aws")
    return airflow_ran or aws_ran

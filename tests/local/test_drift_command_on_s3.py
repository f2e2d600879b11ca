"""`dlaws drift compare` on data in S3: a Parquet object, a prefix, captured requests."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
from running_task import aws_environment

from airflow_dlaws.cli import main
from tests.captured_traffic import capture_file, healthy_rows, reference


def test_data_in_s3_are_compared_and_what_is_not_there_is_an_error(local_aws, bucket, tmp_path, monkeypatch, capsys):
    aws_environment(monkeypatch, local_aws)
    s3 = local_aws.client("s3")
    s3.put_object(Bucket=bucket, Key="ref.json", Body=json.dumps(reference().document()).encode())
    for part in range(2):
        rows, _ = healthy_rows(1000, seed=3 + part, delay=6.0 * part)
        columns = dict(zip(["delay", "temp", "carrier"], map(list, zip(*rows, strict=True)), strict=True))
        path = tmp_path / "part.parquet"
        parquet.write_table(pa.table({name: np.array(values) for name, values in columns.items()}), path)
        s3.upload_file(str(path), bucket, f"table/part-{part}.parquet")
        s3.put_object(Bucket=bucket, Key=f"capture/{part}.jsonl", Body=capture_file(*healthy_rows(1000, seed=9 + part)))
    s3.put_object(Bucket=bucket, Key="table/_SUCCESS", Body=b"")

    def compare(name):
        status = main(["drift", "compare", f"s3://{bucket}/ref.json", f"s3://{bucket}/{name}", "--json"])
        return status, capsys.readouterr()

    status, told = compare("table/part-0.parquet")
    assert (status, json.loads(told.out)["rows"]) == (0, 1000)
    status, told = compare("table/")
    assert (status, json.loads(told.out)["rows"]) == (1, 2000)
    status, told = compare("capture/")
    assert (status, json.loads(told.out)["rows"]) == (0, 2000)
    assert compare("nothing/")[0] == 2
    assert compare("nothing.parquet")[0] == 2

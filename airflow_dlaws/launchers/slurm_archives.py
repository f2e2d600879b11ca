"""Brings what a job has left on the cluster to S3: the head node uploads it to addresses signed by the task.

So neither the cluster's nodes nor its users need a right to the bucket, and it works over SSH as over Systems Manager.
An address is good for one part of one archive, for an hour.
"""

from __future__ import annotations

import shlex
from typing import Any

from airflow_dlaws.errors import ServiceRefused, ServiceUnavailable
from airflow_dlaws.launchers.aws_errors import service_errors
from airflow_dlaws.launchers.shell import Shell
from airflow_dlaws.storage import S3Uri

#: S3 takes 10,000 parts of up to 5 GB: 5 TB in parts of this size, each of which is copied aside and sent in one call.
PART_BYTES = 512 * 1024 * 1024
_PART_LIMIT_S = 1800
_ADDRESS_LIFE_S = 3600


def upload(shell: Shell, s3: Any, path: str, target: S3Uri, *, part_bytes: int = PART_BYTES) -> None:
    """Upload a file of the head node; whole or not at all.

    :raises ServiceRefused: the file is not there, or the head node has no curl.
    :raises ServiceUnavailable: the upload was cut off.
    """
    size = _size(shell, path)
    where = {"Bucket": target.bucket, "Key": target.key}
    with service_errors(f"upload to {target}"):
        upload_id = s3.create_multipart_upload(**where)["UploadId"]
        try:
            parts = []
            for number in range(1, max(1, -(-size // part_bytes)) + 1):
                params = {**where, "UploadId": upload_id, "PartNumber": number}
                url = s3.generate_presigned_url("upload_part", Params=params, ExpiresIn=_ADDRESS_LIFE_S)
                etag = _send(shell, path, url, (number - 1) * part_bytes, part_bytes)
                parts.append({"PartNumber": number, "ETag": etag})
            s3.complete_multipart_upload(**where, UploadId=upload_id, MultipartUpload={"Parts": parts})
        except BaseException:
            s3.abort_multipart_upload(**where, UploadId=upload_id)
            raise


def _size(shell: Shell, path: str) -> int:
    answer = shell.run(f"stat -c %s {shlex.quote(path)}\n")
    if answer.code != 0:
        raise ServiceRefused(f"the job's archive {path} is not on the cluster any more: {answer.stderr.strip()}")
    return int(answer.stdout)


def _send(shell: Shell, path: str, url: str, offset: int, count: int) -> str:
    """Send one part; return the entity tag that S3 gives it."""
    script = f"""\
set -o pipefail
part=$(mktemp) || exit 1
trap 'rm -f "$part" "$part.head"' EXIT
tail -c +{offset + 1} {shlex.quote(path)} | head -c {count} >"$part"
curl -fsS --retry 3 -o /dev/null -D "$part.head" -T "$part" {shlex.quote(url)} || exit 1
sed -n 's/^[Ee][Tt][Aa][Gg]: *//p' "$part.head" | tr -d '\\r'
"""
    answer = shell.run(script, limit_s=_PART_LIMIT_S)
    etag = answer.stdout.decode().strip()
    if answer.code != 0 or not etag:
        raise ServiceUnavailable(f"the head node could not upload {path} to S3 now: {answer.stderr.strip()[-500:]}")
    return etag

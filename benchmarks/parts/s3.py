"""A real S3 API on this machine."""

import socket
import subprocess
import sys
import time
from pathlib import Path

import boto3

from deepmlf.places import Place

ROOT = Path(__file__).resolve().parents[2]
BUCKET = "experiments"


class S3:
    """A server, and where its bucket is; it takes any credentials.

    Args:
        folder: Of its switches (`benchmarks.parts.s3_server`).
    """

    def __init__(self, folder: Path) -> None:
        self.fails, self.dawdles = folder / "fail", folder / "dawdle"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        command = [sys.executable, "-m", "benchmarks.parts.s3_server", str(self.port), str(folder)]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{self.port}", region_name="us-east-1")
        deadline = time.monotonic() + 60
        while True:
            try:
                client.create_bucket(Bucket=BUCKET)
                break
            except Exception:  # not up yet: refused, cut off or answered with an error
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def uri(self, path: str = "", bucket: str = BUCKET) -> str:
        return str(
            Place.of(f"s3://{bucket}?endpoint_override=127.0.0.1:{self.port}&scheme=http&region=us-east-1") / path
        )

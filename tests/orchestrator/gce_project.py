"""A project of Google Cloud in which all is well, on the fakes of its services, for doctor, quota and gpus."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orchestrator.config import Settings
from orchestrator.render.console import Screen
from orchestrator.workflows.setup.doctor import DoctorResult, doctor
from tests.fakes.compute_cloud import Clock
from tests.fakes.compute_server import PROJECT, ComputeServer
from tests.fakes.gcs_server import GcsServer

BUCKET = "trees-4711-tlvm"
ACCOUNT = f"serviceAccount:tlvm-machine@{PROJECT}.iam.gserviceaccount.com"
GOOD_BUCKET = {
    "location": "US-CENTRAL1",
    "iamConfiguration": {
        "uniformBucketLevelAccess": {"enabled": True},
        "publicAccessPrevention": "enforced",
    },
    "lifecycle": {
        "rule": [
            {"action": {"type": "Delete"}, "condition": {"age": 14, "matchesPrefix": ["checkpoints/"]}},
            {"action": {"type": "AbortIncompleteMultipartUpload"}, "condition": {"age": 7}},
        ]
    },
}
GOOD_POLICY = {
    "kind": "storage#policy",
    "version": 3,
    "etag": "CAE=",
    "bindings": [
        {"role": "roles/storage.objectViewer", "members": [ACCOUNT]},
        {
            "role": "roles/storage.objectUser",
            "members": [ACCOUNT],
            "condition": {"title": "tlvm-results", "expression": "true"},
        },
    ],
}


class Project:
    """A project in which all is well, until a test changes it."""

    def __init__(self, server: ComputeServer, bucket: GcsServer, folder: Path) -> None:
        self.server = server
        self.bucket = bucket
        self.folder = folder
        bucket.create_bucket(BUCKET)
        bucket.api.buckets.patch(BUCKET, GOOD_BUCKET)
        bucket.api.policies[BUCKET] = GOOD_POLICY

    def settings(self, *, machine: dict[str, Any] | None = None, **gce: object) -> Settings:
        given = {"project": PROJECT, "endpoint": self.server.url, "ssh_source_ranges": "203.0.113.7/32"} | gce
        store = {"url": f"gs://{BUCKET}", "endpoint": self.bucket.endpoint}
        values = {"provider": "gce", "owner": "ana", "gce": given, "store": store, "machine": machine or {}}
        return Settings.model_validate(values | {"folder": self.folder, "data_dir": self.folder / "data"})

    def doctor(self, **more: Any) -> DoctorResult:
        return doctor(self.settings(**more))


@contextmanager
def well(folder: Path) -> Iterator[Project]:
    with ComputeServer(clock=Clock(rate=0), wait_s=0.05) as server, GcsServer() as bucket:
        yield Project(server, bucket, folder)
        assert server.errors == [] and bucket.errors == []


def text(draw: Callable[[Screen, Any], None], result: object) -> str:
    out = io.StringIO()
    draw(Screen(out, io.StringIO()), result)
    return out.getvalue()

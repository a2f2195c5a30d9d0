"""What the API does with instances of the fake Compute Engine: the verbs, each as it is accepted and as it ends."""

from __future__ import annotations

import copy
import hashlib
from base64 import b64encode
from datetime import timedelta

from tests.fakes import compute_rules as rules
from tests.fakes.compute_catalogue import Resource, link
from tests.fakes.compute_cloud import Cloud, failure, items
from tests.fakes.compute_faults import Failed, Refused
from tests.fakes.compute_instances import Instances


class InstanceCalls:
    def __init__(self, cloud: Cloud, instances: Instances) -> None:
        self.cloud = cloud
        self.instances = instances

    def insert(self, scope: str, body: Resource) -> Resource:
        zone = scope.partition("/")[2]
        rules.check_instance(self.cloud, zone, body)
        instance = copy.deepcopy(body)
        boot_disk = next(disk for disk in instance["disks"] if disk.get("boot"))
        name = boot_disk.get("initializeParams", {}).get("diskName", instance["name"])
        if not boot_disk.get("source") and (scope, name) in self.cloud.resources["disks"]:
            path = self.cloud.path(scope, "disks", name)
            raise Refused(409, "alreadyExists", f"The resource '{path}' already exists")
        self.cloud.add("instances", scope, instance)
        self._fill_in(zone, instance)
        instance["status"] = "PROVISIONING"
        half = self.cloud.operation_s["insert"] / 2
        self.cloud.at(self.cloud.now() + timedelta(seconds=half), lambda: self._stage(instance))

        def made() -> None:
            if zone in self.cloud.frozen_zones:
                raise failure("stock-out", scope, instance)
            rules.check_quota(self.cloud, zone, instance)
            self._check_account(instance)
            if instance["status"] != "STOPPING":
                self._make_disks(scope, instance)
            self.instances.switch_on(instance)

        def refused() -> None:
            if self.cloud.lingers_s:
                gone = self.cloud.now() + timedelta(seconds=self.cloud.lingers_s)
                self.cloud.at(gone, lambda: self.instances.forget(instance))
            else:
                self.instances.forget(instance)

        return self.cloud.operate("insert", scope, instance, made, refused)

    def delete(self, scope: str, name: str) -> Resource:
        instance = self.cloud.find("instances", scope, name)
        if instance.get("deletionProtection"):
            raise Refused(400, "invalid", f"Resource '{name}' cannot be deleted: deletionProtection is true.")
        before = instance["status"]
        instance["status"] = "STOPPING"

        def restored() -> None:
            if instance["status"] == "STOPPING":
                instance["status"] = before

        return self.cloud.operate(
            "delete", scope, instance, lambda: self.instances.forget(instance), restored
        )

    def stop(self, scope: str, name: str) -> Resource:
        instance = self.cloud.find("instances", scope, name)
        if instance["status"] == "RUNNING":
            instance["status"] = "STOPPING"

        def restored() -> None:
            instance["status"] = "RUNNING"

        return self.cloud.operate(
            "stop", scope, instance, lambda: self.instances.switch_off(instance), restored
        )

    def start(self, scope: str, name: str) -> Resource:
        instance = self.cloud.find("instances", scope, name)
        if instance["status"] not in {"RUNNING", "TERMINATED"}:
            path = self.cloud.path(scope, "instances", name)
            raise Refused(400, "resourceNotReady", f"The resource '{path}' is not ready")

        def started() -> None:
            if instance["status"] == "TERMINATED":
                zone = scope.partition("/")[2]
                if zone in self.cloud.frozen_zones:
                    raise failure("stock-out", scope, instance)
                rules.check_quota(self.cloud, zone, instance)
                self.instances.switch_on(instance)

        return self.cloud.operate("start", scope, instance, started)

    def set_scheduling(self, scope: str, name: str, body: Resource) -> Resource:
        instance = self.cloud.find("instances", scope, name)
        if instance["status"] != "TERMINATED":
            raise Refused(
                400,
                "badRequest",
                "Scheduling can be changed only while the instance is stopped (TERMINATED).",
            )
        gpus = sum(count for _, count in rules.gpus_of(instance))
        rules.check_scheduling(self.cloud, body, gpus=gpus)

        def changed() -> None:
            instance["scheduling"] = _scheduling(body)

        return self.cloud.operate("setScheduling", scope, instance, changed)

    def set_metadata(self, scope: str, name: str, body: Resource) -> Resource:
        instance = self.cloud.find("instances", scope, name)
        rules.check_metadata(body)
        self._check_fingerprint(body.get("fingerprint"), instance["metadata"]["fingerprint"])

        def changed() -> None:
            instance["metadata"] = _metadata(body)

        return self.cloud.operate("setMetadata", scope, instance, changed)

    def set_labels(self, scope: str, name: str, body: Resource) -> Resource:
        instance = self.cloud.find("instances", scope, name)
        rules.check_labels(body.get("labels", {}))
        self._check_fingerprint(body.get("labelFingerprint"), instance["labelFingerprint"])

        def changed() -> None:
            instance["labels"] = dict(body.get("labels", {}))
            instance["labelFingerprint"] = fingerprint(instance["labels"])

        return self.cloud.operate("setLabels", scope, instance, changed)

    def guest_attributes(self, scope: str, name: str, query_path: str, variable_key: str) -> Resource:
        instance = self.cloud.find("instances", scope, name)
        on = items(instance["metadata"]).get("enable-guest-attributes", "") or self.cloud.metadata.get(
            "enable-guest-attributes", ""
        )
        if on.upper() != "TRUE":
            raise Refused(
                403, "forbidden", "Guest attributes endpoint access is disabled: set enable-guest-attributes."
            )
        wanted = query_path or variable_key
        found = [
            {"namespace": key.partition("/")[0], "key": key.partition("/")[2], "value": value}
            for key, value in sorted(self.cloud.guests[instance["id"]].attributes.items())
            if key == wanted or (wanted.endswith("/") and key.startswith(wanted)) or not wanted
        ]
        if not found:
            raise Refused(
                404, "notFound", f"The resource '{wanted}' of type 'Guest Attribute' was not found."
            )
        answer: Resource = {
            "kind": "compute#guestAttributes",
            "selfLink": instance["selfLink"] + "/getGuestAttributes",
        }
        if variable_key:
            return answer | {"variableKey": variable_key, "variableValue": found[0]["value"]}
        return answer | {"queryPath": query_path, "queryValue": {"items": found}}

    def serial_port(self, scope: str, name: str, start: int) -> Resource:
        instance = self.cloud.find("instances", scope, name)
        whole = self.cloud.guests[instance["id"]].console + self.instances.hardware.console(instance["id"])
        start = max(start + len(whole), 0) if start < 0 else start
        return {
            "kind": "compute#serialPortOutput",
            "selfLink": instance["selfLink"] + "/serialPort",
            "contents": whole[start:],
            "start": str(start),
            "next": str(len(whole)),
        }

    def _fill_in(self, zone: str, instance: Resource) -> None:
        """What the service adds to what was sent."""
        project = self.cloud.project
        instance |= {
            "labelFingerprint": fingerprint(instance.get("labels", {})),
            "metadata": _metadata(instance.get("metadata", {})),
            "tags": {**instance.get("tags", {}), "fingerprint": fingerprint(instance.get("tags", {}))},
            "scheduling": _scheduling(instance.get("scheduling", {})),
            "fingerprint": fingerprint(instance["name"]),
            "cpuPlatform": "Unknown CPU Platform",
            "startRestricted": False,
            "deletionProtection": instance.get("deletionProtection", False),
            "machineType": link(project, f"zones/{zone}", "machineTypes", _last(instance["machineType"])),
        }
        for number, interface in enumerate(instance["networkInterfaces"]):
            interface |= {
                "name": f"nic{number}",
                "kind": "compute#networkInterface",
                "network": link(project, "global", "networks", _last(interface.get("network", "default"))),
                "subnetwork": link(project, f"regions/{zone[:-2]}", "subnetworks", "default"),
                "networkIP": f"10.128.0.{int(instance['id']) % 250 + 2}",
                "fingerprint": fingerprint(instance["id"]),
            }
        accelerators = [
            {
                "acceleratorType": link(project, f"zones/{zone}", "acceleratorTypes", name),
                "acceleratorCount": count,
            }
            for name, count in rules.gpus_of(instance)
        ]
        if accelerators:
            instance["guestAccelerators"] = accelerators

    def _stage(self, instance: Resource) -> None:
        if instance["status"] == "PROVISIONING":
            instance["status"] = "STAGING"

    def _check_account(self, instance: Resource) -> None:
        for account in instance.get("serviceAccounts", []):
            if account["email"] not in {"default", *self.cloud.service_accounts}:
                raise Failed(
                    "EXTERNAL_RESOURCE_NOT_FOUND",
                    f"The resource '{account['email']}' of type 'serviceAccount' was not found.",
                    (404, "NOT FOUND"),
                )

    def _make_disks(self, scope: str, instance: Resource) -> None:
        for number, disk in enumerate(instance["disks"]):
            wanted = disk.pop("initializeParams", {})
            disk |= {"kind": "compute#attachedDisk", "index": number, "mode": disk.get("mode", "READ_WRITE")}
            disk.setdefault("type", "PERSISTENT")
            disk.setdefault("deviceName", f"persistent-disk-{number}")
            if disk["type"] == "SCRATCH":
                disk["diskSizeGb"] = "375"
                continue
            if not disk.get("source"):
                disk["source"] = self._make_disk(scope, instance, disk, wanted, number)["selfLink"]
            source = self.cloud.find("disks", scope, _last(disk["source"]))
            source["users"] = [instance["selfLink"]]
            disk["diskSizeGb"] = source["sizeGb"]

    def _make_disk(
        self, scope: str, instance: Resource, disk: Resource, wanted: Resource, number: int
    ) -> Resource:
        image = rules.image(self.cloud, wanted["sourceImage"])
        kind = _last(wanted.get("diskType", "pd-standard"))
        labels = wanted.get("labels", {})
        return self.cloud.add(
            "disks",
            scope,
            {
                "name": wanted.get("diskName", instance["name"] + (f"-{number}" if number else "")),
                "sizeGb": str(wanted.get("diskSizeGb", disk.get("diskSizeGb", image["diskSizeGb"]))),
                "type": link(self.cloud.project, scope, "diskTypes", kind),
                "sourceImage": image["selfLink"],
                "sourceImageId": image["id"],
                "status": "READY",
                "labelFingerprint": fingerprint(labels),
            }
            | ({"labels": labels} if labels else {}),
        )

    def _check_fingerprint(self, sent: object, current: object) -> None:
        if sent != current:
            raise Refused(
                412,
                "conditionNotMet",
                f"Supplied fingerprint does not match current metadata fingerprint ({current}).",
            )


def fingerprint(content: object) -> str:
    return b64encode(hashlib.sha256(repr(content).encode()).digest()[:8]).decode()


def _metadata(body: Resource) -> Resource:
    made: Resource = {"kind": "compute#metadata", "fingerprint": fingerprint(body.get("items", []))}
    return made | ({"items": copy.deepcopy(body["items"])} if body.get("items") else {})


def _scheduling(sent: Resource) -> Resource:
    """With the defaults that the service fills in."""
    is_spot = sent.get("provisioningModel") == "SPOT" or sent.get("preemptible", False)
    return {
        "onHostMaintenance": "TERMINATE" if is_spot else "MIGRATE",
        "automaticRestart": not is_spot,
        "preemptible": is_spot,
        "provisioningModel": "SPOT" if is_spot else "STANDARD",
        **({"instanceTerminationAction": "STOP"} if is_spot else {}),
        **copy.deepcopy(sent),
    }


def _last(link: str) -> str:
    return link.rpartition("/")[2]

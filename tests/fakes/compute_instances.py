"""The life of the instances of the fake Compute Engine: on, out of time, preempted, off by themselves, gone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address, ip_network

from tests.fakes import compute_rules as rules
from tests.fakes.compute_catalogue import ACCELERATORS, Resource
from tests.fakes.compute_cloud import Cloud, stamp
from tests.fakes.compute_hardware import Boot, Hardware

WRONG_HOST_KEY = "AAAAC3NzaC1lZDI1NTE5AAAAIHdyb25nIHdyb25nIHdyb25nIHdyb25nIHdyb25nIHdy"


@dataclass
class HostKeys:
    """How host keys reach the guest attributes."""

    after_s: float | None = 0.0  # None: never
    wrong: bool = False  # another key than the machine has


class Instances:
    def __init__(self, cloud: Cloud, hardware: Hardware, metadata: Callable[[str, str], str]) -> None:
        """metadata     starts the metadata server of a machine (its id) on an address; "HOST:PORT" """
        self.cloud = cloud
        self.hardware = hardware
        self.host_keys = HostKeys()
        self._metadata = metadata

    def look(self) -> None:
        """Notice machines that switched themselves off."""
        for (scope, _), instance in list(self.cloud.resources["instances"].items()):
            if instance["status"] == "RUNNING" and not self.hardware.is_on(instance["id"]):
                self.cloud.happened("compute.instances.guestTerminate", scope, instance)
                self.switch_off(instance)

    def preempt(self, name: str, notice_s: float = 0.0) -> None:
        """Take a spot machine away, whatever it does just now; it is STOPPING for `notice_s`."""
        scope, instance = self.named(name)
        assert instance["scheduling"]["provisioningModel"] == "SPOT", "only spot machines are preempted"
        self.cloud.happened("compute.instances.preempted", scope, instance)
        self.cloud.guests[instance["id"]].preempted = True
        self._end(instance, notice_s)
        self.cloud.settle()

    def host_error(self, name: str) -> None:
        """Its host fails: it goes down, and is started again elsewhere, if it is to be; its time counts from then."""
        scope, instance = self.named(name)
        self.cloud.happened("compute.instances.hostError", scope, instance)
        self.switch_off(instance)
        if instance["scheduling"]["automaticRestart"]:
            self.cloud.happened("compute.instances.automaticRestart", scope, instance)
            self.switch_on(instance)

    def publish(self, id: str, key: str, value: str) -> None:
        """A guest attribute, written by the machine."""

        def kept() -> None:
            self.cloud.guests[id].attributes[key] = value

        with self.cloud.lock:
            if key.startswith("hostkeys/") and self.host_keys.wrong:
                value = WRONG_HOST_KEY
            after_s = self.host_keys.after_s if key.startswith("hostkeys/") else 0.0
            if after_s == 0.0:
                kept()
            elif after_s is not None:
                self.cloud.at(self.cloud.now() + timedelta(seconds=after_s), kept)

    def admits(self, name: str, source: str) -> bool:
        """Whether the firewall lets SSH in from that address: of the rules that fit, the first by priority decides."""
        tags = set(self.named(name)[1]["tags"].get("items", []))
        rules = sorted(
            self.cloud.resources["firewalls"].values(),
            key=lambda rule: (rule["priority"], "denied" not in rule),
        )
        for rule in rules:
            entries = rule.get("denied") or rule["allowed"]
            fits = rule["direction"] == "INGRESS" and not rule["disabled"]
            fits = fits and (not rule.get("targetTags") or bool(tags & set(rule["targetTags"])))
            sources = rule.get("sourceRanges", ["0.0.0.0/0"])
            fits = fits and any(ip_address(source) in ip_network(entry) for entry in sources)
            if fits and any(_is_ssh(entry) for entry in entries):
                return "allowed" in rule
        return False

    def named(self, name: str) -> tuple[str, Resource]:
        """The scope and the instance of that name, wherever it is."""
        for (scope, found), instance in self.cloud.resources["instances"].items():
            if found == name:
                return scope, instance
        raise KeyError(name)

    # Steps

    def switch_on(self, instance: Resource) -> None:
        """Does nothing when it was taken away while it was being made."""
        id, now = instance["id"], self.cloud.now()
        if instance["status"] == "STOPPING" or not self._exists(instance):
            return
        guest = self.cloud.guests[id]
        guest.boots += 1
        guest.preempted = False
        instance |= {"status": "RUNNING", "lastStartTimestamp": stamp(now), "cpuPlatform": "Intel Skylake"}
        self._arm(instance, guest.boots, now)
        address = self.hardware.start(
            Boot(
                id,
                instance["name"],
                instance,
                [ACCELERATORS[name].title for name, count in rules.gpus_of(instance) for _ in range(count)],
                lambda address: self._metadata(id, address),
                lambda key, value: self.publish(id, key, value),
            )
        )
        for interface in instance["networkInterfaces"]:
            for access in interface.get("accessConfigs", []):
                access |= {"natIP": address, "kind": "compute#accessConfig", "networkTier": "PREMIUM"}
            if not interface.get("accessConfigs"):
                interface["networkIP"] = address

    def _exists(self, instance: Resource) -> bool:
        return any(known is instance for known in self.cloud.resources["instances"].values())

    def _arm(self, instance: Resource, boot: int, now: datetime) -> None:
        """The cloud's own clock: counts from each start, and ends this start only."""
        scheduling = instance["scheduling"]
        ends = None
        if duration := scheduling.get("maxRunDuration"):
            ends = now + timedelta(seconds=int(duration["seconds"]))
        elif until := scheduling.get("terminationTime"):
            ends = datetime.fromisoformat(until)
        if ends is None:
            return
        instance["resourceStatus"] = {"scheduling": {"terminationTimestamp": stamp(ends)}}

        def over() -> None:
            if instance["status"] == "RUNNING" and self.cloud.guests[instance["id"]].boots == boot:
                self._end(instance, 0.0)

        self.cloud.at(ends, over)

    def _end(self, instance: Resource, notice_s: float) -> None:
        """STOPPING, and then TERMINATED or gone, as its termination action says."""
        instance["status"] = "STOPPING"
        is_deleted = instance["scheduling"].get("instanceTerminationAction") == "DELETE"
        after = self.forget if is_deleted else self.switch_off
        self.cloud.at(self.cloud.now() + timedelta(seconds=notice_s), lambda: after(instance))

    def switch_off(self, instance: Resource) -> None:
        if instance["status"] == "TERMINATED":
            return
        self.hardware.stop(instance["id"])
        instance |= {"status": "TERMINATED", "lastStopTimestamp": stamp(self.cloud.now())}
        instance.pop("resourceStatus", None)
        for interface in instance["networkInterfaces"]:
            for access in interface.get("accessConfigs", []):
                access.pop("natIP", None)

    def forget(self, instance: Resource) -> None:
        """The instance is gone, and with it the disks that it takes along. Gone already is fine."""
        self.hardware.remove(instance["id"])
        self.cloud.remove("instances", instance)
        for disk in list(self.cloud.resources["disks"].values()):
            if instance["selfLink"] in disk.get("users", []):
                disk.pop("users")
                attached = [entry for entry in instance["disks"] if entry.get("source") == disk["selfLink"]]
                if attached and attached[0].get("autoDelete"):
                    self.cloud.remove("disks", disk)


def _is_ssh(entry: Resource) -> bool:
    spans = [ports.split("-") for ports in entry.get("ports", ["0-65535"])]
    return entry["IPProtocol"] in {"tcp", "all"} and any(
        int(span[0]) <= 22 <= int(span[-1]) for span in spans
    )

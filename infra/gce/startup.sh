#!/bin/bash
# What a machine of Google Cloud does at every boot, as root. It travels in the request that creates the machine, so
# that nothing which matters is armed later. Twice is once: each step looks at what is there.
#
#   TLVM_SYSTEM          the folder that stands for / (tests); empty on a machine
#   GCE_METADATA_HOST    where the metadata server is; Google's own when it is not set
set -uo pipefail

root=${TLVM_SYSTEM:-}
metadata=http://${GCE_METADATA_HOST:-metadata.google.internal}/computeMetadata/v1/instance
mkdir -p "$root/var/log" "$root/opt/tlvm"
exec > >(tee -a "$root/var/log/tlvm-startup.log") 2>&1

say() { echo "tlvm: $*"; }
attribute() { curl -sf -m 10 --retry 5 --retry-connrefused -H Metadata-Flavor:Google "$metadata/attributes/$1"; }

user=$(attribute tlvm-user) || user=tlvm
say "boot of $(hostname) for $user"

# The account may be there already: Google's guest agent makes it too, from the keys in the metadata. With OS Login it
# comes from Google, as soon as the guest agent has switched that on, and its home is made at the first login.
if [ "$(attribute enable-oslogin)" = TRUE ]; then
    for _ in $(seq 120); do
        getent passwd "$user" >/dev/null && break
        sleep 1
    done
else
    id "$user" >/dev/null 2>&1 || useradd --create-home --shell /bin/bash "$user"
fi
home=$(getent passwd "$user" | cut -d: -f6)
[ -d "$home" ] || install -d -o "$user" -g "$(id -g "$user")" -m 0700 "$home"
as_user() { runuser -u "$user" -- env HOME="$home" "$@"; }

# The marker of an earlier boot says nothing of this one.
rm -f "$home/.tlvm/READY"

# Host keys: the laptop accepts these and no others. Google's agent publishes them too, but only at the first boot.
publish_host_keys() {
    local file type key published=1
    for file in "$root"/etc/ssh/ssh_host_*_key.pub; do
        [ -f "$file" ] || continue
        read -r type key _ <"$file"
        curl -sf -m 10 -X PUT -H Metadata-Flavor:Google --data "$key" \
            "$metadata/guest-attributes/hostkeys/$type" >/dev/null && published=0
    done
    return "$published"
}
for _ in $(seq 60); do
    if publish_host_keys; then
        say "host keys published"
        break
    fi
    sleep 1
done

# The guard, before anything that may fail or take long: an idle machine ends even if the rest of this does not work.
start_guard() {
    attribute tlvm-guard >"$root/opt/tlvm/.guard.py" && mv "$root/opt/tlvm/.guard.py" "$root/opt/tlvm/guard.py" || return
    if [ -d /run/systemd/system ]; then
        systemctl is-active --quiet tlvm-guard ||
            systemd-run --quiet --unit tlvm-guard --property Restart=always --property RestartSec=10 \
                --property After=network.target --property TimeoutStopSec=40 \
                /usr/bin/python3 -u "$root/opt/tlvm/guard.py"
    else
        setsid python3 -u "$root/opt/tlvm/guard.py" >>"$root/var/log/tlvm-guard.log" 2>&1 </dev/null &
    fi
}
if start_guard; then say "guard started"; else say "GUARD NOT STARTED: the machine ends at its hard clock only"; fi

# An upgrade in the background may exchange the GPU's driver under a run.
if [ -d /run/systemd/system ]; then
    systemctl stop --quiet unattended-upgrades.service apt-daily.timer apt-daily-upgrade.timer 2>/dev/null
fi

# A local SSD, where there is one, holds what can be fetched or made again. It is empty after every stop.
prepare_scratch() {
    local disk
    disk=$(find "$root/dev/disk/by-id" -name 'google-local-*ssd-*' ! -name '*-part*' 2>/dev/null | sort | head -n 1)
    [ -n "$disk" ] || return 0
    mkdir -p "$root/mnt/tlvm"
    if ! mountpoint -q "$root/mnt/tlvm"; then
        blkid "$disk" >/dev/null || mkfs.ext4 -q -F "$disk" || return
        mount -o discard,nobarrier "$disk" "$root/mnt/tlvm" || return
    fi
    local name
    for name in packs cache; do
        install -d -o "$user" -g "$(id -g "$user")" -m 0700 "$root/mnt/tlvm/$name" || return
        [ -e "$home/.tlvm/$name" ] || as_user ln -sfn "$root/mnt/tlvm/$name" "$home/.tlvm/$name"
    done
    say "scratch disk $disk"
}
as_user mkdir -p -m 0700 "$home/.tlvm"
prepare_scratch || say "the scratch disk can't be used"
for name in packs cache; do # a link to a disk that is gone would be in the way of the folder itself
    [ -e "$home/.tlvm/$name" ] || rm -f "$home/.tlvm/$name"
done

# Images that have a Python of their own for torch: `python3` must be that one over SSH, too.
if ! as_user python3 -c 'import importlib.util as u, sys; sys.exit(u.find_spec("torch") is None)' 2>/dev/null; then
    for python in /opt/conda/bin/python3 /opt/venv/bin/python3; do
        if [ -x "$python" ] && [ ! -e "$root/usr/local/bin/python3" ]; then
            ln -s "$python" "$root/usr/local/bin/python3"
            say "python3 is $python"
        fi
    done
fi

# Images without a driver bring its installer.
if [ -x /opt/deeplearning/install-driver.sh ] && ! command -v nvidia-smi >/dev/null; then
    say "installing the GPU's driver"
    /opt/deeplearning/install-driver.sh </dev/null || say "the driver could not be installed"
fi

# What was active when the machine went down goes on, and the run that the machine was made for, if it was made for one.
if [ -f "$root/opt/tlvm/guard.py" ]; then
    as_user python3 "$root/opt/tlvm/guard.py" resume || say "not every run could go on"
fi

as_user touch "$home/.tlvm/READY"
say "ready"

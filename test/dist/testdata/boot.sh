#!/bin/sh
# Boots a systemd that knows no units but those in $1 and starts $2, on the host
# that this runs on. It is PID 1 of a namespace, with control groups below the
# present one. It begins when a line arrives.
set -e
read -r _
export SYSTEMD_UNIT_PATH="$1" SYSTEMD_GENERATOR_PATH=/nonexistent container=lab
exec unshare --fork --kill-child --pid --mount --ipc --cgroup sh -ec '
	mount -t proc proc /proc
	# Units get folders there that a systemd which is killed leaves.
	mount -t tmpfs tmpfs /tmp
	mount -t tmpfs tmpfs /var/tmp
	if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
		mount -t cgroup2 cgroup2 /sys/fs/cgroup
	else
		mount -t tmpfs tmpfs /sys/fs/cgroup
		mkdir /sys/fs/cgroup/systemd /sys/fs/cgroup/devices
		mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd
		mount -t cgroup -o devices cgroup /sys/fs/cgroup/devices
	fi
	exec /lib/systemd/systemd --system --unit="$1" --log-target=console --show-status=no
' systemd "$2"

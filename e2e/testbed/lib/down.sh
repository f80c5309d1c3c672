# shellcheck shell=bash
# The removal of a cluster. The removal does not depend on running components:
# the scripts query neither containerd nor the API server. So the removal works in
# the same way for broken clusters.
#
# Records from the start identify the parts of a cluster: process IDs with their
# start times, inodes of network namespaces, paths below the state directory, and
# the number in the name of the link.

cmd_down() {
	(($# == 1)) || die "down needs a name, or --all"
	((EUID == 0)) || die "down needs root"
	if [[ $1 != --all ]]; then
		use_cluster "$1"
		down_one
		return
	fi
	local name failed=0
	for name in $(cluster_names); do
		use_cluster "$name"
		# In a subshell, so that one failure does not stop the loop.
		(down_one) || failed=1
	done
	return $failed
}

down_one() {
	local began state
	began=$(clock)
	state=$(cluster_state)
	case $state in
	none)
		say "$NAME is not up."
		return
		;;
	starting) die "$NAME is being started by process $(cut -d' ' -f1 "$STATE/owner"); stop that process first" ;;
	rebooted) say "$NAME is left over from before a reboot." ;;
	esac
	# The explicit return is needed, because `set -e` has no effect here with --all.
	teardown || return 1
	say "$NAME: down ($(elapsed "$began") s)"
}

teardown() {
	local inodes containers rest
	if [[ $(cat "$STATE/boot" 2>/dev/null || echo "$BOOT_ID") != "$BOOT_ID" ]]; then
		# Only files survive a reboot, and the number may belong to another cluster now.
		rm -rf --one-file-system "$STATE"
		return
	fi
	inodes=$(network_inodes)
	[[ " $inodes " != *" $(stat -Lc %i /proc/self/ns/net) "* ]] ||
		die "this shell is inside the network of $NAME: run the command on the host"
	containers=$(container_ids)
	# Recorded for another attempt, because the mounts that identify the pods'
	# namespaces are removed below.
	[[ ! -d $STATE ]] || tr ' ' '\n' <<<"$inodes" >"$STATE/netns-inode"

	kill_processes "$inodes"
	remove_containers "$containers"
	remove_mounts
	remove_network

	rest=$(leftovers "$inodes" "$containers")
	if [[ -z $rest ]]; then
		rm -rf --one-file-system "$STATE"
		[[ ! -e $STATE ]] || rest="  directory $STATE"
	fi
	if [[ -n $rest ]]; then
		# The state directory stays, because another `down` needs its records.
		say "!!! $NAME is NOT completely removed. Left over:"
		say "$rest"
		return 1
	fi
}

# Prints the inodes of the cluster's network namespace and of its pods' namespaces.
network_inodes() {
	{
		cat "$STATE/netns-inode" 2>/dev/null || stat -Lc %i "$NETNS_FILE" 2>/dev/null || true
		mounts_below_state | grep '/netns/' | xargs -r stat -Lc %i 2>/dev/null || true
	} | sort -u | xargs
}

mounts_below_state() { awk -v below="$STATE/" 'index($2, below) == 1 { print $2 }' /proc/self/mounts | sort -r; }

container_ids() {
	local bundle
	for bundle in "$STATE"/containerd/state/io.containerd.runtime.v2.task/k8s.io/*/; do
		[[ -d $bundle ]] && basename "$bundle"
	done
	return 0
}

# Prints the processes in the given network namespaces: the containers and their
# shims, and processes that a test left there.
processes_inside() {
	local inode path
	stat -Lc '%i %n' /proc/[0-9]*/ns/net 2>/dev/null | while read -r inode path; do
		path=${path#/proc/}
		[[ " $1 " != *" $inode "* ]] || echo "${path%%/*}"
	done
	return 0
}

kill_processes() {
	local file pid deadline=$((SECONDS + 4)) pids
	for file in "$STATE"/pids/*; do
		# SIGKILL is safe, because the data is discarded anyway. After SIGTERM,
		# kube-apiserver would drain for a minute.
		! recorded_alive "$file" || kill -KILL "$(cut -d' ' -f1 "$file")" 2>/dev/null || true
	done
	while pids=$(processes_inside "$1") && [[ -n $pids ]]; do
		for pid in $pids; do kill -KILL "$pid" 2>/dev/null || true; done
		((SECONDS <= deadline)) || break
		sleep 0.05
	done
}

# Removes what dead containers leave outside of the state directory: runc's
# records and cgroups, the shims' sockets, and CNI's results.
remove_containers() {
	local id socket tasks=$STATE/containerd/state/io.containerd.runtime.v2.task/k8s.io
	for id in $1; do
		socket=$(cat "$tasks/$id/address" 2>/dev/null || true)
		[[ -z $socket ]] || rm -f "${socket#unix://}"
		rm -f /var/lib/cni/results/*"-$id-"*
	done
	printf '%s\n' "$1" | xargs -r -P 4 -n 1 runc --root /run/containerd/runc/k8s.io delete --force 2>/dev/null || true
	remove_cgroups "$1"
	# The kubelet always creates these links, which point into the state directory.
	find /var/log/containers -maxdepth 1 -lname "$STATE/*" -delete 2>/dev/null || true
}

# Removes the cgroups of containers. A cgroup can be removed only after its last
# process has ended completely, which takes a while on a busy machine. runc does
# not wait for the end, and deletes its record of the container nevertheless.
remove_cgroups() {
	local id path left deadline=$((SECONDS + 10))
	while :; do
		left=
		for id in $1; do
			for path in /sys/fs/cgroup/*/k8s.io/"$id" /sys/fs/cgroup/k8s.io/"$id"; do
				[[ ! -d $path ]] || find "$path" -depth -type d -exec rmdir {} + 2>/dev/null || left=yes
			done
		done
		[[ -n $left ]] && ((SECONDS <= deadline)) || return 0
		sleep 0.1
	done
}

remove_mounts() {
	local mounts
	mounts=$(mounts_below_state)
	[[ -n $mounts ]] || return 0
	xargs umount <<<"$mounts" 2>/dev/null || mounts_below_state | xargs -r umount --lazy 2>/dev/null || true
}

remove_network() {
	local number
	number=$(cat "$STATE/number" 2>/dev/null || true)
	# The kernel removes the routes together with the link.
	[[ -z $number || ! -e /sys/class/net/slipway$number ]] || ip link delete "slipway$number" || true
	[[ ! -e $NETNS_FILE ]] || ip netns delete "$NETNS" || true
}

# Prints one line for each part of the cluster that still exists.
leftovers() {
	local pid id number path
	for pid in $(processes_inside "$1"); do
		echo "  process $pid: $(tr '\0' ' ' </proc/"$pid"/cmdline 2>/dev/null)"
	done
	mounts_below_state | sed 's/^/  mount /'
	[[ ! -e $NETNS_FILE ]] || echo "  network namespace $NETNS_FILE"
	number=$(cat "$STATE/number" 2>/dev/null || true)
	[[ -z $number || ! -e /sys/class/net/slipway$number ]] || echo "  link slipway$number"
	for id in $2; do
		for path in /run/containerd/runc/k8s.io/"$id" /sys/fs/cgroup/*/k8s.io/"$id" /sys/fs/cgroup/k8s.io/"$id"; do
			[[ ! -e $path ]] || echo "  $path"
		done
	done
}

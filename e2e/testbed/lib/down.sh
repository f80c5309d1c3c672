# shellcheck shell=bash
# The end of a cluster. It relies on nothing that runs: neither containerd nor
# an API server is asked, so a cluster that is half dead goes the same way.
#
# What belongs to the cluster is known by what was recorded when it was made:
# process ids with their start times, the inodes of its network namespaces,
# paths below its state directory, and the number in the name of its link.

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
		# In a subshell, so that one failure does not spare the others.
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
	starting) die "$NAME is being started by process $(cut -d' ' -f1 "$STATE/owner"); end that first" ;;
	rebooted) say "$NAME is a remnant from before a reboot." ;;
	esac
	# Spelled out: called by --all, `set -e` has no effect in here.
	teardown || return 1
	say "$NAME: down ($(elapsed "$began") s)"
}

teardown() {
	local inodes containers rest
	if [[ $(cat "$STATE/boot" 2>/dev/null || echo "$BOOT_ID") != "$BOOT_ID" ]]; then
		# Nothing but files outlives a reboot, and the number may be another's now.
		rm -rf --one-file-system "$STATE"
		return
	fi
	inodes=$(network_inodes)
	[[ " $inodes " != *" $(stat -Lc %i /proc/self/ns/net) "* ]] ||
		die "this shell is inside of the network of $NAME: run it from the host"
	containers=$(container_ids)
	# For another attempt: the mounts that tell the pods' are about to go.
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
		# The state directory stays, so that another `down` knows what to look for.
		say "!!! $NAME is NOT completely gone. This is left:"
		say "$rest"
		return 1
	fi
}

# Of the cluster's own network namespace and those of its pods.
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

# Processes in the given network namespaces: the containers and their shims,
# and whatever a test put there and left.
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
		# The data is thrown away anyway, and kube-apiserver would drain for a
		# minute if asked politely.
		! recorded_alive "$file" || kill -KILL "$(cut -d' ' -f1 "$file")" 2>/dev/null || true
	done
	while pids=$(processes_inside "$1") && [[ -n $pids ]]; do
		for pid in $pids; do kill -KILL "$pid" 2>/dev/null || true; done
		((SECONDS <= deadline)) || break
		sleep 0.05
	done
}

# What containers leave outside of the state directory once their processes
# are dead: runc's records and cgroups, the shims' sockets, and CNI's results.
remove_containers() {
	local id socket tasks=$STATE/containerd/state/io.containerd.runtime.v2.task/k8s.io
	for id in $1; do
		socket=$(cat "$tasks/$id/address" 2>/dev/null || true)
		[[ -z $socket ]] || rm -f "${socket#unix://}"
		rm -f /var/lib/cni/results/*"-$id-"*
	done
	printf '%s\n' "$1" | xargs -r -P 4 -n 1 runc --root /run/containerd/runc/k8s.io delete --force 2>/dev/null || true
	remove_cgroups "$1"
	# The kubelet insists on these links, and they point into our state.
	find /var/log/containers -maxdepth 1 -lname "$STATE/*" -delete 2>/dev/null || true
}

# A cgroup can be removed once its last process is gone altogether, which takes a while on a busy machine; runc does not
# wait for that, and forgets the container all the same.
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
	# The routes go with the link.
	[[ -z $number || ! -e /sys/class/net/slipway$number ]] || ip link delete "slipway$number" || true
	[[ ! -e $NETNS_FILE ]] || ip netns delete "$NETNS" || true
}

# One line for everything that should be gone and is not.
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

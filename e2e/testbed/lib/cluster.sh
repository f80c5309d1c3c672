# shellcheck shell=bash
# Clusters: the start of a cluster, and the commands on running clusters.
#
# The state of cluster NAME is the directory RUN/NAME. The directory reserves the
# name. From its creation, the directory contains `boot` (the boot of the machine
# that the cluster belongs to), `owner` (the process that starts the cluster) and
# `number`. The start creates `ready` last.

RUN=/run/slipway-testbed
BOOT_ID=$(cat /proc/sys/kernel/random/boot_id 2>/dev/null || true)

# Sets the paths of the cluster NAME, whether or not it exists.
use_cluster() {
	NAME=$1
	[[ $NAME =~ ^[a-z0-9]([-a-z0-9]{0,22}[a-z0-9])?$ ]] ||
		die "$NAME is not a valid cluster name: at most 24 lowercase letters, digits and inner hyphens"
	STATE=$RUN/$NAME
	NETNS=slipway-$NAME
	NETNS_FILE=/run/netns/$NETNS
}

# Prints none, rebooted, up, broken (a process has ended), starting, or abandoned
# (the start was interrupted).
cluster_state() {
	local file
	if [[ ! -d $STATE ]]; then
		[[ -e $NETNS_FILE ]] && echo abandoned || echo none
	elif [[ $(cat "$STATE/boot" 2>/dev/null) != "$BOOT_ID" ]]; then
		echo rebooted
	elif [[ -e $STATE/ready ]]; then
		for file in "$STATE"/pids/*; do
			recorded_alive "$file" || { echo broken && return; }
		done
		echo up
	elif recorded_alive "$STATE/owner"; then
		echo starting
	else
		echo abandoned
	fi
}

# Creates the state directory in one rename, so the directory is always complete.
# The lock also covers the choice of the number, so two concurrent starts get
# neither the same name nor the same number.
claim_cluster() {
	local claim lock
	mkdir -p "$RUN"
	exec {lock}>"$RUN/.lock"
	flock "$lock"
	if [[ -e $STATE ]]; then
		exec {lock}>&-
		die "another start has just reserved $NAME"
	fi
	claim=$(mktemp --directory "$RUN/.claim-XXXXXX")
	chmod 755 "$claim"
	mkdir "$claim"/{log,pids}
	printf '%s\n' "$BOOT_ID" >"$claim/boot"
	record_process $$ >"$claim/owner"
	free_network_number >"$claim/number" || {
		rm -r "$claim"
		return 1
	}
	mv -T "$claim" "$STATE"
	exec {lock}>&-
}

cmd_up() {
	local name='' mode=node argument
	local flags=()
	for argument; do
		case $argument in
		--no-node) mode=api ;;
		# Off by default in 1.34, where it is beta.
		--mutating-policies)
			flags=(--feature-gates=MutatingAdmissionPolicy=true
				--runtime-config=admissionregistration.k8s.io/v1beta1=true)
			;;
		-*) die "up has no option $argument" ;;
		*) [[ -z $name ]] || die "up takes one name" && name=$argument ;;
		esac
	done
	[[ -n $name ]] || die "up needs a name"
	use_cluster "$name"
	check_machine
	installed || die "not all components are installed; run: testbed install"

	case $(cluster_state) in
	none) ;;
	up)
		say "$NAME is up already."
		printf '%s\n' "$STATE/kubeconfig" >&3
		return
		;;
	starting) die "$NAME is being started by process $(cut -d' ' -f1 "$STATE/owner")" ;;
	broken) die "$NAME has lost a process (see: testbed list); first run: testbed down $NAME" ;;
	rebooted | abandoned)
		say "$NAME is left over from a reboot or an interrupted start: removing $NAME first."
		teardown
		;;
	esac
	boot "$mode" "${flags[@]}"
	printf '%s\n' "$STATE/kubeconfig" >&3
}

# boot MODE [FLAG...]: starts a cluster. The flags are for the API server.
boot() {
	local mode=$1 began
	shift
	began=$(clock)
	# A proxy cannot reach the addresses of a cluster.
	unset http_proxy https_proxy all_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY
	FAILED= # the component that failed, as the name of its log
	claim_cluster
	trap boot_failed EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM HUP
	network_addresses "$(<"$STATE/number")"
	say "$NAME: starting, node address $NODE_IP, logs in $STATE/log"
	network_create

	# Each component starts as soon as its dependencies exist. The API server
	# takes most of the time.
	[[ $mode == api ]] || containerd_start
	etcd_start
	pki_create "$mode"
	apiserver_start "$@"
	if [[ $mode == node ]]; then
		await 30 containerd "containerd answered" node_ctr version
		load_images "$IMAGES/pause.tar"
	fi
	await 60 etcd "etcd listened" nsenter --net="$NETNS_FILE" bash -c ': </dev/tcp/127.0.0.1/2379'
	await 60 apiserver "the API server was ready" apiserver_ready
	say "$NAME: API server ready ($(elapsed "$began") s)"
	controller_manager_start

	if [[ $mode == node ]]; then
		scheduler_start
		kubelet_start
		proxy_start
		coredns_start
		load_images "$IMAGES"/{contour,envoy,go-httpbin}.tar
		await 60 kubelet "the node was ready" node_ready
		await 60 coredns "CoreDNS was ready" coredns_ready
	fi
	await 60 controller-manager "the default service account existed" default_account_exists

	touch "$STATE/ready"
	trap - EXIT INT TERM HUP
	say "$NAME: up ($(elapsed "$began") s)"
}

# Prints the ends of the logs that explain the failure, and removes the cluster.
boot_failed() {
	local status=$? file name
	trap - EXIT
	trap '' INT TERM HUP
	say "$NAME: the start failed."
	for file in "$STATE"/log/*.log; do
		name=${file##*/}
		name=${name%.log}
		if [[ $name == "$FAILED" ]] ||
			{ [[ -e $STATE/pids/$name ]] && ! recorded_alive "$STATE/pids/$name"; }; then
			say "--- end of log/$name.log"
			tail -n 15 "$file" >&2
		fi
	done
	teardown || true
	exit $((status ? status : 1))
}

# Fails unless the cluster is up.
require_up() {
	use_cluster "$1"
	local state
	state=$(cluster_state)
	[[ $state == up ]] || die "$NAME is not up (state: $state); run: testbed up $NAME"
}

cmd_load() {
	(($# >= 2)) || die "load needs a cluster and at least one image archive"
	require_up "$1"
	shift
	[[ -S $STATE/containerd/c.sock ]] || die "$NAME has no node"
	local archive
	for archive; do [[ -r $archive ]] || die "file $archive does not exist or is not readable"; done
	load_images "$@"
}

cmd_kubeconfig() {
	(($# == 1)) || die "kubeconfig needs a name"
	require_up "$1"
	printf '%s\n' "$STATE/kubeconfig" >&3
}

cmd_pid() {
	(($# == 2)) || die "pid needs a cluster and the ID of a container"
	require_up "$1"
	[[ -S $STATE/containerd/c.sock ]] || die "$NAME has no node"
	local pid
	pid=$(node_ctr tasks list | awk -v id="${2#containerd://}" '$1 == id && $3 == "RUNNING" {print $2}')
	[[ -n $pid ]] || die "no container $2 is running in $NAME"
	printf '%s\n' "$pid" >&3
}

cmd_list() {
	(($# == 0)) || die "list takes no arguments"
	local name number
	{
		echo "NAME STATE NODE KUBECONFIG"
		for name in $(cluster_names); do
			use_cluster "$name"
			number=$(cat "$STATE/number" 2>/dev/null || true)
			[[ -z $number ]] || network_addresses "$number"
			echo "$NAME $(cluster_state) ${number:+$NODE_IP} $([[ ! -e $STATE/ready ]] || echo "$STATE/kubeconfig")"
		done
	} | column -t >&3
}

# Prints the names of all clusters, including clusters of which only the network
# namespace is left.
cluster_names() {
	local path
	for path in "$RUN"/*/ /run/netns/slipway-*; do
		[[ -e $path ]] || continue
		path=${path%/}
		path=${path##*/}
		echo "${path#slipway-}"
	done | sort -u
}

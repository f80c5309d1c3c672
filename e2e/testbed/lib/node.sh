# shellcheck shell=bash
# The only node: containerd, kubelet, kube-proxy and CoreDNS.

NODE_NAME=node1

containerd_start() {
	# - The namespaces of pods are mounted below the cluster's state, which shows
	#   their cluster. (In /run/netns they cannot be removed if that directory
	#   became a mount point after the first of them.)
	# - Without CAP_SYS_RESOURCE, runc may not lower oom_score_adj, and then fails
	#   with "can't get final child's PID from pipe: EOF".
	cat >"$STATE/containerd.toml" <<-END
		version = 2
		root = "$STATE/containerd/root"
		state = "$STATE/containerd/state"
		[grpc]
		  address = "$STATE/containerd/c.sock"
		[plugins."io.containerd.internal.v1.opt"]
		  path = "$STATE/containerd/opt"
		[plugins."io.containerd.grpc.v1.cri"]
		  sandbox_image = "$PAUSE_IMAGE"
		  netns_mounts_under_state_dir = true
		  restrict_oom_score_adj = true
		  [plugins."io.containerd.grpc.v1.cri".cni]
		    bin_dir = "/usr/lib/cni"
		    conf_dir = "$STATE/cni"
		  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
		    runtime_type = "io.containerd.runc.v2"
	END
	# Point to point instead of a bridge: all traffic between pods is routed. So
	# Services and packet filters work with and without br_netfilter.
	mkdir -p "$STATE/cni"
	cat >"$STATE/cni/10-pods.conflist" <<-END
		{"cniVersion": "0.4.0", "name": "slipway-$NAME", "plugins": [
		  {"type": "ptp", "ipam": {"type": "host-local", "dataDir": "$STATE/cni-addresses",
		    "subnet": "$POD_RANGE", "routes": [{"dst": "0.0.0.0/0"}]}},
		  {"type": "portmap", "capabilities": {"portMappings": true}}]}
	END
	start containerd containerd --config "$STATE/containerd.toml"
}

node_ctr() { ctr --address "$STATE/containerd/c.sock" --namespace k8s.io "$@"; }

load_images() {
	local archive
	for archive in "$@"; do
		node_ctr images import "$archive" >>"$STATE/log/images.log" 2>&1 || {
			say "containerd could not import $archive; the end of $STATE/log/images.log:"
			tail -n 5 "$STATE/log/images.log" >&2
			return 1
		}
	done
}

kubelet_start() {
	# - cgroupsPerQOS, enforceNodeAllocatable: several kubelets share this host's
	#   cgroups, and none of them owns the tree.
	# - failCgroupV1: Kubernetes 1.35 refuses cgroup v1 by default.
	# - oomScoreAdj: lowering the score needs a capability that may be missing.
	# - localStorageCapacityIsolation: the feature fails on some file systems.
	# - imageGCHighThresholdPercent: images cannot be fetched from anywhere, so the
	#   kubelet must never collect images.
	cat >"$STATE/kubelet.yaml" <<-END
		apiVersion: kubelet.config.k8s.io/v1beta1
		kind: KubeletConfiguration
		authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $STATE/pki/ca.crt}}
		authorization: {mode: Webhook}
		tlsCertFile: $STATE/pki/kubelet.crt
		tlsPrivateKeyFile: $STATE/pki/kubelet.key
		containerRuntimeEndpoint: unix://$STATE/containerd/c.sock
		podLogsDir: $STATE/pod-logs
		volumePluginDir: $STATE/kubelet/volume-plugins
		cgroupDriver: cgroupfs
		cgroupsPerQOS: false
		enforceNodeAllocatable: []
		failCgroupV1: false
		failSwapOn: false
		oomScoreAdj: 0
		localStorageCapacityIsolation: false
		imageGCHighThresholdPercent: 100
		evictionHard: {memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%}
		clusterDNS: [$NODE_IP]
		clusterDomain: cluster.local
		resolvConf: ""
	END
	start kubelet "$KUBERNETES/cluster" kubelet --config="$STATE/kubelet.yaml" --kubeconfig="$STATE/pki/kubelet.kubeconfig" \
		--hostname-override="$NODE_NAME" --node-ip="$NODE_IP" --root-dir="$STATE/kubelet"
}

proxy_start() {
	# maxPerCore: the host controls the size of the connection table.
	cat >"$STATE/proxy.yaml" <<-END
		apiVersion: kubeproxy.config.k8s.io/v1alpha1
		kind: KubeProxyConfiguration
		clientConnection: {kubeconfig: $STATE/pki/proxy.kubeconfig}
		mode: iptables
		hostnameOverride: $NODE_NAME
		conntrack: {maxPerCore: 0}
	END
	start proxy "$KUBERNETES/cluster" kube-proxy --config="$STATE/proxy.yaml"
}

coredns_start() {
	# The second block answers "no such name" for all names outside of the cluster.
	# Without the block, CoreDNS would answer "refused", and resolvers would treat
	# the server as broken. (The template cannot be in the first block, because
	# CoreDNS would query the template before the cluster.)
	cat >"$STATE/Corefile" <<-END
		cluster.local:53 in-addr.arpa:53 {
		  bind $NODE_IP
		  ready 127.0.0.1:8181
		  errors
		  kubernetes {
		    kubeconfig $STATE/pki/coredns.kubeconfig $NAME
		    ttl 2
		  }
		}
		.:53 {
		  bind $NODE_IP
		  template ANY ANY {
		    rcode NXDOMAIN
		  }
		}
	END
	start coredns "$COREDNS/coredns" -conf "$STATE/Corefile"
}

coredns_ready() {
	nsenter --net="$NETNS_FILE" curl --silent --fail --max-time 5 --noproxy '*' http://127.0.0.1:8181/ready
}

# Reports whether the node is Ready, and no longer has the taint that keeps pods
# away until then.
node_ready() {
	local state
	state=$(cluster_kubectl get node "$NODE_NAME" \
		-o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}/{.spec.taints[*].key}')
	[[ $state == True/ ]]
}

# shellcheck shell=bash
# containerd, kubelet, kube-proxy and CoreDNS: the one node.

NODE_NAME=node1

containerd_start() {
	# - pod namespaces are mounted below our own state, so that it is plain whose
	#   they are. (In /run/netns they can't be removed if that directory became a
	#   mount point after the first of them.)
	# - runc may not lower oom_score_adj without CAP_SYS_RESOURCE, and then fails
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
	# Point to point rather than a bridge: all traffic between pods is routed, so
	# Services work and packet filters see it whether or not br_netfilter is there.
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
			say "$archive could not be imported; the end of $STATE/log/images.log:"
			tail -n 5 "$STATE/log/images.log" >&2
			return 1
		}
	done
}

kubelet_start() {
	# - cgroupsPerQOS, enforceNodeAllocatable: several kubelets share this host's
	#   cgroups; none of them owns the tree
	# - failCgroupV1: Kubernetes 1.35 refuses cgroup v1 by default
	# - oomScoreAdj: lowering it needs a capability that may be missing
	# - localStorageCapacityIsolation: needs to know the file system, fails on some
	# - the images are not to be fetched anywhere, so they must never be collected
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
	# maxPerCore: the size of the connection table belongs to the host
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
	# The second block says "no such name" for everything outside of the cluster.
	# Refused, as it would be otherwise, resolvers take for a broken server. (It
	# can't be in the first: CoreDNS would ask the template before the cluster.)
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

# Ready, and the taint that keeps pods away until then is gone too.
node_ready() {
	local state
	state=$(cluster_kubectl get node "$NODE_NAME" \
		-o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}/{.spec.taints[*].key}')
	[[ $state == True/ ]]
}

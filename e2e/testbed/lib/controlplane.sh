# shellcheck shell=bash
# etcd, kube-apiserver and the controllers.

etcd_start() {
	start etcd "$KUBERNETES/cluster" etcd \
		--data-dir "$STATE/etcd" --unsafe-no-fsync --log-level warn \
		--listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
		--listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 \
		--initial-cluster default=http://127.0.0.1:2380
}

# apiserver_start [FLAG...]: starts the API server with additional flags.
apiserver_start() {
	# One line per finished request: the user, the user agent and the request. For
	# a deletion, the line also has the options, which contain the preconditions.
	cat >"$STATE/audit.yaml" <<-'END'
		apiVersion: audit.k8s.io/v1
		kind: Policy
		omitStages: [RequestReceived]
		rules: [{level: Request, verbs: [delete]}, {level: Metadata}]
	END
	# Without a preferred address type, the API server would resolve the node's
	# name for each log request, and no name server knows the node's name.
	start apiserver "$KUBERNETES/cluster" kube-apiserver \
		--etcd-servers=http://127.0.0.1:2379 \
		--secure-port=6443 --advertise-address="$NODE_IP" --service-cluster-ip-range="$SERVICE_RANGE" \
		--tls-cert-file=pki/apiserver.crt --tls-private-key-file=pki/apiserver.key --client-ca-file=pki/ca.crt \
		--service-account-issuer=https://kubernetes.default.svc.cluster.local \
		--service-account-key-file=pki/service-accounts.key --service-account-signing-key-file=pki/service-accounts.key \
		--authorization-mode=Node,RBAC --allow-privileged \
		--kubelet-client-certificate=pki/apiserver-kubelet-client.crt --kubelet-client-key=pki/apiserver-kubelet-client.key \
		--kubelet-certificate-authority=pki/ca.crt --kubelet-preferred-address-types=InternalIP \
		--audit-policy-file=audit.yaml --audit-log-path="$STATE/audit.log" \
		--audit-log-maxsize=1000 --audit-log-maxbackup=1 "$@"
}

apiserver_ready() {
	curl --silent --fail --max-time 5 --noproxy '*' --cacert "$STATE/pki/ca.crt" \
		--cert "$STATE/pki/admin.crt" --key "$STATE/pki/admin.key" "https://$NODE_IP:6443/readyz"
}

controller_manager_start() {
	# Each controller fetches its own credential at its start. At the default rate,
	# these requests alone take five seconds.
	start controller-manager "$KUBERNETES/cluster" kube-controller-manager \
		--kube-api-qps=200 --kube-api-burst=400 \
		--kubeconfig=pki/controller-manager.kubeconfig --leader-elect=false --use-service-account-credentials \
		--service-account-private-key-file=pki/service-accounts.key --root-ca-file=pki/ca.crt \
		--cluster-signing-cert-file=pki/ca.crt --cluster-signing-key-file=pki/ca.key
}

scheduler_start() {
	start scheduler "$KUBERNETES/cluster" kube-scheduler --kubeconfig=pki/scheduler.kubeconfig --leader-elect=false
}

# The API server refuses pods of a namespace until its default service account exists.
default_account_exists() { cluster_kubectl get serviceaccount default; }

cluster_kubectl() { "$KUBERNETES/cluster" kubectl --kubeconfig="$STATE/kubeconfig" "$@"; }

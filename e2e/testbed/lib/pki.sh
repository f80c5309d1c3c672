# shellcheck shell=bash
# A certificate authority per cluster, and a client certificate for each component,
# so that RBAC and the audit log can distinguish the components.

pki_create() {
	mkdir -m 700 "$STATE/pki"
	FAILED=pki
	(
		cd "$STATE/pki" || exit 1
		exec 2>"$STATE/log/pki.log"
		new_key ca.key
		openssl req -x509 -key ca.key -out ca.crt -subj /CN=testbed-ca -days 30
		new_key service-accounts.key
		certificate apiserver /CN=kube-apiserver \
			"IP:127.0.0.1,IP:$NODE_IP,IP:$API_SERVICE_IP,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local"
		certificate apiserver-kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client
		client admin /O=system:masters/CN=admin
		client controller-manager /CN=system:kube-controller-manager
		if [[ $1 == node ]]; then
			client scheduler /CN=system:kube-scheduler
			client proxy /CN=system:kube-proxy
			client coredns /O=system:masters/CN=coredns
			client kubelet "/O=system:nodes/CN=system:node:$NODE_NAME" "IP:$NODE_IP,DNS:$NODE_NAME"
		fi
	)
	FAILED=
	mv "$STATE/pki/admin.kubeconfig" "$STATE/kubeconfig"
}

# Creates a key on an elliptic curve. One RSA key would take as long as all of
# these keys together.
new_key() { openssl ecparam -genkey -name prime256v1 -noout -out "$1"; }

# certificate NAME SUBJECT [ALTERNATIVE NAMES]: creates a key and a certificate.
certificate() {
	new_key "$1.key"
	{
		echo 'extendedKeyUsage=serverAuth,clientAuth'
		[[ -z ${3:-} ]] || echo "subjectAltName=$3"
	} >"$1.ext"
	openssl req -new -key "$1.key" -out "$1.csr" -subj "$2"
	openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -out "$1.crt" -days 30 -extfile "$1.ext"
	rm "$1.ext" "$1.csr"
}

# Creates a certificate, and a kubeconfig with the certificate.
client() {
	certificate "$@"
	cat >"$1.kubeconfig" <<-END
		apiVersion: v1
		kind: Config
		current-context: $NAME
		contexts:
		- name: $NAME
		  context: {cluster: $NAME, user: $1}
		clusters:
		- name: $NAME
		  cluster:
		    server: https://$NODE_IP:6443
		    certificate-authority-data: $(base64 -w0 ca.crt)
		users:
		- name: $1
		  user:
		    client-certificate-data: $(base64 -w0 "$1.crt")
		    client-key-data: $(base64 -w0 "$1.key")
	END
	chmod 600 "$1.kubeconfig"
}

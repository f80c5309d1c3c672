# shellcheck shell=bash disable=SC2034  # read by the files that source this one
# Everything the testbed pins, and nothing else.

# Follows kubernetes/go.mod; `install` refuses to run if the two disagree.
KUBERNETES_VERSION=1.34.4
COREDNS_VERSION=1.14.7
CONTOUR_VERSION=1.33.8
ENVOY_VERSION=1.38.3
HTTPBIN_VERSION=2.26.0

# The names that pod specs use, so that manifests written for a real cluster
# run here unchanged although no registry is ever asked.
CONTOUR_IMAGE=ghcr.io/projectcontour/contour:v$CONTOUR_VERSION
ENVOY_IMAGE=docker.io/envoyproxy/envoy:distroless-v$ENVOY_VERSION
HTTPBIN_IMAGE=docker.io/mccutchen/go-httpbin:$HTTPBIN_VERSION
PAUSE_IMAGE=docker.io/slipway-testbed/pause:1

# The newest `go` line among the modules above. Checked up front, because Go
# itself would complain only minutes into the install.
GO_MINIMUM=1.26.0

APT_PACKAGES=(
	containerd runc containernetworking-plugins
	iproute2 iptables nftables conntrack kmod procps util-linux
	openssl curl ca-certificates
)

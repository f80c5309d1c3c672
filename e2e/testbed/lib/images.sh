# shellcheck shell=bash
# The images that every node has from the start.

build_images() {
	local libraries=() library
	gcc -O2 -static -s -o "$1/pause" "$HERE/lib/pause.c"
	# Envoy is linked against glibc, which the image has to bring, each library
	# at the path where the loader on this machine found it.
	while read -r library; do
		libraries+=("$(realpath "$library"):$library")
	done < <(ldd "$ENVOY/envoy" | grep -oE '/[^ ]+')

	local image="$HERE/lib/image.py"
	python3 "$image" "$1/pause.tar" "$PAUSE_IMAGE" /pause "$1/pause:/pause"
	python3 "$image" --user 65532:65532 "$1/contour.tar" "$CONTOUR_IMAGE" '' "$CONTOUR/contour:/bin/contour"
	python3 "$image" --user 65532:65532 "$1/envoy.tar" "$ENVOY_IMAGE" /usr/local/bin/envoy \
		"$ENVOY/envoy:/usr/local/bin/envoy" "${libraries[@]}"
	python3 "$image" --user 65532:65532 "$1/go-httpbin.tar" "$HTTPBIN_IMAGE" /bin/go-httpbin "$HTTPBIN/go-httpbin:/bin/go-httpbin"
	rm "$1/pause"
}

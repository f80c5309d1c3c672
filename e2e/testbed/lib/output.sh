# shellcheck shell=bash
# Messages. All of them go to stderr: stdout belongs to results.

say() { printf '%s\n' "$*" >&2; }

die() {
	printf 'testbed: %s\n' "$*" >&2
	exit 1
}

# Seconds with one decimal since the microsecond timestamp $1.
elapsed() {
	local now=${EPOCHREALTIME/[.,]/} tenths
	tenths=$(((now - $1) / 100000))
	printf '%d.%d' $((tenths / 10)) $((tenths % 10))
}

clock() { printf '%s' "${EPOCHREALTIME/[.,]/}"; }

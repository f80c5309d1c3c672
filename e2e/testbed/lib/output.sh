# shellcheck shell=bash
# Messages. All messages go to stderr, because stdout is for results.

say() { printf '%s\n' "$*" >&2; }

die() {
	printf 'testbed: %s\n' "$*" >&2
	exit 1
}

# Prints the seconds since the microsecond timestamp $1, with one decimal.
elapsed() {
	local now=${EPOCHREALTIME/[.,]/} tenths
	tenths=$(((now - $1) / 100000))
	printf '%d.%d' $((tenths / 10)) $((tenths % 10))
}

clock() { printf '%s' "${EPOCHREALTIME/[.,]/}"; }

# shellcheck shell=bash
# Background processes of a cluster. The record of a process consists of its ID
# and its start time, because another process may get the same ID later.

# start NAME COMMAND...: runs COMMAND in the cluster's network namespace, with the
# record STATE/pids/NAME and the log STATE/log/NAME.log.
start() {
	local name=$1
	shift
	(
		# The process records itself before it becomes COMMAND, so COMMAND never runs
		# without a record.
		record_process "$BASHPID" >"$STATE/pids/$name"
		cd "$STATE" || exit 1
		# Not `ip netns exec`, which mounts a new /sys without the cgroups.
		exec setsid nsenter --net="$NETNS_FILE" "$@"
	) </dev/null >>"$STATE/log/$name.log" 2>&1 3>&- &
	# Otherwise bash would print a message when the process ends.
	disown
}

record_process() { printf '%s %s\n' "$1" "$(start_time "$1")"; }

# Prints field 22 of stat, the start time. The fields are counted after the name,
# because the name may contain any character.
start_time() {
	local stat fields
	{ read -r stat </proc/"$1"/stat; } 2>/dev/null || return 1
	read -ra fields <<<"${stat##*) }"
	[[ ${fields[0]} != Z ]] || return 1
	printf '%s' "${fields[19]}"
}

# recorded_alive FILE: reports whether the recorded process still runs.
recorded_alive() {
	local pid began
	{ read -r pid began <"$1"; } 2>/dev/null && [[ -n $began && $(start_time "$pid") == "$began" ]]
}

# await SECONDS NAME WHAT COMMAND...: retries COMMAND until COMMAND succeeds. Fails
# at once if the process NAME ends, because COMMAND can then never succeed.
await() {
	local deadline=$((SECONDS + $1)) name=$2 what=$3
	shift 3
	until "$@" >/dev/null 2>&1; do
		if [[ -s $STATE/pids/$name ]] && ! recorded_alive "$STATE/pids/$name"; then
			FAILED=$name
			say "$name ended before $what."
			return 1
		fi
		if ((SECONDS > deadline)); then
			FAILED=$name
			say "$name: timed out before $what."
			return 1
		fi
		sleep 0.05
	done
}

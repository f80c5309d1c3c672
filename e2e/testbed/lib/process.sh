# shellcheck shell=bash
# Background processes of a cluster. A process is recorded as its id and its
# start time, since an id alone may belong to somebody else later.

# start NAME COMMAND...: runs COMMAND in the cluster's network namespace, as
# STATE/pids/NAME with its output in STATE/log/NAME.log.
start() {
	local name=$1
	shift
	(
		# Recorded by the process itself before it becomes COMMAND: there is no
		# moment at which it runs and nobody knows of it.
		record_process "$BASHPID" >"$STATE/pids/$name"
		cd "$STATE" || exit 1
		# Not `ip netns exec`: that mounts a new /sys, and the cgroups are gone.
		exec setsid nsenter --net="$NETNS_FILE" "$@"
	) </dev/null >>"$STATE/log/$name.log" 2>&1 3>&- &
	# Or bash would remark on its end in the middle of our own messages.
	disown
}

record_process() { printf '%s %s\n' "$1" "$(start_time "$1")"; }

# Field 22 of stat; counted from behind the name, which may contain anything.
start_time() {
	local stat fields
	{ read -r stat </proc/"$1"/stat; } 2>/dev/null || return 1
	read -ra fields <<<"${stat##*) }"
	[[ ${fields[0]} != Z ]] || return 1
	printf '%s' "${fields[19]}"
}

# recorded_alive FILE: is the process that FILE records still the same one?
recorded_alive() {
	local pid began
	{ read -r pid began <"$1"; } 2>/dev/null && [[ -n $began && $(start_time "$pid") == "$began" ]]
}

# await SECONDS NAME WHAT COMMAND...: until COMMAND succeeds. Fails at once if
# the process NAME ends meanwhile, since it never will then.
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
			say "Waited too long for $what."
			return 1
		fi
		sleep 0.05
	done
}

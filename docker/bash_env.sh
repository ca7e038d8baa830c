# Every bash without a terminal reads this first (BASH_ENV). SDK v3 makes bash a container's first process, where it
# would keep SIGTERM from the training script; this puts Mooring there, with bash for a child.
if [ "$$" = 1 ] && command -v mooring >/dev/null; then
    if [ -n "${BASH_EXECUTION_STRING+set}" ]; then
        exec mooring supervise -- /bin/bash -c "$BASH_EXECUTION_STRING" "$0" "$@"
    elif [ -f "$0" ]; then
        exec mooring supervise -- /bin/bash "$0" "$@"
    fi
fi

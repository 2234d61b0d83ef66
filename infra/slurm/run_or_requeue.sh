# shellcheck shell=bash
# For scripts of Slurm: `run_or_requeue ID COMMAND...` runs a command to its end. When Slurm sends SIGTERM, because time is
# nearly up or others preempt the job, the command gets it, finishes or drops what it holds, and saves; a job that had
# not come to its end then goes back into the queue, where the same script goes on.

run_or_requeue() {
    local id=$1 stopped='' code=0
    shift
    "$@" &
    local job=$!
    trap 'stopped=yes; kill -TERM "$job" 2>/dev/null || true' TERM
    wait "$job" || code=$?
    # The shell stops waiting when the signal comes; the command takes some seconds more.
    while [ -n "$stopped" ] && kill -0 "$job" 2>/dev/null; do
        code=0
        wait "$job" || code=$?
    done
    if [ -n "$stopped" ]; then
        code=0
        wait "$job" || code=$? # its own code, if it ended just when the shell had been woken
    fi
    trap - TERM
    if [ -n "$stopped" ] && [ "$code" -ne 0 ]; then
        echo "stopped before the end: $id goes back into the queue"
        scontrol requeue "$id"
    fi
    return "$code"
}

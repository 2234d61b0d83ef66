# shellcheck shell=bash
# For scripts of Slurm: `run_or_requeue ID COMMAND...` runs a command to its end. When Slurm sends SIGTERM, because time is
# nearly up or others preempt the job, the command gets it, finishes or drops what it holds, and saves; a job that had
# not come to its end then goes back into the queue, where the same script goes on. A job that was ended by `scancel`
# gets the same signal, and stays ended.

run_or_requeue() {
    local id=$1 stopped='' code=0 state
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
    if [ "$code" -eq 0 ]; then
        return 0
    fi
    state=$(scontrol --oneliner show job "$id" 2>/dev/null || true)
    # Preemption with a time of grace signals the steps and not this shell, unless PreemptParameters=send_user_signal.
    if [[ $state == *" PreemptTime="[0-9]* ]]; then
        stopped=yes
    fi
    if [ -n "$stopped" ]; then
        case $state in
            *JobState=CANCELLED* | *JobState=COMPLETING* | *JobState=PENDING*)
                echo "stopped before the end: $id was cancelled, or Slurm itself puts it back into the queue"
                ;;
            *)
                echo "stopped before the end: $id goes back into the queue"
                scontrol requeue "$id"
                ;;
        esac
    fi
    return "$code"
}

#!/bin/sh
# Starts this week's training: the template of RayCronJob trackmill-train becomes a RayJob, unless one is still at work.
# The week is written into it, so that all attempts of this run write to one output, however long they take. A second
# start within the week goes on with the same output, or finds that nothing is left to do.
set -eu

period=$(date -u +%G-w%V)
schedule=trackmill-train

working=$(kubectl get rayjobs --selector "trackmill/schedule=$schedule" --output \
    jsonpath='{range .items[*]}{.metadata.name}{"="}{.status.jobDeploymentStatus}{"\n"}{end}')
for job in $working; do
    case $job in
        *=Complete | *=Failed | *=ValidationFailed) ;;
        *)
            echo "RayJob ${job%%=*} is still at work (${job#*=}): nothing is started"
            exit 0
            ;;
    esac
done

spec=$(kubectl get raycronjob "$schedule" --output jsonpath='{.spec.jobTemplate}')
dated=$(printf '%s' "$spec" | sed "s/[$](date -u +%G-w%V)/$period/g")
if [ "$dated" = "$spec" ]; then
    echo "the template's entrypoint has no \$(date -u +%G-w%V): each week needs an output of its own" >&2
    exit 1
fi

# The labels of the template come along: its queue and priority, where Kueue is used.
labels=$(kubectl get raycronjob "$schedule" --output jsonpath='{.metadata.labels}')
kubectl create --filename - <<END
{
  "apiVersion": "ray.io/v1",
  "kind": "RayJob",
  "metadata": {
    "generateName": "$schedule-$period-",
    "labels": {"trackmill/schedule": "$schedule", "trackmill/period": "$period", ${labels#\{}
  },
  "spec": $dated
}
END

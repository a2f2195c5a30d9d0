#!/bin/bash
# Makes what the machines of tlvm run as: the service account tlvm-machine, with the least it needs. Twice is once.
#
#   infra/gce/setup.sh PROJECT BUCKET
#
# It needs an owner of the project, once; where it is missing, `tlvm doctor` prints this file. What the account may do:
#   read the bucket
#   write below runs/ and checkpoints/ of the bucket, and nowhere else
#   delete machines named tlvm-..., for idle_action = "delete"; nothing else of the project
set -euo pipefail

if [ $# -ne 2 ]; then
    echo "usage: $0 PROJECT BUCKET" >&2
    exit 2
fi
project=$1
bucket=${2#gs://}
bucket=${bucket%%/*}
account=tlvm-machine@$project.iam.gserviceaccount.com
role=tlvmMachineEnd

gcloud services enable compute.googleapis.com iam.googleapis.com --project="$project"

if ! gcloud iam service-accounts describe "$account" --project="$project" >/dev/null 2>&1; then
    gcloud iam service-accounts create tlvm-machine --project="$project" \
        --display-name="Machines of tlvm" --description="Reads the bucket, writes results; see infra/gce/setup.sh"
fi

# The bucket: all of it may be read, two prefixes may be written. No change of others' objects, no deletion of data.
objects=projects/_/buckets/$bucket/objects
gcloud storage buckets add-iam-policy-binding "gs://$bucket" \
    --member="serviceAccount:$account" --role=roles/storage.objectViewer --condition=None
gcloud storage buckets add-iam-policy-binding "gs://$bucket" \
    --member="serviceAccount:$account" --role=roles/storage.objectUser \
    --condition="title=tlvm-results,expression=resource.name.startsWith(\"$objects/runs/\") || resource.name.startsWith(\"$objects/checkpoints/\")"

# The project: machines named tlvm-... may end themselves.
if ! gcloud iam roles describe "$role" --project="$project" >/dev/null 2>&1; then
    gcloud iam roles create "$role" --project="$project" --title="tlvm: a machine ends itself" \
        --permissions=compute.instances.delete --stage=GA
fi
gcloud projects add-iam-policy-binding "$project" \
    --member="serviceAccount:$account" --role="projects/$project/roles/$role" \
    --condition="title=tlvm-own-machines,expression=resource.type == \"compute.googleapis.com/Instance\" && resource.name.extract(\"/instances/{name}\").startsWith(\"tlvm-\")"

# Whoever runs `tlvm up` starts machines as this account.
caller=$(gcloud config get-value account 2>/dev/null)
case $caller in
    *.gserviceaccount.com) member=serviceAccount:$caller ;;
    *) member=user:$caller ;;
esac
gcloud iam service-accounts add-iam-policy-binding "$account" --project="$project" \
    --member="$member" --role=roles/iam.serviceAccountUser

echo "The machines of $project run as $account."

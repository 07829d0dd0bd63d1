#!/bin/sh
# Install brainsegnet for a CPU into a folder of its own, with the models of the package and without PyTorch.
#
#   sh containers/install.sh SOURCE PREFIX
#
# SOURCE is a checkout. PREFIX must not exist yet; it becomes a virtual environment, whose bin/brainsegnet any user can
# run, also if nobody may write to it. PYTHON names another Python than python3, of 3.11 or newer.
set -eu

if [ $# -ne 2 ]; then
    echo "usage: sh install.sh SOURCE PREFIX" >&2
    exit 2
fi
source=$1 prefix=$2 python=${PYTHON:-python3}
if [ -e "$prefix" ]; then
    echo "$prefix is there already; remove it, or name another folder" >&2
    exit 1
fi

umask 022
"$python" -m venv "$prefix"
"$prefix/bin/pip" install --no-cache-dir --disable-pip-version-check --constraint "$source/constraints.txt" \
    "${source}[cohort,dcm2niix]"

# What was installed is complete: libraries of the extras, models, no PyTorch.
"$prefix/bin/python" -c 'import dcm2niix, pyarrow.parquet'
for model in tumour stroke perfusion brain; do
    "$prefix/bin/brainsegnet" inspect "$model" > /dev/null
done
if "$prefix/bin/python" -c 'import torch' 2> /dev/null; then
    echo "PyTorch was installed; it makes the image larger by gigabytes and is not needed" >&2
    exit 1
fi
"$prefix/bin/brainsegnet" --version

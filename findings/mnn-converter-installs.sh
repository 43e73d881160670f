#!/usr/bin/env bash
# MNN 3.6.1 (Python package)
#
# Expected: a command that converts a model reads one file and writes another.
#
# Seen: importing MNN.tools.mnnconvert, which `mnnconvert` does, runs `pip install -U
# aliyun-log-python-sdk` in a shell, for a client with which it then reports the use of the tool.
# It is the first pip on the PATH that is run, not that of the interpreter. Here a stand-in takes
# its place, notes its arguments and installs nothing.
#
# Why it matters: called by its full path while another environment is active, the converter
# changes that other environment: the real command put 11 packages there and replaced protobuf 7
# by 5, after which onnx could not be imported. The native function _tools.mnnconvert does not.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --no-compile MNN==3.6.1 numpy==2.4.6

mkdir "$work/other"
printf '#!/bin/sh\necho "$@" >> %s\nexit 1\n' "$work/calls" > "$work/other/pip"
chmod +x "$work/other/pip"
touch "$work/calls"

# The converter in its native module: nothing is called.
env -i PATH="$work/other:/usr/bin:/bin" "$work/venv/bin/python" -c 'import MNN, _tools' > /dev/null
test ! -s "$work/calls"

# The package's own command, here without a file to convert.
env -i PATH="$work/other:/usr/bin:/bin" "$work/venv/bin/python" -c 'import MNN.tools.mnnconvert' > /dev/null
cat "$work/calls"
grep -qx 'install -U aliyun-log-python-sdk' "$work/calls"
echo "the pip of another environment was told to install a package"

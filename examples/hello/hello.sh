#!/bin/sh
# The input is on stdin, the result goes to stdout, the log to stderr.
# Exit 0: done. 65: bad input, do not try again. 75: try again later. Any other: failed.
set -eu
echo "attempt $KVERN_ATTEMPT of job ${KVERN_JOB_ID:-none}" >&2
printf 'hello, %s\n' "$(cat)"

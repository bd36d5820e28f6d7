#!/bin/sh
# Prints each drift that is found as a line of JSON; kafka-python brings the command.
#
#     sh docs/examples/subscribe.sh 127.0.0.1:9092 [PREFIX]
export PYTHONUNBUFFERED=1
kafka-python consumer -b "$1" -t "$2clv.drift.events" -C auto_offset_reset=earliest | grep --line-buffered '"clv\.drift\.detected\.'

#!/bin/sh
# Write the secrets that docker-compose.yml mounts, each once: what is there already is kept.
# usage: compose-env.sh [DIRECTORY]
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
directory=${1:-$here/secrets}

# The files are read by users of the containers that this machine does not know, so the files are readable;
# the directory is not, and so nobody else on this machine comes to them.
umask 022
mkdir -p -- "$directory/webhooks"
chmod 700 -- "$directory"

random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }

# write NAME: standard input to a file of that name, whole or not at all
write() {
    if [ -e "$directory/$1" ]; then
        cat >/dev/null
        echo "kept     $directory/$1"
        return
    fi
    cat >"$directory/$1.part"
    chmod 444 -- "$directory/$1.part"
    mv -- "$directory/$1.part" "$directory/$1"
    echo "written  $directory/$1"
}

random | write grafana_admin_password
random | write grafana_secret_key
write kafka_ui.yml <<YAML
auth:
  type: LOGIN_FORM
spring:
  security:
    user:
      name: admin
      password: "$(random)"
YAML

# Whom to alert is not ours to make up: empty until someone fills them in.
for name in chat_url on_call_url; do
    [ -e "$directory/$name" ] || { : >"$directory/$name" && chmod 644 -- "$directory/$name"; }
    [ -s "$directory/$name" ] || echo "empty    $directory/$name: no alert reaches anyone until it has an address"
done

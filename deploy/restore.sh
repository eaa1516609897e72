#!/bin/sh
# Bring a backup back into the empty data folder that the site file names, and check every file of it.
#
#   systemctl stop pacsnode; restore.sh FOLDER; systemctl start pacsnode
#
# PACSNODE         the program (default: pacsnode)
# PACSNODE_CONFIG  the site file, as the program takes it; the one of the backup is FOLDER/site/node.yaml
# PACSNODE_PG_URL  with `state: postgresql://…`: the empty database that FOLDER/pacsnode.pgdump goes to
#
# Run it as the node's user: the files belong to whoever restores them. What was delivered after the backup may
# be sent once more, with the same UIDs and bytes. Exit code 0: the node can be started.
set -eu

folder=${1:?usage: restore.sh FOLDER}
program=${PACSNODE:-pacsnode}

umask 027
if [ -n "${PACSNODE_PG_URL:-}" ]; then
    pg_restore --no-owner --exit-on-error --dbname="$PACSNODE_PG_URL" "$folder/pacsnode.pgdump"
fi
"$program" restore "$folder"
exec "$program" verify

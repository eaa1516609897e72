#!/bin/sh
# Bring a backup of the node up to date while it runs; for cron or pacsnode-backup.timer.
#
#   backup.sh FOLDER            e.g. backup.sh /mnt/backup/pacsnode, on another disk
#
# PACSNODE         the program (default: pacsnode)
# PACSNODE_CONFIG  the site file, as the program takes it
# PACSNODE_PG_DUMP with `state: postgresql://…`: the URL to dump, so that the database is saved before the files
#
# Exit code 0: FOLDER is a whole backup. Anything else: it is as good as it was before, and the reason is told.
set -eu

folder=${1:?usage: backup.sh FOLDER}
program=${PACSNODE:-pacsnode}

umask 077
mkdir -p "$folder"
if [ -n "${PACSNODE_PG_DUMP:-}" ]; then
    pg_dump --format=custom --file="$folder/pacsnode.pgdump.part" "$PACSNODE_PG_DUMP"
    mv "$folder/pacsnode.pgdump.part" "$folder/pacsnode.pgdump"
fi
exec "$program" backup "$folder"
